"""The datacentre of a database's primary is lost, over and over: how long until an app writes again, what is gone."""

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Protocol

from e2e.bench.client import Log, now, writers
from e2e.bench.figures import Figure
from e2e.histories.stores import Server
from e2e.site import Stage

Keep = Callable[[Figure], object]
"""Takes a figure as soon as there is anything to it, and again with every run: what is interrupted is not lost."""

HOW = {"power": "loses its power", "cut": "is cut off"}
WHOLE_WITHIN = 300.0
REST = 3.0
"""Seconds from "whole" to the next run, at least; up to a second more, so that runs meet every phase of a period."""


class Cluster(Protocol):
    """A database of two members at two locations, whoever runs it."""

    label: str
    """What its figures' names begin with."""

    engine: str
    aim: str

    async def primary_location(self) -> str:
        """Where writes go."""
        ...

    async def until_whole(self, within: float) -> None:
        """Until both members take part, and a write waits for the standby. AssertionError: not in time."""
        ...


def say(text: str) -> None:
    """Progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


async def settled(cluster: Cluster, within: float = WHOLE_WITHIN) -> None:
    """Whole, and a moment later."""
    await cluster.until_whole(within)
    await asyncio.sleep(REST + random.random())


async def losses(stage: Stage, cluster: Cluster, server: Server, runs: int, keep: Keep) -> None:
    """``runs`` of each kind. ``server``: as an app's local proxy shows it.

    Whoever is primary loses its datacentre, so the locations take turns. A run without a write in time is told, and
    counts in the note; AssertionError when the database is not whole again after it.
    """
    for how in HOW:
        times: list[float] = []
        lost = acknowledged = failed = 0
        for run in range(runs):
            await settled(cluster)
            log: Log | None = None
            try:
                async with writers(stage, cluster.engine, server) as log:
                    times.append(await _lose(stage, cluster, log, how))
            except (AssertionError, TimeoutError) as error:
                failed += 1
                say(f"{cluster.label}, {how}, run {run + 1}: {error}")
            finally:
                await stage.world.restore()
            if log is not None and log.lost is not None:
                lost, acknowledged = lost + log.lost, acknowledged + log.acknowledged
            if times:
                say(f"{cluster.label}, {how}, run {run + 1} of {runs}: {times[-1]:.2f} s; {lost} writes lost")
                _keep(cluster, how, times, (lost, acknowledged, failed), keep)
    await cluster.until_whole(WHOLE_WITHIN)


def _keep(cluster: Cluster, how: str, times: list[float], counts: tuple[int, int, int], keep: Keep) -> None:
    lost, acknowledged, failed = counts
    what = f"{cluster.label}: the primary's datacentre {HOW[how]}"
    note = f"{failed} more without a write within 90 s" if failed else ""
    keep(Figure(f"{what} → first write accepted at the other", "s", tuple(times), cluster.aim, note))
    of = f"of {acknowledged}, over all runs"
    keep(Figure(f"{what}: acknowledged writes lost", "writes", (lost,), "0", of))


async def _lose(stage: Stage, cluster: Cluster, log: Log, how: str) -> float:
    """Seconds. The datacentre is back, and the database takes writes, when this returns."""
    await asyncio.sleep(2 + random.random())
    location = await cluster.primary_location()
    before = (await log.first(now() - 1.0, within=10)).node
    began = now()
    await stage.world.drop(location, how)
    took = (await log.first(began, before)).ended - began
    await asyncio.sleep(1)
    await stage.world.restore()
    await cluster.until_whole(WHOLE_WITHIN)
    return took
