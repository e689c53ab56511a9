"""The lease, what the server waits for, and what it is to be."""

from dataclasses import replace
from math import inf

import pytest
from hasite.guard.ballot import Ballot
from hasite.guard.goal import goal, upstream_of
from hasite.guard.holder import electorates, lease_end, sent_at
from hasite.guard.messages import Beat
from hasite.guard.model import Database, Desired, Member, Membership, Position, Settings, SyncRecord, Timing, Vote
from hasite.guard.records import caught_up, first_record, is_stored, partners, waits, wanted
from hasite.guard.state import Campaign, Guard, Handover, Heard, Owed, Raise, Reign

TIMING = Timing()
FOUR = Membership(1, tuple(Member(n, n[0], n) for n in ("a1", "a2", "b1", "b2")), ("a1", "b1", "operator"))
ONE_PLACE = Membership(1, (Member("a1", "a", "x"), Member("a2", "a", "y")), ("a1",))
WITH_WITNESS = Membership(2, (*FOUR.members[::2], Member("w1", "w", "z", witness=True)), ("a1", "b1", "w1"))
SETTINGS = Settings("shop", "a1", "postgresql", "15", "PrimaryReplica", "synchronous", False, 5.0, FOUR)
DEGRADING = replace(SETTINGS, degraded_writes=True)
ASYNC = replace(SETTINGS, durability="asynchronous")
BOTH = SyncRecord(3, 1, frozenset({"a1", "b1"}), 1, "a1")
ALONE = SyncRecord(3, 1, frozenset({"a1"}), 0, "a1")
REIGN = Reign(3, 3, FOUR, None, 0.0, BOTH, throned=True, deadline=50.0)
ALLIES = frozenset({"b1", "b2"})


def names(*them: str) -> frozenset[str]:
    return frozenset(them)


# --- the lease

LEASES: dict[str, tuple[dict[str, float], float]] = {
    "a majority's older request counts": ({"a1": 10.0, "b1": 9.0}, 9.0),
    "the newest majority counts": ({"a1": 10.0, "b1": 9.0, "operator": 9.5}, 9.5),
    "one voter is no majority": ({"a1": 10.0}, -inf),
    "members without a vote do not count": ({"a1": 10.0, "a2": 10.0, "b2": 10.0}, -inf),
}


@pytest.mark.parametrize("case", LEASES)
def test_leases(case: str) -> None:
    vouched, base = LEASES[case]
    assert lease_end(replace(REIGN, vouched=vouched), TIMING) == base + TIMING.holder_deadline


def test_an_answer_counts_for_when_its_own_request_was_sent() -> None:
    reign = replace(REIGN, sent=((1, 10.0), (2, 10.5), (3, 11.0)))
    assert sent_at(reign, 2, 99.0) == 10.5


def test_an_answer_to_a_forgotten_request_counts_for_nothing() -> None:
    assert sent_at(replace(REIGN, sent=((2, 10.5),)), 1, 99.0) == -inf


def test_while_the_membership_changes_either_majority_keeps_the_lease() -> None:
    reign = replace(REIGN, membership=WITH_WITNESS, previous=FOUR, vouched={"a1": 10.0, "operator": 10.0})
    assert lease_end(reign, TIMING) == 10.0 + TIMING.holder_deadline


def test_from_letting_the_old_members_go_on_only_the_new_majority_does() -> None:
    raising = Raise(5, WITH_WITNESS, None, names("a1"))
    reign = replace(
        REIGN, membership=WITH_WITNESS, previous=FOUR, raising=raising, vouched={"a1": 1.0, "operator": 1.0}
    )
    assert electorates(reign) == (WITH_WITNESS,)
    assert lease_end(reign, TIMING) == -inf


# --- the record

PARTNERS: dict[str, tuple[Membership, frozenset[str]]] = {
    "a copy in another location protects": (FOUR, names("b1", "b2")),
    "in the only location another machine does": (ONE_PLACE, names("a2")),
    "a witness has no copy": (WITH_WITNESS, names("b1")),
}


