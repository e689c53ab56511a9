"""A copy between members: whole or refused, never in between."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hasite.guard.copy import CopyServer, output, receive
from hasite.guard.engines.base import EngineError, Layout

from tests.databases.mysql_lab import Authority


@dataclass
class Ends:
    """alpha serves; beta is a member; gamma has a certificate and is none."""

    source: tuple[str, str, int]
    beta: Layout
    gamma: Layout
    taken: bytearray

    async def fetch(self, layout: Layout, kind: str = "whole", source: tuple[str, str, int] | None = None) -> int:
        async def take(part: bytes) -> None:
            self.taken.extend(part)

        return await receive(layout, source or self.source, kind, take)


async def produce(kind: str) -> AsyncGenerator[bytes, None]:
    yield b"x" * 100_000
    if kind == "fails":
        raise EngineError("the disk is full")
    if kind == "slow":
        await asyncio.Event().wait()
    yield b"y" * 50_000


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    authority = Authority()
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.11"
    layouts = {}
    for name in ("alpha", "beta", "gamma"):
        layouts[name] = Layout(tls=tmp_path / name)
        authority.issue(tmp_path / name, name, address)
    port = random.randint(20000, 30000)
    server = CopyServer(layouts["alpha"], (address, port), produce, lambda name: name == "beta")
    await server.start()
    yield Ends(("alpha", address, port), layouts["beta"], layouts["gamma"], bytearray())
    await server.close()


async def test_a_member_gets_every_byte(ends: Ends) -> None:
    assert await ends.fetch(ends.beta) == 150_000
    assert ends.taken == b"x" * 100_000 + b"y" * 50_000


async def test_a_certificate_alone_does_not_make_a_member(ends: Ends) -> None:
    with pytest.raises(EngineError, match="'gamma' is no member"):
        await ends.fetch(ends.gamma)
    assert not ends.taken


async def test_a_source_that_fails_says_so_in_its_own_words(ends: Ends) -> None:
    with pytest.raises(EngineError, match="the disk is full"):
        await ends.fetch(ends.beta, "fails")


async def test_one_copy_is_given_at_a_time(ends: Ends) -> None:
    first = asyncio.create_task(ends.fetch(ends.beta, "slow"))
    while not ends.taken:
        await asyncio.wait([first], timeout=0.01)
    with pytest.raises(EngineError, match="another copy is under way"):
        await ends.fetch(ends.beta)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_source_that_is_not_who_it_is_taken_for_is_refused(ends: Ends) -> None:
    _, address, port = ends.source
    with pytest.raises(EngineError, match="is 'alpha'"):
        await ends.fetch(ends.beta, source=("delta", address, port))


async def test_a_program_that_fails_is_told_by_its_last_words(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo begun; echo no space left >&2; exit 3"]
    with pytest.raises(EngineError, match="no space left"):
        async for _ in output(command, tmp_path / "words"):
            pass
