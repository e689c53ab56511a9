"""A guard's driver holds real PostgreSQL servers to their roles."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_sql import NotAnswering

from tests.databases.postgresql_lab import Authority, Lab, Node, missing, sync, until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

Opened = Callable[..., Lab]


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """The data of a database that was made, had epoch 1 on member ``a``, and was shut down cleanly."""

    async def make() -> Lab:
        lab = Lab.open("a")
        node = lab.nodes["a"]
        await node.be("primary", epoch=1, create=True, sync=sync(1, "a", 0))
        node.sql("CREATE TABLE t (x int PRIMARY KEY, words text)")
        node.sql("CREATE ROLE shop LOGIN PASSWORD 'secret'; GRANT ALL ON t TO shop")
        await node.be("stopped", epoch=1, clean=True)
        await node.engine.close()
        return lab

    lab = asyncio.run(make())
    yield lab.nodes["a"].layout.data
    lab.stack.close()


@pytest.fixture
async def opened(template: Path) -> AsyncIterator[Opened]:
    """Makes labs whose members all start with the template's data."""
    labs: list[Lab] = []

    def make(names: str, **settings: str) -> Lab:
        labs.append(Lab.open(names, template, **settings))
        return labs[-1]

    yield make
    for lab in labs:
        await lab.close()


def rows(node: Node) -> list[int]:
    return [x for (x,) in node.sql("SELECT x FROM t ORDER BY x")]


def insert(node: Node, *values: int) -> None:
    for value in values:
        node.sql("INSERT INTO t VALUES (%s, %s)", (value, f"row {value}"))


async def writing(node: Node, start: int = 0) -> tuple[asyncio.Task[None], list[int]]:
    """A client that inserts one row after the other until it fails; the list grows with what was acknowledged."""
    acknowledged: list[int] = []

    def write() -> None:
        where = f"host={node.place.sockets} port={node.place.port} user=postgres dbname=postgres"
        connection = psycopg2.connect(where)
        connection.autocommit = True
        with connection.cursor() as cursor:
            value = start
            while True:
                cursor.execute("INSERT INTO t VALUES (%s, 'x')", (value,))
                acknowledged.append(value)
                value += 1

    async def run() -> None:
        try:
            await asyncio.to_thread(write)
        except psycopg2.Error:
            return

    task = asyncio.create_task(run())
    await until(lambda: len(acknowledged) > 50, "fifty rows")
    return task, acknowledged


async def caught_up(node: Node) -> None:
    """Lag is known only as far as the stream tells: so the table itself is looked at."""
    await until(lambda: bool(rows(node)), "the row")


async def timed(work: Awaitable[None]) -> float:
    start = time.monotonic()
    await work
    return time.monotonic() - start


async def test_a_new_database_has_checksums_its_epoch_and_nothing_without_tls(opened: Opened) -> None:
    (a,) = await opened("a").reign()
    assert a.sql("SHOW data_checksums") == [("on",)]
    assert a.sql("SELECT epoch, holder FROM hasite.epoch ORDER BY epoch") == [(1, "a"), (2, "a")]
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        a.sql("SELECT 1", host="127.0.0.1", user="shop", password="secret", sslmode="disable")
    assert a.sql("SELECT 1", host="127.0.0.1", user="shop", password="secret", sslmode="require") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="rejects"):
        a.sql("SELECT 1", host="127.0.0.1", user="postgres", sslmode="require")


async def test_a_member_without_data_makes_none_unless_it_is_told_to(opened: Opened) -> None:
    a = opened("a").nodes["a"]
    shutil.rmtree(a.layout.data)
    assert (await a.engine.observe()).state == "absent"
    await a.be("frozen")
    with pytest.raises(EngineError, match="no data"):
        await a.be("primary", epoch=1)
    assert (await a.engine.observe()).state == "absent"


