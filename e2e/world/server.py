"""The world as a process of its own, commanded over a Unix socket, for people and for `make demo`."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from e2e.world.world import TOKEN, World

READY = "ready"


async def serve_world(directory: Path, progress: Callable[[str], None], port: int) -> None:
    """Until SIGTERM or the command ``stop``."""
    world = World(directory, progress=progress, port=port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await world.start()
        await world.start_operator("operator-1")
        await world.start_operator("operator-2")
        runner = web.AppRunner(_app(world, stop), access_log=None)
        await runner.setup()
        await web.UnixSite(runner, str(directory / "control.sock")).start()
        (directory / READY).write_text("ready\n")
        progress("the world is up")
        await stop.wait()
        await runner.cleanup()
    finally:
        await world.stop()


class Commands:
    """What may be asked of a running world, each by the method of its name."""

    def __init__(self, world: World, stop: asyncio.Event) -> None:
        self._world = world
        self._stop = stop

    async def drop(self, location: str, how: str = "power") -> None:
        """A datacentre goes dark."""
        await self._world.drop(location, how)

    async def restore(self, location: str | None = None) -> None:
        """It is back."""
        await self._world.restore(location)

    async def kill(self, droplet: str) -> None:
        """One machine loses its power."""
        await self._world.machines.kill(_id_of(self._world, droplet))

    async def fill_disk(self, droplet: str) -> None:
        """Its disk is full."""
        await self._world.machines.fill_disk(_id_of(self._world, droplet))

    async def free_disk(self, droplet: str) -> None:
        """Its disk has room again."""
        await self._world.machines.free_disk(_id_of(self._world, droplet))

    async def loss(self, percent: float) -> None:
        """Every link loses packets."""
        await self._world.network.loss(percent)

    async def info(self) -> dict[str, Any]:
        """Paths and names."""
        world = self._world
        return {
            "kubeconfig": str(world.cluster.kubeconfig),
            "kubectl": list(world.cluster.kubectl),
            "token": TOKEN,
            "client": world.network.namespace("client"),
            "logs": {name: str(operator.log) for name, operator in world.operators.items()},
            "droplets": {str(d.id): [d.name, d.region] for d in world.cloud.state.droplets.values()},
        }

    async def stop(self) -> None:
        """The world ends."""
        self._stop.set()


COMMANDS = ("drop", "restore", "kill", "fill-disk", "free-disk", "loss", "info", "stop")


def _app(world: World, stop: asyncio.Event) -> web.Application:
    commands = Commands(world, stop)

    async def handle(request: web.Request) -> web.Response:
        action = request.match_info["action"]
        if action not in COMMANDS:
            return web.json_response({"error": "no such command"}, status=404)
        try:
            answer = await getattr(commands, action.replace("-", "_"))(**await request.json())
            return web.json_response(answer or {})
        except Exception as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=500)

    app = web.Application()
    app.add_routes([web.post("/{action}", handle)])
    return app


def _id_of(world: World, droplet: str) -> int:
    for each in world.cloud.state.droplets.values():
        if droplet in (each.name, str(each.id)):
            return each.id
    raise KeyError(f"no droplet {droplet}")


async def wait_until_gone(directory: Path, seconds: float = 60.0) -> None:
    """Until the directory of a world is away."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while directory.exists():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.1)
