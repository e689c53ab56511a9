"""What has to be true of a ring, whatever its servers are."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator

import pytest_asyncio
from hasite.guard.engines.mysqlcommon_sql import Connection
from hasite.guard.model import Conflict

from tests.databases.mysql_lab import Lab, Node, until
from tests.databases.ring_lab import WITNESS, Ring


@pytest_asyncio.fixture
async def pair(lab: Lab) -> AsyncIterator[Ring]:
    ring = Ring(lab, ("alpha", "beta"))
    try:
        await ring.begin()
        yield ring
    finally:
        await ring.close()


@pytest_asyncio.fixture
async def three(lab: Lab) -> AsyncIterator[Ring]:
    ring = Ring(lab, ("alpha", "beta", "gamma"))
    try:
        await ring.begin()
        yield ring
    finally:
        await ring.close()


async def test_both_are_written_at_once_and_have_the_same_rows_afterwards(pair: Ring) -> None:
    pair.write("alpha", "beta")
    await pair.written(20)
    await pair.rest()
    await pair.complete()
    by_member = {
        name: {row[0] % 16 for row in await pair.rows("alpha") if row[1].startswith(name)} for name in pair.names
    }
    assert by_member == {"alpha": {1}, "beta": {2}}


async def test_writes_go_on_when_one_dies_and_it_comes_back_with_everything(pair: Ring) -> None:
    pair.write("alpha", "beta")
    leader = await pair.leader()
    await asyncio.sleep(1)
    await pair.crash(leader.member.name)
    other = await pair.leader(but=leader.member.name, seconds=8)
    await pair.written(20, other.member.name)
    await pair.start(leader.member.name)
    await pair.closed()
    await asyncio.sleep(1)
    await pair.rest()
    await pair.complete()


async def conflict(ring: Ring, name: str) -> Conflict:
    async def told() -> Conflict | None:
        found = ring.seen(name).conflict
        return found if found is not None and found.row else None

    return await until(told)


async def test_a_conflict_stops_and_is_told_with_its_row_is_not_skipped_and_goes_on_once_it_is_mended(
    pair: Ring,
) -> None:
    leader = (await pair.leader()).member.name
    other = next(name for name in pair.names if name != leader)
    await provoke(pair.node(leader), "INSERT INTO shop.t VALUES (1000, 'only here')")
    await pair.node(other).ask("INSERT INTO shop.t VALUES (1000, 'from the other')")
    found = await conflict(pair, leader)
    assert found.number == 1062
    assert "Duplicate entry '1000' for key" in found.words and "shop.t" in found.words
    assert found.writer == other
    assert "INSERT INTO `shop`.`t`" in found.row and "'from the other'" in found.row
    assert found.transaction
    await pair.node(other).ask("INSERT INTO shop.t (words) VALUES ('later')")
    assert (await pair.leader()).member.name == other, "apps are led to the one that has no conflict"
    await asyncio.sleep(3)
    assert pair.seen(leader).conflict is not None
    assert (1000, "only here") in await pair.rows(leader)
    assert "later" not in {row[1] for row in await pair.rows(leader)}
    await provoke(pair.node(leader), "DELETE FROM shop.t WHERE id = 1000")
    rows = await pair.equal(15)
    assert (1000, "from the other") in rows and "later" in {row[1] for row in rows}

    async def over() -> bool:
        return pair.seen(leader).conflict is None

    await until(over)


async def provoke(node: Node, statement: str) -> None:
    """At this server alone, as a fault or a person does it."""

    def work() -> None:
        connection = Connection(node.driver._files.local())
        connection.rows("SET SESSION sql_log_bin=0")
        connection.rows(statement)
        connection.close()

    await asyncio.to_thread(work)


async def test_a_row_that_is_not_there_to_be_changed_is_a_conflict_too(pair: Ring) -> None:
    await pair.node("alpha").ask("INSERT INTO shop.t VALUES (2000, 'both')")
    await pair.equal()
    await provoke(pair.node("beta"), "DELETE FROM shop.t WHERE id = 2000")
    await pair.node("alpha").ask("UPDATE shop.t SET words = 'changed' WHERE id = 2000")
    found = await conflict(pair, "beta")
    assert (found.number, found.writer) == (1032, "alpha")
    assert "UPDATE `shop`.`t`" in found.row and "2000" in found.row
    await provoke(pair.node("beta"), "INSERT INTO shop.t VALUES (2000, 'both')")
    assert (2000, "changed") in await pair.equal()


async def test_when_both_took_one_key_both_stop_apps_are_led_to_one_and_the_documented_repair_mends_it(
    pair: Ring,
) -> None:
    await take_one_key(pair, 3000)
    for name in pair.names:
        await conflict(pair, name)
    await asyncio.sleep(4)
    assert [await pair.page(name) for name in pair.names].count(200) == 1
    for name in pair.names:
        await provoke(pair.node(name), "DELETE FROM shop.t WHERE id = 3000")

    async def over() -> bool:
        return all(pair.seen(name).conflict is None for name in pair.names)

    await until(over, 30)
    for name in pair.names:
        await provoke(pair.node(name), "UPDATE shop.t SET words = 'alpha' WHERE id = 3000")
    assert (3000, "alpha") in await pair.equal()


async def take_one_key(ring: Ring, key: int) -> None:
    """At all members, before any of them hears of the others'."""
    connections = [Connection(ring.node(name).driver._files.local()) for name in ring.names]
    for connection, name in zip(connections, ring.names, strict=True):
        connection.rows("BEGIN")
        connection.rows(f"INSERT INTO shop.t VALUES ({key}, '{name}')")
    for connection in connections:
        connection.rows("COMMIT")
        connection.close()


