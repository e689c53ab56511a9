"""The driver: a server held to its goal and its lease. The server is the toy one, in real processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hasite.guard import lease
from hasite.guard.driver import Driver, reached
from hasite.guard.engines.base import Layout
from hasite.guard.model import Database, Desired, Member, State, SyncRecord

from tests.guard import groups
from tests.guard.ports import free_ports
from tests.guard.toy.engine import ToyEngine, ToyService
from tests.guard.waiting import until

ALONE = SyncRecord(1, 1, frozenset({"a"}), 0)
PRIMARY = Desired("primary", 1, sync=ALONE, create=True)
STANDBY = Desired("standby", 1)
FENCE = Desired("stopped", 1)
CLEAN = Desired("stopped", 1, clean=True)


@dataclass
class Held:
    """A driver with its server, and what it reported."""

    layout: Layout
    service: ToyService
    engine: ToyEngine
    driver: Driver
    looks: list[tuple[Database, Desired | None]] = field(default_factory=list)

    def state(self) -> State | None:
        return self.looks[-1][0].state if self.looks else None

    def lease(self) -> int:
        return lease.read(str(self.layout.lease))


def find(name: str) -> Member:
    return Member(name, name, "127.0.0.1")


@pytest.fixture
def group() -> Iterator[str | None]:
    if not groups.possible():
        yield None
        return
    with groups.group() as path:
        yield path


@pytest.fixture
async def held(tmp_path: Path, group: str | None) -> AsyncIterator[Held]:
    layout = Layout(data=tmp_path / "data", saved=tmp_path / "saved", run=tmp_path)
    service = ToyService(layout, free_ports(1)[0], "a", group)
    async with driving(layout, service) as made:
        yield made
    service.kill()


@contextlib.asynccontextmanager
async def driving(layout: Layout, service: ToyService) -> AsyncIterator[Held]:
    engine = ToyEngine(layout, service, "a", {"a": 1, "b": 1})
    looks: list[tuple[Database, Desired | None]] = []
    driver = Driver(engine, service, layout.lease, find, lambda *look: looks.append(look))
    await driver.start()
    try:
        yield Held(layout, service, engine, driver, looks)
    finally:
        await driver.close()


def enforced(held: Held) -> tuple[int, ...]:
    """What still runs after a tick."""
    held.driver.enforce()
    return held.service.pids()


async def lead(held: Held, seconds: float = 60.0) -> float:
    deadline = lease.clock() + seconds
    held.driver.aim(PRIMARY, deadline)
    await until(lambda: held.state() == "primary")
    return deadline


async def test_a_server_is_promoted_only_with_its_deadline_in_the_lease_file(held: Held) -> None:
    seen: list[int] = []

    def slow(_: Desired) -> float:
        seen.append(held.lease())
        return 0.0

    held.engine.slow = slow
    await until(lambda: held.looks)
    seen.clear()
    deadline = await lead(held)
    assert seen and set(seen) == {int(deadline * 1e9)}


async def test_without_a_lease_nothing_is_promoted(held: Held) -> None:
    held.driver.aim(PRIMARY, None)
    with pytest.raises(TimeoutError):
        await until(lambda: held.service.pids() or PRIMARY in held.engine.reaches, 0.4)


async def test_a_server_whose_lease_runs_out_is_killed_and_then_free_to_be_a_standby(held: Held) -> None:
    deadline = await lead(held, 0.8)
    while held.service.pids():
        held.driver.enforce()
        await asyncio.sleep(0.01)
    assert deadline <= lease.clock() < deadline + 0.2
    assert held.lease() == int(deadline * 1e9)
    held.driver.aim(STANDBY, None)
    await until(lambda: held.state() == "standby")
    assert held.lease() == lease.NEVER


async def test_a_fence_has_happened_when_aim_returns(held: Held) -> None:
    await lead(held)
    held.driver.aim(FENCE, None)
    assert held.service.pids() == ()


async def test_a_fence_is_proved_by_a_look_that_began_after_it(held: Held) -> None:
    await lead(held)
    held.looks.clear()
    held.driver.aim(FENCE, None)
    await until(lambda: held.looks)
    assert [look for look in held.looks if look[0].state != "stopped"] == []
    await until(lambda: held.looks[-1][1] == FENCE)


async def test_a_fence_cancels_a_push_that_is_under_way_and_kills_what_it_started(held: Held) -> None:
    held.engine.slow = lambda desired: 0.1 if desired.role == "primary" else 0.0
    held.driver.aim(PRIMARY, lease.clock() + 60)
    await until(lambda: PRIMARY in held.engine.reaches)
    held.driver.aim(FENCE, None)
    with pytest.raises(TimeoutError):
        await until(lambda: enforced(held), 0.4)


async def test_what_a_look_saw_before_the_goal_changed_is_not_told(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    await lead(held)
    started, go = asyncio.Event(), asyncio.Event()

    async def late() -> Database:
        started.set()
        await go.wait()
        return Database("primary", detail="stale")

    monkeypatch.setattr(held.engine, "observe", late)
    await asyncio.wait_for(started.wait(), 2)
    held.driver.aim(CLEAN, lease.clock() + 60)
    monkeypatch.undo()
    go.set()
    await until(lambda: held.state() == "stopped")
    assert not [look for look, _ in held.looks if look.detail == "stale"]


async def test_a_goal_is_reached_only_by_a_push_that_was_done(held: Held) -> None:
    held.engine.slow = lambda desired: 0.3 if desired.role == "primary" else 0.0
    await lead(held)
    await until(lambda: held.looks[-1][1] == PRIMARY)
    before = [done for look, done in held.looks if look.state != "primary"]
    assert PRIMARY not in before


async def test_a_clean_stop_may_take_what_is_left_of_the_lease_and_no_more(held: Held) -> None:
    await lead(held)
    held.engine.slow = lambda desired: 60.0 if desired.role == "stopped" else 0.0
    deadline = lease.clock() + 0.5
    held.driver.aim(CLEAN, deadline)
    assert held.service.pids()
    while held.service.pids():
        held.driver.enforce()
        await asyncio.sleep(0.01)
    assert lease.clock() >= deadline


async def test_a_guard_that_restarts_stops_its_primary_before_anything_else(held: Held) -> None:
    await lead(held)
    await held.driver.close()
    primary = held.service.pids()
    async with driving(held.layout, held.service) as again:
        await until(lambda: again.state() == "standby")
        assert not set(primary) & set(again.service.pids())
        first = again.engine.reaches[0]
        assert (first.role, first.clean) == ("stopped", True)
        assert again.lease() == lease.NEVER


async def test_a_guard_that_restarts_leaves_its_standby_alone(held: Held) -> None:
    held.layout.data.mkdir()
    held.driver.aim(STANDBY, None)
    await until(lambda: held.state() == "standby")
    await held.driver.close()
    standby = held.service.pids()
    async with driving(held.layout, held.service) as again:
        again.driver.aim(STANDBY, None)
        await until(lambda: len(again.looks) > 3)
        assert again.service.pids() == standby


async def test_a_primary_that_nobody_asked_for_is_killed(held: Held) -> None:
    held.layout.data.mkdir()
    held.driver.aim(STANDBY, None)
    await until(lambda: held.state() == "standby")
    standby = held.service.pids()
    await held.engine._order({"do": "lead", "epoch": 9, "eligible": [], "required": 0})
    await until(lambda: not set(standby) & set(enforced(held)))
    await until(lambda: held.state() == "standby")


async def test_an_engine_that_fails_is_asked_again_and_its_words_are_kept(held: Held) -> None:
    held.engine.failure = "no space left on the device"
    held.driver.aim(PRIMARY, lease.clock() + 60)
    await until(lambda: len(held.engine.reaches) > 2)
    assert held.driver.error == "no space left on the device"
    assert all(done != PRIMARY for _, done in held.looks)
    held.engine.failure = ""
    await until(lambda: held.state() == "primary")
    await until(lambda: held.driver.error == "")


async def test_a_look_that_raises_is_a_look_that_saw_nothing(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    await lead(held)

    async def broken() -> Database:
        raise RuntimeError("a mistake in the driver")

    monkeypatch.setattr(held.engine, "observe", broken)
    await until(lambda: "mistake" in held.looks[-1][0].detail)
    assert held.looks[-1][0].position is None


LOOKS: dict[str, tuple[Desired, Database, bool]] = {
    "a primary that takes writes": (PRIMARY, Database("primary", read_only=False), True),
    "a primary that is read-only still": (PRIMARY, Database("primary"), False),
    "a standby that streams from another": (Desired("standby", upstream="b"), Database("standby", upstream="c"), False),
    "a standby whose stream is broken": (Desired("standby", upstream="b"), Database("standby", upstream="b"), False),
    "a standby that streams": (
        Desired("standby", upstream="b"),
        Database("standby", upstream="b", streaming=True),
        True,
    ),
    "a standby that is to follow nobody": (STANDBY, Database("standby"), True),
    "a frozen one that is not drained": (Desired("frozen"), Database("standby"), False),
    "a frozen one that is drained": (Desired("frozen"), Database("standby", drained=True), True),
    "a stopped one": (FENCE, Database("stopped"), True),
    "one that should be stopped": (FENCE, Database("primary"), False),
}


@pytest.mark.parametrize(("desired", "database", "expected"), LOOKS.values(), ids=LOOKS)
def test_whether_a_server_looks_as_it_is_to_be(desired: Desired, database: Database, expected: bool) -> None:
    assert reached(desired, database) is expected


def blind(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be seen of the server's processes, and nothing kills them."""

    def pids() -> tuple[int, ...]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(held.service, "pids", pids)
    monkeypatch.setattr(held.service, "kill", lambda: None)


