"""What no plan for a database may ever hold, whatever the world looks like."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.database import plan_database
from hasite.plan.databaserollout import Part, plan_members
from hasite.plan.databaseworld import DatabaseWorld
from hasite.plan.deliveries import deliveries
from hasite.plan.droplets import Sight
from hasite.plan.names import droplet_name
from hasite.plan.steps import DeliverGuard, DestroyDroplet, GiveOrder
from hasite.plan.world import Impostor, Unknown
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import OTHER
from tests.plan.database_build import (
    AMSTERDAM,
    DATABASE,
    FRANKFURT,
    NEW_YORK,
    NOW,
    beat,
    droplet,
    machine,
    member,
    reigning,
    world,
)

PLACES = (NEW_YORK, AMSTERDAM, FRANKFURT)
GUARDS = st.fixed_dictionaries(
    {
        "program": st.sampled_from(["program", "old", ""]),
        "settings": st.sampled_from(["settings", "old", ""]),
        "active": st.booleans(),
        "enabled": st.booleans(),
    }
).map(lambda values: machine(**values))
MACHINES = GUARDS | st.sampled_from([Unknown("no answer"), Impostor("another key")])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[ReplicatedDatabase, DatabaseWorld]:
    """A database that was made, some of it lost, leaving, silent, behind or out of date."""
    records = [
        member(
            draw(st.sampled_from(PLACES)),
            serial,
            template=draw(st.sampled_from(["", "0ld0ld00"])) or member(NEW_YORK, 0).template,
            leaving_since=draw(st.sampled_from([None, None, NOW - 5])),
        )
        for serial in range(draw(st.integers(1, 5)))
    ]
    without = [r.name for r in records if r.leaving_since and draw(st.booleans())]
    at = draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True))
    spec: dict[str, Any] = {"promote": {"location": at[0], "epoch": 3}} if draw(st.booleans()) else {}
    of = reigning(at, records, without=without, members=draw(st.integers(1, 2)), **spec)
    holder = draw(st.sampled_from([r.name for r in records if r.name not in without] or [records[0].name]))
    heard = {r.name: draw(_beats(r.name, holder)) for r in records}
    seen = world(of, holder=holder, heard=heard, machines={r.name: draw(MACHINES) for r in records})
    return of, seen


@st.composite
def _beats(draw: st.DrawFn, name: str, holder: str) -> Any:
    if draw(st.integers(0, 3)) == 0:
        return Unknown("silent")
    version = draw(st.sampled_from([7, 7, 0]))
    if name == holder:
        return beat(name, holder, lease_left=draw(st.sampled_from([2.0, 2.0, 0.0])), membership_version=version)
    state = draw(st.sampled_from(["standby", "standby", "absent", "failed"]))
    return beat(name, holder, seen={"state": state, "streaming": state == "standby" and draw(st.booleans())})


def stale(of: ReplicatedDatabase, seen: DatabaseWorld) -> set[str]:
    """Members that a delivery could reach, and that need one."""
    names = {m.name for m in of.status.membership.members} if of.status.membership else set()
    found = set()
    for name in names:
        guard, wanted = seen.guard(name), seen.versions[name]
        if guard and not (
            (guard.program, guard.settings) == (wanted.program, wanted.settings) and guard.active and guard.enabled
        ):
            found.add(name)
    return found


@given(worlds())
def test_never_are_two_members_touched_at_once_and_the_holder_is_the_last(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    touched = [s.name for s in plan_database(of, seen).steps if isinstance(s, DeliverGuard)]
    assert len(touched) <= 1
    if seen.holder is not None and touched == [seen.holder.sender]:
        assert stale(of, seen) == {seen.holder.sender}


@given(worlds())
def test_a_restart_that_would_cost_the_primary_its_office_comes_after_a_hand_over(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    work = deliveries(of, of.status.droplets, seen)
    restarted = [s.name for s in work.steps if isinstance(s, DeliverGuard) and s.restart]
    others = [
        b.sender
        for b in seen.beats.values()
        if not isinstance(b, Unknown)
        and b is not seen.primary
        and b.database.state == "standby"
        and b.database.streaming
    ]
    if seen.primary is not None and seen.primary.sender in restarted:
        assert not others or {m.name for m in of.status.membership.members} & set(others) == set()  # type: ignore[union-attr]


@given(worlds())
def test_nothing_is_destroyed_but_a_member_that_left_and_that_nobody_needs(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    membership = of.status.membership
    members = {m.name for m in membership.members} if membership else set()
    for step in plan_database(of, seen).steps:
        if isinstance(step, DestroyDroplet):
            record = next(r for r in of.status.droplets if r.droplet_id == step.droplet_id)
            assert record.leaving_since is not None
            assert record.name not in members
            assert seen.primary is not None and seen.primary.sender != record.name
            assert seen.primary.membership_version >= 7


@given(worlds())
def test_at_most_one_member_begins_to_leave_and_never_the_holder(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    before = {r.name for r in of.status.droplets if r.leaving_since is not None}
    new = {r.name for r in plan_database(of, seen).status.droplets if r.leaving_since is not None} - before
    assert len(new) <= (0 if before else 1)
    assert seen.holder is None or seen.holder.sender not in new


@given(worlds())
def test_a_changed_membership_counts_up_keeps_the_holder_and_follows_one_that_is_in_force(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    before, after = of.status.membership, plan_database(of, seen).status.membership
    if before is None or after == before:
        return
    assert after is not None and after.version == before.version + 1
    assert seen.holder is not None and seen.holder.membership_version >= before.version
    assert len(after.voters) % 2 == 1


@given(worlds())
def test_an_order_names_the_present_epoch_and_a_member_with_data(
    case: tuple[ReplicatedDatabase, DatabaseWorld],
) -> None:
    of, seen = case
    for step in plan_database(of, seen).steps:
        if isinstance(step, GiveOrder):
            assert step.epoch == 3
            target = seen.beat(step.name)
            assert target is not None and target.database.position is not None and target is not seen.primary


@given(worlds())
def test_droplets_of_others_are_never_touched(case: tuple[ReplicatedDatabase, DatabaseWorld]) -> None:
    of, seen = case
    name = droplet_name(OTHER, "db", NEW_YORK, "abc", 0)
    foreign = replace(droplet(member(NEW_YORK, 50)), id=999, name=name, tags=frozenset({f"hasite:owner:{OTHER.uid}"}))
    listed = seen.sight.listed
    assert not isinstance(listed, Unknown)
    plan = plan_database(of, replace(seen, sight=Sight([*listed, foreign])))
    assert 999 not in [getattr(step, "droplet_id", None) for step in plan.steps]
    assert DATABASE.uid != OTHER.uid


@given(
    st.lists(
        st.builds(
            Part,
            st.integers(0, 99).map(lambda n: f"shop-db-x-{n}-aaaaaa-00000000"),
            st.sampled_from([("db", name) for name in PLACES]),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        max_size=6,
        unique_by=lambda part: part.name,
    ),
    st.dictionaries(st.sampled_from([("db", name) for name in PLACES]), st.integers(1, 2), min_size=1),
)
def test_a_member_leaves_only_while_all_that_stay_serve(parts: Sequence[Part], want: Any) -> None:
    change = plan_members(want, parts, careful=True)
    if change.leave:
        assert not change.create
        staying = [p for p in parts if p.name not in change.leave and p.group in want and p.current]
        assert all(p.serving for p in staying)
