"""Who makes which backup when: every rule as a case, and what must hold whatever is known."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hasite.guard.backup import (
    PAUSE,
    SETTLE,
    TAKE_UP,
    TRIES,
    Outcome,
    Scene,
    Task,
    Word,
    assign,
    due,
    newest,
    takes_up,
)
from hasite.guard.cron import Schedule
from hypothesis import given
from hypothesis import strategies as st

NIGHTLY = Schedule.parse("0 3 * * *")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


SLOT, NEXT = at("2026-11-24T03:00"), at("2026-11-25T03:00")
NOON = SLOT + 9 * 3600


def task(slot: int = SLOT, attempt: int = 1, member: str = "b", epoch: int = 5, *, full: bool = True) -> Task:
    return Task(slot, attempt, member, epoch, full)


def good(of: Task | None = None) -> Outcome:
    return Outcome(of or task(), SLOT, 60.0, "label", 1000)


def bad(of: Task | None = None) -> Outcome:
    return Outcome(of or task(), SLOT, 60.0, reason="no space")


def scene(**values: object) -> Scene:
    """``a`` has reigned for long, ``b`` and ``c`` follow it, and it is noon."""
    known: dict[str, object] = {"name": "a", "epoch": 5, "now": NOON, "reigned": 1000.0, "able": frozenset("bc")}
    return Scene(**{**known, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({}, (SLOT, 1, True), id="the first one is made at once"),
        pytest.param({"good": good()}, None, id="what was done is not due"),
        pytest.param({"good": good(), "now": NEXT}, (NEXT, 1, True), id="the next time"),
        pytest.param({"good": good(), "now": NEXT + 3 * 86400}, (NEXT + 3 * 86400, 1, True), id="missed: once"),
        pytest.param({"bad": bad(), "now": SLOT + 60 + PAUSE - 1}, None, id="a pause after a failure"),
        pytest.param({"bad": bad(), "now": SLOT + 60 + PAUSE}, (SLOT, 2, True), id="then again"),
        pytest.param({"bad": bad(task(attempt=TRIES))}, None, id="not for ever"),
        pytest.param(
            {"bad": bad(task(attempt=TRIES)), "now": NEXT}, (NEXT, 1, True), id="the next time after failures"
        ),
        pytest.param({"bad": bad(), "good": good(task(attempt=2))}, None, id="the second attempt went well"),
        pytest.param({"good": good(), "epoch": 6}, None, id="a new reign alone is no reason"),
        pytest.param({"good": good(), "epoch": 6, "continuous": True}, (NOON, 1, False), id="but with an archived log"),
        pytest.param({"good": good(), "continuous": True, "gap": True}, (NOON, 1, True), id="a gap: all of it"),
        pytest.param({"good": good(), "now": SLOT - 3600}, None, id="a clock that was set back"),
    ],
)
def test_a_backup_is_due(known: dict[str, object], expected: object) -> None:
    assert due(NIGHTLY, scene(**known)) == expected


RUNNING = {"c": Word(running=task(member="c", epoch=4))}


@pytest.mark.parametrize(
    ("known", "member"),
    [
        pytest.param({}, "b", id="a standby rather than the primary"),
        pytest.param({"able": frozenset()}, "a", id="the primary when there is none"),
        pytest.param({"reigned": SETTLE - 1}, None, id="not before an unheard one was given up"),
        pytest.param({"reigned": 0.0, "words": RUNNING}, "c", id="what is being made goes on in a new reign"),
        pytest.param({"assigned": task(), "waited": 1.0, "able": frozenset("bc")}, "b", id="it has time to begin"),
        pytest.param({"assigned": task(), "waited": TAKE_UP}, "c", id="another, when it did not begin"),
        pytest.param({"assigned": task(), "waited": 1.0, "able": frozenset("c")}, "c", id="another, when it is gone"),
        pytest.param({"assigned": task(), "good": good()}, None, id="nothing once it is done"),
    ],
)
def test_a_backup_is_assigned(known: dict[str, object], member: str | None) -> None:
    found = assign(NIGHTLY, scene(**known))
    assert (found.member if found else None) == member


def test_a_member_makes_what_it_is_assigned_once() -> None:
    assert takes_up("b", task(), None, None)
    assert not takes_up("c", task(), None, None)
    assert not takes_up("b", task(), good(), None)
    assert not takes_up("b", task(), None, bad())
    assert takes_up("b", task(attempt=2), None, bad())


OUTCOMES = st.none() | st.builds(
    lambda slot, attempt, reason: Outcome(task(SLOT + slot * 60, attempt), SLOT, 1.0, reason=reason),
    st.integers(-2000, 2000),
    st.integers(1, TRIES),
    st.just("why"),
)


@given(OUTCOMES, OUTCOMES, st.integers(0, 10**6), st.booleans(), st.booleans())
def test_what_is_due_is_always_newer_than_all_that_is_known(
    first: Outcome | None, second: Outcome | None, later: int, continuous: bool, gap: bool
) -> None:
    well = replace(first, reason="") if first else None
    known = scene(good=well, bad=second, now=SLOT + later, continuous=continuous, gap=gap)
    found, last = due(NIGHTLY, known), newest(well, second)
    if found is not None and last is not None:
        assert found[:2] > last.key


@given(
    st.dictionaries(st.sampled_from("abc"), st.builds(lambda m: Word(running=task(member=m)), st.sampled_from("abc"))),
    st.floats(0, 1000),
)
def test_nothing_is_assigned_beside_what_is_being_made(words: dict[str, Word], reigned: float) -> None:
    found = assign(NIGHTLY, scene(words=words, reigned=reigned))
    if words:
        assert found in [word.running for word in words.values()]
