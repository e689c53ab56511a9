"""/_world: the same faults and records over HTTP, for whoever is not in this process. No token, no limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from .audit import dangling_records
from .core import CORE
from .faults import Access, Kind
from .rest import ApiError, Json, body_of, unprocessable

routes = web.RouteTableDef()

ACCESS: tuple[Access, ...] = ("read-write", "read-only", "revoked")


@web.middleware
async def refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer refusals in the API's form."""
    try:
        return await handler(request)
    except ApiError as error:
        return web.json_response(error.body(""), status=error.status)


@routes.get("/_world/journal")
async def show_journal(request: web.Request) -> web.Response:
    """The last calls, oldest first; tokens are left out."""
    calls = [{k: v for k, v in asdict(call).items() if k != "token"} for call in request.app[CORE].journal]
    return web.json_response({"calls": calls})


@routes.delete("/_world/journal")
async def clear_journal(request: web.Request) -> web.Response:
    """Forget all calls."""
    request.app[CORE].journal.clear()
    return web.Response(status=204)


@routes.get("/_world/violations")
async def show_violations(request: web.Request) -> web.Response:
    """What should never have happened, and the records that dangle now."""
    core = request.app[CORE]
    violations = [{k: v for k, v in asdict(each).items() if k != "token"} for each in core.violations]
    return web.json_response({"violations": violations, "dangling": dangling_records(core)})


@routes.post("/_world/faults")
async def add_fault(request: web.Request) -> web.Response:
    """`{"kind": …, "method": "*", "path": ".*", "page": null, "count": 1, "duration": null}`."""
    core, body = request.app[CORE], await body_of(request)
    kind = body.pop("kind", None)
    if kind not in list(Kind):
        raise unprocessable(f"kind must be one of {', '.join(Kind)}")
    try:
        core.faults.fail(kind, **body)
    except TypeError as error:
        raise unprocessable(str(error)) from None
    return web.Response(status=204)


@routes.post("/_world/slow")
async def slow(request: web.Request) -> web.Response:
    """`{"seconds": 2.5, "path": ".*"}`; 0 ends it."""
    body: Json = await body_of(request)
    request.app[CORE].faults.slow(float(body.get("seconds", 0)), path=str(body.get("path", ".*")))
    return web.Response(status=204)


@routes.post("/_world/never-active")
async def never_active(request: web.Request) -> web.Response:
    """`{"name": ".*", "count": 1, "errored": true}`: droplets to come that stay new."""
    body: Json = await body_of(request)
    request.app[CORE].faults.never_active(
        str(body.get("name", ".*")), count=body.get("count", 1), errored=bool(body.get("errored", True))
    )
    return web.Response(status=204)


@routes.post("/_world/token")
async def set_token(request: web.Request) -> web.Response:
    """`{"token": …, "access": "read-write" | "read-only" | "revoked"}`."""
    body: Json = await body_of(request)
    access = body.get("access")
    if access not in ACCESS or not isinstance(body.get("token"), str):
        raise unprocessable(f"access must be one of {', '.join(ACCESS)}")
    request.app[CORE].faults.set_token(body["token"], access)
    return web.Response(status=204)


@routes.delete("/_world/faults")
async def clear_faults(request: web.Request) -> web.Response:
    """End all failures, delays and hanging calls."""
    request.app[CORE].faults.clear()
    return web.Response(status=204)
