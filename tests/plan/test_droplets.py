"""Claims, adoption, loss and drift of one tier's droplets."""

from dataclasses import dataclass, field, replace

import pytest
from hasite.api.common import Claim, DropletRecord
from hasite.plan.droplets import (
    CLAIM_SECONDS,
    TAG_GRACE_SECONDS,
    Settled,
    Sight,
    found_again,
    missing_from_listing,
    settle,
)
from hasite.plan.names import droplet_tags
from hasite.plan.steps import CreateDroplet, DestroyDroplet, PowerOnDroplet, RenameDroplet, Step, TagDroplet
from hasite.plan.world import Droplet, Unknown
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.build import NOW, OTHER, POOL, claimed, droplet, record


def look(records: list[DropletRecord], sight: Sight, now: float = NOW, identity: str = "operator") -> Settled:
    return settle(records, sight, POOL, "lb", identity, now)


LB = record()
ASKED = claimed()
FRESH = droplet(LB, id=7, created_at=NOW + 1)
OLD = droplet(LB, id=3, created_at=NOW - 3600)
UNTAGGED = replace(FRESH, tags=frozenset())


@dataclass(frozen=True)
class ClaimCase:
    by_name: tuple[Droplet, ...] | Unknown
    age: float
    becomes: int | str | None
    """The adopted ID, None while it waits, "asked again" or "forgotten"."""
    leaving: bool = False


CLAIMS = {
    "what was found by name is adopted": ClaimCase((FRESH,), 1, 7),
    "what has no tags yet is adopted when it was made under the claim": ClaimCase((UNTAGGED,), 1, 7),
    "a foreign droplet of the same name that is older than the claim is never adopted": ClaimCase(
        (replace(OLD, tags=frozenset()),), 100, "asked again"
    ),
    "nothing found means nothing while a request may be on its way": ClaimCase((), CLAIM_SECONDS - 1, None),
    "nothing found after that means that it is asked for again": ClaimCase((), CLAIM_SECONDS + 1, "asked again"),
    "a look-up that failed means nothing at any age": ClaimCase(Unknown("500"), 9999, None),
    "a dead namesake that is still listed is passed over for the living one": ClaimCase((OLD, FRESH), 1, 7),
    "a dead namesake that is still listed is not adopted while a request may be on its way": ClaimCase((OLD,), 1, None),
    "an old namesake of ours that stays listed is adopted in the end, for clocks differ": ClaimCase((OLD,), 100, 3),
    "a claim that leaves is adopted too, to be destroyed": ClaimCase((FRESH,), 1, 7, leaving=True),
    "a claim that leaves waits for what may be on its way": ClaimCase((), 1, None, leaving=True),
    "a claim that leaves and came to nothing is forgotten": ClaimCase((), 100, "forgotten", leaving=True),
}


@pytest.mark.parametrize("case", CLAIMS.values(), ids=CLAIMS)
def test_a_claim(case: ClaimCase) -> None:
    asked = claimed(leaving_since=NOW if case.leaving else None)
    found = look([asked], Sight((), by_name={asked.name: case.by_name}), NOW + case.age, "successor")
    after = found.records[0] if found.records else None
    match case.becomes:
        case int():
            assert after is not None and after.droplet_id == case.becomes and after.claim is None and not found.steps
        case None:
            assert found.records == (asked,) and not found.steps and found.waits
        case "asked again":
            assert after is not None and after.claim == Claim(by="successor", at=NOW + case.age)
            assert [type(s) for s in found.steps] == [CreateDroplet]
        case _:
            assert not found.records and not found.steps and found.lost == (asked,)


def test_a_claim_that_was_not_looked_up_is_left_alone() -> None:
    found = look([ASKED], Sight(()), NOW + 9999)
    assert found.records == (ASKED,)
    assert not found.steps


def test_an_adopted_droplet_brings_its_addresses() -> None:
    found = look([ASKED], Sight((), by_name={ASKED.name: (FRESH,)}))
    assert found.records[0].public_ipv4 == FRESH.public_ipv4


SEEN: dict[str, tuple[Sight, str]] = {
    "listed": (Sight([droplet(LB)]), "kept"),
    "missing from the listing and not read by its ID": (Sight([]), "kept, waiting"),
    "missing from the listing, and a read by its ID failed": (
        Sight([], by_id={LB.droplet_id or 0: Unknown("500")}),
        "kept, waiting",
    ),
    "missing from the listing, but there by its ID": (Sight([], by_id={LB.droplet_id or 0: droplet(LB)}), "kept"),
    "missing from the listing, and gone by its ID": (Sight([], by_id={LB.droplet_id or 0: None}), "lost"),
    "the listing failed": (Sight(Unknown("page 2")), "kept, waiting"),
    "being made": (Sight([droplet(LB, status="new")]), "kept, waiting"),
}


