"""A ring of MariaDB in two datacentres: both take writes, either may be lost, both have everything afterwards."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import figures
from e2e.database import Databases
from e2e.histories.stores import Server
from e2e.site import Stage, eventually
from e2e.world.cloud.state import Droplet
from e2e.world.world import ROOT

ELSEWHERE = 15.0
"""Seconds, at worst, until apps are led to another member, with another world beside this one on the machine."""


@dataclass
class Apps:
    """Clients, each with an order of hosts of its own, and what they were acknowledged."""

    ring: Databases
    folder: Path
    done: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    async def ask(self, server: Server, what: str) -> Any:
        argv = [sys.executable, "-m", "e2e.ringclient", what]
        process = self.ring.stage.world.run_at(
            "client", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        out, errors = await asyncio.to_thread(process.communicate, json.dumps(asdict(server)).encode())
        assert process.returncode == 0, errors.decode()[-1500:]
        return json.loads(out)

    async def rows(self, droplet: Droplet) -> list[list[Any]]:
        rows: list[list[Any]] = await self.ask(await self.ring.server(droplet), "rows")
        return rows

    async def equal(self, within: float = 60) -> list[list[Any]]:
        last: list[list[list[Any]]] = []

        async def same() -> bool:
            last[:] = [await self.rows(each) for each in (await self.ring.members()).values()]
            return all(each == last[0] for each in last)

        await eventually(same, within, "all members have the same rows", 0.5)
        return last[0]

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """One app at each location: its own member first, then the other."""
        members = list((await self.ring.members()).values())
        server = await self.ring.server(*members)
        await self.ask(server, "prepare")
        await self.equal()
        processes = []
        run = str(time.monotonic_ns())
        for member in members:
            hosts = (member.public_ipv4, *(host for host in server.hosts if host != member.public_ipv4))
            about, output = self.folder / f"{run}-{member.id}.in", self.folder / f"{run}-{member.id}.out"
            about.write_text(json.dumps(asdict(replace(server, hosts=hosts))))
            argv = [sys.executable, "-m", "e2e.ringclient", f"{member.id}-{run}"]
            with about.open("rb") as into, output.open("wb") as out:
                process = self.ring.stage.world.run_at("client", argv, stdin=into, stdout=out, cwd=ROOT)
            processes.append((member, process, output))
        try:
            await eventually(lambda: all(o.stat().st_size for _, _, o in processes), 20, "each has written", 0.1)
            yield
        finally:
            for _, process, _ in processes:
                process.kill()
            for _, process, _ in processes:
                await asyncio.to_thread(process.wait)
        for member, _, output in processes:
            lines = [line for line in output.read_text().splitlines(keepends=True) if line.endswith("\n")]
            self.done[member.name] = [json.loads(line) for line in lines]

    async def complete(self) -> int:
        """Every acknowledged row is at every member, with the number that its app was told; how many there are."""
        rows = {words: number for number, words in await self.equal()}
        acknowledged = [each for done in self.done.values() for each in done]
        lost = [each for each in acknowledged if rows.get(each["words"]) != each["id"]]
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged rows are gone: {lost[:3]}"
        return len(acknowledged)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def _ring(stage: Stage) -> AsyncIterator[Databases]:
    made = Databases(stage, "ring", "mariadb")
    await made.apply(topology="PrimaryPrimary", durability="asynchronous")
    yield made
    await stage.world.restore()
    await made.delete()


@pytest_asyncio.fixture(loop_scope="package")
async def ring(_ring: Databases) -> Databases:
    """Ready: two members at two locations, each of which receives from the other."""
    await _ring.until_ready(300)
    return _ring


@pytest.fixture
def apps(ring: Databases, tmp_path: Path) -> Apps:
    return Apps(ring, tmp_path)


async def test_both_members_take_writes_at_once_and_have_the_same_rows(ring: Databases, apps: Apps) -> None:
    status = await ring.status()
    assert status["membersReady"] == "2/2"
    assert {m["role"] for m in status["members"]} == {"primary"}
    assert status["writers"] == status["primary"]
    async with apps.write():
        await asyncio.sleep(4)
    await apps.complete()
    assert len({each["host"] for done in apps.done.values() for each in done}) == 2


@pytest.mark.parametrize("how", ["power", "cut"])
async def test_the_location_of_the_member_that_leads_is_lost_and_comes_back(
    ring: Databases, apps: Apps, how: str
) -> None:
    before = await ring.primary()
    (other,) = [each for each in (await ring.members()).values() if each.id != before.id]
    async with apps.write():
        await asyncio.sleep(2)
        began = time.monotonic()
        await ring.stage.world.drop(ring.stage.location(before), how)
        await ring.until_leads([other], 30)
        led = time.monotonic() - began
        await ring.until_primary(before.name)
        await asyncio.sleep(3)
        await ring.stage.world.restore()
        await ring.until_ready(180)
        await asyncio.sleep(2)
    figures.note(f"ring of mariadb: acknowledged writes through a loss ({how})", await apps.complete())
    figures.record(f"ring of mariadb: leading member lost ({how}), until apps are led elsewhere", led, ELSEWHERE)
    moved = next(each for each in apps.done[before.name] if each["at"] > began and each["host"] == other.public_ipv4)
    figures.record(f"ring of mariadb: member lost ({how}), until its app writes elsewhere", moved["at"] - began, 10.0)


async def test_a_conflict_is_told_with_its_row_and_goes_on_once_it_is_mended(ring: Databases, apps: Apps) -> None:
    leader = await ring.primary()
    (other,) = [each for each in (await ring.members()).values() if each.id != leader.id]
    await apps.ask(await ring.server(leader), "prepare")
    await apps.equal()
    await sql(ring, other, "SET SESSION sql_log_bin=0; INSERT INTO shop.orders VALUES (7, 'only here')")
    await sql(ring, leader, "INSERT INTO shop.orders VALUES (7, 'from the leader')")

    async def told() -> str:
        found = await ring.condition("ReplicationConflict")
        return str(found["message"]) if found.get("status") == "True" and "INSERT INTO" in found["message"] else ""

    message, seconds = await eventually(told, 30, "the conflict is told", 0.3)
    figures.record("ring of mariadb: conflict, until status tells the row", seconds, 30.0)
    assert other.name in message and "Duplicate entry '7'" in message and "'from the leader'" in message
    assert (await ring.condition("Ready"))["reason"] == "ReplicationConflict"
    events = await ring.stage.kubectl("events", "--for", f"rdb/{ring.name}")
    assert "ReplicationConflict" in events
    assert (await ring.primary()).id == leader.id
    await sql(ring, other, "SET SESSION sql_log_bin=0; DELETE FROM shop.orders WHERE id = 7")
    await ring.until_ready(30)
    assert [7, "from the leader"] in await apps.equal()


async def sql(ring: Databases, droplet: Droplet, text: str) -> str:
    """As the administrator of a member."""
    return await ring.stage.on(droplet, "mariadb", "-N", text=text)
