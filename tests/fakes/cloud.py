"""The cloud's driver against the simulated API, or against a server that answers strangely; both on loopback."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from hasite.clouds.base import DropletSpec
from hasite.clouds.digitalocean import DigitalOcean

from e2e.world.cloud import UNLIMITED, Cloud, serve

TOKEN = "local-token"
SPEC = DropletSpec("lb-1", "nyc3", "s-1vcpu-1gb", "debian-12-x64", "#cloud-config\n", ("hasite", "uid:1"), ())


class Calls:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int | str]] = []

    def on_call(self, endpoint: str, status: int | str, seconds: float) -> None:
        self.seen.append((endpoint, status))


@asynccontextmanager
async def world(cloud: Cloud | None = None) -> AsyncIterator[tuple[Cloud, DigitalOcean]]:
    cloud = cloud or Cloud(limits=UNLIMITED)
    server = await serve(cloud)
    driver = DigitalOcean(TOKEN, server.url)
    try:
        yield cloud, driver
    finally:
        await driver.close()
        await server.close()


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[DigitalOcean]:
    """A server that gives the same answer to everything."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    driver = DigitalOcean(TOKEN, f"http://127.0.0.1:{listening.getsockname()[1]}")
    try:
        yield driver
    finally:
        await driver.close()
        await runner.cleanup()
