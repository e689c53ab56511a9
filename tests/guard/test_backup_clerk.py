"""The clerks of several guards, with words instead of wires, and jobs that the test ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hasite.guard import backup, backupclerk
from hasite.guard.backup import Backup, Restore, Target, Word
from hasite.guard.backupclerk import Clerk
from hasite.guard.backupjob import Job, Result, Where
from hasite.guard.engines.base import Layout
from hasite.guard.messages import Beat
from hasite.guard.model import Database, Member, Membership, Settings

MEMBERS = tuple(Member(name, name, "192.0.2.1") for name in "ab")
PLAN = Backup("* * * * *", 2, Target(path="/mnt/backups"), "orders-1a2b3c4d")
WHERE = Where("data", "work", "bin", "sockets", 3306, "root")


@dataclass
class Node:
    """A guard's clerk; its job runs until ``end`` gives it a result."""

    name: str
    folder: Path
    plan: Backup | None = PLAN
    primary: bool = False
    followers: frozenset[str] = frozenset()
    epoch: int = 1
    jobs: list[Job] = field(default_factory=list)
    broken_off: int = 0

    def __post_init__(self) -> None:
        self.end: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.clerk = Clerk(self.settings(), self.layout, self.beat, WHERE, self.run)

    @property
    def layout(self) -> Layout:
        home = self.folder / self.name
        home.mkdir(exist_ok=True)
        return Layout(home / "data", home / "saved", home / "vote.json", home / "guard.json", home / "tls", home)

    def settings(self, **changes: object) -> Settings:
        membership = Membership(1, MEMBERS, ("a", "b"))
        values = {"backup": self.plan, **changes}
        return Settings(
            "uid",
            self.name,
            "mariadb",
            "10.11",
            "PrimaryReplica",
            "synchronous",
            False,
            5.0,
            membership,
            **values,  # type: ignore[arg-type]
        )

    def beat(self) -> Beat:
        state = Database("primary" if self.primary else "standby", followers=self.followers)
        holder, left = (self.name, 1.0) if self.primary else ("", 0.0)
        role = "primary" if self.primary else "standby"
        word = getattr(self, "clerk", None)
        return Beat(self.name, self.epoch, holder, left, role, state, backup=word.word if word else None)  # type: ignore[arg-type]

    async def run(self, job: Job) -> Result:
        self.jobs.append(job)
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise

    def done(self, **result: object) -> None:
        self.end.set_result(Result(**result))  # type: ignore[arg-type]
        self.end = asyncio.get_running_loop().create_future()


