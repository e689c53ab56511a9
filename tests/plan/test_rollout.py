"""Scaling, replacement and roll-out: a table of single decisions, and whole roll-outs played to their end."""

import random
from dataclasses import dataclass, replace

import pytest
from hasite.plan.rollout import Member, Rollout, plan_rollout
from hypothesis import given, settings
from hypothesis import strategies as st

OLD, NEW = "old", "new"


def m(text: str) -> Member:
    """``a0 old serving``: location a, ordinal 0. Words: serving, leaving."""
    where, template, *words = text.split()
    location, ordinal = where[0], int(where[1:])
    name = f"shop-lb-{location}-{ordinal}-{template}-12345678"
    return Member(name, location, template, "serving" in words, "leaving" in words)


def short(rollout: Rollout) -> tuple[str, ...]:
    """``+a1``: created at location a with ordinal 1. ``-a0 old``: leaves."""
    names = [(leave.name.split("-")) for leave in rollout.leave]
    return (*(f"+{c.location}{c.ordinal}" for c in rollout.create), *(f"-{n[2]}{n[3]} {n[4]}" for n in names))


@dataclass(frozen=True)
class Case:
    want: dict[str, int]
    members: str
    then: str
    rolling: str | None = None


CASES = {
    "all is there": Case({"a": 1}, "a0 new serving", ""),
    "members are created at every location at once": Case({"a": 2, "b": 1}, "", "+a0, +a1, +b0"),
    "a location that is given up leaves once all wanted members serve": Case(
        {"a": 2}, "a0 new serving, a1 new serving, b0 new serving", "-b0 new"
    ),
    "what serves at a location that is given up stays until then": Case(
        {"a": 2}, "a0 new serving, a1 new, b0 new serving, b1 new", "-b1 new"
    ),
    "a missing one is replaced under its own ordinal": Case({"a": 2}, "a1 new serving", "+a0"),
    "the ordinal of one that leaves is still taken": Case({"a": 1}, "a0 new leaving", "+a1"),
    "one too many leaves, the highest ordinal first": Case({"a": 1}, "a0 new serving, a1 new serving", "-a1 new"),
    "one that does not serve leaves before one that does": Case({"a": 1}, "a0 new, a1 new serving", "-a0 new"),
    "one that leaves is not counted as one too many": Case({"a": 1}, "a0 new serving, a1 new serving leaving", ""),
    "a new template begins with one more": Case({"a": 2}, "a0 old serving, a1 old serving", "+a0", "a"),
    "a new template waits until the new one serves": Case({"a": 1}, "a0 old serving, a0 new", "", "a"),
    "a new one that serves replaces an old one": Case({"a": 1}, "a0 old serving, a0 new serving", "-a0 old", "a"),
    "an old one that does not serve is replaced first": Case(
        {"a": 2}, "a0 old, a1 old serving, a0 new serving", "-a0 old", "a"
    ),
    "nothing more is created while an old one drains": Case(
        {"a": 2}, "a0 old serving, a1 old serving leaving, a0 new serving", "", "a"
    ),
    "one location is rolled at a time": Case({"a": 1, "b": 1}, "a0 old serving, b0 old serving", "+a0", "a"),
    "the next location waits until the last old one has left": Case(
        {"a": 1, "b": 1}, "a0 new serving, a0 old serving leaving, b0 old serving", "", "a"
    ),
    "then the next location is rolled": Case({"a": 1, "b": 1}, "a0 new serving, b0 old serving", "+b0", "b"),
    "a location that waits for its turn still gets what it lacks": Case(
        {"a": 1, "b": 2}, "a0 old serving, b0 old serving", "+a0, +b0", "a"
    ),
    "a broken version is replaced by the next one before the old ones are": Case(
        {"a": 2}, "a0 old serving, a1 old serving, a0 broken", "-a0 broken", "a"
    ),
    "a location that is not wanted leaves once a wanted one serves": Case(
        {"a": 1}, "a0 new serving, b0 new serving", "-b0 new"
    ),
    "a location that is not wanted stays while no wanted one serves": Case({"a": 1}, "a0 new, b0 new serving", ""),
    "one that serves but leaves does not stand for its location": Case(
        {"a": 1}, "a0 new serving leaving, b0 new serving", "+a1"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision(case: Case) -> None:
    members = [m(text) for text in case.members.split(", ") if text]
    rollout = plan_rollout(case.want, NEW, members)
    assert ", ".join(short(rollout)) == case.then
    assert rollout.rolling == case.rolling


def test_it_says_which_new_members_it_waits_for() -> None:
    assert plan_rollout({"a": 1}, NEW, [m("a0 old serving"), m("a0 new")]).waiting_for == (m("a0 new").name,)


@dataclass
class Play:
    """Applies decisions; lets new members come to serve and leaving ones go, in an order that ``dice`` decides."""

    want: dict[str, int]
    members: list[Member]
    good: bool
    dice: random.Random

    def step(self) -> Rollout:
        rollout = plan_rollout(self.want, NEW, self.members)
        left = {leave.name for leave in rollout.leave}
        self.members = [replace(x, leaving=True) if x.name in left else x for x in self.members]
        for c in rollout.create:
            self.members.append(m(f"{c.location}{c.ordinal} {NEW}"))
        names = [x.name for x in self.members]
        assert len(names) == len(set(names)), "no two members have one name"
        return rollout

    def happen(self) -> None:
        """A leaving member goes, or a new one comes to serve."""
        starting = [x for x in self.members if self.good and x.template == NEW and not x.serving and not x.leaving]
        leaving = [x for x in self.members if x.leaving]
        if starting or leaving:
            chosen = self.dice.choice(starting + leaving)
            self.members.remove(chosen)
            if not chosen.leaving:
                self.members.append(replace(chosen, serving=True))

    def serving(self, location: str) -> int:
        return sum(x.serving and not x.leaving for x in self.members if x.location == location)

    def staying(self, location: str) -> int:
        return sum(not x.leaving for x in self.members if x.location == location)


STATE = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 4),
        st.sampled_from([OLD, NEW, "older"]),
        st.sampled_from(["", "serving", "leaving", "serving leaving"]),
    ).map(lambda t: m(f"{t[0]}{t[1]} {t[2]} {t[3]}")),
    max_size=8,
    unique_by=lambda x: x.name,
)
WANT = st.dictionaries(st.sampled_from("ab"), st.integers(1, 3), min_size=1)


