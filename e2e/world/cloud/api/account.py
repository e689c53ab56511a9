"""/v2/account, /v2/regions, /v2/sizes."""

from __future__ import annotations

from aiohttp import web

from .. import views
from ..catalogue import REGIONS, SIZES
from ..core import CORE
from ..rest import listing

routes = web.RouteTableDef()


@routes.get("/v2/account")
async def show(request: web.Request) -> web.Response:
    """The account and its limits."""
    core = request.app[CORE]
    account = {
        "droplet_limit": core.state.droplet_limit,
        "floating_ip_limit": 100,
        "reserved_ip_limit": 100,
        "volume_limit": 100,
        "email": "owner@example.com",
        "name": "Local World",
        "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
        "email_verified": True,
        "status": "active",
        "status_message": "",
        "team": {"uuid": "5df3e3004a17e242b7c20ca6c9fc25b701a47ece", "name": "My Team"},
    }
    return web.json_response({"account": account})


@routes.get("/v2/regions")
async def list_regions(request: web.Request) -> web.Response:
    """The regions."""
    return listing(request, "regions", list(REGIONS), views.region)


@routes.get("/v2/sizes")
async def list_sizes(request: web.Request) -> web.Response:
    """The droplet sizes."""
    return listing(request, "sizes", list(SIZES.values()), views.size)
