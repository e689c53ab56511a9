"""Databases in two datacentres, synchronous: whatever is lost, no acknowledged write is, and no two primaries ever
take writes. Clients write all the while, from several connections, and their histories are checked."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e import figures
from e2e.database import Databases
from e2e.site import Stage

WRITES_AGAIN = 25.0
"""Seconds, at worst, with another world beside this one on the machine; docs/performance.md has the figures without."""

SWITCHOVER_PAUSE = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="package", params=["postgresql", "mariadb"])
async def _database(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Databases]:
    made = Databases(stage, f"orders-{request.param}", request.param)
    await made.apply(degradedWrites="allow")
    yield made
    await stage.world.restore()
    await made.delete()


@pytest_asyncio.fixture(loop_scope="package")
async def database(_database: Databases) -> Databases:
    """Ready: a primary and a standby, one at each of two locations."""
    await _database.until_ready(300)
    return _database


def location(database: Databases, name: str) -> str:
    return next(each for each in ("new-york", "amsterdam") if f"-{each}-" in name)


async def test_a_primary_and_a_standby_are_made_and_a_write_is_on_both(database: Databases) -> None:
    status = await database.status()
    assert status["membersReady"] == "2/2"
    assert status["primary"] in await database.members()
    async with database.clients() as history:
        await asyncio.sleep(3)
    assert not history.violations
    assert history.acknowledged()


@pytest.mark.parametrize("how", ["power", "cut", "in", "out"])
async def test_the_datacentre_of_the_primary_is_lost_and_comes_back(database: Databases, how: str) -> None:
    before = await database.primary()
    async with database.clients() as history:
        await asyncio.sleep(2)
        began = time.monotonic()
        await database.stage.world.drop(location(database, before.name), how)
        await database.until_primary(before.name)
        await asyncio.sleep(5)
        await database.stage.world.restore()
        await database.until_ready(180)
    assert not history.violations
    first = next(o for o in history.acknowledged(began) if o.node != before.name)
    took = first.completed - began
    figures.record(f"{database.engine}: primary lost ({how}), until a write is accepted", took, WRITES_AGAIN)
    assert took < WRITES_AGAIN


async def test_a_guard_that_is_frozen_for_half_a_minute_never_leaves_two_primaries(database: Databases) -> None:
    before = await database.primary()
    async with database.clients() as history:
        await asyncio.sleep(2)
        await database.guard(before, "STOP")
        await database.until_primary(before.name)
        await asyncio.sleep(20)
        await database.guard(before, "CONT")
        await database.until_ready(120)
    assert not history.violations


async def test_a_wish_for_another_location_moves_the_primary_with_a_short_pause(database: Databases) -> None:
    before = await database.primary()
    target = next(each for each in ("new-york", "amsterdam") if each != location(database, before.name))
    async with database.clients() as history:
        await asyncio.sleep(2)
        await database.patch({"primaryLocation": target})
        await database.until_primary(before.name)
        await asyncio.sleep(3)
        await database.until_ready(60)
    assert not history.violations
    writes = history.acknowledged()
    last = max(o.completed for o in writes if o.node == before.name)
    first = min(o.completed for o in writes if o.node != before.name)
    figures.record(f"{database.engine}: planned switchover, pause of writes", first - last, SWITCHOVER_PAUSE)
    assert first - last < SWITCHOVER_PAUSE


async def test_both_datacentres_reboot_at_once_and_nothing_is_lost(database: Databases) -> None:
    async with database.clients() as history:
        await asyncio.sleep(2)
        for each in ("new-york", "amsterdam"):
            await database.stage.world.drop(each)
        await database.stage.world.restore()
        await database.until_ready(180)
        await database.until_written(time.monotonic())
    assert not history.violations


async def test_the_operator_is_killed_in_the_middle_of_a_failover(database: Databases) -> None:
    before = await database.primary()
    async with database.clients() as history:
        await asyncio.sleep(2)
        await database.stage.world.drop(location(database, before.name))
        await asyncio.sleep(1.5)
        database.stage.crash_operators()
        await database.until_primary(before.name, 60)
        await database.stage.world.restore()
        await database.until_ready(180)
    assert not history.violations


async def test_a_primary_whose_disk_is_full_hands_over_or_goes_on_and_loses_nothing(database: Databases) -> None:
    before = await database.primary()
    machines = database.stage.world.machines
    async with database.clients() as history:
        await asyncio.sleep(2)
        await machines.fill_disk(before.id)
        await asyncio.sleep(15)
        await machines.free_disk(before.id)
        # MariaDB looks once a minute whether there is room again.
        await database.until_written(time.monotonic(), 90)
        await database.until_ready(180)
    assert not history.violations
