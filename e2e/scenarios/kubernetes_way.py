"""The operators' way to the API server, on which a test stands and sees every write, before and after it is done."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from e2e.controlplane.credentials import write_private
from e2e.world.network import listen_in
from e2e.world.world import World

PORT = 16443
QUIET = ("GET", "HEAD")

Hook = Callable[[str, str, str, dict[str, Any]], bool | None]
"""Phase (``before`` or ``after``), method, path and body. When it returns False the connection is cut: before, as if
the request had never arrived; after, with the work done and nobody told."""


class KubernetesWay:
    """A plain HTTP server in the operators' namespace that hands on to the API server; ``hook`` may be changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._upstream: aiohttp.ClientSession
        self._runner: web.AppRunner
        self._server = ""
        self.hook: Hook = lambda phase, method, path, body: None

    async def start(self, kubeconfig: Path) -> Path:
        """Returns a kubeconfig with the credentials of this one and this way."""
        config = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        # The way on to the API server is this machine's loopback.
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        self._upstream = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listen_in(self._world.network.namespace("ops"), "127.0.0.1", PORT)).start()
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{PORT}"}
        ours = kubeconfig.with_name("way.kubeconfig")
        write_private(ours, yaml.safe_dump(config))
        return ours

    async def close(self) -> None:
        """Ends it, with every connection."""
        await self._runner.cleanup()
        await self._upstream.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._tell("before", request, body)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        url = f"{self._server}{request.rel_url}"
        limit = aiohttp.ClientTimeout(total=None)
        async with self._upstream.request(
            request.method, url, data=body or None, headers=headers, timeout=limit
        ) as answer:
            if request.query.get("watch"):
                return await self._stream(request, answer)
            content = await answer.read()
        if answer.status < 300:
            self._tell("after", request, body)
        kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "content-encoding")}
        return web.Response(status=answer.status, body=content, headers=kept)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the operator was killed
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        return response

    def _tell(self, phase: str, request: web.Request, body: bytes) -> None:
        if request.method in QUIET:
            return
        content: dict[str, Any] = json.loads(body or b"{}")
        if self.hook(phase, request.method, request.path, content) is False and request.transport is not None:
            request.transport.abort()
            raise web.HTTPServiceUnavailable
