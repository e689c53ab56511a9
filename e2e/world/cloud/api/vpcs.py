"""/v2/vpcs: private networks; every region has a default one."""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web

from .. import views
from ..catalogue import REGIONS
from ..core import CORE, Core
from ..rest import Json, body_of, listing, not_found, unprocessable
from ..state import Vpc

routes = web.RouteTableDef()

NAME = re.compile(r"[a-zA-Z0-9.-]+")
SPACE = ipaddress.ip_network("198.18.0.0/15")


def _existing(request: web.Request) -> Vpc:
    vpc = request.app[CORE].state.vpcs.get(request.match_info["vpc"])
    if vpc is None:
        raise not_found()
    return vpc


def _name(core: Core, body: Json, *, but: Vpc | None = None) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise unprocessable("Name is invalid")
    if any(vpc.name == name for vpc in core.state.vpcs.values() if vpc is not but):
        raise unprocessable("This name is already in use by another VPC")
    return name


def _range(core: Core, wanted: object) -> str:
    taken = [ipaddress.ip_network(vpc.ip_range) for vpc in core.state.vpcs.values()]
    if wanted is None:
        free = (net for net in SPACE.subnets(new_prefix=24) if not any(net.overlaps(other) for other in taken))
        return str(next(free))
    try:
        network = ipaddress.ip_network(str(wanted))
    except ValueError:
        raise unprocessable("ip_range is invalid") from None
    if any(network.overlaps(other) for other in taken):
        raise unprocessable("This range/size overlaps with another VPC network in your account")
    return str(network)


@routes.get("/v2/vpcs")
async def list_all(request: web.Request) -> web.Response:
    """All private networks."""
    return listing(request, "vpcs", list(request.app[CORE].state.vpcs.values()), views.vpc)


@routes.post("/v2/vpcs")
async def create(request: web.Request) -> web.Response:
    """Make a private network; its range is one of 198.18.0.0/15 unless given."""
    core, body = request.app[CORE], await body_of(request)
    region = str(body.get("region"))
    if region not in REGIONS:
        raise unprocessable("Region is invalid")
    name, cidr = _name(core, body), _range(core, body.get("ip_range"))
    description = str(body.get("description") or "")
    vpc = Vpc(core.state.next_uuid("vpc"), name, region, cidr, core.now(), default=False, description=description)
    core.state.vpcs[vpc.id] = vpc
    core.addresses.add_private(vpc.id, cidr)
    return web.json_response({"vpc": views.vpc(vpc)}, status=201)


@routes.get("/v2/vpcs/{vpc}")
async def show(request: web.Request) -> web.Response:
    """One private network."""
    return web.json_response({"vpc": views.vpc(_existing(request))})


@routes.put("/v2/vpcs/{vpc}")
@routes.patch("/v2/vpcs/{vpc}")
async def update(request: web.Request) -> web.Response:
    """Change the name, the description, or which one is the region's default."""
    core, vpc, body = request.app[CORE], _existing(request), await body_of(request)
    if "name" in body:
        vpc.name = _name(core, body, but=vpc)
    vpc.description = str(body.get("description", vpc.description))
    if body.get("default") is True:
        for other in core.state.vpcs.values():
            if other.region == vpc.region:
                other.default = other is vpc
    return web.json_response({"vpc": views.vpc(vpc)})


@routes.delete("/v2/vpcs/{vpc}")
async def delete(request: web.Request) -> web.Response:
    """Delete an empty network that is nobody's default."""
    state, vpc = request.app[CORE].state, _existing(request)
    if vpc.default:
        raise unprocessable("Can not delete default VPCs")
    if any(droplet.vpc == vpc.id for droplet in state.droplets.values()):
        raise unprocessable("Can not delete VPC with members")
    state.vpcs.pop(vpc.id)
    return web.Response(status=204)


@routes.get("/v2/vpcs/{vpc}/members")
async def members(request: web.Request) -> web.Response:
    """The droplets in a network."""
    core, vpc = request.app[CORE], _existing(request)
    droplets = [droplet for droplet in core.state.droplets.values() if droplet.vpc == vpc.id]
    return listing(
        request,
        "members",
        droplets,
        lambda droplet: {
            "urn": f"do:droplet:{droplet.id}",
            "name": droplet.name,
            "created_at": views.droplet(core, droplet)["created_at"],
        },
    )
