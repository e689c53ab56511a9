"""/v2/droplets: creation, listings, deletion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from .. import filtering, machines, views
from ..addresses import Pool, PoolExhausted
from ..catalogue import REGIONS, SIZES
from ..core import CORE, Core
from ..journal import Violation
from ..rest import Json, body_of, listing, not_found, path_id, strings, unprocessable
from ..state import Droplet, Image
from . import images, keys
from .tags import valid_tag

routes = web.RouteTableDef()

HOST_NAME = re.compile(r"[a-zA-Z0-9]?[a-z0-9A-Z.-]*[a-z0-9A-Z]")
LARGEST_USER_DATA = 64 * 1024
MOST_AT_ONCE = 10


@dataclass(frozen=True)
class Order:
    """A checked request for droplets."""

    names: tuple[str, ...]
    region: str
    size: str
    image: Image
    vpc: str
    ssh_keys: tuple[str, ...]
    tags: tuple[str, ...]
    user_data: str
    ipv6: bool
    monitoring: bool
    backups: bool


def existing(request: web.Request) -> Droplet:
    """The droplet that the path names."""
    droplet = request.app[CORE].state.droplets.get(path_id(request, "droplet"))
    if droplet is None:
        raise not_found("The resource you were accessing could not be found.")
    return droplet


@routes.get("/v2/droplets")
async def list_all(request: web.Request) -> web.Response:
    """Droplets, filtered by tag or by exact name (case ignored)."""
    core, query, now = request.app[CORE], request.query, request.app[CORE].now()
    droplets = list(core.state.droplets.values())
    if "tag_name" in query and "name" in query:
        raise unprocessable("name and tag_name can not be combined")
    if tag := query.get("tag_name"):
        canonical = core.state.tags.get(tag.lower())
        droplets = [droplet for droplet in droplets if canonical in droplet.visible_tags(now)]
    if name := query.get("name"):
        droplets = [droplet for droplet in droplets if droplet.name.lower() == name.lower()]
    if query.get("type") == "gpus":
        droplets = []
    return listing(request, "droplets", droplets, lambda droplet: views.droplet(core, droplet))


@routes.post("/v2/droplets")
async def create(request: web.Request) -> web.Response:
    """Order one droplet (`name`) or up to ten (`names`)."""
    core, body = request.app[CORE], await body_of(request)
    order = _order(core, body)
    created = [_create(core, order, name) for name in order.names]
    filtering.changed(core)
    shown = [views.droplet(core, droplet, just_created=True) for droplet in created]
    links = [_link(request, droplet.create.id) for droplet in created]
    content: Json = {"droplets": shown} if "names" in body else {"droplet": shown[0]}
    return web.json_response(content | {"links": {"actions": links}}, status=202)


@routes.delete("/v2/droplets")
async def delete_tagged(request: web.Request) -> web.Response:
    """Destroy everything under a tag. It works, and it is recorded: no careful client calls it."""
    core, tag = request.app[CORE], request.query.get("tag_name", "")
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    core.violations.append(Violation(core.now(), "destroy-by-tag", tag, token))
    canonical = core.state.tags.get(tag.lower())
    if canonical is None:
        raise not_found()
    for droplet in core.state.tagged(canonical):
        if not droplet.deleting:
            machines.destroy(core, droplet)
    return web.Response(status=204)


@routes.get("/v2/droplets/{droplet}")
async def show(request: web.Request) -> web.Response:
    """One droplet."""
    return web.json_response({"droplet": views.droplet(request.app[CORE], existing(request))})


@routes.delete("/v2/droplets/{droplet}")
async def delete(request: web.Request) -> web.Response:
    """Destroy a droplet; refused while an action is in progress on it, its creation included."""
    core, droplet = request.app[CORE], existing(request)
    if droplet.locked(core.now()):
        raise unprocessable("Droplet already has a pending event.")
    machines.destroy(core, droplet)
    return web.Response(status=204)


@routes.get("/v2/droplets/{droplet}/snapshots")
async def list_snapshots(request: web.Request) -> web.Response:
    """The snapshots taken of a droplet."""
    droplet = existing(request)
    taken = [image for image in request.app[CORE].state.images.values() if image.droplet == droplet.id]
    return listing(request, "snapshots", taken, views.snapshot)


@routes.get("/v2/droplets/{droplet}/backups")
async def list_backups(request: web.Request) -> web.Response:
    """No backups are ever made here."""
    existing(request)
    return listing(request, "backups", _NOTHING, dict)


@routes.get("/v2/droplets/{droplet}/firewalls")
async def list_firewalls(request: web.Request) -> web.Response:
    """The firewalls that apply to a droplet."""
    core, droplet = request.app[CORE], existing(request)
    applying = [
        firewall
        for firewall in core.state.firewalls.values()
        if droplet.id in firewall.droplet_ids or set(firewall.tags) & set(droplet.tags)
    ]
    return listing(request, "firewalls", applying, lambda firewall: views.firewall(core, firewall))


_NOTHING: Sequence[Json] = ()


def _order(core: Core, body: Json) -> Order:
    names = strings(body, "names") if "names" in body else [str(body.get("name") or "")]
    if not 1 <= len(names) <= MOST_AT_ONCE:
        raise unprocessable("You can only create up to 10 Droplets at a time.")
    for name in names:
        if len(name) > 255 or not HOST_NAME.fullmatch(name):
            raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
    region, size, image = body.get("region", "nyc3"), str(body.get("size")), images.find(core, body.get("image") or "")
    if region not in REGIONS:
        raise unprocessable("You specified an invalid region for Droplet creation.")
    if size not in SIZES:
        raise unprocessable("You specified an invalid size for Droplet creation.")
    if image is None or region not in image.regions:
        raise unprocessable("You specified an invalid image for Droplet creation.")
    if len(core.state.droplets) + len(names) > core.state.droplet_limit:
        raise unprocessable("creating this/these droplet(s) will exceed your droplet limit")
    return Order(
        names=tuple(names),
        region=region,
        size=size,
        image=image,
        vpc=_vpc(core, body, region),
        ssh_keys=_ssh_keys(core, body),
        tags=_tags(core, body),
        user_data=_user_data(body),
        ipv6=bool(body.get("ipv6")),
        monitoring=bool(body.get("monitoring")),
        backups=bool(body.get("backups")),
    )


def _vpc(core: Core, body: Json, region: str) -> str:
    wanted = body.get("vpc_uuid") or None
    for vpc in core.state.vpcs.values():
        if vpc.region == region and (vpc.default if wanted is None else vpc.id == wanted):
            return vpc.id
    raise unprocessable("You specified an invalid VPC for Droplet creation.")


def _ssh_keys(core: Core, body: Json) -> tuple[str, ...]:
    wanted = body.get("ssh_keys") or []
    found = {identifier: keys.find(core, identifier) for identifier in wanted}
    unknown = [str(identifier) for identifier, key in found.items() if key is None]
    if unknown:
        raise unprocessable(f"{', '.join(unknown)} are invalid key identifiers for Droplet creation.")
    return tuple(key.public_key for key in found.values() if key is not None)


def _tags(core: Core, body: Json) -> tuple[str, ...]:
    wanted = strings(body, "tags")
    for tag in wanted:
        if not valid_tag(tag):
            raise unprocessable(f"tag {tag!r} contains invalid characters")
    return tuple(wanted)


def _user_data(body: Json) -> str:
    user_data = body.get("user_data") or ""
    if not isinstance(user_data, str) or len(user_data.encode()) > LARGEST_USER_DATA:
        raise unprocessable("User data must be text of 64 KiB at most.")
    return user_data


def _create(core: Core, order: Order, name: str) -> Droplet:
    state, now, addresses = core.state, core.now(), core.addresses
    public_ipv4 = _take(addresses.public[order.region])
    private_ipv4 = _take(addresses.private[order.vpc])
    public_ipv6 = _take(addresses.ipv6[order.region]) if order.ipv6 else None
    options = {"backups": order.backups, "private_networking": True, "ipv6": order.ipv6, "monitoring": order.monitoring}
    id_ = state.next_id("droplet")
    action = core.action("create", ("droplet", id_), order.region, core.timing.boot_delay)
    droplet = Droplet(
        id=id_,
        name=name,
        region=order.region,
        image=order.image,
        size=order.size,
        created_at=now,
        vpc=order.vpc,
        public_ipv4=public_ipv4,
        private_ipv4=private_ipv4,
        public_ipv6=public_ipv6,
        user_data=order.user_data,
        ssh_keys=order.ssh_keys,
        features=tuple(feature for feature, on in options.items() if on),
        create=action,
        tags=core.canonical_tags(list(order.tags), create=True),
        tags_visible_at=now + core.timing.tag_delay,
        actions=[action],
    )
    state.droplets[id_] = droplet
    stuck = core.faults.take_stuck(name)
    if stuck is None:
        machines.boot(core, droplet)
    else:
        action.errored = stuck.errored
    return droplet


def _take(pool: Pool) -> str:
    try:
        return pool.take()
    except PoolExhausted:
        raise unprocessable("The region has no address left for another Droplet.") from None


def _link(request: web.Request, action: int) -> Json:
    return {"id": action, "rel": "create", "href": f"{request.url.origin()}/v2/actions/{action}"}
