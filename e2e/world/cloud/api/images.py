"""/v2/images: distribution images by slug or id, snapshots by id."""

from __future__ import annotations

from aiohttp import web

from .. import views
from ..core import CORE, Core
from ..rest import body_of, listing, not_found, path_id, unprocessable
from ..state import Image

routes = web.RouteTableDef()


def find(core: Core, identifier: str | int) -> Image | None:
    """The image with this slug or id."""
    for image in core.state.images.values():
        if str(identifier) in (str(image.id), image.slug):
            return image
    return None


def _snapshot(request: web.Request) -> Image:
    image = request.app[CORE].state.images.get(path_id(request, "image"))
    if image is None or image.slug is not None:
        raise not_found()
    return image


@routes.get("/v2/images")
async def list_all(request: web.Request) -> web.Response:
    """Images, filtered by type, by privacy or by tag."""
    core, query = request.app[CORE], request.query
    images = list(core.state.images.values())
    if query.get("type") == "distribution":
        images = [image for image in images if image.slug is not None]
    if query.get("type") == "application":
        images = []
    if query.get("private", "").lower() == "true":
        images = [image for image in images if image.slug is None]
    if tag := query.get("tag_name"):
        images = [image for image in images if core.state.tags.get(tag.lower()) in image.tags]
    return listing(request, "images", images, views.image)


@routes.get("/v2/images/{image}")
async def show(request: web.Request) -> web.Response:
    """One image."""
    image = find(request.app[CORE], request.match_info["image"])
    if image is None:
        raise not_found()
    return web.json_response({"image": views.image(image)})


@routes.put("/v2/images/{image}")
async def rename(request: web.Request) -> web.Response:
    """Rename a snapshot."""
    image, name = _snapshot(request), (await body_of(request)).get("name")
    if not isinstance(name, str) or not name:
        raise unprocessable("Name can't be blank")
    image.name = name
    return web.json_response({"image": views.image(image)})


@routes.delete("/v2/images/{image}")
async def delete(request: web.Request) -> web.Response:
    """Delete a snapshot; droplets made from it stay."""
    image = _snapshot(request)
    request.app[CORE].state.images.pop(image.id)
    return web.Response(status=204)
