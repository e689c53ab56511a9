"""What becomes of a person's order to promote: when it is carried out, and when it is not any more."""

from typing import Any

from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.database import DatabasePlan, plan_database
from hasite.plan.databaseorders import promotion_condition
from hasite.plan.databasestatus import database_report
from hasite.plan.databaseworld import DatabaseWorld
from hasite.plan.steps import GiveOrder
from hasite.plan.world import Unknown

from tests.plan.database_build import AMSTERDAM, NEW_YORK, beat, member, reigning, world

A, B = member(NEW_YORK, 0), member(AMSTERDAM, 1)
AT_ANY_PRICE = {"location": AMSTERDAM, "epoch": 3, "acceptDataLoss": True}
BEHIND = beat(B.name, A.name, seen={"streaming": False})


def orders(plan: DatabasePlan) -> list[GiveOrder]:
    return [step for step in plan.steps if isinstance(step, GiveOrder)]


def without_primary(of: ReplicatedDatabase, **heard: Any) -> DatabaseWorld:
    """Only Amsterdam is heard."""
    return world(of, beats={A.name: Unknown("silent"), B.name: heard.get("b", BEHIND)})


def following(base: ReplicatedDatabase, plan: DatabasePlan, **spec: Any) -> ReplicatedDatabase:
    """The database as the plan leaves it, with another spec."""
    changed = reigning(**spec) if spec else base
    return changed.model_copy(update={"status": plan.status})


def test_without_a_primary_a_promotion_is_ordered_at_once() -> None:
    ordered = reigning(promote=AT_ANY_PRICE)
    assert [
        (o.name, o.kind, o.epoch, o.accept_data_loss) for o in orders(plan_database(ordered, without_primary(ordered)))
    ] == [(B.name, "promote", 3, True)]


def test_an_order_that_a_living_primary_turned_down_is_not_carried_out_by_force_later() -> None:
    noon = reigning(promote=AT_ANY_PRICE)
    first = plan_database(noon, world(noon, heard={B.name: BEHIND}))
    assert orders(first) == []
    night = following(noon, first)
    later = plan_database(night, without_primary(night))
    assert orders(later) == []
    assert promotion_condition(night, without_primary(night)).reason == "PrimaryReigned"
    assert any("order it again" in wait.message for wait in later.waits)


def test_taken_away_and_ordered_again_it_is_carried_out() -> None:
    noon = reigning(promote=AT_ANY_PRICE)
    night = following(noon, plan_database(noon, world(noon, heard={B.name: BEHIND})))
    taken = following(
        night,
        plan_database(
            following(night, plan_database(night, without_primary(night)), at=("new-york", "amsterdam")),
            without_primary(night),
        ),
        promote=AT_ANY_PRICE,
    )
    assert orders(plan_database(taken, without_primary(taken)))


def test_without_leave_to_lose_data_an_order_may_stand_for_its_epoch() -> None:
    noon = reigning(promote={**AT_ANY_PRICE, "acceptDataLoss": False})
    night = following(noon, plan_database(noon, world(noon, heard={B.name: BEHIND})))
    assert [(o.kind, o.accept_data_loss) for o in orders(plan_database(night, without_primary(night)))] == [
        ("promote", False)
    ]


def test_who_missed_the_last_reign_and_is_all_that_is_left_can_be_promoted() -> None:
    """Status.epoch says 4, and what people order is for 4, though the survivor has heard of 3 at most."""
    left = reigning(status={"epoch": 4}, promote={**AT_ANY_PRICE, "epoch": 4})
    assert [o.epoch for o in orders(plan_database(left, without_primary(left)))] == [4]


def test_an_order_for_another_epoch_is_void_and_said_to_be() -> None:
    old = reigning(promote={**AT_ANY_PRICE, "epoch": 2})
    seen = without_primary(old)
    plan = plan_database(old, seen)
    assert orders(plan) == []
    told = {c.type: c for c in database_report(old, seen, plan, ()).conditions}["PromotionOrdered"]
    assert (told.status, told.reason) == ("False", "OtherEpoch")
    assert "epoch 2" in told.message and "epoch 3" in told.message
