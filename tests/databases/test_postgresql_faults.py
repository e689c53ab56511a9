"""A guard's driver with PostgreSQL servers whose parts hang, start with too little, or don't start at all."""

import asyncio
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hasite.guard.engines import postgresql_copy, postgresql_saved
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.copies import Copies
from hasite.guard.model import Desired

from tests.databases.postgresql_lab import Node, missing, sync, until
from tests.databases.test_postgresql import Opened, caught_up, insert, opened, rows, template

__all__ = ["opened", "template"]

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def checkpointer(node: Node) -> int:
    return int(node.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")[0][0])


async def waits(node: Node, value: int) -> bool:
    """Whether a write is not acknowledged for a while. It ends with the server."""

    async def write() -> None:
        try:
            await asyncio.to_thread(insert, node, value)
        except psycopg2.Error:
            return

    writing = asyncio.create_task(write())
    done, _ = await asyncio.wait([writing], timeout=1.5)
    return not done


async def test_a_write_waits_from_the_first_on_although_the_checkpointer_hangs(opened: Opened) -> None:
    a, b = await opened("ab").reign()
    a.engine.kill()
    await b.be("frozen")
    os.kill(checkpointer(b), signal.SIGSTOP)
    await b.be("primary", epoch=3, sync=sync(3, "ba"))
    assert await waits(b, 1)
    b.engine.kill()


async def test_a_primary_is_not_said_to_wait_before_its_checkpointer_says_so_to_its_sessions(opened: Opened) -> None:
    (a,) = await opened("a").reign()
    hanging = checkpointer(a)
    os.kill(hanging, signal.SIGSTOP)
    push = asyncio.create_task(a.be("primary", epoch=2, sync=sync(2, "ab")))
    await until(lambda: a.sql("SHOW synchronous_standby_names") == [('ANY 1 ("b")',)], "the setting")
    done, _ = await asyncio.wait([push], timeout=1.0)
    assert not done, "a write would still be acknowledged at once"
    os.kill(hanging, signal.SIGCONT)
    await push
    assert await waits(a, 1)
    a.engine.kill()


async def test_a_server_that_does_not_answer_tells_no_position_from_before(opened: Opened) -> None:
    _, b = await opened("ab").reign()
    before = await b.engine.observe()
    assert before.position is not None and before.streaming
    for pid in b.service.pids():
        os.kill(pid, signal.SIGSTOP)
    late = await b.engine.observe()
    assert (late.state, late.position, late.drained, late.streaming) == ("standby", None, False, False)
    b.engine.kill()


@pytest.mark.parametrize("role", ["standby", "frozen"])
async def test_a_standby_whose_replay_is_paused_by_a_raised_setting_is_started_anew(opened: Opened, role: str) -> None:
    a, b = await opened("ab").reign()
    more = {**a.settings.engine_settings, "max_connections": "150"}
    for node in (a, b):
        node.engine.configure(replace(node.settings, engine_settings=more))
    a.engine.kill()
    await a.be("primary", epoch=3, sync=sync(3, "a", 0))
    insert(a, 1)
    await b.seen(lambda database: "paused" in database.detail)
    if role == "frozen":
        a.engine.kill()
        await b.be("frozen")
    else:
        await b.be("standby", a, epoch=3)
        await b.seen(lambda database: database.streaming)
        await caught_up(b)
    assert rows(b) == [1]
    assert b.sql("SHOW max_connections") == [("150",)]


async def test_data_that_may_be_the_only_second_copy_are_not_taken_away_for_another(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "ab"))
    monkeypatch.setattr(postgresql_copy, "crowded", lambda server: "a copy needs 2 MiB beside the data, and 1 are free")
    b.engine._deaths = 3
    with pytest.raises(EngineError, match="only second copy"):
        await b.be("standby", a, epoch=2, sync=sync(2, "ab"))
    assert (b.layout.data / "PG_VERSION").exists()
    away = replace(a.member, address="127.0.0.99")
    with pytest.raises(EngineError):
        await b.engine.reach(Desired("standby", 2, "a", sync=sync(2, "a", 0)), away)
    assert (b.layout.data / "PG_VERSION").exists(), "nobody there to copy from"
    await b.be("standby", a, epoch=2, sync=sync(2, "a", 0))
    await b.seen(lambda database: database.streaming)