@pytest.mark.parametrize(("sight", "outcome"), SEEN.values(), ids=SEEN)
def test_a_recorded_droplet(sight: Sight, outcome: str) -> None:
    found = look([LB], sight)
    assert bool(found.records) is outcome.startswith("kept")
    assert bool(found.lost) is (outcome == "lost")
    assert bool(found.waits) is outcome.endswith("waiting")
    assert not found.steps


def test_what_a_listing_lacks_is_read_by_its_id() -> None:
    assert missing_from_listing([LB, record("amsterdam"), ASKED], [droplet(LB)]) == (2,)
    assert missing_from_listing([LB], Unknown("500")) == ()


DRIFT: dict[str, tuple[Droplet, type[Step] | None]] = {
    "as it should be": (droplet(LB), None),
    "switched off": (droplet(LB, status="off"), PowerOnDroplet),
    "renamed": (droplet(LB, name="mine"), RenameDroplet),
    "a tag was removed": (droplet(LB, tags=frozenset(droplet_tags(POOL, "lb")[:2])), TagDroplet),
    "tags are not to be seen yet on a new one": (
        droplet(LB, tags=frozenset(), created_at=NOW - TAG_GRACE_SECONDS + 1),
        None,
    ),
}


@pytest.mark.parametrize(("seen", "step"), DRIFT.values(), ids=DRIFT)
def test_drift(seen: Droplet, step: type[Step] | None) -> None:
    assert [type(s) for s in look([LB], Sight([seen])).steps] == ([step] if step else [])


def test_a_droplet_that_leaves_is_not_switched_on() -> None:
    assert not look([record(leaving_since=NOW)], Sight([droplet(LB, status="off")])).steps


def test_a_second_droplet_under_a_recorded_name_is_destroyed() -> None:
    (step,) = look([LB], Sight([droplet(LB), droplet(LB, id=99)])).steps
    assert isinstance(step, DestroyDroplet)
    assert step.droplet_id == 99


SPARED: dict[str, Droplet] = {
    "a namesake without our tags": droplet(LB, id=99, tags=frozenset({"hasite"})),
    "a namesake with another owner's tags": droplet(LB, id=99, tags=frozenset(droplet_tags(OTHER, "lb"))),
    "one of ours that another record knows by its ID": droplet(record("amsterdam"), name=LB.name),
    "a stranger with our tags": droplet(LB, id=99, name="handmade"),
}


@pytest.mark.parametrize("other", SPARED.values(), ids=SPARED)
def test_it_is_spared(other: Droplet) -> None:
    steps = look([LB, record("amsterdam")], Sight([droplet(LB), droplet(record("amsterdam")), other])).steps
    assert not [s for s in steps if isinstance(s, DestroyDroplet)]


def test_a_droplet_of_ours_whose_record_was_lost_is_remembered_again_without_a_key() -> None:
    lost = record("amsterdam")
    found = look([LB], Sight([droplet(LB), droplet(lost)])).records[1]
    assert (found.name, found.droplet_id, found.location) == (lost.name, lost.droplet_id, "amsterdam")
    assert (found.served, found.known_keys, found.pinned) == (True, (), False)
    assert found.template == lost.template[:6]


STRANGERS: dict[str, Droplet | Unknown] = {
    "a name that is not one of ours": droplet(LB, id=99, name="handmade"),
    "tags that are not ours": droplet(record("amsterdam"), tags=frozenset({"hasite"})),
    "a second one under a known name": droplet(LB, id=99),
    "nothing that could be seen": Unknown("500"),
}


@pytest.mark.parametrize("seen", STRANGERS.values(), ids=STRANGERS)
def test_nothing_else_is_remembered(seen: Droplet | Unknown) -> None:
    sight = Sight(seen if isinstance(seen, Unknown) else [droplet(LB), seen])
    assert found_again([LB], sight, POOL, "lb") == ()


# A provider whose creates are lost, late or unanswered, and whose lists lag; an operator that dies at any point.

LATEST = 30.0
"""Seconds after which a create request has arrived or never will."""
LAG = CLAIM_SECONDS - LATEST - 1
NAME = LB.name
FOREIGN = Droplet(1, NAME, "nyc3", "active", frozenset(), created_at=NOW - 9999)


@dataclass
class Provider:
    """``born`` and ``dead``: Unix times by ID."""

    lag: float
    tag_lag: float
    now: float = NOW
    due: list[float] = field(default_factory=list)
    born: dict[int, float] = field(default_factory=dict)
    dead: dict[int, float] = field(default_factory=dict)
    most: int = 0

    def advance(self, by: float) -> None:
        until = self.now + by
        for at in sorted(t for t in self.due if t <= until):
            self.due.remove(at)
            self.now = at
            self.make()
        self.now = until

    def make(self) -> int:
        number = 100 + len(self.born)
        self.born[number] = self.now
        self.most = max(self.most, len(self.live()))
        return number

    def live(self) -> list[int]:
        return [n for n in self.born if n not in self.dead]

    def listed(self) -> list[Droplet]:
        """As it was up to ``lag`` seconds ago; one that never was ours is always there."""
        shown = [n for n, at in self.born.items() if at + self.lag <= self.now]
        shown = [n for n in shown if self.dead.get(n, self.now) + self.lag >= self.now]
        return [FOREIGN, *(self.show(n) for n in shown)]

    def show(self, number: int) -> Droplet:
        tags = frozenset(droplet_tags(POOL, "lb") if self.born[number] + self.tag_lag <= self.now else ())
        return Droplet(number, NAME, "nyc3", "active", tags, created_at=self.born[number])