@pytest.mark.parametrize("case", PARTNERS)
def test_partners(case: str) -> None:
    membership, expected = PARTNERS[case]
    assert partners("a1", membership) == expected


SEEN_B1 = {"b1": (True, 1.0)}
WANTED: dict[str, tuple[Settings, Reign, float, tuple[frozenset[str], int]]] = {
    "every follower elsewhere": (SETTINGS, replace(REIGN, record=ALONE, seen=SEEN_B1), 9.0, (names("a1", "b1"), 1)),
    "one that is gone for a moment stays": (
        SETTINGS,
        replace(REIGN, seen={"b1": (False, 8.0), "b2": (True, 1.0)}),
        9.0,
        (names("a1", "b1", "b2"), 1),
    ),
    "one that is gone for long goes, if another is there": (
        SETTINGS,
        replace(REIGN, seen={"b1": (False, 1.0), "b2": (True, 1.0)}),
        9.0,
        (names("a1", "b2"), 1),
    ),
    "the last one stays: writes wait": (SETTINGS, replace(REIGN, seen={"b1": (False, 1.0)}), 9.0, (BOTH.eligible, 1)),
    "unless the owner lets them go on": (DEGRADING, replace(REIGN, seen={"b1": (False, 1.0)}), 9.0, (names("a1"), 0)),
    "not at the first moment": (DEGRADING, replace(REIGN, seen={"b1": (False, 8.0)}), 9.0, (BOTH.eligible, 1)),
    "asynchronous: nobody is waited for": (ASYNC, replace(REIGN, seen=SEEN_B1), 9.0, (names(), 0)),
    "a copy in the same location is none": (
        SETTINGS,
        replace(REIGN, seen={"a2": (True, 1.0)}),
        9.0,
        (BOTH.eligible, 1),
    ),
}


@pytest.mark.parametrize("case", WANTED)
def test_wanted_records(case: str) -> None:
    settings, reign, now, expected = WANTED[case]
    assert wanted(settings, reign, ALLIES, now) == expected


WIDER = SyncRecord(3, 2, names("a1", "b1", "b2"), 1, "a1")
OTHER = SyncRecord(3, 2, names("a1", "b2"), 1, "a1")
WAITS: dict[str, tuple[Settings, Reign, tuple[frozenset[str], int] | None]] = {
    "the record in force": (SETTINGS, REIGN, (names("a1", "b1"), 1)),
    "a follower before it is recorded": (DEGRADING, replace(REIGN, record=ALONE, intent=BOTH), (names("a1", "b1"), 1)),
    "both records while one follows the other": (SETTINGS, replace(REIGN, proposal=WIDER), (names("a1", "b1"), 1)),
    "nobody suffices when they have nobody in common": (SETTINGS, replace(REIGN, intent=OTHER), (names("a1"), 1)),
    "the old one until the degraded one is recorded": (
        DEGRADING,
        replace(REIGN, proposal=ALONE),
        (names("a1", "b1"), 1),
    ),
    "nobody is waited for by the owner's choice": (DEGRADING, replace(REIGN, record=ALONE), None),
    "without that choice nothing is acknowledged alone": (SETTINGS, replace(REIGN, record=ALONE), (names("a1"), 1)),
    "a copy in its own location does not do": (
        SETTINGS,
        replace(REIGN, record=replace(BOTH, eligible=names("a1", "a2", "b1"))),
        (names("a1", "b1"), 1),
    ),
    "asynchronous: nobody": (ASYNC, replace(REIGN, record=SyncRecord(3, 0, names(), 0, "a1")), None),
}


@pytest.mark.parametrize("case", WAITS)
def test_what_the_server_waits_for(case: str) -> None:
    settings, reign, expected = WAITS[case]
    record = waits(settings, reign, ALLIES)
    assert (None if record is None else (record.eligible, record.required)) == expected


def heard(name: str, database: Database, at: float = 0.0) -> Heard:
    return Heard(Beat(name, 3, "a1", 0.0, "standby", database), at)


