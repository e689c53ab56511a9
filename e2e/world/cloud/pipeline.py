"""What every request under /v2 passes through: journal, faults, token, rate limit, hook, endpoint."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import socket
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .audit import Auditor
from .core import CORE, Core, access_of
from .faults import Kind
from .journal import WRITES, Call, Phase
from .limits import too_many_requests
from .rest import ApiError, Json, not_found

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

AUDITOR = web.AppKey("auditor", Auditor)
INJECTED_WAIT = 1.0  # seconds of Retry-After in an injected 429


class _Dropped(Exception):
    """No answer is to be sent: the connection is closed."""


@web.middleware
async def passage(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Everything around an endpoint of /v2; other paths are handed on as they are."""
    if not request.path.startswith("/v2/"):
        return await handler(request)
    core = request.app[CORE]
    token = _token(request)
    started_at, started = core.now(), time.perf_counter()
    request_id, status = str(uuid.uuid4()), 0
    try:
        response = await _answer(core, request, handler, token, request_id)
        status = response.status
        response.headers["x-request-id"] = request_id
        if access_of(core.tokens, token) is not None:
            response.headers.update(core.meter[token].headers(core.now()))
    except _Dropped:
        response = web.Response(status=503)
        response.force_close()
    finally:
        seconds = time.perf_counter() - started
        core.journal.append(
            Call(started_at, request.method, request.path, request.query_string, status, seconds, token)
        )
    return response


async def _answer(
    core: Core, request: web.Request, handler: Handler, token: str, request_id: str
) -> web.StreamResponse:
    try:
        fault = await _faults_before(core, request)
        _admit(core, request.method, token)
        await _call_hook(core, "before", request)
        try:
            response = await _endpoint(request, handler)
        except ApiError as refusal:
            response = _refused(refusal, request_id)
        if request.method in WRITES:
            request.app[AUDITOR].look(token)
        await _call_hook(core, "after", request)
        return await _faults_after(request, response, fault)
    except ApiError as refusal:
        return _refused(refusal, request_id)


def _refused(refusal: ApiError, request_id: str) -> web.Response:
    return web.json_response(refusal.body(request_id), status=refusal.status, headers=refusal.headers)


async def _endpoint(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        raise not_found() from None
    except web.HTTPMethodNotAllowed:
        raise ApiError(405, "method_not_allowed", "The method is not allowed for this resource.") from None
    except (ApiError, web.HTTPException):
        raise
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        raise _server_error() from None


def _admit(core: Core, method: str, token: str) -> None:
    access = access_of(core.tokens, token)
    if access is None:
        raise ApiError(401, "unauthorized", "Unable to authenticate you")
    core.meter[token].admit(core.now())
    if access == "read-only" and method in WRITES:
        raise ApiError(403, "forbidden", "You do not have access for the attempted action.")


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _call_hook(core: Core, phase: Phase, request: web.Request) -> None:
    if core.on_request is not None:
        result = core.on_request(phase, request.method, request.path)
        if inspect.isawaitable(result):
            result = await result
        if result is False:
            _reset(request)


async def _faults_before(core: Core, request: web.Request) -> Kind | None:
    if (delay := core.faults.delay_of(request.path)) > 0:
        await asyncio.sleep(delay)
    page = request.query.get("page", "1")
    fault = core.faults.take(request.method, request.path, int(page) if page.isdecimal() else 1)
    match fault:
        case Kind.RATE_LIMITED:
            raise too_many_requests(INJECTED_WAIT)
        case Kind.ERROR_BEFORE:
            raise _server_error()
        case Kind.UNAVAILABLE:
            raise ApiError(503, "service_unavailable", "Service Unavailable")
        case Kind.HANG_BEFORE:
            await _hang(core, request)
        case Kind.RESET_BEFORE:
            _reset(request)
    return fault


async def _faults_after(request: web.Request, response: web.StreamResponse, fault: Kind | None) -> web.StreamResponse:
    match fault:
        case Kind.ERROR_AFTER:
            raise _server_error()
        case Kind.HANG_AFTER:
            await _hang(request.app[CORE], request)
        case Kind.RESET_AFTER:
            _reset(request)
        case Kind.EMPTY_LIST | Kind.SHORT_LIST | Kind.LAST_PAGE if response.status == 200:
            return _falsified(response, fault)
    return response


def _falsified(response: web.StreamResponse, fault: Kind) -> web.StreamResponse:
    if not isinstance(response, web.Response):
        return response
    body: Json = json.loads(response.text or "{}")
    for key, items in body.items():
        if isinstance(items, list):
            kept = {Kind.EMPTY_LIST: 0, Kind.SHORT_LIST: len(items) // 2}.get(fault, len(items))
            total = body.get("meta", {}).get("total", 0) if fault is Kind.SHORT_LIST else kept
            return web.json_response({key: items[:kept], "links": {}, "meta": {"total": total}})
    return response


def _server_error() -> ApiError:
    return ApiError(500, "server_error", "Unexpected server-side error")


async def _hang(core: Core, request: web.Request) -> None:
    def gone() -> bool:
        return request.transport is None or request.transport.is_closing()

    await core.faults.hang(gone)
    _reset(request)


def _reset(request: web.Request) -> None:
    transport = request.transport
    if transport is not None:
        connection: Any = transport.get_extra_info("socket")
        if connection is not None:
            # Lingering for no time makes the kernel send RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    raise _Dropped
