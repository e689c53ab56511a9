"""A guard's driver holds real MySQL servers to their roles: where it differs from MariaDB's."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hasite.guard.engines.base import Layout
from hasite.guard.engines.mysql import MySQL
from hasite.guard.engines.mysqlcommon import REPLICATION_USER, Place
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.engines.mysqlcommon_sql import Connection, NotAnswering
from hasite.guard.model import Database, Desired, Settings

from tests.databases.mysql_lab import (
    SMALL,
    Authority,
    Lab,
    Node,
    ProcessService,
    available,
    mysql_programs,
    mysql_tree,
    primary,
    standby,
    until,
)

pytestmark = pytest.mark.skipif(
    not available(str(mysql_tree() / "usr/sbin/mysqld")), reason=f"needs MySQL in {mysql_tree()}, and to be root"
)

SYNC = primary(1, "alpha", "beta", required=1)
TREE = {"basedir": "usr", "plugin_dir": "usr/lib/mysql/plugin", "lc_messages_dir": "usr/share/mysql"}
OPTIONS = {name: value for name, value in SMALL.items() if name != "innodb_log_file_size"}
PATIENCE = 90.0


def make(settings: Settings, layout: Layout, place: Place) -> tuple[Driver, ProcessService]:
    tree = mysql_tree()
    programs = mysql_programs(tree, layout.data.parent / "programs")
    extra = {**place.extra, "user": "root", "innodb_redo_log_capacity": "32M"}
    extra |= {name: str(tree / path) for name, path in TREE.items()}
    place = replace(place, user="root", binaries=(programs, programs), extra=extra)
    service = ProcessService([str(programs / "mysqld"), f"--defaults-file={place.configuration}"], "root")
    return MySQL(settings, layout, service, place), service


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A pair, as it is after epoch 1 with two rows in shop.t, both shut down."""
    lab = Lab("mysql", make, small=OPTIONS)

    async def build() -> None:
        alpha, beta = await lab.add("alpha", "beta")
        await alpha.reach(primary(1, "alpha", create=True), seconds=PATIENCE)
        await alpha.ask("CREATE DATABASE shop")
        await alpha.ask("CREATE TABLE shop.t (x INT PRIMARY KEY, words VARCHAR(50))")
        await alpha.ask("INSERT INTO shop.t VALUES (1, 'one'), (2, 'two')")
        await beta.reach(standby(1, "alpha"), alpha, seconds=PATIENCE)
        await streaming(beta)
        for node in (alpha, beta):
            await node.reach(Desired("stopped", 1, clean=True))
            await node.driver.close()

    asyncio.run(build())
    yield lab.root
    asyncio.run(lab.close())


@pytest.fixture
async def pair(template: Path) -> AsyncIterator[tuple[Node, Node]]:
    """alpha is primary of epoch 1, beta its standby, both running. beta answers, alpha does not wait."""
    lab = Lab("mysql", make, small=OPTIONS)
    try:
        alpha, beta = await lab.add("alpha", "beta")
        for node in (alpha, beta):
            data = template / node.member.name / "data"
            await asyncio.to_thread(subprocess.run, ["cp", "-a", str(data), str(node.layout.data)], check=True)
        await alpha.reach(primary(1, "alpha"), seconds=PATIENCE)
        await beta.reach(standby(1, "alpha", "alpha", "beta"), alpha, seconds=PATIENCE)
        await streaming(beta)
        yield alpha, beta
    finally:
        await lab.close()


async def streaming(node: Node) -> Database:
    async def look() -> Database | None:
        database = await node.driver.observe()
        return database if database.streaming else None

    return await until(look)


async def has(node: Node, x: int) -> None:
    async def look() -> bool:
        return bool(await node.values(f"SELECT x FROM shop.t WHERE x = {x}"))

    await until(look)


def write(node: Node, x: int, timeout: float = 5.0) -> "asyncio.Task[list[dict[str, object]]]":
    return asyncio.create_task(node.ask(f"INSERT INTO shop.t VALUES ({x}, 'row {x}')", timeout))


