"""A ReplicatedDatabase as the measurements see it: whole or not, behind an app's local proxy, handed over, at rest."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from e2e.bench.client import app_proxy, now, proxy, writers
from e2e.bench.figures import Figure
from e2e.bench.losses import WHOLE_WITHIN, Keep, say, settled
from e2e.database import PORTS, VERSIONS, Databases
from e2e.histories.stores import Server
from e2e.site import Stage, eventually
from e2e.world.machines import cgroups

LEASE = "3s"
NAMES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}
UNITS = {"guard": "hasite-guard.service", "fuse": "hasite-fuse.service"}
MADE_WITHIN = 600.0


class Ours:
    """Synchronous, with writes allowed on one member alone."""

    aim = "median under 5, worst under 8"

    def __init__(self, stage: Stage, engine: str) -> None:
        self.stage = stage
        self.engine = engine
        self.label = f"{NAMES[engine]} {VERSIONS[engine]}"
        self.database = Databases(stage, f"bench-{engine}", engine)

    @property
    def port(self) -> int:
        """The server's, and the proxy's."""
        return PORTS[self.engine]

    async def make(self) -> None:
        """Until it is whole."""
        await self.database.apply(degradedWrites="allow", failover={"ttl": LEASE})
        await self.until_whole(MADE_WITHIN)

    async def primary_location(self) -> str:
        """See ``Cluster``."""
        return self.stage.location(await self.database.primary())

    async def until_whole(self, within: float) -> None:
        """See ``Cluster``."""

        async def whole() -> bool:
            status = await self.database.status()
            said = {each["type"]: each["status"] for each in status.get("conditions", ())}
            both = status.get("membersReady") == "2/2" and said.get("Ready") == "True"
            return both and said.get("DegradedWrites") != "True"

        await eventually(whole, within, f"{self.database.name} is whole", 0.5)

    async def server(self, host: str = "127.0.0.1") -> Server:
        """What a client of the local proxy, or of another host, needs to know."""
        return replace(await self.database.server(), hosts=(host,))

    @contextlib.asynccontextmanager
    async def proxied(self, folder: Path) -> AsyncIterator[Server]:
        """An app's local proxy stands while the block runs."""
        members = [(d.name, d.public_ipv4) for d in (await self.database.members()).values()]
        async with proxy(self.stage, app_proxy(members, self.port, folder), self.port, folder):
            yield await self.server()


@contextlib.asynccontextmanager
async def ours(stage: Stage, engine: str) -> AsyncIterator[Ours]:
    """It is gone again afterwards."""
    made = Ours(stage, engine)
    say(f"{made.label}: two members are being made")
    try:
        await made.make()
        yield made
    finally:
        await stage.world.restore()
        await made.database.delete(180)


async def switchovers(cluster: Ours, server: Server, runs: int, keep: Keep) -> None:
    """Planned changes of the primary's location, there and back."""
    pauses: list[float] = []
    for run in range(runs):
        await settled(cluster)
        pauses.append(await _switch(cluster, server))
        say(f"{cluster.label}, switchover {run + 1} of {runs}: {pauses[-1]:.2f} s")
        name = f"{cluster.label}: planned switchover, pause of writes"
        keep(Figure(name, "s", tuple(pauses), "under 1.5", "last write at the old primary → first at the new one"))


async def _switch(cluster: Ours, server: Server) -> float:
    here = await cluster.primary_location()
    there = next(each for each in ("new-york", "amsterdam") if each != here)
    async with writers(cluster.stage, cluster.engine, server) as log:
        await asyncio.sleep(2)
        began = now()
        before = (await log.first(began - 1.0)).node
        await cluster.database.patch({"primaryLocation": there})
        await log.first(began, before, 60)
        await asyncio.sleep(1)
        pause = log.pause(before, began)
        await cluster.until_whole(WHOLE_WITHIN)
    return pause


async def at_rest(cluster: Ours, seconds: float, keep: Keep) -> None:
    """Memory and CPU of guard and fuse on both members, while no client is there."""
    await settled(cluster)
    await asyncio.sleep(10)
    droplets = list((await cluster.database.members()).values())
    groups = [f"{cluster.stage.world.network.prefix}{droplet.id}" for droplet in droplets]
    pids = {(group, word): cgroups.processes_of_unit(group, unit) for group in groups for word, unit in UNITS.items()}
    before, began = {key: sum(map(_cpu, each)) for key, each in pids.items()}, now()
    await asyncio.sleep(seconds)
    passed = now() - began
    note = f"on each member, over {passed:.0f} s"
    for word in UNITS:
        mine = [(group, word) for group in groups]
        resident = tuple(sum(map(_resident_mib, pids[key])) for key in mine)
        cpu = tuple(100 * (sum(map(_cpu, pids[key])) - before[key]) / passed for key in mine)
        aims = ("under 30", "under 1") if word == "guard" else ("", "")
        keep(Figure(f"{cluster.label}: resident memory of the {word} at rest", "MiB", resident, aims[0], note))
        keep(Figure(f"{cluster.label}: CPU of the {word} at rest", "% of a core", cpu, aims[1], note))


def _cpu(pid: int) -> float:
    """Seconds so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
