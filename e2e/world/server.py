"""The world as a process of its own, commanded over a Unix socket, for people and for `make demo`."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
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


def _app(world: World, stop: asyncio.Event) -> web.Application:
    async def drop(location: str, how: str = "power") -> None:
        await world.drop(location, how)

    async def restore(location: str | None = None) -> None:
        await world.restore(location)

    async def kill(droplet: str) -> None:
        await world.machines.kill(_id_of(world, droplet))

    async def fill_disk(droplet: str) -> None:
        await world.machines.fill_disk(_id_of(world, droplet))

    async def free_disk(droplet: str) -> None:
        await world.machines.free_disk(_id_of(world, droplet))

    async def loss(percent: float) -> None:
        await world.network.loss(percent)

    async def info() -> dict[str, Any]:
        return {
            "kubeconfig": str(world.cluster.kubeconfig),
            "kubectl": list(world.cluster.kubectl),
            "token": TOKEN,
            "client": world.network.namespace("client"),
            "logs": {name: str(operator.log) for name, operator in world.operators.items()},
            "droplets": {str(d.id): [d.name, d.region] for d in world.cloud.state.droplets.values()},
        }

    async def shutdown() -> None:
        stop.set()

    commands: dict[str, Callable[..., Awaitable[Any]]] = {
        "drop": drop,
        "restore": restore,
        "kill": kill,
        "fill-disk": fill_disk,
        "free-disk": free_disk,
        "loss": loss,
        "info": info,
        "stop": shutdown,
    }

    async def handle(request: web.Request) -> web.Response:
        command = commands.get(request.match_info["action"])
        if command is None:
            return web.json_response({"error": "no such command"}, status=404)
        try:
            return web.json_response(await command(**await request.json()) or {})
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
            while directory.exists():
                await asyncio.sleep(0.1)