async def test_a_fence_is_not_proved_by_a_server_that_can_not_be_seen(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lead(held)
    with monkeypatch.context() as patches:
        blind(held, patches)
        held.looks.clear()
        held.driver.aim(FENCE, None)
        with pytest.raises(TimeoutError):
            await until(lambda: [look for look in held.looks if look[1] is not None], 0.5)
        assert held.lease() != lease.NEVER
    held.driver.enforce()
    await until(lambda: held.looks[-1][1] == FENCE)


async def test_a_lease_that_can_not_be_written_promotes_nobody(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: int) -> None:
        raise OSError(24, "Too many open files")

    await lead(held)
    held.driver.aim(STANDBY, None)
    await until(lambda: held.lease() == lease.NEVER and held.state() == "standby")
    again = replace(PRIMARY, epoch=2)
    monkeypatch.setattr(held.driver._file, "write", write)
    held.driver.aim(again, lease.clock() + 60)
    with pytest.raises(TimeoutError):
        await until(lambda: again in held.engine.reaches, 0.4)


async def test_a_server_that_does_not_die_leaves_the_guard_its_time(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lead(held)
    kills: list[float] = []
    with monkeypatch.context() as patches:
        patches.setattr(held.engine, "kill", lambda: kills.append(lease.clock()))
        held.driver.aim(FENCE, None)
        end = lease.clock() + 0.35
        while lease.clock() < end:
            held.driver.enforce()
            await asyncio.sleep(0)
    assert 2 <= len(kills) <= 5
    assert kills[1] - kills[0] >= 0.09