async def test_a_copy_by_the_clone_plugin_streams_read_only(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await write(alpha, 3)
    await has(beta, 3)
    seen = await beta.driver.observe()
    assert (seen.state, seen.upstream, seen.streaming) == ("standby", "alpha", True)
    found = await beta.ask(
        "SELECT @@global.super_read_only AS s, @@global.gtid_mode AS g, @@global.relay_log_recovery AS r,"
        " @@global.sync_binlog AS b, @@global.require_secure_transport AS t, @@global.event_scheduler AS e"
    )
    assert found == [{"s": 1, "g": "ON", "r": 0, "b": 1, "t": 1, "e": "OFF"}]
    uuids = await alpha.values("SELECT @@server_uuid") + await beta.values("SELECT @@server_uuid")
    assert len(set(uuids)) == 2


async def test_a_synchronous_write_waits_for_a_standby_and_returns_when_one_has_it(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    await write(alpha, 3)
    await beta.reach(Desired("frozen", 1))
    waiting = write(alpha, 4, 30.0)
    assert (await asyncio.wait([waiting], timeout=1.0))[1], "it was acknowledged although no standby had it"
    await beta.reach(standby(1, "alpha", "alpha", "beta"), alpha)
    await waiting
    await has(beta, 4)


async def test_a_standby_may_have_a_write_before_its_primary_has_committed_it(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.reach(Desired("standby", 1, "alpha", sync=primary(1, "alpha", "gamma", required=1).sync), alpha)
    await streaming(beta)
    await alpha.reach(SYNC)
    waiting = write(alpha, 3, 30.0)
    await has(beta, 3)
    await beta.reach(Desired("standby", 1, "alpha", sync=SYNC.sync), alpha)

    async def looked() -> bool:
        await alpha.driver.observe()
        return waiting.done()

    await until(looked)
    await waiting
    assert not beta.layout.saved.exists(), "it was taken for a lonely write"


async def test_a_frozen_standby_is_promoted_with_its_epoch_first(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    before = (await beta.reach(Desired("frozen", 1))).position
    alpha.driver.kill()
    now = await beta.reach(primary(2, "alpha", "beta", required=1))
    assert before is not None and now.position is not None
    assert (now.state, now.position.epoch, now.position.offset) == ("primary", 2, before.offset + 1)


async def test_what_an_old_primary_alone_had_is_saved_and_named_before_it_is_copied_afresh(
    pair: tuple[Node, Node],
) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    await beta.reach(Desired("frozen", 1))
    lonely = write(alpha, 66, 30.0)
    await asyncio.wait([lonely], timeout=0.5)
    alpha.driver.kill()
    with pytest.raises(NotAnswering):
        await lonely
    await beta.reach(primary(2, "beta"))
    await write(beta, 3)
    uuid = (alpha.layout.data / "auto.cnf").read_text()
    await alpha.reach(standby(2, "beta"), beta, seconds=PATIENCE)
    await has(alpha, 3)
    assert await alpha.values("SELECT x FROM shop.t ORDER BY x") == [1, 2, 3]
    (folder,) = alpha.layout.saved.iterdir()
    told = json.loads((folder / "saved.json").read_text())
    assert told["rows"] == {"shop.t insert": 1} and told["transactions"] == 1
    assert "row 66" in (folder / "transactions.sql").read_text()
    assert (alpha.layout.data / "auto.cnf").read_text() != uuid, "numbers of lost transactions would be given out again"


async def test_what_a_killed_standby_had_received_but_not_applied_is_not_lost(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    await beta.ask("STOP REPLICA SQL_THREAD")
    for x in range(10, 15):
        await write(alpha, x)
    alpha.driver.kill()
    beta.driver.kill()
    frozen = await beta.reach(Desired("frozen", 1))
    assert frozen.drained
    assert await beta.values("SELECT COUNT(*) FROM shop.t WHERE x >= 10") == [5]
    await beta.reach(primary(2, "beta"))
    await alpha.reach(standby(2, "beta"), beta)
    await streaming(alpha)
    assert not alpha.layout.saved.exists(), "it had nothing alone, and was not copied"


async def test_a_clean_stop_leaves_nothing_that_the_standby_lacks(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    for x in range(200, 220):
        await write(alpha, x)
    stopped = await alpha.reach(Desired("stopped", 1, clean=True))
    frozen = await beta.reach(Desired("frozen", 1))
    assert stopped.state == "stopped"
    assert stopped.position == frozen.position is not None


async def test_a_renewed_certificate_is_shown_to_who_connects_from_then_on(pair: tuple[Node, Node]) -> None:
    alpha, _ = pair
    authority = Authority()
    authority.issue(alpha.layout.tls, "alpha", alpha.member.address)
    await alpha.reach(primary(1, "alpha"))
    where = {"host": alpha.member.address, "port": alpha.place.port, "user": REPLICATION_USER, "password": ""}
    tls = {f"ssl_{kind}": str(alpha.layout.tls / f"{kind}.pem") for kind in ("ca", "cert", "key")}
    connection = await asyncio.to_thread(Connection, {**where, **tls})
    connection.close()
