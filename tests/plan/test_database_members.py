"""Whose part a machine plays, by its name; when a member that leaves is kept; who makes the database."""

from dataclasses import replace
from typing import Any

import pytest
from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.database import DatabasePlan, plan_database
from hasite.plan.databaseleave import DISCARD
from hasite.plan.databaserollout import Group, Part, plan_members
from hasite.plan.databasestatus import database_report
from hasite.plan.databaseworld import role_of
from hasite.plan.droplets import Sight
from hasite.plan.names import Owner, Role, droplet_name, parse_name
from hasite.plan.steps import CreateDroplet, DeclareDatabases, DeliverGuard, DestroyDroplet, GiveOrder
from hasite.plan.world import Unknown
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.database_build import (
    AMSTERDAM,
    FRANKFURT,
    NEW_YORK,
    NOW,
    beat,
    database,
    droplet,
    machine,
    member,
    reigning,
    world,
)

A, B = member(NEW_YORK, 0), member(AMSTERDAM, 1)
ROLES: tuple[Role, ...] = ("lb", "app", "db", "witness")
WORDS = st.lists(st.sampled_from(["a", "db", "witness", "lb", "app", "1", "0abcde"]), min_size=1, max_size=3).map(
    "-".join
)


def of(kind: type, plan: DatabasePlan) -> list[Any]:
    return [step for step in plan.steps if isinstance(step, kind)]


def after(plan: DatabasePlan, base: ReplicatedDatabase) -> ReplicatedDatabase:
    return base.model_copy(update={"status": plan.status})


@given(owner=WORDS, location=WORDS, role=st.sampled_from(ROLES), ordinal=st.integers(0, 999))
def test_a_name_is_of_one_role_whatever_owners_and_locations_are_called(
    owner: str, location: str, role: Role, ordinal: int
) -> None:
    mine = Owner("da7aba5e-0000-4000-8000-000000000004", "default", owner)
    name = droplet_name(mine, role, location, "abcdef12", ordinal)
    assert parse_name(name, mine, role) == (location, "abcdef")
    assert [other for other in ROLES if parse_name(name, mine, other)] == [role]


@pytest.mark.parametrize("name", ["pg-witness-test", "witness", "a-db-b"])
def test_a_database_of_any_name_buys_what_it_wants_and_no_more(name: str) -> None:
    shop = database()
    shop = shop.model_copy(update={"metadata": {**shop.metadata, "name": name}})
    bought = 0
    for _ in range(4):
        plan = plan_database(shop, world(shop))
        bought += len(of(CreateDroplet, plan))
        shop = after(plan, shop)
    assert bought == 2
    assert {role_of(shop, record) for record in shop.status.droplets} == {"db"}


def test_machines_beyond_twice_what_is_wanted_are_not_bought() -> None:
    """Whatever the reason is for which those that are there do not count."""
    strangers = [member(AMSTERDAM, n).model_copy(update={"location": "elsewhere"}) for n in range(10, 14)]
    crowd = reigning(records=[A, *strangers], without=[r.name for r in strangers])
    plan = plan_database(crowd, world(crowd))
    assert of(CreateDroplet, plan) == []
    assert [refusal.reason for refusal in plan.refusals] == ["TooManyMachines"]


# Members that leave.

C = member(AMSTERDAM, 3, leaving_since=NOW - 9)
KEPT = ("/var/lib/hasite/saved/3-x",)


def leaving(**status: Any) -> ReplicatedDatabase:
    return reigning(records=[A, B, C], without=[C.name], status=status)


def remembered(**spec: Any) -> ReplicatedDatabase:
    """What C saved stands in the status, from the time when it took part."""
    whole = reigning(records=[A, B, C])
    seen = world(whole, heard={C.name: beat(C.name, A.name, saved=KEPT)})
    status = database_report(whole, seen, plan_database(whole, seen), ())
    return reigning(records=[A, B, C], without=[C.name], status={"members": status.members}, **spec)


def test_a_leaving_member_that_says_it_saved_something_is_kept() -> None:
    large = leaving()
    plan = plan_database(large, world(large, heard={C.name: beat(C.name, A.name, saved=KEPT)}))
    assert of(DestroyDroplet, plan) == []


def test_a_leaving_member_is_kept_for_what_it_saved_when_it_is_silent_and_that_is_said() -> None:
    large = remembered()
    silent = world(large, heard={C.name: Unknown("silent")})
    plan = plan_database(large, silent)
    assert (of(DestroyDroplet, plan), plan.waits) == ([], ())
    report = database_report(large, silent, plan, ())
    told = {c.type: c for c in report.conditions}["DataSaved"]
    assert told.status == "True" and C.name in told.message and DISCARD in told.message
    assert [m.saved for m in report.members if m.name == C.name] == [KEPT]


def test_a_person_lets_it_go() -> None:
    large = remembered()
    metadata = {**large.metadata, "annotations": {DISCARD: f"other, {C.name}"}}
    large = large.model_copy(update={"metadata": metadata})
    plan = plan_database(large, world(large, heard={C.name: Unknown("silent")}))
    assert [step.name for step in of(DestroyDroplet, plan)] == [C.name]


def test_what_is_kept_holds_nothing_else_up() -> None:
    large = remembered(size="s-2vcpu-4gb")
    plan = plan_database(large, world(large, heard={C.name: Unknown("silent")}))
    assert len(of(CreateDroplet, plan)) == 1


