"""A semi-synchronous primary takes anybody's answer: a record waits until the others give none."""

from dataclasses import replace

import pytest
from hasite.guard import protocol
from hasite.guard.goal import goal
from hasite.guard.holder import prepare
from hasite.guard.messages import Beat
from hasite.guard.model import Database, Desired, Member, Membership, Position, Settings, SyncRecord, Vote
from hasite.guard.protocol import Guard, Observed, Received, kept_to
from hasite.guard.silence import GONE_TIME, watch
from hasite.guard.state import Heard, Reign, Turn

MEMBERS = Membership(1, tuple(Member(n, n[0], n) for n in ("a1", "a2", "b1")), ("a1", "b1", "operator"))
SETTINGS = Settings("shop", "a1", "mariadb", "10.11", "PrimaryReplica", "synchronous", True, 5.0, MEMBERS)
ALONE = SyncRecord(3, 1, frozenset({"a1"}), 0, "a1")
BOTH = SyncRecord(3, 2, frozenset({"a1", "b1"}), 1, "a1")
NARROW = replace(BOTH, version=4)
PRIMARY = Database("primary", Position(3, 100), followers=frozenset({"a2", "b1"}), receivers=frozenset({"a2", "b1"}))


def preparing(engine: str = "mariadb") -> Guard:
    """a1 reigns, its server waits for b1, and the record is to say so."""
    settings = replace(SETTINGS, engine=engine)  # type: ignore[arg-type]
    guard = protocol.start(settings, Vote(3, "a1", MEMBERS, ALONE), 0.0)
    reign = Reign(3, 3, MEMBERS, None, 0.0, ALONE, throned=True, primary_seen=True, deadline=1e9, intent=BOTH, issued=2)
    guard = replace(guard, reign=reign, database=PRIMARY)
    return replace(guard, desired=goal(guard), reached=goal(guard))


def word(name: str, *obeys: int) -> Beat:
    return Beat(name, 3, "a1", 0.0, "standby", Database("standby", Position(3, 100)), obeys=obeys)


def turned(guard: Guard, now: float, *, looks: int = 0, heard: Beat | None = None, look: Database = PRIMARY) -> Guard:
    """After so many looks and a step of the record."""
    if heard is not None:
        guard = replace(guard, heard={**guard.heard, heard.sender: Heard(heard, now)})
    turn = Turn(guard, now)
    for _ in range(looks):
        watch(turn, look)
    prepare(turn, BOTH)
    return turn.guard


def mark(guard: Guard) -> Position | None:
    assert guard.reign is not None
    return guard.reign.mark


def test_who_has_not_said_that_it_is_silent_holds_a_record_up() -> None:
    guard = turned(preparing(), 5.0, looks=9)
    assert mark(turned(guard, 6.0, looks=9)) is None


def test_the_mark_is_of_a_look_that_began_after_all_others_were_silent() -> None:
    guard = turned(preparing(), 5.0, looks=1, heard=word("a2", 3, 2))
    guard = turned(guard, 5.1, looks=1)
    assert mark(guard) is None, "that look may have begun before"
    assert mark(turned(guard, 5.2, looks=1)) == PRIMARY.position


@pytest.mark.parametrize("obeys", [(), (3, 1), (2, 9)])
def test_a_word_of_before_counts_for_nothing(obeys: tuple[int, ...]) -> None:
    guard = turned(preparing(), 5.0, looks=9, heard=word("a2", *obeys))
    assert mark(turned(guard, 5.1, looks=9)) is None


def test_who_has_long_not_been_connected_is_silent() -> None:
    alone = replace(PRIMARY, receivers=frozenset({"b1"}))
    late = 5.0 + GONE_TIME + SETTINGS.timing.ttl
    guard = turned(turned(preparing(), 5.0, looks=1), late - 0.1, looks=1, look=alone)
    assert mark(turned(guard, late - 0.05, looks=9, look=alone)) is None
    guard = turned(guard, late, looks=1, look=alone)
    assert mark(turned(guard, late + 0.5, looks=2, look=alone)) == PRIMARY.position


def test_a_look_that_came_to_nothing_shows_nobody_gone() -> None:
    guard = turned(preparing(), 5.0, looks=1, look=replace(PRIMARY, position=None, receivers=frozenset()))
    assert guard.reign is not None and guard.reign.linked == dict.fromkeys(("a1", "a2", "b1"), 5.0)


def test_where_only_those_who_are_named_count_nobody_is_waited_for() -> None:
    assert mark(turned(preparing("postgresql"), 5.0)) == PRIMARY.position


# --- a follower


def follower(sync: SyncRecord, *, acknowledging: bool) -> tuple[Guard, Database]:
    guard = protocol.start(replace(SETTINGS, name="a2"), Vote(3, "a1", MEMBERS, ALONE), 0.0)
    return replace(guard, desired=Desired("standby", 3, "a1", sync)), Database(
        "standby", Position(3, 100), acknowledging=acknowledging
    )


def test_a_follower_keeps_to_a_word_once_its_server_was_seen_silent() -> None:
    assert kept_to(*follower(BOTH, acknowledging=True)) == ()
    assert kept_to(*follower(BOTH, acknowledging=False)) == BOTH.key


def test_who_is_to_answer_keeps_to_the_word_either_way() -> None:
    eligible = replace(BOTH, eligible=frozenset({"a1", "a2"}))
    assert kept_to(*follower(eligible, acknowledging=True)) == eligible.key


def test_an_older_word_that_comes_late_turns_nobody_back() -> None:
    guard, database = follower(NARROW, acknowledging=False)
    primary = replace(word("a1"), lease_left=2.0, role="primary", database=PRIMARY)
    for now, sync in ((9.0, NARROW), (9.1, replace(BOTH, eligible=frozenset({"a1", "a2"})))):
        guard, _ = protocol.step(guard, Received(replace(primary, sync=sync)), now)
        guard, _ = protocol.step(guard, Observed(database, None), now)
    assert guard.desired == Desired("standby", 3, "a1", NARROW)
    assert guard.obeyed == NARROW.key


def test_another_word_makes_what_was_obeyed_void_until_the_next_look() -> None:
    guard, database = follower(BOTH, acknowledging=False)
    primary = replace(word("a1"), lease_left=2.0, role="primary", database=PRIMARY)
    guard, _ = protocol.step(guard, Received(replace(primary, sync=BOTH)), 9.0)
    guard, _ = protocol.step(guard, Observed(database, None), 9.1)
    assert guard.obeyed == BOTH.key
    guard, _ = protocol.step(guard, Received(replace(primary, sync=NARROW)), 9.2)
    assert guard.obeyed == ()
