"""The running guard, without a network: what it says of itself, and that it goes on saying it."""

import asyncio
from pathlib import Path

import pytest
from hasite.guard.agent import TOLD, Agent
from hasite.guard.engines.base import Layout
from hasite.guard.messages import Beat
from hasite.guard.model import Member, Membership, Settings
from hasite.guard.storage import saved
from hasite.guard.wire import decode, encode

from tests.guard.waiting import until

MEMBERS = Membership(1, (Member("a", "x", "127.0.0.1"), Member("w", "y", "127.0.0.2", witness=True)), ("a", "w"))
SETTINGS = Settings("shop", "w", "postgresql", "15", "PrimaryReplica", "asynchronous", False, 5.0, MEMBERS)


def agent(home: Path) -> Agent:
    layout = Layout(home / "data", home / "saved", home / "vote.json", home / "guard.json", home / "tls", home)
    return Agent(SETTINGS, layout, None, address_of=lambda member: (member.address, 1))


async def test_a_folder_that_can_not_be_listed_does_not_end_the_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> tuple[str, ...]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("hasite.guard.agent._ALIVE", 0.01)
    guard = agent(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(guard._notifier, "say", said.append)
    alive = asyncio.create_task(guard._alive())
    await until(lambda: said)
    monkeypatch.setattr("hasite.guard.agent.saved", fails)
    said.clear()
    await until(lambda: len(said) > 3)
    alive.cancel()


async def test_of_much_that_is_kept_a_beat_names_the_newest_and_their_number(tmp_path: Path) -> None:
    names = [f"{epoch}-20261124T{epoch:06d}Z" for epoch in range(1, 6001)]
    for name in names[-1000:]:
        (tmp_path / "saved" / name).mkdir(parents=True)
    beat = agent(tmp_path).status().beat
    assert (len(beat.saved), beat.saved_count) == (TOLD, 1000)
    assert Path(beat.saved[-1]).name == names[-1]
    assert isinstance(decode(encode(beat)), Beat)


def test_what_is_kept_is_told_by_its_time_and_only_what_is_whole(tmp_path: Path) -> None:
    for name in ("12-20261124T100000Z", "9-20261124T090000Z", "foreign-20261124T095000Z", "13-20261124T110000Z.new"):
        (tmp_path / name).mkdir()
    assert [Path(path).name for path in saved(tmp_path)] == [
        "9-20261124T090000Z",
        "foreign-20261124T095000Z",
        "12-20261124T100000Z",
    ]
