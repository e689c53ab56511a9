"""Verdicts from several vantage points, and what becomes of an address."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hasite.api.loadbalancerpool import AddressStatus
from hasite.plan.failover import (
    FLAP_WINDOW_SECONDS,
    LONGEST_HOLD_DOWN_SECONDS,
    Candidate,
    Publication,
    Verdict,
    hold_down_of,
    is_down,
    judge,
    publish,
)
from hasite.plan.world import Probe
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.build import DOWN, NOW, UNCLEAR, UP, A, B, C, address, candidate

PROBE_UP, PROBE_DOWN, PROBE_NEW = Probe(True, NOW), Probe(False, NOW, "no answer in time"), Probe(None, NOW)

VERDICTS: dict[str, tuple[Probe | None, dict[str, bool], bool | None]] = {
    "what the operator reaches is up": (PROBE_UP, {"b": False}, True),
    "an address that was never probed is unclear": (None, {"b": False}, None),
    "an address without a verdict yet is unclear": (PROBE_NEW, {"b": False}, None),
    "the operator alone holds nothing to be down": (PROBE_DOWN, {}, None),
    "two vantage points hold it to be down": (PROBE_DOWN, {"b": False}, False),
    "one that reaches it is enough for doubt": (PROBE_DOWN, {"b": False, "c": True}, None),
}


@pytest.mark.parametrize(("probe", "opinions", "up"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(probe: Probe | None, opinions: dict[str, bool], up: bool | None) -> None:
    assert judge(probe, opinions).up is up


def test_a_verdict_says_who_found_what() -> None:
    assert judge(PROBE_DOWN, {"b": False}).why == "neither the operator (no answer in time) nor b reach it"
    assert "but c does" in judge(PROBE_DOWN, {"b": False, "c": True}).why


PUBLISHED_A, PUBLISHED_B = address(A), address(B)
LONG_AGO, JUST_NOW = NOW - 3600, NOW - 5


@dataclass(frozen=True)
class Case:
    before: tuple[AddressStatus, ...]
    now: tuple[Candidate, ...]
    wanted: tuple[str, ...]


def out(value: str, since: float = JUST_NOW, withdrawals: Sequence[float] = (JUST_NOW,)) -> AddressStatus:
    return address(value, "Withdrawn", since=since, withdrawals=tuple(withdrawals))


CASES = {
    "a new address that has proved itself and serves is published": Case((), (candidate(A),), (A,)),
    "a new address that has proved nothing is not": Case((), (candidate(A, proven=False),), ()),
    "a new address that is not known to serve is not": Case((), (candidate(A, UNCLEAR),), ()),
    "an address that is down is withdrawn": Case((PUBLISHED_A, PUBLISHED_B), (candidate(A, DOWN), candidate(B)), (B,)),
    "an address that may be down stays": Case(
        (PUBLISHED_A, PUBLISHED_B), (candidate(A, UNCLEAR), candidate(B)), (A, B)
    ),
    "when every location looks down, all stay": Case(
        (PUBLISHED_A, PUBLISHED_B), (candidate(A, DOWN), candidate(B, DOWN)), (A, B)
    ),
    "when the rest is unclear, one that is down stays": Case(
        (PUBLISHED_A, PUBLISHED_B), (candidate(A, DOWN), candidate(B, UNCLEAR)), (A, B)
    ),
    "the only address stays, down or not": Case((PUBLISHED_A,), (candidate(A, DOWN),), (A,)),
    "one that is published and reached stands in, although its machine cannot be asked over SSH": Case(
        (PUBLISHED_A, PUBLISHED_B), (candidate(A, DOWN), candidate(B, proven=False)), (B,)
    ),
    "one that was never published and has proved nothing does not stand in": Case(
        (PUBLISHED_A,), (candidate(A, DOWN), candidate(B, proven=False)), (A,)
    ),
    "one that leaves does not stand in": Case(
        (PUBLISHED_A, PUBLISHED_B, address(C)),
        (candidate(A, DOWN), candidate(B, leaving=True), candidate(C, UNCLEAR)),
        (A, C),
    ),
    "one that leaves is withdrawn": Case((PUBLISHED_A, PUBLISHED_B), (candidate(A, leaving=True), candidate(B)), (B,)),
    "one that leaves stays while it is the last": Case((PUBLISHED_A,), (candidate(A, leaving=True),), (A,)),
    "one whose droplet is gone is withdrawn": Case((PUBLISHED_A, PUBLISHED_B), (candidate(B),), (B,)),
    "the last one whose droplet is gone is withdrawn all the same": Case((PUBLISHED_A,), (), ()),
    "one that shows a foreign host key is withdrawn, even as the last": Case(
        (PUBLISHED_A,), (candidate(A, disowned="it shows a foreign host key"),), ()
    ),
    "one that is back stays out during its hold-down": Case((out(A), PUBLISHED_B), (candidate(A), candidate(B)), (B,)),
    "one that is back is published after its hold-down": Case(
        (out(A, NOW - 16, [NOW - 16]), PUBLISHED_B), (candidate(A), candidate(B)), (A, B)
    ),
    "one that is back but has proved nothing stays out": Case(
        (out(A, LONG_AGO), PUBLISHED_B), (candidate(A, proven=False), candidate(B)), (B,)
    ),
    "the hold-down is waived while no published address serves": Case(
        (out(A), PUBLISHED_B), (candidate(A), candidate(B, DOWN)), (A,)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_publication(case: Case) -> None:
    assert publish(case.before, case.now, 15.0, NOW).wanted == case.wanted


def test_it_says_when_the_earliest_hold_down_ends() -> None:
    assert publish((out(A), PUBLISHED_B), (candidate(A), candidate(B)), 15.0, NOW).again_in == 10.0


def test_a_withdrawal_remembers_why_and_since_when() -> None:
    after = publish((PUBLISHED_A, PUBLISHED_B), (candidate(A, DOWN), candidate(B)), 15.0, NOW)
    gone = next(x for x in after.addresses if x.address == A)
    assert (gone.state, gone.reason, gone.since, gone.withdrawals) == ("Withdrawn", "down", NOW, (NOW,))
    assert is_down(gone)


def test_an_address_that_leaves_was_not_withdrawn_for_being_down() -> None:
    """Else the location would be called degraded, and the TTL stay low, because of a replacement."""
    flapped = address(A, withdrawals=(NOW - 100,))
    after = publish((flapped, PUBLISHED_B), (candidate(A, leaving=True), candidate(B)), 15.0, NOW)
    gone = next(x for x in after.addresses if x.address == A)
    assert gone.state == "Withdrawn"
    assert not is_down(gone)


HOLDS: dict[str, tuple[tuple[float, ...], float, float]] = {
    "the first time: as configured": ((NOW,), 15.0, 15.0),
    "the second time within ten minutes: twice that": ((NOW - 60, NOW), 15.0, 30.0),
    "the third: four times": ((NOW - 90, NOW - 60, NOW), 15.0, 60.0),
    "what lies further back does not count": ((NOW - FLAP_WINDOW_SECONDS, NOW), 15.0, 15.0),
    "never longer than five minutes": (tuple(NOW - n for n in range(9)), 15.0, LONGEST_HOLD_DOWN_SECONDS),
    "but as configured when that is longer": ((NOW - 1, NOW), 600.0, 600.0),
    "none when none is configured": ((NOW - 1, NOW), 0.0, 0.0),
}


@pytest.mark.parametrize(("withdrawals", "base", "held"), HOLDS.values(), ids=HOLDS)
def test_hold_down(withdrawals: tuple[float, ...], base: float, held: float) -> None:
    assert hold_down_of(out(A, NOW, withdrawals), base, NOW) == held


def test_flapping_makes_each_hold_down_longer_than_the_one_before() -> None:
    states: tuple[AddressStatus, ...] = (PUBLISHED_A, PUBLISHED_B)
    now, held = NOW, []
    for _ in range(4):
        states = publish(states, (candidate(A, DOWN), candidate(B)), 15.0, now).addresses
        after = publish(states, (candidate(A), candidate(B)), 15.0, now)
        held.append(after.again_in or 0.0)
        now += held[-1]
        states = publish(states, (candidate(A), candidate(B)), 15.0, now).addresses
        assert [x.state for x in states] == ["Published", "Published"]
    assert held == [15.0, 30.0, 60.0, 120.0]


ADDRESSES = (A, B, C)
BEFORE = st.lists(
    st.builds(
        lambda value, state, since, times: address(value, state, since=NOW - since, withdrawals=tuple(times)),
        st.sampled_from(ADDRESSES),
        st.sampled_from(["Pending", "Published", "Withdrawn"]),
        st.sampled_from([1.0, 20.0, 1000.0]),
        st.lists(st.sampled_from([NOW - 5, NOW - 100]), max_size=2, unique=True),
    ),
    max_size=3,
    unique_by=lambda x: x.address,
)
CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.sampled_from(ADDRESSES),
        st.sampled_from([UP, DOWN, UNCLEAR]),
        st.booleans(),
        leaving=st.booleans(),
        disowned=st.sampled_from(["", "", "", "foreign"]),
    ),
    max_size=3,
    unique_by=lambda x: x.address,
)


def published(of: Publication | Sequence[AddressStatus]) -> set[str]:
    states = of.addresses if isinstance(of, Publication) else of
    return {x.address for x in states if x.state == "Published"}


@settings(max_examples=150, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_the_last_published_address_that_is_ours_is_never_withdrawn(
    before: list[AddressStatus], now: list[Candidate]
) -> None:
    ours = {c.address for c in now if not c.disowned}
    if published(before) & ours:
        assert published(publish(before, now, 15.0, NOW)) & ours


@settings(max_examples=150, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_nothing_is_withdrawn_without_a_verdict_unless_it_leaves_or_is_not_ours(
    before: list[AddressStatus], now: list[Candidate]
) -> None:
    by_address = {c.address: c for c in now}
    for value in published(before) - published(publish(before, now, 15.0, NOW)):
        c = by_address.get(value)
        assert c is None or c.leaving or c.disowned or c.verdict.up is False


@settings(max_examples=150, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_a_withdrawal_for_being_down_leaves_one_behind_that_serves(
    before: list[AddressStatus], now: list[Candidate]
) -> None:
    after = publish(before, now, 15.0, NOW)
    staying = {c.address for c in now if c.verdict.up is False and not c.leaving and not c.disowned}
    if (published(before) - published(after)) & staying:
        assert any(c.address in published(after) and c.verdict.up for c in now)


@settings(max_examples=150, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_only_what_has_proved_itself_and_serves_is_newly_published(
    before: list[AddressStatus], now: list[Candidate]
) -> None:
    by_address = {c.address: c for c in now}
    for value in published(publish(before, now, 15.0, NOW)) - published(before):
        c = by_address[value]
        assert c.proven and c.verdict.up and not c.leaving and not c.disowned


@settings(max_examples=100, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_a_blind_operator_changes_nothing(before: list[AddressStatus], now: list[Candidate]) -> None:
    """It reaches nothing: neither the addresses nor anybody whom it could ask."""
    blind = judge(PROBE_DOWN, {})
    seen = [replace(c, verdict=blind, proven=False, leaving=False, disowned="") for c in now]
    kept = [x for x in before if x.address in {c.address for c in seen}]
    assert published(publish(kept, seen, 15.0, NOW)) == published(kept)


@settings(max_examples=100, deadline=None)
@given(before=BEFORE, now=CANDIDATES)
def test_the_same_look_again_changes_nothing_more(before: list[AddressStatus], now: list[Candidate]) -> None:
    once = publish(before, now, 15.0, NOW)
    assert publish(once.addresses, now, 15.0, NOW).addresses == once.addresses


OPINIONS = st.dictionaries(st.sampled_from("bc"), st.booleans())


@given(probe=st.sampled_from([None, PROBE_UP, PROBE_DOWN, PROBE_NEW]), opinions=OPINIONS)
def test_down_needs_two_vantage_points_and_nobody_who_disagrees(probe: Probe | None, opinions: dict[str, bool]) -> None:
    verdict: Verdict = judge(probe, opinions)
    if verdict.up is False:
        assert probe is PROBE_DOWN
        assert opinions
        assert not any(opinions.values())


@pytest.mark.parametrize(("ok_at", "state"), [(NOW - 5, "Published"), (NOW - 1, "Withdrawn")])
def test_another_address_must_have_been_found_to_serve_after_this_one_began_to_fail(ok_at: float, state: str) -> None:
    """When every app falls ill at once, the load balancers are found down one after the other, and all stay."""
    ill = candidate(A, DOWN, failing_since=NOW - 3)
    after = publish([address(A), address(B)], [ill, candidate(B, ok_at=ok_at)], 15, NOW)
    assert after.addresses[0].state == state
    assert (after.again_in is not None) is (state == "Published")
