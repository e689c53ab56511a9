"""/v2/tags: names on droplets and images, case ignored."""

from __future__ import annotations

import re

from aiohttp import web

from .. import filtering, views
from ..core import CORE, Core
from ..rest import Json, TagError, body_of, listing, not_found, unprocessable
from ..state import Droplet, Firewall, Image

routes = web.RouteTableDef()

TAG = re.compile(r"[a-zA-Z0-9_:-]{1,255}")


def valid_tag(name: object) -> bool:
    """Whether this can be a tag."""
    return isinstance(name, str) and TAG.fullmatch(name) is not None


def _existing(request: web.Request) -> str:
    name = request.app[CORE].state.tags.get(request.match_info["tag"].lower())
    if name is None:
        raise not_found()
    return name


def _resource(core: Core, item: object) -> Droplet | Image:
    """The tagged thing; the API wants its id as a string."""
    if not isinstance(item, dict) or not isinstance(item.get("resource_id"), str):
        raise unprocessable("resource_id must be a string")
    found: Droplet | Image | None = None
    if item["resource_id"].isdecimal():
        id_ = int(item["resource_id"])
        match item.get("resource_type"):
            case "droplet":
                found = core.state.droplets.get(id_)
            case "image":
                found = core.state.images.get(id_)
    if found is None:
        raise not_found("The resource you requested could not be found.")
    return found


async def _resources(request: web.Request) -> list[Droplet | Image]:
    body: Json = await body_of(request)
    items = body.get("resources")
    if not isinstance(items, list) or not items:
        raise unprocessable("resources can't be blank")
    return [_resource(request.app[CORE], item) for item in items]


@routes.get("/v2/tags")
async def list_all(request: web.Request) -> web.Response:
    """All tags."""
    core = request.app[CORE]
    return listing(request, "tags", list(core.state.tags.values()), lambda name: views.tag(core, name))


@routes.post("/v2/tags")
async def create(request: web.Request) -> web.Response:
    """Create a tag; one that exists is answered as it is."""
    core, body = request.app[CORE], await body_of(request)
    name = body.get("name")
    if not isinstance(name, str) or not valid_tag(name):
        raise TagError(400, "bad_request", f'Error validating resource tag: "{name}" contains invalid characters')
    [canonical] = core.canonical_tags([name], create=True)
    return web.json_response({"tag": views.tag(core, canonical)}, status=201)


@routes.get("/v2/tags/{tag}")
async def show(request: web.Request) -> web.Response:
    """One tag."""
    return web.json_response({"tag": views.tag(request.app[CORE], _existing(request))})


@routes.delete("/v2/tags/{tag}")
async def delete(request: web.Request) -> web.Response:
    """Delete a tag and take it off everything."""
    core, name = request.app[CORE], _existing(request)
    state = core.state
    everything: list[Droplet | Image | Firewall] = [*state.droplets.values(), *state.images.values()]
    for tagged in [*everything, *state.firewalls.values()]:
        tagged.tags = [tag for tag in tagged.tags if tag != name]
    state.tags.pop(name.lower())
    filtering.apply_soon(core)
    return web.Response(status=204)


@routes.post("/v2/tags/{tag}/resources")
async def tag_resources(request: web.Request) -> web.Response:
    """Put a tag on droplets or images."""
    name = _existing(request)
    for resource in await _resources(request):
        if name not in resource.tags:
            resource.tags.append(name)
    filtering.apply_soon(request.app[CORE])
    return web.Response(status=204)


@routes.delete("/v2/tags/{tag}/resources")
async def untag_resources(request: web.Request) -> web.Response:
    """Take a tag off droplets or images."""
    name = _existing(request)
    for resource in await _resources(request):
        resource.tags = [tag for tag in resource.tags if tag != name]
    filtering.apply_soon(request.app[CORE])
    return web.Response(status=204)
