"""Serving one cloud on several sockets at once."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from .core import CORE


@dataclass(frozen=True)
class Server:
    """A cloud that is being served; `url` is the base URL of its first socket."""

    url: str
    runner: web.AppRunner

    async def close(self) -> None:
        """Drop all connections, stop serving, and give up background work."""
        assert self.runner.app is not None
        core = self.runner.app[CORE]
        core.faults.release()
        await self.runner.cleanup()
        await core.close()


async def serve_app(app: web.Application, sockets: Sequence[socket.socket] | None, host: str, port: int) -> Server:
    """Listen on the sockets, or on a new one at host and port (0: any free port)."""
    listening = list(sockets) if sockets else [socket.create_server((host, port))]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    for each in listening:
        await web.SockSite(runner, each).start()
    address = listening[0].getsockname()
    return Server(f"http://{address[0]}:{address[1]}", runner)