async def test_a_member_without_data_copies_the_primary_and_follows_it_through_its_slot(opened: Opened) -> None:
    lab = opened("ab")
    b = lab.nodes["b"]
    shutil.rmtree(b.layout.data)
    a, _ = await lab.reign()
    insert(a, 1, 2, 3)
    position = (await a.engine.observe()).position
    look = await b.seen(lambda database: database.position == position and database.drained)
    assert (look.state, look.upstream, look.lag_bytes, look.read_only) == ("standby", "a", 0, True)
    assert rows(b) == [1, 2, 3]
    assert a.sql("SELECT slot_name, active FROM pg_replication_slots") == [("hasite_b", True)]
    assert not b.sql("SELECT 1 FROM pg_replication_slots")


async def test_a_member_whose_authority_is_another_gets_no_copy_and_no_stream(opened: Opened) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    Authority().issue(b.layout.tls, "b", "127.0.0.2", trust=lab.authority)
    with pytest.raises(EngineError, match="SSL error"):
        await b.be("standby", a, epoch=2)
    shutil.rmtree(b.layout.data)
    b.service.kill()
    with pytest.raises(EngineError, match="SSL error"):
        await b.be("standby", a, epoch=2)


async def test_a_certificate_that_names_another_is_not_followed(opened: Opened) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    lab.authority.issue(a.layout.tls, "c", "127.0.0.1")
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    with pytest.raises(EngineError, match="does not match host name"):
        await b.be("standby", a, epoch=2)