async def test_a_server_that_can_not_start_is_copied_once_and_goes_on_by_itself(opened: Opened) -> None:
    a, b = await opened("ab").reign()
    b.engine.kill()
    copies = counted(b)
    control = b.layout.data / "global" / "pg_control"
    start, b.service.start = b.service.start, failing  # type: ignore[method-assign]
    for _ in range(12):
        with pytest.raises(EngineError, match="no memory"):
            await b.be("standby", a, epoch=2)
    assert len(copies) == 1 and control.exists()
    assert (await b.engine.observe()).state == "failed"
    b.service.start = start  # type: ignore[method-assign]
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming)
    assert len(copies) == 1


async def failing() -> None:
    raise EngineError("no memory")


def counted(node: Node) -> list[float]:
    """When data were copied."""
    found: list[float] = []
    original = node.engine._clone

    async def clone(upstream: Any) -> None:
        found.append(time.monotonic())
        await original(upstream)

    node.engine._clone = clone  # type: ignore[method-assign]
    return found


async def test_a_setting_that_keeps_the_server_down_is_left_out_before_the_data_are_blamed(opened: Opened) -> None:
    a, b = await opened("ab").reign()
    b.engine.kill()
    copies = counted(b)
    b.engine.configure(replace(b.settings, engine_settings={**b.settings.engine_settings, "shared_buffers": "8000GB"}))
    for _ in range(2):
        with pytest.raises(EngineError):
            await b.be("standby", a, epoch=2)
    await b.be("standby", a, epoch=2)
    look = await b.seen(lambda database: database.streaming)
    assert "without the settings" in look.detail
    assert not copies


def test_copies_of_damaged_data_are_made_ever_more_rarely() -> None:
    copies = Copies()
    made = []
    for now in range(0, 3 * 86400, 10):
        if copies.due(now):
            copies.made(now)
            made.append(now)
    assert made[:4] == [0, 300, 900, 2100] and len(made) < 12


async def test_after_a_restart_of_the_guard_a_refused_setting_still_leaves_the_others_in_force(opened: Opened) -> None:
    (a,) = await opened("a", work_mem="5MB").reign()
    worse = replace(a.settings, engine_settings={**a.settings.engine_settings, "work_mem": "much"})
    a.engine.configure(worse)
    again = type(a.engine)(worse, a.layout, a.service, a.place)
    for engine in (a.engine, again):
        await engine.reach(Desired("primary", 2, sync=sync(2, "a", 0)), None)
        assert a.sql("SHOW work_mem") == [("5MB",)]
        assert "work_mem" in (await engine.observe()).detail
    again.configure(a.settings)
    await again.reach(Desired("primary", 2, sync=sync(2, "a", 0)), None)
    assert not (await again.observe()).detail
    await again.close()


async def test_rows_that_are_saved_are_bounded_in_bytes_as_well(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (a,) = await opened("a").reign()
    monkeypatch.setattr(postgresql_saved, "ROW", 1000)
    monkeypatch.setattr(postgresql_saved, "BYTES", 5000)
    transaction = a.sql("BEGIN; INSERT INTO t SELECT i, 'row' FROM generate_series(1, 20) i; SELECT txid_current()")
    a.sql("COMMIT")
    assert transaction
    mine = str(a.sql("INSERT INTO t VALUES (100, repeat('x', 2000)) RETURNING xmin::text")[0][0])
    many = str(
        a.sql("INSERT INTO t SELECT i, repeat('y', 500) FROM generate_series(200, 240) i RETURNING xmin::text")[0][0]
    )
    (oid,) = a.sql("SELECT oid::int8 FROM pg_database WHERE datname = 'postgres'")[0]
    (node,) = a.sql("SELECT pg_relation_filenode('t')::int8")[0]
    found = postgresql_saved.Divergence("a", 2, "", 1, "0/0", "0/0", 0)
    changes = postgresql_saved.Changes(2, frozenset({mine, many}), frozenset({(oid, 0, node)}))
    await postgresql_saved._rows(a.engine._server, found, changes, tmp_path / "rows.jsonl")
    assert not found.complete and "more than" in found.remarks[0]
    assert 0 < found.rows["postgres.t"] < 12
    assert (tmp_path / "rows.jsonl").stat().st_size < 6000


def test_what_an_earlier_try_to_save_left_half_done_goes(tmp_path: Path) -> None:
    found = postgresql_saved.Divergence("a", 2, "", 1, "0/0", "0/0", 0)
    (tmp_path / "2-20261124T000000.000000Z" / "wal").mkdir(parents=True)
    for _ in range(3):
        postgresql_saved._begin(tmp_path, found)
    assert len(list(tmp_path.glob("*.new"))) == 1
    assert len(list(tmp_path.iterdir())) == 2
    shutil.rmtree(tmp_path)
