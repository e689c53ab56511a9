"""Whose data is good enough to reign with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hasite.guard.election import Facts, Verdict, has_majorities, has_majority, judge
from hasite.guard.model import Member, Membership, Position, Settings, SyncRecord

MEMBERS = tuple(Member(n, n[0], n) for n in ("a1", "b1", "c1"))
THREE = Membership(1, MEMBERS, ("a1", "b1", "c1"))
SETTINGS = Settings("shop", "b1", "postgresql", "15", "PrimaryReplica", "synchronous", False, 5.0, THREE)
PAIR = SyncRecord(4, 0, frozenset({"a1", "b1"}), 1, "a1")
ALL = SyncRecord(4, 0, frozenset({"a1", "b1", "c1"}), 1, "a1")
ALONE = SyncRecord(4, 0, frozenset({"a1"}), 0, "a1")
ASYNC = SyncRecord(4, 0, frozenset(), 0, "a1")


def facts(record: SyncRecord | None, heard: Mapping[str, tuple[int, int]], **changes: Any) -> Facts:
    positions = {name: Position(*at) for name, at in heard.items()}
    silent = frozenset({"a1", "b1", "c1"} - set(heard))
    return replace(Facts(SETTINGS, THREE, record, positions, silent), **changes)


SEMI_SYNC = replace(SETTINGS, engine="mariadb")
LIKES_C = replace(SETTINGS, preferred_location="c")

CASES: dict[str, tuple[Facts, str]] = {
    "of two, the one that acknowledged everything is enough": (facts(PAIR, {"b1": (4, 10)}), "win"),
    "of three, one more must be heard": (facts(ALL, {"b1": (4, 10)}), "refuse"),
    "of three, two are enough": (facts(ALL, {"b1": (4, 10), "c1": (4, 9)}), "win"),
    "the one with more goes first": (facts(ALL, {"b1": (4, 10), "c1": (4, 11)}), "yield c1"),
    "a later epoch is more than any length": (facts(ALL, {"b1": (3, 99), "c1": (4, 1)}), "yield c1"),
    "the old primary counts when it is heard": (facts(ALL, {"b1": (4, 10), "a1": (4, 12)}), "yield a1"),
    "who is not eligible yields to who is": (
        facts(PAIR, {"b1": (4, 9), "a1": (4, 9)}, settings=replace(SETTINGS, name="c1")),
        "yield",
    ),
    "a degraded primary alone has everything": (facts(ALONE, {"b1": (4, 10), "c1": (4, 10)}), "refuse"),
    "its return is waited for": (facts(ALONE, {"b1": (4, 10), "a1": (4, 11)}), "yield a1"),
    "an order that accepts loss overrides": (facts(ALONE, {"b1": (4, 10)}, forced=True), "win"),
    "at a tie the one that asks reigns": (facts(ALL, {"b1": (4, 10), "c1": (4, 10)}), "win"),
    "at a tie the preferred location reigns": (
        facts(ALL, {"b1": (4, 10), "c1": (4, 10)}, settings=LIKES_C),
        "yield c1",
    ),
    "a preferred location with less does not": (facts(ALL, {"b1": (4, 10), "c1": (4, 9)}, settings=LIKES_C), "win"),
    "a semi-synchronous primary that returns yields to less": (
        facts(PAIR, {"a1": (4, 12), "b1": (4, 10)}, settings=SEMI_SYNC),
        "win",
    ),
    "and does not reign without the other": (
        facts(PAIR, {"a1": (4, 12)}, settings=replace(SEMI_SYNC, name="a1")),
        "refuse",
    ),
    "of three, its place is taken by another": (
        facts(ALL, {"a1": (4, 12), "b1": (4, 10)}, settings=SEMI_SYNC),
        "refuse",
    ),
    "alone by the owner's choice it may": (
        facts(ALONE, {"a1": (4, 12), "b1": (4, 10)}, settings=replace(SEMI_SYNC, name="a1")),
        "win",
    ),
    "asynchronous: close enough": (facts(ASYNC, {"b1": (4, 10)}, lag=0.4), "win"),
    "asynchronous: too far behind": (facts(ASYNC, {"b1": (4, 10)}, lag=5.1), "refuse"),
    "asynchronous: an unknown lag is too much": (facts(ASYNC, {"b1": (4, 10)}), "refuse"),
    "asynchronous: with everybody heard no lag counts": (
        facts(ASYNC, {"a1": (4, 9), "b1": (4, 10), "c1": (4, 10)}),
        "win",
    ),
    "asynchronous: the one with more goes first": (facts(ASYNC, {"b1": (4, 10), "c1": (4, 12)}, lag=0.1), "yield c1"),
    "asynchronous: the last to reign has everything": (
        facts(ASYNC, {"a1": (4, 10)}, settings=replace(SETTINGS, name="a1")),
        "win",
    ),
    "asynchronous: an order overrides the lag": (facts(ASYNC, {"b1": (4, 10)}, lag=60.0, forced=True), "win"),
    "no data, no reign": (facts(ASYNC, {}), "refuse"),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case: str) -> None:
    given, expected = CASES[case]
    verdict = judge(given)
    assert f"{verdict.kind} {verdict.better}".startswith(expected)
    assert bool(verdict.reason) is (verdict.kind == "refuse")


def test_a_refusal_names_who_may_have_the_writes() -> None:
    verdict = judge(facts(ALL, {"b1": (4, 10)}))
    assert verdict == Verdict("refuse", reason="acknowledged writes may be on a1, c1 alone: 2 of 3 needed")


def test_a_refusal_for_lag_says_how_much() -> None:
    assert "5.1 s behind, 5 s allowed; a1, c1 unheard" in judge(facts(ASYNC, {"b1": (4, 10)}, lag=5.1)).reason


def test_a_majority_is_of_all_voters() -> None:
    assert has_majority(THREE, {"a1", "b1"})
    assert not has_majority(THREE, {"a1", "x1", "y1"})


def test_both_memberships_must_agree() -> None:
    other = Membership(2, MEMBERS, ("b1", "c1", "d1"))
    assert has_majorities((THREE, other), {"b1", "c1"})
    assert not has_majorities((THREE, other), {"a1", "b1"})
    assert has_majorities((THREE, None), {"a1", "b1"})
