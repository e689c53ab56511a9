"""/v2/reserved_ips: addresses that belong to a region and lead to one of its droplets."""

from __future__ import annotations

import ipaddress

from aiohttp import web

from .. import machines, views
from ..addresses import PoolExhausted
from ..catalogue import REGIONS
from ..core import CORE, Core
from ..rest import Json, body_of, listing, not_found, path_id, unprocessable
from ..state import Action, Droplet, ReservedIp

routes = web.RouteTableDef()


def _existing(request: web.Request) -> ReservedIp:
    reserved = request.app[CORE].state.reserved_ips.get(request.match_info["ip"])
    if reserved is None:
        raise not_found()
    return reserved


@routes.get("/v2/reserved_ips")
async def list_all(request: web.Request) -> web.Response:
    """All reserved IPs."""
    core = request.app[CORE]
    reserved_ips = list(core.state.reserved_ips.values())
    return listing(request, "reserved_ips", reserved_ips, lambda each: views.reserved_ip(core, each))


@routes.post("/v2/reserved_ips")
async def create(request: web.Request) -> web.Response:
    """Reserve an address for a region, or for a droplet and its region."""
    core, body = request.app[CORE], await body_of(request)
    droplet = None if body.get("droplet_id") is None else _holder(core, body["droplet_id"], None)
    region = droplet.region if droplet else str(body.get("region"))
    if region not in REGIONS:
        raise unprocessable("Region is invalid")
    try:
        address = core.addresses.reserved[region].take()
    except PoolExhausted:
        raise unprocessable("The region has no reserved IP left.") from None
    reserved = ReservedIp(address, region, core.state.next_uuid("project"))
    core.state.reserved_ips[address] = reserved
    links: Json = {}
    if droplet is not None:
        action = _begin(core, reserved, droplet)
        origin = request.url.origin()
        links = {
            "droplets": [{"id": droplet.id, "rel": "droplet", "href": f"{origin}/v2/droplets/{droplet.id}"}],
            "actions": [{"id": action.id, "rel": "assign_ip", "href": f"{origin}/v2/actions/{action.id}"}],
        }
    return web.json_response({"reserved_ip": views.reserved_ip(core, reserved), "links": links}, status=202)


@routes.get("/v2/reserved_ips/{ip}")
async def show(request: web.Request) -> web.Response:
    """One reserved IP."""
    return web.json_response({"reserved_ip": views.reserved_ip(request.app[CORE], _existing(request))})


@routes.delete("/v2/reserved_ips/{ip}")
async def delete(request: web.Request) -> web.Response:
    """Give a reserved IP back, assigned or not."""
    core, reserved = request.app[CORE], _existing(request)
    _refuse_if_locked(core, reserved)
    core.state.reserved_ips.pop(reserved.ip)

    async def work() -> None:
        if reserved.droplet is not None:
            await core.hypervisor.assign_reserved_ip(reserved.ip, None)
        core.addresses.reserved[reserved.region].give_back(reserved.ip)

    core.spawn(work())
    return web.Response(status=204)


@routes.get("/v2/reserved_ips/{ip}/actions")
async def list_actions(request: web.Request) -> web.Response:
    """What was ever begun on a reserved IP, newest first."""
    core, reserved = request.app[CORE], _existing(request)
    return listing(request, "actions", reserved.actions[::-1], lambda action: views.action(core, action))


@routes.post("/v2/reserved_ips/{ip}/actions")
async def begin(request: web.Request) -> web.Response:
    """Assign to a droplet of the same region, or unassign."""
    core, reserved, body = request.app[CORE], _existing(request), await body_of(request)
    _refuse_if_locked(core, reserved)
    droplet: Droplet | None = None
    match body.get("type"):
        case "assign":
            droplet = _holder(core, body.get("droplet_id"), reserved)
        case "unassign":
            if reserved.droplet is None:
                raise unprocessable("The floating IP is not assigned.")
        case _:
            raise unprocessable("Invalid action type")
    action = _begin(core, reserved, droplet)
    shown = views.action(core, action) | {"project_id": reserved.project_id}
    return web.json_response({"action": shown}, status=201)


@routes.get("/v2/reserved_ips/{ip}/actions/{action}")
async def show_action(request: web.Request) -> web.Response:
    """One action of a reserved IP."""
    id_ = path_id(request, "action")
    for action in _existing(request).actions:
        if action.id == id_:
            return web.json_response({"action": views.action(request.app[CORE], action)})
    raise not_found()


def _begin(core: Core, reserved: ReservedIp, droplet: Droplet | None) -> Action:
    kind = "unassign_ip" if droplet is None else "assign_ip"
    number = int(ipaddress.IPv4Address(reserved.ip))
    action = core.action(kind, ("reserved_ip", number), reserved.region, core.timing.action_delay)
    reserved.actions.append(action)
    machines.assign(core, reserved, droplet, action)
    return action


def _refuse_if_locked(core: Core, reserved: ReservedIp) -> None:
    if reserved.locked(core.now()):
        raise unprocessable("The floating IP already has a pending event.")


def _holder(core: Core, droplet_id: object, reserved: ReservedIp | None) -> Droplet:
    droplet = core.state.droplets.get(droplet_id) if isinstance(droplet_id, int) else None
    if droplet is None or droplet.deleting:
        raise unprocessable("The Droplet could not be found.")
    if reserved is not None and droplet.region != reserved.region:
        raise unprocessable("The Droplet and the floating IP must be in the same region.")
    if droplet.locked(core.now()):
        raise unprocessable("Droplet already has a pending event.")
    if droplet.status(core.now()) == "new":
        raise unprocessable("Droplet is not active.")
    if any(other is not reserved for other in core.state.reserved_ips_of(droplet.id)):
        raise unprocessable("The Droplet already has a floating IP.")
    return droplet
