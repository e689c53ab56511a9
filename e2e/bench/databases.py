"""The parts of the measurement of databases, and the world that they share."""

import asyncio
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from e2e import packages
from e2e.bench.losses import Keep, losses, say
from e2e.bench.ours import at_rest, ours, switchovers
from e2e.bench.peer import losses_of_peer
from e2e.bench.rewind import rewinds
from e2e.bench.throughput import throughput
from e2e.evidence import evidence
from e2e.site import Stage

OF_ENGINES = ("failovers", "switchovers", "guard", "throughput")
"""In this order: what is at rest is measured before the load has filled its memory."""

PARTS = (*OF_ENGINES, "patroni", "rewind")
ENGINES = ("postgresql", "mariadb")
PREFIX = "hsb-"


@dataclass(frozen=True)
class Options:
    """How much of each."""

    parts: Collection[str] = PARTS
    engines: Collection[str] = ENGINES
    runs: int = 20
    switchovers: int = 10
    peer_runs: int = 5
    rest_seconds: float = 60.0
    pairs: int = 5
    rewind_runs: int = 3
    rewind_megabytes: int = 1000


def measure(options: Options, keep: Keep) -> bool:
    """Whether every part came to its end; one that fails is told, and does not end the others.

    ``keep`` gets figures as they come. What the world says goes to the standard error, and nothing of it is left.
    """
    with contextlib.redirect_stdout(sys.stderr):
        return asyncio.run(_measure(options, keep))


async def _measure(options: Options, keep: Keep) -> bool:
    good = True
    if "rewind" in options.parts:
        good &= await _tried("rewind", lambda: rewinds(options.rewind_runs, options.rewind_megabytes, keep))
    if {*OF_ENGINES, "patroni"} & set(options.parts):
        async with packages.world_of_its_own(PREFIX) as stage:
            for engine in options.engines:
                if set(OF_ENGINES) & set(options.parts):
                    good &= await _engine(stage, engine, options, keep)
            if "patroni" in options.parts:
                good &= await _tried("patroni", lambda: losses_of_peer(stage, options.peer_runs, keep))
    return good


async def _engine(stage: Stage, engine: str, options: Options, keep: Keep) -> bool:
    """All parts of one engine, on one database."""
    good = True

    async def work() -> None:
        nonlocal good
        with tempfile.TemporaryDirectory(prefix="hasite-bench-") as name:
            folder = Path(name)
            async with ours(stage, engine) as made, made.proxied(folder) as server:
                parts: dict[str, Callable[[], Awaitable[None]]] = {
                    "failovers": lambda: losses(stage, made, server, options.runs, keep),
                    "switchovers": lambda: switchovers(made, server, options.switchovers, keep),
                    "guard": lambda: at_rest(made, options.rest_seconds, keep),
                    "throughput": lambda: throughput(made, server, options.pairs, keep),
                }
                for part in OF_ENGINES:
                    if part in options.parts:
                        good &= await _tried(f"{part} of {engine}", parts[part])
                        await stage.world.restore()

    return await _tried(engine, work) and good


async def _tried(name: str, work: Callable[[], Awaitable[None]]) -> bool:
    say(f"{name} begins")
    try:
        await work()
    except Exception:
        traceback.print_exc()
        for stage in packages.standing:
            for title, text in evidence(stage):
                print(f"-- {title}\n{text}", file=sys.stderr)
        say(f"{name} has failed")
        return False
    say(f"{name} has ended")
    return True