# Fewer members.

NY: Group = ("db", NEW_YORK)


ELSEWHERE: Group = ("db", "x")
FIRST = Part("a-0-x-y", NY, True, True, holder=True)
BROKEN = Part("a-1-x-y", NY, True, False)
ALSO = Part("a-2-x-y", NY, True, False)


@pytest.mark.parametrize(
    ("why", "want", "parts", "leaves"),
    [
        ("the broken one goes", {NY: 1}, [FIRST, BROKEN], [BROKEN.name]),
        ("though another is broken elsewhere", {NY: 1, ELSEWHERE: 1},
         [FIRST, BROKEN, replace(ALSO, group=ELSEWHERE)], [BROKEN.name]),
        ("too few serve without it", {NY: 2}, [FIRST, BROKEN, ALSO], []),
        ("its location is given up, and the next one is not there yet", {ELSEWHERE: 1},
         [BROKEN, replace(ALSO, group=ELSEWHERE)], []),
        ("nobody serves", {NY: 1}, [BROKEN, ALSO], []),
        ("the new one does not serve yet", {NY: 1}, [replace(BROKEN, current=False), ALSO], []),
    ],
)  # fmt: skip
def test_a_broken_member_that_is_too_many_goes_without_being_waited_for(
    why: str, want: Any, parts: list[Part], leaves: list[str]
) -> None:
    assert list(plan_members(want, parts, True).leave or ()) == leaves, why


# Before there is a database.


def unmade(**vote: Any) -> ReplicatedDatabase:
    return reigning(status={"made": False, "epoch": 0, "vote": VoteRecord(**vote)})


def only_b(of: ReplicatedDatabase, gone: Any = None, **said: Any) -> Any:
    values: dict[str, Any] = {
        "epoch": 0,
        "reign": 0,
        "membership_version": 0,
        "seen": {"state": "absent", "position": None},
    } | said
    heard = beat(B.name, "", values.pop("epoch"), **values)
    return world(
        of, beats={A.name: Unknown("gone"), B.name: heard}, sight=Sight([droplet(B)], {A.droplet_id or 0: gone})
    )


def test_another_makes_the_database_when_the_first_was_lost_before_it_had() -> None:
    fresh = unmade()
    plan = plan_database(fresh, only_b(fresh))
    assert plan.status.bootstrap == B.name
    assert [step.location for step in of(CreateDroplet, plan)] == [NEW_YORK]


@pytest.mark.parametrize(
    ("why", "vote", "seen"),
    [
        ("the machine may be there", {}, {"gone": Unknown("no answer")}),
        ("somebody voted", {}, {"epoch": 1}),
        ("the operator voted", {"epoch": 1}, {}),
        ("somebody has data", {}, {"seen": {"state": "stopped"}}),
    ],
)
def test_nobody_else_makes_it_while_the_first_may_have(why: str, vote: Any, seen: Any) -> None:
    fresh = unmade(**vote)
    assert plan_database(fresh, only_b(fresh, **seen)).status.bootstrap == A.name, why


def test_what_a_failover_may_have_lost_is_declared_again() -> None:
    over = reigning(durability="asynchronous")
    taken = world(over, holder=B.name, beats={A.name: Unknown("gone"), B.name: beat(B.name, B.name, 4, sync=None)})
    assert [step.name for step in of(DeclareDatabases, plan_database(over, taken))] == [B.name]


# Deliveries that are refused.


def test_a_member_that_refuses_its_delivery_holds_nobody_else_up() -> None:
    large = reigning(at=[NEW_YORK, AMSTERDAM, FRANKFURT])
    broken = large.status.droplets[2].name
    old = machine(settings="old")
    seen = world(
        large,
        machines={r.name: old for r in large.status.droplets},
        heard={broken: beat(broken, A.name, seen={"streaming": False, "state": "failed"})},
    )
    first = plan_database(large, seen)
    assert [step.name for step in of(DeliverGuard, first)] == [broken]
    after_that = plan_database(large, replace(seen, refused=frozenset({broken})))
    assert [step.name for step in of(DeliverGuard, after_that)] == [B.name]


def test_who_refuses_alone_is_left_alone_for_a_while_and_that_is_said() -> None:
    calm = reigning()
    plan = plan_database(calm, world(calm, machines={B.name: machine(settings="old")}, refused=frozenset({B.name})))
    assert (of(DeliverGuard, plan), [wait.message for wait in plan.waits]) == (
        [],
        [f"{B.name} refused its delivery a moment ago"],
    )


def test_an_order_goes_to_a_member_before_its_delivery_which_may_fail() -> None:
    moved = reigning(primaryLocation=AMSTERDAM, status={"preferred": NEW_YORK})
    plan = plan_database(moved, world(moved, machines={B.name: machine(settings="old")}))
    kinds = [type(step) for step in plan.steps]
    assert kinds.index(GiveOrder) < kinds.index(DeliverGuard)


@pytest.mark.parametrize("spec", [{"version": "16"}, {"parameters": {}}])
def test_what_people_order_is_passed_on_while_something_else_is_refused(spec: dict[str, Any]) -> None:
    wish = reigning(primaryLocation=AMSTERDAM, status={"preferred": NEW_YORK}, **spec)
    plan = plan_database(wish, world(wish, parameters_error="" if "version" in spec else "not that one"))
    assert plan.refusals
    assert [step.name for step in of(GiveOrder, plan)] == [B.name]