@dataclass
class Operator:
    """Wants one droplet. Its records are the status, which outlives it."""

    provider: Provider
    records: list[DropletRecord] = field(default_factory=list)
    identity: int = 0
    destroyed: list[int] = field(default_factory=list)

    def reconcile(self, fate: str, delay: float) -> None:
        """``fate`` of a create, should this reconcile make one; "dies" before it is sent."""
        p = self.provider
        listed = p.listed()
        ids = missing_from_listing(self.records, listed)
        sight = Sight(listed, {i: p.show(i) if i in p.live() else None for i in ids}, {NAME: listed})
        settled = settle(self.records, sight, POOL, "lb", str(self.identity), p.now)
        self.records = list(settled.records)
        creates = [s for s in settled.steps if isinstance(s, CreateDroplet)]
        if not self.records:
            self.records = [claimed(at=p.now, by=str(self.identity))]
            creates = [CreateDroplet(NAME, "new-york", "nyc3", "lb", "wanted")]
        for step in settled.steps:
            if isinstance(step, DestroyDroplet):
                self.destroyed.append(step.droplet_id)
                if step.droplet_id in p.live():
                    p.dead[step.droplet_id] = p.now
        if creates:
            self.create(fate, delay)

    def create(self, fate: str, delay: float) -> None:
        p = self.provider
        match fate:
            case "answered":
                made = p.make()
                self.records = [self.records[0].model_copy(update={"droplet_id": made, "claim": None})]
            case "refused":
                self.records = []
            case "late":
                p.due.append(p.now + delay)
                p.advance(LATEST)
            case "late, and the operator dies":
                p.due.append(p.now + delay)
            case "done without an answer":
                p.make()
            case "lost":
                p.advance(LATEST)


FATES = ("answered", "refused", "late", "late, and the operator dies", "done without an answer", "lost", "dies")
ROUND = st.tuples(
    st.sampled_from(FATES),
    st.floats(0, LATEST),
    st.sampled_from([0.2, 1.0, 5.0, 20.0]),
    st.sampled_from(["", "", "", "restart", "deleted by hand"]),
)


@settings(max_examples=100, deadline=None)
@given(rounds=st.lists(ROUND, min_size=1, max_size=12), lag=st.floats(0, LAG), tag_lag=st.floats(0, LAG))
def test_there_are_never_two_live_droplets_and_in_the_end_there_is_one(
    rounds: list[tuple[str, float, float, str]], lag: float, tag_lag: float
) -> None:
    provider = Provider(lag, tag_lag)
    operator = Operator(provider)
    for fate, delay, pause, event in rounds:
        operator.reconcile(fate, delay)
        provider.advance(pause)
        if event == "restart":
            operator.identity += 1
        if event == "deleted by hand" and provider.live():
            provider.advance(3.0)
            provider.dead[provider.live()[0]] = provider.now
    for _ in range(40):
        operator.reconcile("answered", 0)
        provider.advance(5.0)
    assert provider.most <= 1
    assert [r.droplet_id for r in operator.records] == provider.live()
    assert len(provider.live()) == 1
    assert set(operator.destroyed) <= set(provider.dead), "only what was ours, and never a living one"


TAGS = st.sets(st.sampled_from([*droplet_tags(POOL, "lb"), *droplet_tags(OTHER, "lb"), "web"])).map(frozenset)
SOME = st.builds(
    lambda number, name, tags, born: droplet(LB, id=number, name=name, tags=tags, created_at=NOW + born),
    st.integers(1, 6),
    st.sampled_from([NAME, record("amsterdam").name, "web"]),
    TAGS,
    st.sampled_from([-9999.0, -1.0, 10.0]),
)


@settings(max_examples=200, deadline=None)
@given(
    listed=st.lists(SOME, max_size=6, unique_by=lambda d: d.id),
    named=st.lists(SOME, max_size=3),
    age=st.floats(0, 200),
)
def test_nothing_untagged_and_unrecorded_is_ever_destroyed_or_changed(
    listed: list[Droplet], named: list[Droplet], age: float
) -> None:
    records = [LB, claimed(location="amsterdam")]
    settled = look(records, Sight(listed, by_name={records[1].name: named}), NOW + age)
    ours = {r.droplet_id for r in settled.records}
    tagged = {d.id for d in listed if set(droplet_tags(POOL, "lb")[1:]) <= d.tags}
    for step in settled.steps:
        if isinstance(step, DestroyDroplet):
            assert step.droplet_id in tagged
            assert step.droplet_id not in ours
        elif not isinstance(step, CreateDroplet):
            assert step.droplet_id in ours  # type: ignore[union-attr]
