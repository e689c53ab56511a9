"""Databases while nobody manages them: what the guards do by themselves, with a third location's vote and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest_asyncio

from e2e import figures
from e2e.database import Databases, History
from e2e.site import Stage, eventually
from e2e.world.cloud.state import Droplet

WITNESS = {"location": "frankfurt", "region": "fra1"}
WRITES_AGAIN = 8.0
"""Seconds, at worst, from a primary's loss to the first write on the other side, with a lease of 3 s."""
UNATTENDED = 60.0
HICCUP = 2.0
"""Seconds without a write that a busy test machine may cost: far less than a failover does."""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def _databases(stage: Stage) -> AsyncIterator[tuple[Databases, Databases]]:
    watched, alone = (Databases(stage, name, "postgresql") for name in ("watched", "alone"))
    await watched.apply(degradedWrites="allow", witness=WITNESS)
    await alone.apply(degradedWrites="allow")
    yield watched, alone
    await stage.world.restore()
    await asyncio.gather(watched.delete(), alone.delete())


@pytest_asyncio.fixture(loop_scope="package")
async def watched(_databases: tuple[Databases, Databases]) -> Databases:
    """Two members and a witness in a third location."""
    await _databases[0].until_ready(300)
    return _databases[0]


@pytest_asyncio.fixture(loop_scope="package")
async def alone(_databases: tuple[Databases, Databases]) -> Databases:
    """Two members, and the operator for the third vote."""
    await _databases[1].until_ready(300)
    return _databases[1]


async def others(database: Databases, primary: Droplet) -> list[Droplet]:
    """The members that are not the primary, the witness left out."""
    return [d for d in (await database.members()).values() if d.id != primary.id and d.region != WITNESS["region"]]


def pauses(history: History, since: float, until: float) -> Sequence[float]:
    """Between acknowledged writes in that time, its ends counted."""
    times = [o.completed for o in history.acknowledged() if since <= o.completed <= until]
    return [later - earlier for earlier, later in pairwise([since, *times, until])]


async def lose(database: Databases, before: Droplet, standbys: Sequence[Droplet]) -> float:
    """The location of the primary loses its power, and the guards choose another by themselves; when it was lost."""
    await asyncio.sleep(2)
    began = time.monotonic()
    await database.stage.world.drop(database.stage.location(before))
    await database.until_leads(standbys, 30)
    await asyncio.sleep(3)
    return began


def taken_over(history: History, before: Droplet, began: float, name: str) -> None:
    """It was quick enough, and nothing was lost."""
    assert not history.violations
    first = next(o for o in history.acknowledged(began) if o.node != before.name)
    figures.record(f"postgresql: {name}, until a write is accepted", first.completed - began, WRITES_AGAIN)


async def test_with_a_witness_the_guards_promote_without_an_operator_and_status_tells_it_later(
    watched: Databases,
) -> None:
    stage, before, epoch = watched.stage, await watched.primary(), (await watched.status())["epoch"]
    async with watched.clients(each=False) as history:
        stage.kill_operator("operator")
        began = await lose(watched, before, await others(watched, before))
        await stage.start_operator("operator")
        await watched.until_primary(before.name)
        await stage.world.restore()
        await watched.until_ready(180)
    assert (await watched.status())["epoch"] > epoch
    taken_over(history, before, began, "primary lost (power), a witness and no operator")


async def test_with_a_witness_the_guards_promote_without_operator_and_api_server(watched: Databases) -> None:
    stage, before = watched.stage, await watched.primary()
    standbys = await others(watched, before)
    async with watched.clients(each=False) as history:
        stage.kill_operator("operator")
        away = asyncio.create_task(stage.world.cluster.restart_apiserver(down_for=20))
        began = await lose(watched, before, standbys)
        assert not away.done()
        await away
        await stage.start_operator("operator")
        await watched.until_primary(before.name)
        await stage.world.restore()
        await watched.until_ready(180)
    taken_over(history, before, began, "primary lost (power), a witness, no operator and no API server")


async def test_without_operator_and_api_server_writes_go_on_and_nobody_is_fenced(
    watched: Databases, alone: Databases
) -> None:
    """Without a witness too: the guards of two locations vouch for each other."""
    stage = alone.stage
    epochs = [(await each.status())["epoch"] for each in (watched, alone)]
    async with watched.clients(1, each=False) as one, alone.clients(2) as two:
        stage.kill_operator("operator")
        began = time.monotonic()
        await stage.world.cluster.restart_apiserver(down_for=UNATTENDED)
        ended = time.monotonic()
        await stage.start_operator("operator")
        await asyncio.gather(watched.until_ready(120), alone.until_ready(120))
    for history in (one, two):
        assert not history.violations
        assert max(pauses(history, began, ended)) < HICCUP
        assert len({(o.node, o.epoch) for o in history.acknowledged()}) == 1
    assert [(await each.status())["epoch"] for each in (watched, alone)] == epochs
    figures.note(
        f"postgresql: longest pause of writes in {UNATTENDED:g} s without operator and API server, seconds",
        round(max(pauses(two, began, ended)), 2),
    )


async def test_without_a_witness_a_lost_primary_is_replaced_when_the_operator_is_back_and_status_says_why_not_before(
    alone: Databases,
) -> None:
    stage, before, epoch = alone.stage, await alone.primary(), (await alone.status())["epoch"]
    (standby,) = await others(alone, before)
    said: set[str] = set()

    async def told() -> bool:
        status = await alone.status()
        said.update(each["message"] for each in status["conditions"] if each["type"] == "FailoverRefused")
        return bool(status.get("primary") == standby.name)

    async with alone.clients(each=False) as history:
        await asyncio.sleep(2)
        stage.kill_operator("operator")
        lost = time.monotonic()
        await stage.world.drop(stage.location(before))
        await asyncio.sleep(20)
        assert not await alone.leads(standby)
        back = time.monotonic()
        await stage.start_operator("operator")
        await eventually(told, 60, "the other is promoted", 0.1)
        await asyncio.sleep(2)
        await stage.world.restore()
        await alone.until_ready(180)
    assert not history.violations
    assert not [o for o in history.acknowledged() if lost + 1 < o.completed < back]
    assert any(before.name in message and "no answer" in message for message in said), said
    assert (await alone.status())["epoch"] > epoch
    first = next(o for o in history.acknowledged(back))
    figures.record("postgresql: operator back after the primary was lost, until a write", first.completed - back, 30)