async def test_a_switchover_leads_apps_to_the_other_and_stops_no_server(pair: Ring) -> None:
    leader = (await pair.leader()).member.name
    other = next(name for name in pair.names if name != leader)
    before = {name: pair.node(name).service.pids() for name in pair.names}
    pair.order("switchover", other, pair.agents[leader][0].status().beat.epoch)

    async def led() -> bool:
        return await pair.page(other) == 200 and await pair.page(leader) == 503

    await until(led, 5)
    assert {name: pair.node(name).service.pids() for name in pair.names} == before
    assert await pair.page(leader, "/replica") == 200


async def test_a_guard_that_ends_and_starts_again_leaves_its_server_alone(pair: Ring) -> None:
    before = pair.node("beta").service.pids()
    driver, service = pair.node("beta").driver, pair.node("beta").service
    await pair.stop_guard("beta")
    await asyncio.sleep(4)
    await pair.node("beta").ask("INSERT INTO shop.t (words) VALUES ('meanwhile')")
    await pair.start("beta", service)
    await pair.closed()
    assert pair.node("beta").service.pids() == before
    assert driver is not pair.node("beta").driver
    assert "meanwhile" in {row[1] for row in await pair.equal()}


async def test_one_whose_upstream_has_thrown_its_logs_away_is_copied_afresh_and_loses_nothing(pair: Ring) -> None:
    await pair.crash("alpha")
    for number in range(5):
        await pair.node("beta").ask(f"INSERT INTO shop.t (words) VALUES ('alone {number}')")
    await pair.crash("beta")
    await pair.start("alpha")
    await pair.writable("alpha")
    for number in range(5):
        await pair.node("alpha").ask(f"INSERT INTO shop.t (words) VALUES ('other {number}')")
    await purge(pair.node("alpha"))
    before = incarnation(pair, "beta")
    await pair.start("beta")
    await pair.closed(seconds=60)
    words = {row[1] for row in await pair.equal()}
    assert {f"{who} {number}" for who in ("alone", "other") for number in range(5)} <= words
    assert incarnation(pair, "beta") == before + 1
    pair.write("alpha", "beta")
    await pair.written(5)
    await pair.rest()
    await pair.complete()


async def test_one_whose_disk_was_put_back_receives_its_own_writes_again_and_loses_none(pair: Ring) -> None:
    await pair.node("beta").ask("INSERT INTO shop.t (words) VALUES ('of before')")
    await pair.equal()
    await pair.crash("beta")
    data = pair.node("beta").layout.data
    kept = data.with_name("yesterday")
    await asyncio.to_thread(subprocess.run, ["cp", "-a", str(data), str(kept)], check=True)
    await pair.start("beta")
    await pair.closed()
    for number in range(5):
        await pair.node("beta").ask(f"INSERT INTO shop.t (words) VALUES ('lost {number}')")
    await pair.equal()
    await pair.crash("beta")
    await asyncio.to_thread(shutil.rmtree, data)
    kept.rename(data)
    await pair.start("beta")
    await pair.closed(seconds=60)
    for number in range(5):
        await pair.node("beta").ask(f"INSERT INTO shop.t (words) VALUES ('new {number}')")
    words = {row[1] for row in await pair.equal()}
    assert {"of before", *(f"{when} {number}" for when in ("lost", "new") for number in range(5))} <= words


async def purge(node: Node) -> None:
    """The server goes on without any log of before. What it still needs itself it does not give up at once."""
    first = (await node.ask("SHOW BINARY LOGS"))[-1]["Log_name"]

    async def purged() -> bool:
        await node.ask("FLUSH BINARY LOGS")
        newest = (await node.ask("SHOW BINARY LOGS"))[-1]["Log_name"]
        await node.ask(f"PURGE BINARY LOGS TO '{newest}'")
        names = [row["Log_name"] for row in await node.ask("SHOW BINARY LOGS")]
        return len(names) == 1 and names[0] > first

    await until(purged)


def incarnation(ring: Ring, name: str) -> int:
    return int(ring.node(name).layout.data.with_name("incarnation").read_text())


async def test_apps_of_each_location_are_led_to_its_own_member_when_that_is_wished(lab: Lab) -> None:
    ring = Ring(lab, ("alpha", "beta"), "local")
    try:
        await ring.begin()
        assert [await ring.page(name) for name in ring.names] == [200, 200]
        await provoke(ring.node("beta"), "INSERT INTO shop.t VALUES (4000, 'here')")
        await ring.node("alpha").ask("INSERT INTO shop.t VALUES (4000, 'there')")
        await conflict(ring, "beta")
        assert [await ring.page(name) for name in ring.names] == [200, 503]
        await ring.stop_guard(WITNESS)
        await ring.crash("alpha")

        async def led() -> bool:
            return await ring.page("beta") == 200

        await provoke(ring.node("beta"), "DELETE FROM shop.t WHERE id = 4000")
        await until(led)
    finally:
        await ring.close()


async def test_a_third_one_joins_while_the_others_are_written(lab: Lab) -> None:
    ring = Ring(lab, ("db-a-0-x-y", "db-c-1-x-y"), later=("db-b-2-x-y",))
    try:
        await ring.begin()
        ring.write(*ring.names)
        await ring.grow()
        await ring.closed(seconds=90)
        ring.write(*ring.later)
        await ring.written(5)
        await ring.rest()
        await ring.complete()
    finally:
        await ring.close()


async def test_the_middle_one_of_three_may_be_lost_and_come_back(three: Ring) -> None:
    three.write("alpha", "beta", "gamma")
    await asyncio.sleep(1)
    await three.crash("beta")
    await three.closed("alpha", "gamma")
    await three.written(10, "alpha", "gamma")
    await three.start("beta")
    await three.closed()
    await three.written(10)
    await three.rest()
    await three.complete()