def test_a_follower_has_caught_up_when_it_holds_what_was_written_before_it_was_waited_for() -> None:
    mark = Position(3, 10)
    behind, level = Database("standby", Position(3, 9)), Database("standby", Position(3, 10))
    assert not caught_up(BOTH, mark, "a1", {"b1": heard("b1", behind)})
    assert caught_up(BOTH, mark, "a1", {"b1": heard("b1", level)})
    assert not caught_up(BOTH, mark, "a1", {})


def test_a_record_is_in_force_when_a_majority_of_each_electorate_has_it_or_a_newer_one() -> None:
    reign = replace(REIGN, stored={"a1": WIDER, "operator": BOTH})
    assert is_stored(reign, BOTH, (FOUR,))
    assert not is_stored(reign, WIDER, (FOUR,))
    assert not is_stored(reign, BOTH, (FOUR, WITH_WITNESS))


def test_a_reign_begins_with_the_record_that_it_found() -> None:
    assert first_record(SETTINGS, BOTH, 9, forced=False) == SyncRecord(9, 0, BOTH.eligible, 1, "a1")


def test_a_forced_reign_begins_alone() -> None:
    assert first_record(SETTINGS, BOTH, 9, forced=True) == SyncRecord(9, 0, names("a1"), 0, "a1")


# --- the goal

VOTE = Vote(3, "b1", FOUR, BOTH)
GUARD = Guard(SETTINGS, Ballot(VOTE, 0.0), Database("standby", Position(3, 5), True), Desired("frozen"), (FOUR, None))
ASKING = Campaign(4, False, 0.0, 0.0, FOUR, None)

GOALS: dict[str, tuple[Guard, Desired]] = {
    "without a known primary it keeps still": (GUARD, Desired("frozen")),
    "it follows the primary": (replace(GUARD, followed="b1"), Desired("standby", 3, "b1")),
    "asking it keeps still": (replace(GUARD, followed="b1", campaign=ASKING), Desired("frozen")),
    "a trial changes nothing": (
        replace(GUARD, followed="b1", campaign=replace(ASKING, trial=True)),
        Desired("standby", 3, "b1"),
    ),
    "having granted it keeps still": (replace(GUARD, owed=Owed("b1", 4, 0.0)), Desired("frozen")),
    "elected it waits for its lease": (replace(GUARD, reign=replace(REIGN, throned=False)), Desired("frozen")),
    "with its lease it is primary": (
        replace(GUARD, reign=REIGN),
        Desired("primary", 3, None, SyncRecord(3, 1, BOTH.eligible, 1, "a1")),
    ),
    "handing over it stops in good order": (
        replace(GUARD, reign=replace(REIGN, handover=Handover("b1", True, 0.0))),
        Desired("stopped", 3, clean=True),
    ),
    "after its reign it is stopped before anything else": (
        replace(GUARD, ended=True, followed="b1"),
        Desired("stopped", 3),
    ),
    "a witness runs nothing": (
        replace(GUARD, settings=replace(SETTINGS, name="w1", membership=WITH_WITNESS), known=(WITH_WITNESS, None)),
        Desired("stopped"),
    ),
}


@pytest.mark.parametrize("case", GOALS)
def test_goals(case: str) -> None:
    guard, expected = GOALS[case]
    assert goal(guard) == expected


def test_a_new_member_copies_from_a_standby_that_streams() -> None:
    standby = Database("standby", Position(3, 5), True, "b1", True)
    new = replace(GUARD, settings=replace(SETTINGS, name="a2"), database=Database("absent"))
    assert upstream_of(replace(new, heard={"b2": heard("b2", standby)}), "b1") == "b2"


def test_a_member_that_may_have_had_the_only_other_copy_copies_from_the_primary() -> None:
    standby = Database("standby", Position(3, 5), True, "b1", True)
    lost = replace(GUARD, database=Database("absent"), heard={"b2": heard("b2", standby)})
    assert upstream_of(lost, "b1") == "b1"
