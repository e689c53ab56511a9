"""What a ring's status, Events and proxies say, of what its members' guards say."""

from dataclasses import replace
from typing import Any

from hasite.api.common import Condition
from hasite.api.databasestatus import ReplicatedDatabaseStatus
from hasite.api.hasite import DatabaseUse
from hasite.guard.messages import Beat
from hasite.guard.model import Conflict, Member
from hasite.plan.connection import Connection, connection_of, members_for
from hasite.plan.database import plan_database
from hasite.plan.databasestatus import database_report
from hasite.plan.databasestory import begin, cast, hear
from hasite.plan.membership import settings_of

from tests.plan.database_build import AMSTERDAM, NEW_YORK, beat, member, reigning, world

RING: dict[str, Any] = {
    "engine": "mariadb",
    "version": "10.11",
    "topology": "PrimaryPrimary",
    "durability": "asynchronous",
    "databases": [{"name": "shop", "owner": "shop"}],
    "users": [{"name": "shop"}],
}
A, B = member(NEW_YORK, 0).name, member(AMSTERDAM, 1).name
CLASH = Conflict(1062, "Duplicate entry '5' for key 'PRIMARY'", "7-7-12", A, "INSERT INTO `shop`.`t` SET @1=5")


def turning(name: str, **seen: Any) -> Beat:
    """A member of the ring that takes writes, and receives from the other. A leads."""
    other = B if name == A else A
    values = {"state": "primary", "read_only": False, "streaming": True, "upstream": other, "lag_seconds": 0.0}
    return beat(name, A, role="ring", sync=None, seen=values | seen)


def report(*beats: Beat, **spec: Any) -> ReplicatedDatabaseStatus:
    of = reigning(**RING | spec)
    seen = world(of, heard={each.sender: each for each in beats})
    return database_report(of, seen, plan_database(of, seen), ())


def condition(status: ReplicatedDatabaseStatus, kind: str) -> Condition:
    return next(each for each in status.conditions if each.type == kind)


def test_all_members_are_primaries_and_one_leads() -> None:
    status = report(turning(A), turning(B))
    assert {m.role for m in status.members} == {"primary"}
    assert (status.members_ready, status.primary, status.writers, status.lag) == ("2/2", A, A, "ok")
    assert condition(status, "ReplicationConflict").status == "False"


def test_where_apps_are_led_to_their_own_location_all_are_named() -> None:
    status = report(turning(A), turning(B), writeRouting="local")
    assert status.writers == ",".join(sorted((A, B)))
    stopped = report(turning(A), turning(B, conflict=CLASH, streaming=False), writeRouting="local")
    assert stopped.writers == A


def test_a_conflict_is_told_with_its_row_its_transaction_and_who_wrote_it() -> None:
    status = report(turning(A), turning(B, conflict=CLASH, streaming=False))
    found = condition(status, "ReplicationConflict")
    assert (found.status, found.reason) == ("True", "Stopped")
    for word in (B, "Duplicate entry '5'", "7-7-12", A, "INSERT INTO `shop`.`t`"):
        assert word in found.message
    assert condition(status, "Ready").reason == "ReplicationConflict"
    assert status.members_ready == "1/2"
    assert next(m for m in status.members if m.name == B).conflict


def test_one_that_receives_nothing_is_not_ready() -> None:
    status = report(turning(A), turning(B, streaming=False))
    assert status.members_ready == "1/2"


def test_a_conflict_and_its_end_are_events_each_told_once() -> None:
    members = [Member(A, "new-york", "192.0.2.1"), Member(B, "amsterdam", "198.51.100.1")]
    story = cast(begin(0.0, A, 3), members)
    told: list[str] = []
    half = replace(CLASH, row="", transaction="", writer="")
    script = [None, half, CLASH, CLASH, CLASH, None, None]
    for second, conflict in enumerate(script):
        for each in (turning(A), turning(B, conflict=conflict, streaming=conflict is None)):
            story, news = hear(story, each, float(second))
            told += [happening.reason for happening in news if "Conflict" in happening.reason]
    assert told == ["ReplicationConflict", "ReplicationConflictOver"]


def test_guards_are_told_where_apps_are_led_to() -> None:
    assert settings_of(reigning(**RING, writeRouting="local"), A).write_routing == "local"
    assert settings_of(reigning(**RING), A).ring


def test_an_app_is_led_to_its_own_location_first() -> None:
    use = DatabaseUse(name="shop", database="shop", user="shop")
    local = connection_of(use, reigning(**RING, writeRouting="local"), "secret")
    single = connection_of(use, reigning(**RING), "secret")
    assert isinstance(local, Connection) and isinstance(single, Connection)
    assert {m.name: m.backup for m in members_for(local, "new-york")} == {A: False, B: True}
    assert {m.name: m.backup for m in members_for(local, "frankfurt")} == {A: False, B: False}
    assert {m.backup for m in members_for(single, "new-york")} == {False}