async def test_a_synchronous_write_returns_when_a_standby_has_it_and_not_before(opened: Opened) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "ab"))
    write = asyncio.create_task(asyncio.to_thread(insert, a, 1))
    await until(
        lambda: bool(a.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")), "a write that waits"
    )
    assert rows(a) == []
    await b.be("standby", a, epoch=2)
    await asyncio.wait_for(write, 10)
    assert rows(a) == [1]
    await caught_up(b)


async def test_degraded_writes_go_on_when_nobody_is_waited_for_any_more(opened: Opened) -> None:
    a = opened("ab").nodes["a"]
    await a.be("primary", epoch=2, sync=sync(2, "ab"))
    write = asyncio.create_task(asyncio.to_thread(insert, a, 1))
    await until(
        lambda: bool(a.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")), "a write that waits"
    )
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    await asyncio.wait_for(write, 10)


async def test_a_frozen_standby_receives_nothing_more_and_has_replayed_all_it_has(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    task, acknowledged = await writing(a)
    took = await timed(b.be("frozen", epoch=2))
    first = await b.engine.observe()
    count = len(acknowledged)
    await until(lambda: len(acknowledged) > count + 50, "more rows")
    second = await b.engine.observe()
    assert first.position == second.position
    assert first.drained and not first.streaming and first.upstream is None
    assert took < 1.0
    a.engine.kill()
    await task


async def test_a_promoted_standby_writes_its_epoch_first_and_cuts_off_whoever_was_reading(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    insert(a, 1)
    await caught_up(b)
    reader = psycopg2.connect(f"host=127.0.0.2 port={b.place.port} user=shop password=secret dbname=postgres")
    a.engine.kill()
    took = await timed(b.be("primary", epoch=3, sync=sync(3, "ab")))
    assert took < 1.5
    with pytest.raises(psycopg2.OperationalError), reader.cursor() as cursor:
        cursor.execute("SELECT 1")
    look = await b.engine.observe()
    assert (look.state, look.read_only, look.position and look.position.epoch) == ("primary", False, 3)
    assert b.sql("SHOW synchronous_standby_names") == [('ANY 1 ("a")',)]
    assert rows(b) == [1]


async def test_a_standby_turns_to_another_upstream_within_a_moment(opened: Opened) -> None:
    lab = opened("abc")
    a, b, c = await lab.reign()
    insert(a, 1)
    for node in (b, c):
        await caught_up(node)
    a.engine.kill()
    for node in (b, c):
        await node.be("frozen", epoch=2)
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    took = await timed(c.be("standby", b, epoch=3))
    look = await c.engine.observe()
    assert (look.upstream, look.streaming) == ("b", True)
    assert took < 2.0
    insert(b, 2)
    await until(lambda: rows(c) == [1, 2], "the row")


async def test_a_diverged_primary_is_rewound_and_what_it_alone_had_is_saved_with_its_rows(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    insert(a, 1)
    await caught_up(b)
    await b.be("frozen", epoch=2)
    insert(a, 100, 101)
    a.engine.kill()
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    insert(b, 2)
    inode = (a.layout.data / "PG_VERSION").stat().st_ino
    await a.be("frozen", epoch=3)
    assert (await a.engine.observe()).position == await lonely(a)
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming and database.drained)
    await until(lambda: rows(a) == [1, 2], "the rows of the others, and no more")
    assert (a.layout.data / "PG_VERSION").stat().st_ino == inode
    summary, saved = saved_by(a)
    assert summary["rows"] == {"postgres.t": 2}
    assert summary["transactions"] == 2 and summary["epoch"] == 2 and summary["complete"]
    assert '"row 100"' in saved and '"row 101"' in saved


async def lonely(node: Node) -> object:
    look = await node.engine.observe()
    assert look.position is not None and look.position.epoch == 2
    return look.position


def saved_by(node: Node, *, rows: bool = True) -> tuple[dict[str, object], str]:
    """The only summary, and the text of its rows."""
    (folder,) = node.layout.saved.iterdir()
    assert list((folder / "wal").iterdir())
    summary = json.loads((folder / "divergence.json").read_text())
    return summary, (folder / "rows.jsonl").read_text() if rows else ""


async def diverged(lab: Lab) -> tuple[Node, Node]:
    """``a`` has a row of its own, and is down; ``b`` is primary."""
    a, b = await lab.reign()
    await b.be("frozen", epoch=2)
    insert(a, 100)
    a.engine.kill()
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    return a, b


async def test_a_primary_that_cannot_be_rewound_gets_a_fresh_copy(opened: Opened) -> None:
    """The log back to the fork is gone; what is left of it is saved, with its rows."""
    a, b = await diverged(opened("ab", wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB"))
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    a.sql("SELECT pg_drop_replication_slot('hasite_b')")
    for value in (101, 102, 103):
        insert(a, value)
        a.sql("SELECT pg_switch_wal()")
        a.sql("CHECKPOINT")
    insert(a, 104)
    inode = (a.layout.data / "PG_VERSION").stat().st_ino
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming and database.drained)
    assert rows(a) == []
    assert (a.layout.data / "PG_VERSION").stat().st_ino != inode
    summary, saved = saved_by(a)
    assert "row 104" in saved and not summary["complete"]


async def test_data_whose_rewind_was_cut_short_are_copied_afresh(opened: Opened) -> None:
    a, b = await opened("ab").reign()
    await b.be("stopped", epoch=2)
    b.engine._files.unusable.write_text("pg_rewind")
    assert (await b.engine.observe()).state == "failed"
    with pytest.raises(EngineError, match="fresh copy"):
        await b.be("frozen", epoch=2)
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming)


async def test_histories_that_part_on_one_timeline_number_are_told_apart(opened: Opened) -> None:
    """Two members promoted at the same position without knowing of each other are on the same timeline."""
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    insert(a, 100)
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    insert(b, 1, 2, 3)
    timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
    assert a.sql(timeline) == b.sql(timeline)
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming and database.drained)
    await until(lambda: rows(a) == [1, 2, 3], "the others' rows, and no more")
    assert "row 100" in saved_by(a)[1]


async def test_a_member_whose_slot_was_given_up_gets_a_fresh_copy(opened: Opened) -> None:
    lab = opened("ab", max_slot_wal_keep_size="16MB", wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB")
    a, b = await lab.reign()
    await b.be("stopped", epoch=2)
    for _ in range(5):
        a.sql("SELECT pg_switch_wal(); INSERT INTO t SELECT coalesce(max(x), 0) + 1, 'x' FROM t; CHECKPOINT")
    await until(lambda: a.sql("SELECT wal_status FROM pg_replication_slots") == [("lost",)], "the slot's end")
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    inode = (b.layout.data / "PG_VERSION").stat().st_ino
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming and database.drained)
    await until(lambda: rows(b) == [1, 2, 3, 4, 5], "the rows")
    assert (b.layout.data / "PG_VERSION").stat().st_ino != inode


async def test_a_clean_stop_leaves_the_standby_with_everything_and_at_the_same_position(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    task, acknowledged = await writing(a)
    await a.engine.observe()
    await a.be("stopped", epoch=2, clean=True)
    await task
    stopped = await a.engine.observe()
    assert stopped.state == "stopped" and stopped.drained
    await b.be("frozen", epoch=2)
    assert (await b.engine.observe()).position == stopped.position
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    assert set(acknowledged) <= set(rows(b))
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming)
    assert not a.layout.saved.exists()


async def test_a_primary_killed_while_it_writes_has_acknowledged_nothing_that_its_standby_lacks(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign(record=sync(2, "ab"))
    task, acknowledged = await writing(a)
    took = await timed(asyncio.to_thread(a.engine.kill))
    await task
    assert took < 0.5 and not a.service.pids()
    await b.be("frozen", epoch=2)
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    assert set(acknowledged) <= set(rows(b))
    await a.be("standby", b, epoch=3)
    await until(lambda: rows(a) == rows(b), "the same rows")


async def test_a_server_that_comes_up_again_is_a_standby_whatever_it_was(opened: Opened) -> None:
    (a,) = await opened("a").reign()
    a.engine.kill()
    assert (await a.engine.observe()).state == "stopped"
    await a.be("standby", epoch=2)
    look = await a.engine.observe()
    assert (look.state, look.read_only, look.upstream) == ("standby", True, None)


async def test_a_primary_killed_soon_after_its_promotion_counts_all_it_has_when_it_comes_up(opened: Opened) -> None:
    """Such a server lets readers in long before it has replayed its own log."""
    (a,) = await opened("a", checkpoint_timeout="1h").reign()
    a.sql("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n")
    before = await a.engine.observe()
    a.engine.kill()
    await a.be("frozen", epoch=2)
    after = await a.engine.observe()
    assert after.drained and after.position is not None and before.position is not None
    assert after.position >= before.position
    assert len(rows(a)) == 20000


async def test_a_diverged_primary_is_rewound_while_the_new_one_writes(opened: Opened) -> None:
    a, b = await diverged(opened("ab"))
    task, _ = await writing(b, start=1000)
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming)
    assert 100 not in rows(a)
    assert "row 100" in saved_by(a)[1]
    b.engine.kill()
    await task


async def test_a_diverged_primary_whose_last_checkpoint_is_long_ago_is_rewound_and_not_copied(opened: Opened) -> None:
    """pg_rewind reads the log from there on: more of it than a server keeps after its recovery. A slot only helps when
    the checkpoint was quick: what it keeps begins where the standby was at the checkpoint's end."""
    a, b = await opened("ab", wal_keep_size="0").reign()
    a.sql("CHECKPOINT")
    for value in range(4):
        insert(a, value)
        a.sql("SELECT pg_switch_wal()")
    await caught_up(b)
    await b.be("frozen", epoch=2)
    insert(a, 100)
    a.sql("SELECT pg_drop_replication_slot('hasite_b')")
    a.engine.kill()
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    inode = (a.layout.data / "PG_VERSION").stat().st_ino
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming and database.drained)
    assert 100 not in rows(a)
    assert (a.layout.data / "PG_VERSION").stat().st_ino == inode


async def test_data_of_another_database_are_set_apart_before_the_copy(opened: Opened) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    shutil.rmtree(b.layout.data)
    await b.be("primary", epoch=1, create=True, sync=sync(1, "b", 0))
    b.sql("CREATE TABLE mine (x int)")
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming and database.drained)
    assert b.sql("SELECT to_regclass('t'), to_regclass('mine')") == [("t", None)]
    (folder,) = b.layout.saved.iterdir()
    assert (folder / "data" / "PG_VERSION").exists()


async def test_a_standby_that_cannot_start_is_copied_afresh(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    await b.be("stopped", epoch=2)
    control = b.layout.data / "global" / "pg_control"
    control.write_bytes(os.urandom(control.stat().st_size))
    for _ in range(3):
        with pytest.raises(EngineError):
            await b.be("standby", a, epoch=2)
    assert (await b.engine.observe()).state == "failed"
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming)


async def test_an_old_primary_that_cannot_start_keeps_its_log_before_it_is_copied_afresh(opened: Opened) -> None:
    a, b = await diverged(opened("ab"))
    control = a.layout.data / "global" / "pg_control"
    control.write_bytes(os.urandom(control.stat().st_size))
    for _ in range(3):
        with pytest.raises(EngineError):
            await a.be("frozen", epoch=3)
    await a.be("standby", b, epoch=3)
    await a.seen(lambda database: database.streaming)
    summary, _ = saved_by(a, rows=False)
    assert (summary["epoch"], summary["complete"]) == (2, False)


async def test_a_standby_takes_its_slot_when_upstream_has_become_primary(opened: Opened) -> None:
    lab = opened("abc")
    a, b, c = await lab.reign()
    await c.be("standby", b, epoch=2)
    a.engine.kill()
    await b.be("primary", epoch=3, sync=sync(3, "b", 0))
    await c.seen(lambda database: database.streaming)
    await c.be("standby", b, epoch=3)
    await until(lambda: ("hasite_c", True) in b.sql("SELECT slot_name, active FROM pg_replication_slots"), "its slot")


async def test_what_alter_system_says_of_replication_does_not_hold(opened: Opened) -> None:
    (a,) = await opened("a").reign()
    a.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    a.sql("SELECT pg_reload_conf()")
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    assert a.sql("SHOW synchronous_standby_names") == [("",)]


async def test_a_setting_that_the_server_refuses_leaves_the_others_in_force_and_is_told(opened: Opened) -> None:
    (a,) = await opened("a", work_mem="5MB").reign()
    settings = {"work_mem": "much", "shared_buffers": "32MB"}
    a.engine.configure(replace(a.settings, engine_settings=settings))
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    assert a.sql("SHOW work_mem") == [("5MB",)]
    assert "work_mem" in (await a.engine.observe()).detail


async def test_a_hostile_setting_stays_a_value(opened: Opened) -> None:
    hostile = "x' -c fsync=off \\' \\"
    (a,) = await opened("a", application_name=hostile, fsync="off", restore_command="touch /tmp/never").reign()
    assert a.sql("SELECT setting FROM pg_file_settings WHERE name = 'application_name'") == [(hostile,)]
    assert a.sql("SELECT current_setting('fsync'), current_setting('restore_command')") == [("on", "")]


async def test_a_push_that_is_cancelled_has_ended_when_it_returns(opened: Opened) -> None:
    lab = opened("ab")
    a, b = lab.nodes.values()
    await a.be("primary", epoch=2, sync=sync(2, "a", 0))
    shutil.rmtree(b.layout.data)
    push = asyncio.create_task(b.be("standby", a, epoch=2))
    await until(b.engine._files.aside.exists, "a copy under way")
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert (await b.engine.observe()).state == "absent"
    await b.be("standby", a, epoch=2)
    await b.seen(lambda database: database.streaming)


async def test_a_server_that_does_not_answer_is_what_it_was_and_the_look_ends(opened: Opened) -> None:
    (a,) = await opened("a").reign()
    await a.engine.observe()
    for pid in a.service.pids():
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    look = await a.engine.observe()
    assert time.monotonic() - start < 2.0
    assert (look.state, look.streaming) == ("primary", False) and look.detail
    a.engine.kill()
    assert (await a.engine.observe()).state == "stopped"


async def test_an_upstream_that_is_away_is_an_error_and_changes_nothing(opened: Opened) -> None:
    lab = opened("ab")
    a, b = await lab.reign()
    insert(a, 1)
    await caught_up(b)
    a.engine.kill()
    await b.seen(lambda database: not database.streaming)
    await b.be("frozen", epoch=2)
    with pytest.raises(NotAnswering):
        await b.be("standby", a, epoch=2)
    look = await b.engine.observe()
    assert (look.state, look.streaming) == ("standby", False)
    assert rows(b) == [1]
