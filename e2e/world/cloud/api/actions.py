"""/v2/actions: everything that was ever begun in the account, newest first."""

from __future__ import annotations

from aiohttp import web

from .. import views
from ..core import CORE
from ..rest import listing, not_found, path_id

routes = web.RouteTableDef()


@routes.get("/v2/actions")
async def list_all(request: web.Request) -> web.Response:
    """All actions."""
    core = request.app[CORE]
    newest_first = list(reversed(core.state.actions.values()))
    return listing(request, "actions", newest_first, lambda action: views.action(core, action))


@routes.get("/v2/actions/{action_id}")
async def show(request: web.Request) -> web.Response:
    """One action."""
    core = request.app[CORE]
    action = core.state.actions.get(path_id(request, "action_id"))
    if action is None:
        raise not_found()
    return web.json_response({"action": views.action(core, action)})
