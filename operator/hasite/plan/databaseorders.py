"""When the guards are told to make another member the primary: a person's order, a changed wish, or one that must go.

They do the rest: the present primary refuses what its target can't take, and a promotion that would lose writes is
refused unless the person said that it may. An order is for one epoch, so that giving it again does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hasite.api.common import Condition, DropletRecord
from hasite.api.databasestatus import PromotionRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.databaseworld import DatabaseWorld, role_of, serves
from hasite.plan.status import condition
from hasite.plan.steps import GiveOrder, Step, Wait

REPEAT_SECONDS = 10.0
"""An order that nothing has come of is given again. Longer than a switchover may take before it is called off."""


DECLINED = (
    "spec.promote accepts a loss of data, but stood there while a primary reigned: it is not carried out by force now. "
    "Take it away, and order it again"
)


@dataclass(frozen=True)
class Ordered:
    """``preferred``: the primaryLocation that was acted upon last, to be remembered."""

    steps: tuple[Step, ...]
    waits: tuple[Wait, ...]
    preferred: str


def plan_orders(
    database: ReplicatedDatabase, world: DatabaseWorld, records: Sequence[DropletRecord], hand_over: str
) -> Ordered:
    """``hand_over``: why the primary must not stay where it is, for the operator's own work; "" when it may."""
    spec, wish = database.spec, database.spec.primary_location or ""
    where = {r.name: r.location for r in records}
    primary = world.primary
    at = where.get(primary.sender, "") if primary else ""
    preferred = wish if at and at == wish else database.status.preferred
    promote = spec.promote
    if promote is not None and promote.epoch == present(database, world) and at != promote.location:
        step = _promotion(database, world, records)
        if step is not None and step.accept_data_loss and _declines(database):
            return Ordered((), (Wait(DECLINED, 2.0),), preferred)
        return _once(world, step, f"no member at {promote.location} can be made the primary", preferred)
    if primary is None:
        return Ordered((), (), preferred)
    if wish and wish != preferred:
        target = _target(database, world, [r for r in records if r.location == wish])
        order = _switchover(target, world, f"primaryLocation is {wish}")
        return _once(world, order, f"no member at {wish} can be made the primary", preferred)
    if hand_over:
        target = _target(database, world, records)
        order = _switchover(target, world, hand_over)
        return _once(world, order, f"no other member can take over: {hand_over}", preferred)
    return Ordered((), (), preferred)


def present(database: ReplicatedDatabase, world: DatabaseWorld) -> int:
    """The epoch that a person's order is for: the newest reign that was ever seen, as status.epoch has it. Who missed
    it, and is all that is left, knows an older one."""
    return max(world.reign, database.status.epoch)


def declined(database: ReplicatedDatabase, world: DatabaseWorld) -> PromotionRecord | None:
    """The order to promote at any price that stood there while a primary reigned: to be remembered, for as long as it
    stands. What a living primary was spared must not come upon it at its next hiccup."""
    promote = database.spec.promote
    if promote is None or not promote.accept_data_loss:
        return None
    if world.primary is not None or _declines(database):
        return PromotionRecord(location=promote.location, epoch=promote.epoch)
    return None


def _declines(database: ReplicatedDatabase) -> bool:
    promote, before = database.spec.promote, database.status.declined_promotion
    return bool(promote and before and (promote.location, promote.epoch) == (before.location, before.epoch))


def promotion_condition(database: ReplicatedDatabase, world: DatabaseWorld) -> Condition:
    """What becomes of spec.promote."""
    promote = database.spec.promote
    if promote is None:
        return condition("PromotionOrdered", False, "NotOrdered", "")
    primary = world.primary
    members = database.status.membership.members if database.status.membership else ()
    if primary is not None and any(m.name == primary.sender and m.location == promote.location for m in members):
        return condition("PromotionOrdered", False, "Done", f"the primary is at {promote.location}")
    epoch = present(database, world)
    if promote.epoch != epoch:
        message = f"spec.promote is for epoch {promote.epoch}, and this is epoch {epoch}: nothing is done"
        return condition("PromotionOrdered", False, "OtherEpoch", message)
    if primary is None and promote.accept_data_loss and _declines(database):
        return condition("PromotionOrdered", False, "PrimaryReigned", DECLINED)
    return condition("PromotionOrdered", True, "Ordered", f"a member at {promote.location} is to become the primary")


def _promotion(
    database: ReplicatedDatabase, world: DatabaseWorld, records: Sequence[DropletRecord]
) -> GiveOrder | None:
    promote = database.spec.promote
    assert promote is not None  # noqa: S101 - the caller looked
    there = [r for r in records if r.location == promote.location]
    if world.primary is not None:
        return _switchover(_target(database, world, there), world, "spec.promote")
    target = _target(database, world, there, following=False)
    if target is None:
        return None
    return GiveOrder(
        target, "promote", promote.epoch, promote.accept_data_loss, "spec.promote, and there is no primary"
    )


def _switchover(target: str | None, world: DatabaseWorld, reason: str) -> GiveOrder | None:
    """For the primary's own reign."""
    epoch = world.primary.epoch if world.primary else 0
    return None if target is None else GiveOrder(target, "switchover", epoch, False, reason)


def _target(
    database: ReplicatedDatabase, world: DatabaseWorld, records: Sequence[DropletRecord], following: bool = True
) -> str | None:
    """The member with the newest data; ``following``: only of those that stream."""
    membership = database.status.membership
    members = {m.name for m in membership.members} if membership else set()
    able = []
    for record in records:
        beat = world.beat(record.name)
        if beat is None or record.name not in members or record.leaving_since is not None:
            continue
        if role_of(database, record) == "witness" or beat is world.primary or beat.database.position is None:
            continue
        if not following or serves(world, record.name, False):
            able.append((beat.database.position, record.name))
    newest = max((position for position, _ in able), default=None)
    return min((name for position, name in able if position == newest), default=None)


def _once(world: DatabaseWorld, order: GiveOrder | None, otherwise: str, preferred: str) -> Ordered:
    if order is None:
        return Ordered((), (Wait(otherwise, 2.0),), preferred)
    if world.ordered is not None:
        given, at = world.ordered
        same = (given.member, given.kind, given.epoch) == (order.name, order.kind, order.epoch)
        if same and world.now - at < REPEAT_SECONDS:
            return Ordered((), (Wait(f"{order.name} is to become the primary: {order.reason}", 0.5),), preferred)
    return Ordered((order,), (), preferred)