def play(want: dict[str, int], members: list[Member], seed: int, good: bool) -> Play:
    """To the end; what must hold at every moment is asserted on the way."""
    game = Play(want, list(members), good, random.Random(seed))
    floor = {where: min(game.serving(where), count) for where, count in want.items()}
    ceiling = {where: max(game.staying(where), count + 1) for where, count in want.items()}
    for _ in range(120):
        before = {where: game.serving(where) for where in want}
        any_wanted = any(before.values())
        rollout = game.step()
        for where in want:
            assert game.serving(where) >= min(floor[where], before[where]), "a leave cost a serving member"
            assert game.staying(where) <= ceiling[where], "one more than wanted at most"
        assert len({c.location for c in rollout.create if c.reason == "the template changed"}) <= 1
        if any(leave.reason.startswith("its location") for leave in rollout.leave):
            assert any_wanted, "a removed location left before a wanted one served"
        game.happen()
    return game


@settings(max_examples=150, deadline=None)
@given(want=WANT, members=STATE, seed=st.integers(0, 99))
def test_every_roll_out_of_a_good_version_ends_with_just_what_is_wanted(
    want: dict[str, int], members: list[Member], seed: int
) -> None:
    game = play(want, members, seed, good=True)
    assert {x.location for x in game.members} == set(want)
    for where, count in want.items():
        here = [x for x in game.members if x.location == where]
        assert len(here) == count
        assert all(x.template == NEW and x.serving for x in here)


@settings(max_examples=150, deadline=None)
@given(want=WANT, members=STATE, seed=st.integers(0, 99))
def test_a_version_that_never_serves_costs_no_serving_old_member(
    want: dict[str, int], members: list[Member], seed: int
) -> None:
    old = [x for x in members if x.template != NEW or not x.serving]
    start = Play(want, old, False, random.Random(0))
    floor = {where: min(start.serving(where), count) for where, count in want.items()}
    game = play(want, old, seed, good=False)
    assert all(game.serving(where) >= floor[where] for where in want)


@settings(max_examples=100, deadline=None)
@given(want=WANT, members=STATE, seed=st.integers(0, 99))
def test_what_is_finished_stays_as_it_is(want: dict[str, int], members: list[Member], seed: int) -> None:
    game = play(want, members, seed, good=True)
    assert game.step() == Rollout()
