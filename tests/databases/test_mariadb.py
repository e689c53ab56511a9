"""A guard's driver holds real MariaDB servers to their roles."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.mariadb import MariaDB
from hasite.guard.engines.mysqlcommon import Place
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.engines.mysqlcommon_sql import Connection, NotAnswering, SqlError
from hasite.guard.model import Database, Desired, Settings

from tests.databases.mysql_lab import Authority, Lab, Node, ProcessService, available, primary, standby, until

T = TypeVar("T")

SERVER = "/usr/sbin/mariadbd"

pytestmark = pytest.mark.skipif(not available(SERVER), reason="needs mariadb-server, mariadb-backup, and to be root")

SYNC = primary(1, "alpha", "beta", required=1)


def make(settings: Settings, layout: Layout, place: Place) -> tuple[Driver, ProcessService]:
    service = ProcessService([SERVER, f"--defaults-file={place.configuration}"], "mysql")
    return MariaDB(settings, layout, service, place), service


async def build(root: Path) -> None:
    """A pair, as it is after epoch 1 with two rows in shop.t, both shut down."""
    lab = Lab("mariadb", make, root=root)
    try:
        alpha, beta = await lab.add("alpha", "beta")
        await alpha.reach(primary(1, "alpha", create=True))
        await alpha.ask("CREATE DATABASE shop")
        await alpha.ask("CREATE TABLE shop.t (x INT PRIMARY KEY, words VARCHAR(50))")
        await alpha.ask("INSERT INTO shop.t VALUES (1, 'one'), (2, 'two')")
        await alpha.ask("CREATE USER app@'%' IDENTIFIED BY 'secret'")
        await alpha.ask("GRANT ALL ON shop.* TO app@'%'")
        await beta.reach(standby(1, "alpha"), alpha)
        await streaming(beta)
        for node in (alpha, beta):
            await node.reach(Desired("stopped", 1, clean=True))
    finally:
        for node in lab.nodes.values():
            await node.driver.close()
            node.service.kill()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    lab = Lab("mariadb", make)
    asyncio.run(build(lab.root))
    yield lab.root
    asyncio.run(lab.close())


@pytest.fixture
async def lab(template: Path) -> AsyncIterator[Lab]:
    made = Lab("mariadb", make)
    yield made
    await made.close()


@pytest.fixture
async def pair(lab: Lab, template: Path) -> tuple[Node, Node]:
    """alpha is primary of epoch 1, beta its standby, both running. beta answers, alpha does not wait."""
    alpha, beta = await lab.add("alpha", "beta")
    for node in (alpha, beta):
        await revive(node, template)
    await alpha.reach(primary(1, "alpha"))
    await beta.reach(standby(1, "alpha", "alpha", "beta"), alpha)
    await streaming(beta)
    return alpha, beta


async def revive(node: Node, template: Path) -> None:
    data = template / node.member.name / "data"
    await asyncio.to_thread(subprocess.run, ["cp", "-a", str(data), str(node.layout.data)], check=True)


async def streaming(node: Node) -> Database:
    async def look() -> Database | None:
        database = await node.driver.observe()
        return database if database.streaming else None

    return await until(look)


async def has(node: Node, x: int) -> None:
    async def look() -> bool:
        return bool(await node.values(f"SELECT x FROM shop.t WHERE x = {x}"))

    await until(look)


async def follows(leader: Node, *names: str) -> None:
    async def look() -> bool:
        return (await leader.driver.observe()).followers == frozenset(names)

    await until(look)


async def watched(node: Node, task: "asyncio.Task[T]") -> T:
    """Looks at the node, as its guard does all the time, until the task is done."""

    async def look() -> bool:
        await node.driver.observe()
        return task.done()

    await until(look)
    return await task


def write(node: Node, x: int, timeout: float = 5.0) -> "asyncio.Task[list[dict[str, object]]]":
    return asyncio.create_task(node.ask(f"INSERT INTO shop.t VALUES ({x}, 'row {x}')", timeout))


def saved(node: Node) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(node.layout.saved.glob("*/saved.json"))]


async def test_a_server_starts_read_only_and_with_the_settings_that_replication_needs(lab: Lab, template: Path) -> None:
    (alpha,) = await lab.add("alpha")
    await revive(alpha, template)
    begun = await alpha.reach(standby(1, None))
    assert (begun.state, begun.read_only, begun.drained) == ("standby", True, True)
    wanted = {
        "sync_binlog": "1",
        "innodb_flush_log_at_trx_commit": "1",
        "binlog_format": "ROW",
        "gtid_strict_mode": "ON",
        "log_slave_updates": "ON",
        "relay_log_recovery": "ON",
        "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
        "rpl_semi_sync_master_timeout": "315360000000",
        "require_secure_transport": "ON",
        "event_scheduler": "OFF",
        "slave_net_timeout": "2",
    }
    rows = await alpha.ask("SHOW GLOBAL VARIABLES")
    found = {str(row["Variable_name"]): str(row["Value"]) for row in rows}
    assert {name: found[name] for name in wanted} == wanted


async def test_a_member_without_data_and_without_an_upstream_stays_absent(lab: Lab) -> None:
    _, beta = await lab.add("alpha", "beta")
    assert (await beta.reach(standby(0, None))).state == "absent"


async def test_only_a_primary_that_may_create_makes_a_database(lab: Lab) -> None:
    (alpha,) = await lab.add("alpha")
    assert (await alpha.reach(Desired("frozen"))).state == "absent"
    with pytest.raises(EngineError, match="none may be made"):
        await alpha.driver.reach(primary(3, "alpha"), None)


async def test_a_copy_streams_and_receives_what_is_written_after_it(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await write(alpha, 3)
    await has(beta, 3)
    seen = await beta.driver.observe()
    assert (seen.upstream, seen.streaming, seen.state) == ("alpha", True, "standby")
    await follows(alpha, "beta")


async def test_a_standby_serves_copies_as_well(pair: tuple[Node, Node], lab: Lab) -> None:
    alpha, beta = pair
    alpha.driver.configure(lab.settings("alpha", (alpha.member, beta.member)))
    await alpha.reach(Desired("stopped", 1, clean=True))
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(alpha.layout.data)], check=True)
    await alpha.driver.reach(standby(1, "beta"), beta.member)
    assert sorted(await alpha.values("SELECT x FROM shop.t")) == [1, 2]


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


async def test_a_standby_that_is_not_eligible_acknowledges_nothing(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    alone = primary(1, "alpha", "gamma", required=1)
    await beta.reach(Desired("standby", 1, "alpha", sync=alone.sync), alpha)
    await streaming(beta)
    await alpha.reach(alone)
    waiting = write(alpha, 3, 30.0)
    assert (await asyncio.wait([waiting], timeout=1.0))[1]
    await has(beta, 3)
    await beta.reach(Desired("standby", 1, "alpha", sync=SYNC.sync), alpha)
    await watched(alpha, waiting)


async def test_a_standby_of_a_primary_that_waits_for_nobody_acknowledges_nothing(pair: tuple[Node, Node]) -> None:
    """It could be the next that the server waits for, whoever is meant."""
    alpha, beta = pair
    degraded = primary(1, "alpha", required=0)
    await alpha.reach(degraded)
    silent = await beta.reach(Desired("standby", 1, "alpha", sync=degraded.sync), alpha)
    assert not silent.acknowledging

    async def receives() -> bool:
        return (await alpha.driver.observe()).receivers == {"beta"}

    await until(receives)
    await alpha.reach(primary(1, "alpha", "gamma", required=1, version=2))
    waiting = write(alpha, 3, 30.0)
    assert (await asyncio.wait([waiting], timeout=1.0))[1], "acknowledged by one that is not eligible"
    answering = await beta.reach(standby(1, "alpha", "alpha", "beta"), alpha)
    assert answering.acknowledging
    await watched(alpha, waiting)


async def test_more_standbys_than_the_server_can_wait_for_are_refused(pair: tuple[Node, Node]) -> None:
    alpha, _ = pair
    with pytest.raises(EngineError, match="can wait for 1 standby"):
        await alpha.driver.reach(primary(1, "alpha", "beta", "gamma", required=2), None)


async def test_degrading_lets_waiting_writes_return(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    await beta.reach(Desired("frozen", 1))
    waiting = write(alpha, 3, 30.0)
    await asyncio.wait([waiting], timeout=0.3)
    await alpha.reach(primary(1, "alpha", required=0, version=2))
    await waiting


async def test_a_frozen_standby_receives_nothing_and_has_applied_what_it_received(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await write(alpha, 3)
    began = time.monotonic()
    frozen = await beta.reach(Desired("frozen", 1))
    assert time.monotonic() - began < 1.0
    await write(alpha, 4)
    again = await beta.driver.observe()
    assert frozen.drained and not frozen.streaming
    assert (again.position, again.drained) == (frozen.position, True)


async def test_a_standby_freezes_at_once_although_its_primary_says_nothing_any_more(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    (pid,) = alpha.service.pids()
    os.kill(pid, signal.SIGSTOP)
    try:

        async def broken() -> bool:
            return not (await beta.driver.observe()).streaming

        began = time.monotonic()
        await until(broken)
        noticed = time.monotonic() - began
        began = time.monotonic()
        frozen = await beta.reach(Desired("frozen", 1))
        assert frozen.drained and time.monotonic() - began < 1.5
        assert noticed < 4.0, "the stream's silence must show before a lease of three seconds is over for long"
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_promoted_standby_writes_its_epoch_first_and_waits_for_nobody_with_it(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.reach(Desired("frozen", 1))
    before = (await beta.driver.observe()).position
    alpha.driver.kill()
    began = time.monotonic()
    now = await beta.reach(primary(2, "alpha", "beta", required=1))
    assert time.monotonic() - began < 2.0
    assert before is not None and now.position is not None
    assert (now.state, now.position.epoch, now.position.offset) == ("primary", 2, before.offset + 1)
    rows = await beta.ask("SELECT holder, begins FROM hasite.epoch WHERE epoch = 2")
    assert rows == [{"holder": "beta", "begins": before.offset}]


async def test_a_standby_refuses_the_writes_of_applications(pair: tuple[Node, Node]) -> None:
    _, beta = pair
    command = ["mariadb", "--no-defaults", f"--socket={beta.place.socket}", "-uapp", "-psecret", "-e"]
    done = await asyncio.to_thread(subprocess.run, [*command, "INSERT INTO shop.t VALUES (9, '')"], capture_output=True)
    assert b"read-only" in done.stderr


async def test_a_standby_turns_to_a_new_primary_without_a_copy(lab: Lab, template: Path) -> None:
    alpha, beta, gamma = await lab.add("alpha", "beta", "gamma")
    for node in (alpha, beta):
        await revive(node, template)
    await alpha.reach(primary(1, "alpha"))
    for node in (beta, gamma):
        await node.reach(standby(1, "alpha"), alpha)
        await streaming(node)
    await write(alpha, 3)
    for node in (beta, gamma):
        await has(node, 3)
        await node.reach(Desired("frozen", 1))
    alpha.driver.kill()
    await beta.reach(primary(2, "beta", "gamma", required=1))
    began = time.monotonic()
    await gamma.reach(standby(2, "beta", "beta", "gamma"), beta)
    assert time.monotonic() - began < 2.0
    await write(beta, 4)
    await has(gamma, 4)
    await alpha.reach(standby(2, "beta"), beta)
    await has(alpha, 4)
    assert not saved(alpha) and not saved(gamma), "nobody had anything alone"


async def test_what_an_old_primary_alone_had_is_saved_and_named_before_it_follows(pair: tuple[Node, Node]) -> None:
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
    await alpha.reach(standby(2, "beta"), beta)
    await has(alpha, 3)
    assert await alpha.values("SELECT x FROM shop.t ORDER BY x") == [1, 2, 3]
    (told,) = saved(alpha)
    assert told["rows"] == {"shop.t insert": 1} and told["transactions"] == 1
    (folder,) = alpha.layout.saved.iterdir()
    assert "row 66" in (folder / "transactions.sql").read_text()
    assert list(folder.glob("binlog.0*"))


async def test_a_standby_does_not_follow_a_primary_that_has_not_begun_the_epoch(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.reach(Desired("frozen", 1))
    await beta.reach(standby(1, None))
    with pytest.raises(EngineError, match="has not begun epoch 5"):
        await beta.driver.reach(standby(5, "alpha"), alpha.member)


async def test_what_a_killed_standby_had_received_but_not_applied_is_not_lost(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    await beta.ask("STOP SLAVE SQL_THREAD")
    for x in range(10, 15):
        await write(alpha, x)
    alpha.driver.kill()
    beta.driver.kill()
    frozen = await beta.reach(Desired("frozen", 1))
    assert frozen.drained
    assert await beta.values("SELECT COUNT(*) FROM shop.t WHERE x >= 10") == [5]
    promoted = await beta.reach(primary(2, "beta"))
    assert promoted.state == "primary"
    await alpha.reach(standby(2, "beta"), beta)
    await streaming(alpha)
    assert not saved(alpha)


async def test_a_large_row_that_was_received_but_not_applied_is_not_lost(pair: tuple[Node, Node]) -> None:
    """As a statement it is longer than the server takes by default."""
    alpha, beta = pair
    usual = await beta.values("SELECT @@global.max_allowed_packet")
    await alpha.ask("CREATE TABLE shop.big (id INT PRIMARY KEY, b LONGBLOB)")
    await alpha.reach(SYNC)
    await beta.ask("STOP SLAVE SQL_THREAD")
    await alpha.ask("INSERT INTO shop.big VALUES (1, REPEAT('x', 14000000))", 30.0)
    alpha.driver.kill()
    beta.driver.kill()
    frozen = await beta.reach(Desired("frozen", 1))
    assert frozen.drained
    assert await beta.values("SELECT LENGTH(b) FROM shop.big") == [14000000]
    assert await beta.values("SELECT @@global.max_allowed_packet") == usual


async def test_a_kill_takes_a_moment_even_while_it_writes(pair: tuple[Node, Node]) -> None:
    alpha, _ = pair
    writes = [write(alpha, x) for x in range(100, 130)]
    began = time.monotonic()
    alpha.driver.kill()
    assert time.monotonic() - began < 0.5
    await asyncio.gather(*writes, return_exceptions=True)
    assert (await alpha.driver.observe()).state == "stopped"
    assert (await alpha.reach(standby(1, None))).state == "standby"


async def test_a_clean_stop_leaves_nothing_that_the_standby_lacks(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await alpha.reach(SYNC)
    for x in range(200, 230):
        await write(alpha, x)
    began = time.monotonic()
    stopped = await alpha.reach(Desired("stopped", 1, clean=True))
    assert time.monotonic() - began < 3.0
    frozen = await beta.reach(Desired("frozen", 1))
    assert stopped.state == "stopped"
    assert stopped.position == frozen.position is not None


async def test_a_standby_that_lost_a_row_is_copied_afresh(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.ask("SET STATEMENT sql_log_bin=0 FOR DELETE FROM shop.t WHERE x = 1")
    await alpha.ask("UPDATE shop.t SET words = 'uno' WHERE x = 1")

    async def broken() -> bool:
        return not (await beta.driver.observe()).streaming

    await until(broken)
    await beta.reach(standby(1, "alpha"), alpha)
    await streaming(beta)
    assert await beta.values("SELECT words FROM shop.t WHERE x = 1") == ["uno"]
    assert saved(beta), "what it had since the epoch began is kept"


async def test_a_standby_that_does_not_start_any_more_is_copied_afresh(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    beta.driver.kill()
    (beta.layout.data / "ibdata1").write_bytes(b"x" * 12_000_000)
    await beta.reach(standby(1, "alpha"), alpha, seconds=60)
    await streaming(beta)
    (told,) = saved(beta)
    assert "does not start" in str(told["reason"])


async def test_a_standby_that_stopped_applying_goes_on(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.ask("STOP SLAVE SQL_THREAD")
    await write(alpha, 3)
    await beta.ask("STOP SLAVE IO_THREAD")
    await beta.reach(standby(1, "alpha"), alpha)
    await has(beta, 3)
    assert not saved(beta)


async def test_a_standby_whose_next_transactions_the_primary_has_purged_is_copied_afresh(
    pair: tuple[Node, Node],
) -> None:
    alpha, beta = pair
    await beta.reach(Desired("stopped", 1, clean=True))
    await write(alpha, 3)
    await alpha.ask("FLUSH BINARY LOGS")
    last = (await alpha.ask("SHOW BINARY LOGS"))[-1]["Log_name"]
    await alpha.ask(f"PURGE BINARY LOGS TO '{last}'")
    await beta.reach(standby(1, "alpha"), alpha)

    async def again() -> bool:
        await beta.reach(standby(1, "alpha"), alpha)
        return bool(await beta.values("SELECT x FROM shop.t WHERE x = 3"))

    await until(again)


async def test_a_member_of_another_cluster_gets_no_copy(pair: tuple[Node, Node]) -> None:
    _, beta = pair
    await beta.reach(Desired("stopped", 1, clean=True))
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(beta.layout.data)], check=True)
    Authority().issue(beta.layout.tls, "beta", beta.member.address)
    with pytest.raises(EngineError, match="no copy from alpha"):
        await beta.driver.reach(standby(1, "alpha"), pair[0].member)
    assert (await beta.driver.observe()).state == "absent"


async def test_a_copy_that_breaks_off_is_no_database(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.reach(Desired("stopped", 1, clean=True))
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(beta.layout.data)], check=True)
    copying = asyncio.create_task(beta.driver.reach(standby(1, "alpha"), alpha.member))
    fresh = beta.layout.data.with_name("data.new")

    async def begun() -> bool:
        return fresh.is_dir() and any(fresh.iterdir())

    await until(begun)
    alpha.driver.kill()
    with pytest.raises(EngineError):
        await copying
    assert (await beta.driver.observe()).state == "absent"


async def test_a_cancelled_promotion_changes_nothing_afterwards(pair: tuple[Node, Node]) -> None:
    alpha, beta = pair
    await beta.reach(Desired("frozen", 1))
    alpha.driver.kill()
    for delay in (0.0, 0.005, 0.01, 0.02):
        promoting = asyncio.create_task(beta.driver.reach(primary(2, "beta"), None))
        await asyncio.wait([promoting], timeout=delay)
        promoting.cancel()
        await asyncio.wait([promoting])
        state = await beta.values("SELECT @@read_only")
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.1))])
        assert await beta.values("SELECT @@read_only") == state
        if state == [0]:
            break


async def test_a_setting_that_the_server_does_not_take_does_not_keep_it_down(lab: Lab, template: Path) -> None:
    lab.parameters = {"innodb_buffer_pool_sise": "1G", "max_connections": "77"}
    (alpha,) = await lab.add("alpha")
    await revive(alpha, template)
    assert (await alpha.reach(standby(1, None))).state == "standby"


async def test_the_users_settings_reach_the_server_and_those_that_are_denied_do_not(lab: Lab, template: Path) -> None:
    lab.parameters = {"sort_buffer_size": "1048576", "read_only": "OFF", "sync_binlog": "0"}
    (alpha,) = await lab.add("alpha")
    await revive(alpha, template)
    await alpha.reach(standby(1, None))
    found = await alpha.ask("SELECT @@global.read_only AS r, @@global.sync_binlog AS s, @@global.sort_buffer_size AS b")
    assert found == [{"r": 1, "s": 1, "b": 1048576}]


async def test_a_renewed_certificate_is_shown_to_who_connects_from_then_on(
    lab: Lab, pair: tuple[Node, Node], tmp_path: Path
) -> None:
    alpha, beta = pair
    lab.authority.issue(alpha.layout.tls, "alpha", alpha.member.address)
    await alpha.reach(primary(1, "alpha"))
    assert await asyncio.to_thread(shown, alpha) == (alpha.layout.tls / "cert.pem").read_text()
    (alpha.layout.tls / "key.pem").rename(tmp_path / "key.pem")
    lab.authority.issue(alpha.layout.tls, "alpha", alpha.member.address)
    whole = (alpha.layout.tls / "key.pem").read_bytes()
    (alpha.layout.tls / "key.pem").write_bytes((tmp_path / "key.pem").read_bytes())  # it comes a moment later
    await alpha.reach(primary(1, "alpha"))
    assert (await asyncio.to_thread(shown, alpha)).startswith("-----BEGIN"), "the old one is in force"
    (alpha.layout.tls / "key.pem").write_bytes(whole)
    await alpha.reach(primary(1, "alpha"))
    assert await asyncio.to_thread(shown, alpha) == (alpha.layout.tls / "cert.pem").read_text()
    await beta.reach(Desired("frozen", 1))
    await beta.reach(standby(1, "alpha"), alpha)
    await streaming(beta)


def shown(node: Node) -> str:
    """The certificate that the server shows."""
    where = {"host": node.member.address, "port": node.place.port, "user": "app", "password": "secret"}
    connection = Connection({**where, "ssl_ca": str(node.layout.tls / "ca.pem")})
    try:
        assert isinstance(connection.socket, ssl.SSLSocket)
        return ssl.DER_cert_to_PEM_cert(connection.socket.getpeercert(binary_form=True) or b"")
    finally:
        connection.close()


async def test_an_application_without_tls_is_refused(pair: tuple[Node, Node]) -> None:
    alpha, _ = pair
    command = ["mariadb", "--no-defaults", f"-h{alpha.member.address}", f"-P{alpha.place.port}", "-uapp", "-psecret"]
    tried = [
        await asyncio.to_thread(subprocess.run, [*command, tls, "-e", "SELECT 1"], capture_output=True)
        for tls in ("--ssl", "--skip-ssl")
    ]
    assert [one.returncode for one in tried] == [0, 1], tried


async def test_a_statement_of_the_guards_that_is_refused_says_why(pair: tuple[Node, Node]) -> None:
    with pytest.raises(SqlError, match="1146"):
        await pair[0].ask("SELECT * FROM shop.missing")