@dataclass
class Pair:
    """``a`` reigns, ``b`` follows; each hears the other while ``connected``."""

    a: Node
    b: Node
    connected: bool = True

    async def until(self, condition: Callable[[], bool], within: float = 5.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                await self.turn()

    async def turn(self) -> None:
        if self.connected:
            self.a.clerk.heard(self.b.beat())
            self.b.clerk.heard(self.a.beat())
        await asyncio.sleep(0.01)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    for module, name, value in ((backupclerk, "INTERVAL", 0.01), (backup, "SETTLE", 0.05), (backup, "PAUSE", 0.0)):
        monkeypatch.setattr(module, name, value)
    made = Pair(Node("a", tmp_path, primary=True, followers=frozenset("b")), Node("b", tmp_path))
    tasks = [asyncio.create_task(node.clerk.run()) for node in (made.a, made.b)]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def good(node: Node) -> str:
    word = node.clerk.word
    return word.good.label if word is not None and word.good is not None else ""


async def test_the_standby_makes_it_and_the_primary_knows(pair: Pair) -> None:
    await pair.until(lambda: bool(pair.b.jobs))
    assert pair.a.clerk.word is not None
    assert pair.a.clerk.word.assigned is not None
    assert pair.a.clerk.word.assigned.member == "b"
    pair.b.done(label="first", size=5)
    await pair.until(lambda: good(pair.a) == "first")
    assert pair.a.jobs == []
    assert pair.b.jobs[0].repository == PLAN.repository
    assert pair.b.jobs[0].retention == 2


async def test_a_failure_is_told_and_tried_again(pair: Pair) -> None:
    await pair.until(lambda: len(pair.b.jobs) == 1)
    pair.b.done(reason="no space")
    await pair.until(lambda: len(pair.b.jobs) == 2)
    assert pair.a.clerk.word is not None
    assert pair.a.clerk.word.bad is not None
    assert pair.a.clerk.word.bad.reason == "no space"
    pair.b.done(label="second")
    await pair.until(lambda: good(pair.a) == "second")


async def test_it_goes_on_through_a_change_of_the_primary(pair: Pair) -> None:
    await pair.until(lambda: bool(pair.b.jobs))
    pair.a.primary, pair.a.followers = False, frozenset()
    pair.b.primary, pair.b.followers, pair.b.epoch = True, frozenset("a"), 2
    for _ in range(30):
        await pair.turn()
    pair.b.done(label="through")
    await pair.until(lambda: good(pair.a) == "through")
    assert pair.a.jobs == []
    assert len(pair.b.jobs) == 1


async def test_it_is_broken_off_when_nobody_who_reigns_is_heard(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backupclerk, "GIVE_UP", 0.1)
    monkeypatch.setattr(backupclerk, "FRESH", 0.05)
    await pair.until(lambda: bool(pair.b.jobs))
    pair.connected = False
    await pair.until(lambda: pair.b.broken_off == 1)
    assert pair.b.clerk.word is not None
    await pair.until(lambda: pair.b.clerk.word is not None and pair.b.clerk.word.bad is not None)


async def test_what_was_done_is_known_after_a_restart(pair: Pair, tmp_path: Path) -> None:
    await pair.until(lambda: bool(pair.b.jobs))
    pair.b.done(label="kept")
    await pair.until(lambda: good(pair.a) == "kept" and (tmp_path / "a" / "backups.json").exists())
    again = Node("a", tmp_path)
    assert good(again) == "kept"


async def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "backups.json").write_text("{")
    assert good(Node("a", tmp_path)) == ""


async def test_a_schedule_that_can_t_be_read_is_told_and_stops_nothing_else(tmp_path: Path) -> None:
    node = Node("a", tmp_path, Backup("5-1 * * * *", 2, PLAN.target, PLAN.repository))
    assert node.clerk.word is not None
    assert "5-1" in node.clerk.word.archiving


async def test_without_backups_nothing_is_said(tmp_path: Path) -> None:
    assert Node("a", tmp_path, None).clerk.word is None


async def test_no_database_is_made_before_its_backup_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backupclerk, "INTERVAL", 0.01)
    node = Node("a", tmp_path, None)
    told: list[Settings] = []
    settings = node.settings(restore=Restore(PLAN.target, "orders"), bootstrap="a")

    async def prepare(of: Settings, layout: Layout, where: Where) -> None:
        await asyncio.sleep(0.05)
        layout.data.with_name("data.restored").mkdir()

    monkeypatch.setattr("hasite.guard.backuprun.prepare", prepare)
    clerk = Clerk(settings, node.layout, node.beat, WHERE, node.run, lambda: told.append(clerk.admitted(settings)))
    assert clerk.admitted(settings).bootstrap is None
    running = asyncio.create_task(clerk.run())
    async with asyncio.timeout(5):
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told[0].bootstrap == "a"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_restore_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backupclerk, "INTERVAL", 0.01)
    monkeypatch.setattr(backupclerk, "RESTORE_PAUSE", 0.02)
    node = Node("a", tmp_path, None)
    settings = node.settings(restore=Restore(Target(path=str(tmp_path / "nowhere")), "orders"), bootstrap="a")
    clerk = Clerk(settings, node.layout, node.beat, Where("data", str(tmp_path / "w"), "", "", 1, "root"), node.run)
    running = asyncio.create_task(clerk.run())
    async with asyncio.timeout(20):
        while not (clerk.word and clerk.word.failed):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert isinstance(clerk.word, Word)
    assert "is it mounted?" in clerk.word.restoring
    assert clerk.admitted(settings).bootstrap is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
