"""The simulated cloud's HTTP API without sockets: a request is handed to its application in this process.

Each request takes its time on the way there and on the way back. Once it has been sent it is carried out, whatever
becomes of its sender: a process that is killed cannot call it back.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from azure.core.exceptions import ServiceResponseError
from azure.core.rest._http_response_impl_async import AsyncHttpResponseImpl
from hasite.clouds.digitalocean import DigitalOcean
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from e2e.world.cloud import Cloud

Way = Callable[[str, str], float]
"""Method and path → seconds until the request arrives."""
Sent = Callable[[str, str], None]


class Living(Protocol):
    """The life of the process that sends."""

    def check(self) -> None:
        """Raises when it has ended."""
        ...

    async def gate(self) -> None:
        """The same, after it stood still."""
        ...


class _Protocol:
    """What a request looks at of its connection."""

    ssl_context = None
    peername = ("127.0.0.1", 1)
    sockname = ("127.0.0.1", 2)
    transport = None


class _Internal:
    async def close(self) -> None:
        """Nothing is open."""


class InProcess:
    """Carries one client's requests. ``life``: a dead process sends nothing, one that stands still gets no answer."""

    def __init__(self, cloud: Cloud, way: Way, pause: Callable[[], float], *, life: Living, sent: Sent) -> None:
        self._app = cloud.app
        self._way = way
        self._pause = pause
        self._life = life
        self._sent = sent

    async def send(self, request: Any, **_: Any) -> Any:
        self._life.check()
        body = request.content if isinstance(request.content, bytes) else str(request.content or "").encode()
        reply = asyncio.create_task(self._carry(request.method, request.url, dict(request.headers), body))
        self._sent(request.method, URL(request.url).path)
        self._life.check()
        response = await asyncio.shield(reply)
        await asyncio.sleep(self._pause())
        await self._life.gate()
        if response.keep_alive is False:
            raise ServiceResponseError("the connection was reset")
        return _answer(request, response)

    async def _carry(self, method: str, url: str, headers: dict[str, str], body: bytes) -> web.Response:
        await asyncio.sleep(self._way(method, URL(url).path))
        return cast(web.Response, await self._app._handle(_request(method, url, headers, body)))


def _request(method: str, url: str, headers: dict[str, str], body: bytes) -> web.Request:
    loop = asyncio.get_running_loop()
    parsed = URL(url)
    fields = CIMultiDictProxy(CIMultiDict({"Host": str(parsed.host), **headers}))
    message = RawRequestMessage(
        method, parsed.raw_path_qs, HttpVersion11, fields, (), False, None, False, False, parsed.relative()
    )
    protocol = cast(Any, _Protocol())
    task = cast(Any, asyncio.current_task())
    request = web.Request(message, cast(Any, EMPTY_PAYLOAD), protocol, cast(Any, None), task, loop)
    request._read_bytes = body
    return request


def _answer(request: Any, response: web.Response) -> Any:
    answer = AsyncHttpResponseImpl(
        request=request,
        internal_response=_Internal(),
        status_code=response.status,
        reason=response.reason,
        content_type=response.content_type,
        headers=response.headers,
        stream_download_generator=None,
    )
    answer._content = bytes(cast(bytes, response.body or b""))
    return answer


def connect(client: DigitalOcean, transport: InProcess) -> None:
    """Makes a client send its requests that way."""
    pipeline = client.api._client._client._pipeline
    pipeline._transport = transport
    pipeline._impl_policies[-1].next._sender = transport
