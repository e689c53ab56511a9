"""One database: from nothing to a primary with standbys, and every change after that."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.model import OPERATOR
from hasite.plan.database import DatabasePlan, plan_database, plan_database_removal
from hasite.plan.droplets import Sight
from hasite.plan.membership import settings_of
from hasite.plan.steps import (
    CreateDroplet,
    DeclareDatabases,
    DeliverGuard,
    DestroyDroplet,
    DestroyFirewall,
    GiveOrder,
    StageHostKey,
)
from hasite.plan.world import Impostor, MachineView, Unknown

from tests.plan.build import claimed
from tests.plan.database_build import (
    AMSTERDAM,
    BOTH,
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


def of(kind: type, plan: DatabasePlan) -> list[Any]:
    return [step for step in plan.steps if isinstance(step, kind)]


def names(kind: type, plan: DatabasePlan) -> list[str]:
    return [step.name for step in of(kind, plan)]


def left(plan: DatabasePlan) -> list[str]:
    return [r.name for r in plan.status.droplets if r.leaving_since is not None]


def after(plan: DatabasePlan, base: ReplicatedDatabase) -> ReplicatedDatabase:
    return base.model_copy(update={"status": plan.status})


# From nothing.


def test_the_vote_and_the_claims_are_in_the_status_before_anything_is_bought() -> None:
    plan = plan_database(database(), world(database()))
    assert plan.status.vote == VoteRecord()
    assert [r.claim is not None for r in plan.status.droplets] == [True, True]
    assert [step.location for step in of(CreateDroplet, plan)] == list(BOTH)


def test_no_droplet_is_made_before_its_firewall_stands() -> None:
    assert of(CreateDroplet, plan_database(database(), world(database(), firewalls=()))) == []


def test_a_name_is_never_given_twice() -> None:
    lost = reigning(records=[A], members=1)
    plan = plan_database(lost, world(lost, firewalls=world(lost).firewalls))
    assert plan.status.serial == 21
    assert next(r.name for r in plan.status.droplets if r.claim).rsplit("-", 3)[1] == "20"


def test_a_status_that_was_lost_stops_everything() -> None:
    empty = database()
    plan = plan_database(empty, world(empty, sight=Sight([droplet(A), droplet(B)])))
    assert [r.reason for r in plan.refusals] == ["VoteLost"]
    assert plan.steps == ()
    assert plan.status.vote is None


def test_nobody_takes_part_until_every_wanted_member_is_set_up() -> None:
    young = B.model_copy(update={"host_key": None, "bootstrap_keys": ("k",)})
    half = database(status={"droplets": [A, young], "vote": VoteRecord()})
    plan = plan_database(half, world(half, machines={A.name: machine(), B.name: MachineView("k", "running", NOW)}))
    assert plan.status.membership is None
    assert plan.status.bootstrap == ""


def set_up(**spec: Any) -> ReplicatedDatabase:
    return database(status={"droplets": [A, B], "vote": VoteRecord(), "serial": 2}, **spec)


def test_who_makes_the_database_is_remembered_before_it_is_told() -> None:
    plan = plan_database(set_up(), world(set_up(), versions={}))
    assert plan.status.bootstrap == A.name
    assert plan.status.membership is not None
    assert plan.status.membership.version == 1
    assert plan.status.membership.voters == (*sorted((A.name, B.name)), OPERATOR)
    assert of(DeliverGuard, plan) == []


def test_the_database_is_made_where_the_primary_is_wished() -> None:
    wished = set_up(primaryLocation=AMSTERDAM)
    plan = plan_database(wished, world(wished))
    assert plan.status.bootstrap == B.name
    assert settings_of(after(plan, wished), A.name).preferred_location == AMSTERDAM


def test_before_there_is_a_database_all_guards_are_delivered_at_once() -> None:
    told = after(plan_database(set_up(), world(set_up())), set_up())
    new = machine(program="", settings="", active=False, enabled=False)
    plan = plan_database(told, world(told, machines={A.name: new, B.name: new}))
    assert names(DeliverGuard, plan) == [A.name, B.name]
    assert settings_of(told, B.name).bootstrap == A.name


def test_once_it_was_made_nobody_is_told_to_make_one_again() -> None:
    told = after(plan_database(set_up(), world(set_up())), set_up())
    plan = plan_database(told, world(told, beats={A.name: beat(A.name, A.name, 1)}))
    assert plan.status.made
    assert settings_of(after(plan, told), A.name).bootstrap is None


def test_new_machines_get_a_host_key_of_their_own_first() -> None:
    young = A.model_copy(update={"host_key": None, "bootstrap_keys": ("k",)})
    half = database(status={"droplets": [young], "vote": VoteRecord()})
    assert names(StageHostKey, plan_database(half, world(half))) == [A.name]


def test_an_impostor_gets_nothing() -> None:
    told = reigning()
    plan = plan_database(told, world(told, machines={B.name: Impostor("another key")}))
    assert B.name not in [step.name for step in plan.steps if hasattr(step, "name")]


# At rest.


def test_at_rest_there_is_nothing_to_do() -> None:
    plan = plan_database(reigning(), world(reigning()))
    assert (plan.steps, plan.waits, plan.refusals) == ((), (), ())


def test_an_operator_that_hears_no_guard_changes_nothing() -> None:
    calm = reigning()
    plan = plan_database(calm, world(calm, heard={A.name: Unknown("silent"), B.name: Unknown("silent")}))
    assert plan.steps == ()


def test_users_are_declared_on_the_primary_when_they_differ() -> None:
    calm = reigning()
    plan = plan_database(calm, world(calm, declaration="other"))
    assert of(DeclareDatabases, plan) == [
        DeclareDatabases(A.name, "other-3", "users or databases differ from what was declared last")
    ]


def test_nothing_is_declared_while_nobody_takes_writes() -> None:
    calm = reigning()
    without = world(calm, declaration="digest", heard={A.name: beat(A.name, A.name, lease_left=0.0)})
    assert of(DeclareDatabases, plan_database(calm, without)) == []


def test_nothing_is_declared_while_a_write_would_wait_for_a_standby() -> None:
    calm = reigning()
    behind = world(calm, declaration="digest", heard={B.name: beat(B.name, A.name, seen={"streaming": False})})
    assert of(DeclareDatabases, plan_database(calm, behind)) == []


# Deliveries.

OLD = {"program": "old"}
OLD_SETTINGS = {"settings": "old"}


def test_the_holder_gets_its_delivery_last() -> None:
    calm = reigning()
    both = {A.name: machine(**OLD_SETTINGS), B.name: machine(**OLD_SETTINGS)}
    assert names(DeliverGuard, plan_database(calm, world(calm, machines=both))) == [B.name]
    assert names(DeliverGuard, plan_database(calm, world(calm, machines={A.name: both[A.name]}))) == [A.name]


def test_new_settings_restart_no_guard() -> None:
    calm = reigning()
    (step,) = of(DeliverGuard, plan_database(calm, world(calm, machines={B.name: machine(**OLD_SETTINGS)})))
    assert not step.restart


def test_the_primary_hands_over_before_its_guard_is_restarted() -> None:
    calm = reigning()
    plan = plan_database(calm, world(calm, machines={A.name: machine(**OLD)}))
    assert of(DeliverGuard, plan) == []
    assert names(GiveOrder, plan) == [B.name]


def test_the_only_member_is_restarted_without_a_hand_over() -> None:
    alone = reigning([NEW_YORK])
    plan = plan_database(alone, world(alone, machines={A.name: machine(**OLD)}))
    assert names(DeliverGuard, plan) == [A.name]


def test_no_guard_is_restarted_while_another_member_does_not_follow() -> None:
    c = member(FRANKFURT, 2)
    three = reigning((*BOTH, FRANKFURT), [A, B, c])
    behind = {c.name: beat(c.name, A.name, seen={"streaming": False})}
    plan = plan_database(three, world(three, machines={B.name: machine(**OLD)}, heard=behind))
    assert of(DeliverGuard, plan) == []


def test_a_guard_that_does_not_run_is_delivered_anew() -> None:
    calm = reigning()
    dead = world(calm, machines={B.name: machine(active=False)}, heard={B.name: Unknown("silent")})
    (step,) = of(DeliverGuard, plan_database(calm, dead))
    assert (step.name, step.restart) == (B.name, True)


# Members come and go.


def test_a_lost_member_keeps_its_place_until_another_has_come() -> None:
    both = reigning()
    gone = both.model_copy(update={"status": both.status.model_copy(update={"droplets": (A,)})})
    plan = plan_database(gone, world(gone))
    assert [step.location for step in of(CreateDroplet, plan)] == [AMSTERDAM]
    assert plan.status.membership == both.status.membership


def test_its_successor_takes_its_place_in_one_change() -> None:
    new = member(AMSTERDAM, 20)
    both = reigning()
    come = both.model_copy(update={"status": both.status.model_copy(update={"droplets": (A, new), "serial": 21})})
    plan = plan_database(come, world(come, heard={new.name: Unknown("no guard yet")}))
    assert plan.status.membership is not None
    assert [m.name for m in plan.status.membership.members] == sorted((A.name, new.name))
    assert plan.status.membership.version == 8


def test_no_second_change_before_the_first_is_in_force() -> None:
    c = member(AMSTERDAM, 20)
    three = reigning(records=[A, B, c], without=[c.name], members=2)
    pending = world(three, heard={A.name: beat(A.name, A.name, membership_version=6)})
    assert plan_database(three, pending).status.membership == three.status.membership


def test_one_member_leaves_at_a_time_and_never_the_holder() -> None:
    crowd = [A, B, member(NEW_YORK, 2), member(AMSTERDAM, 3)]
    large = reigning(records=crowd)
    assert left(plan_database(large, world(large))) == [crowd[3].name]


def test_a_member_that_leaves_is_out_of_the_membership_first() -> None:
    c = member(AMSTERDAM, 3, leaving_since=NOW - 9)
    large = reigning(records=[A, B, c])
    plan = plan_database(large, world(large))
    assert of(DestroyDroplet, plan) == []
    assert c.name not in [m.name for m in plan.status.membership.members] if plan.status.membership else False


@pytest.mark.parametrize(
    ("why", "changed", "destroyed"),
    [
        ("the members reign without it, and both locations have the data", {}, True),
        ("the change is not in force", {A.name: beat(A.name, A.name, membership_version=6)}, False),
        ("nobody takes writes", {A.name: beat(A.name, A.name, lease_left=0.0)}, False),
        ("the other location does not follow", {B.name: beat(B.name, A.name, seen={"streaming": False})}, False),
        ("the other location is silent", {B.name: Unknown("silent")}, False),
    ],
)
def test_a_member_is_destroyed_only_when_nothing_depends_on_it(why: str, changed: Any, destroyed: bool) -> None:
    c = member(AMSTERDAM, 3, leaving_since=NOW - 9)
    large = reigning(records=[A, B, c], without=[c.name])
    plan = plan_database(large, world(large, heard=changed))
    assert names(DestroyDroplet, plan) == ([c.name] if destroyed else []), why


def test_the_holder_hands_over_before_it_leaves() -> None:
    moved = reigning(records=[A, B], at=[AMSTERDAM])
    plan = plan_database(moved, world(moved))
    assert left(plan) == []
    assert names(GiveOrder, plan) == [B.name]


def test_one_that_was_elected_while_it_was_leaving_hands_over() -> None:
    c = member(AMSTERDAM, 3, leaving_since=NOW - 9)
    large = reigning(records=[A, B, c], without=[c.name])
    plan = plan_database(large, world(large, holder=c.name))
    assert names(GiveOrder, plan) == [B.name]
    assert of(DestroyDroplet, plan) == []


def test_a_new_size_is_rolled_out_by_new_members_first() -> None:
    calm = reigning(size="s-2vcpu-4gb")
    plan = plan_database(calm, world(calm))
    assert [step.location for step in of(CreateDroplet, plan)] == [AMSTERDAM]
    assert left(plan) == []


def test_a_droplet_that_nobody_remembers_is_left_for_a_person() -> None:
    calm, stray = reigning(), member(AMSTERDAM, 9)
    sight = Sight([droplet(A), droplet(B), droplet(stray)])
    plan = plan_database(calm, world(calm, sight=sight))
    assert plan.strange == (stray.name,)
    assert plan.steps == ()


# Orders.


def ordered(plan: DatabasePlan) -> list[tuple[str, str, bool]]:
    return [(step.kind, step.name, step.accept_data_loss) for step in of(GiveOrder, plan)]


def lost_primary(of: ReplicatedDatabase, **seen: Any) -> Any:
    return world(of, heard={A.name: Unknown("silent"), B.name: beat(B.name, A.name, seen={"streaming": False, **seen})})


@pytest.mark.parametrize(
    ("why", "spec", "found"),
    [
        ("a changed wish is a switchover", {"primaryLocation": AMSTERDAM, "status": {"preferred": NEW_YORK}}, True),
        ("a wish that was fulfilled once is not enforced", {"primaryLocation": AMSTERDAM}, False),
        ("an order for this epoch", {"promote": {"location": AMSTERDAM, "epoch": 3}}, True),
        ("an order for an epoch that is over", {"promote": {"location": AMSTERDAM, "epoch": 2}}, False),
        ("an order for where it is", {"promote": {"location": NEW_YORK, "epoch": 3}}, False),
    ],
)
def test_when_a_switchover_is_ordered(why: str, spec: Any, found: bool) -> None:
    calm = reigning(**spec)
    assert ordered(plan_database(calm, world(calm))) == ([("switchover", B.name, False)] if found else []), why


def test_without_a_primary_a_person_can_order_a_promotion() -> None:
    dead = reigning(promote={"location": AMSTERDAM, "epoch": 3, "acceptDataLoss": True})
    assert ordered(plan_database(dead, lost_primary(dead))) == [("promote", B.name, True)]


def test_without_an_order_the_guards_alone_promote() -> None:
    assert ordered(plan_database(reigning(), lost_primary(reigning()))) == []


def test_an_order_is_not_repeated_at_every_look() -> None:
    calm = reigning(promote={"location": AMSTERDAM, "epoch": 3})
    first = world(calm)
    (step,) = of(GiveOrder, plan_database(calm, first))
    from hasite.guard.messages import Order

    given = Order(OPERATOR, step.kind, step.name, step.epoch)
    assert ordered(plan_database(calm, replace(first, ordered=(given, NOW - 1)))) == []
    assert ordered(plan_database(calm, replace(first, ordered=(given, NOW - 11)))) != []


def test_a_target_that_does_not_follow_is_no_target() -> None:
    calm = reigning(promote={"location": AMSTERDAM, "epoch": 3})
    plan = plan_database(calm, world(calm, heard={B.name: beat(B.name, A.name, seen={"streaming": False})}))
    assert ordered(plan) == []
    assert plan.waits != ()


# The end.


def test_a_deleted_database_goes_member_by_member_and_then_its_firewall() -> None:
    calm = reigning()
    plan = plan_database_removal(calm, world(calm))
    assert names(DestroyDroplet, plan) == [A.name, B.name]
    empty = database()
    plan = plan_database_removal(empty, world(empty))
    assert len(of(DestroyFirewall, plan)) == 1
    assert plan_database_removal(empty, world(empty, firewalls=())).finished


def test_refusals_name_what_has_to_be_mended() -> None:
    cases: Sequence[tuple[dict[str, Any], str]] = [
        ({"version": "16"}, "VersionNotAvailable"),
    ]
    for spec, reason in cases:
        assert [r.reason for r in plan_database(database(**spec), world(database())).refusals] == [reason]


def test_a_claim_that_left_no_droplet_is_renewed_under_the_same_name() -> None:
    """Its name had no machine yet, so it had no vote."""
    open_claim = claimed(at=NOW - 60).model_copy(update={"name": B.name, "location": AMSTERDAM, "template": B.template})
    half = database(status={"droplets": [A, open_claim], "vote": VoteRecord(), "serial": 2})
    sight = Sight([droplet(A)], by_name={B.name: []})
    assert names(CreateDroplet, plan_database(half, world(half, sight=sight))) == [B.name]
