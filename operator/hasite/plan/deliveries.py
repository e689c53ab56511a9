"""What is to be brought to the members: host keys, then guard, certificate and settings.

Never to two members at once where the database may exist, and to the primary's last. A guard that has to be started
anew would cost the primary its office, so the primary hands over first; and none is started anew while another member
does not do its part. One that refuses its delivery is left alone for a while, so that it holds up nobody else's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hasite.api.common import DropletRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.databaseworld import DatabaseWorld, role_of, serves
from hasite.plan.machinework import host_key_steps
from hasite.plan.steps import DeliverGuard, Step, Wait
from hasite.plan.world import GuardView, MachineView, Unknown


@dataclass(frozen=True)
class Deliveries:
    """``hand_over``: why the primary has to hand over before its own delivery."""

    steps: tuple[Step, ...] = ()
    waits: tuple[Wait, ...] = ()
    hand_over: str = ""


def identities(records: Sequence[DropletRecord], world: DatabaseWorld) -> Deliveries:
    """Host keys of new machines, once cloud-init has ended."""
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        view = world.machines.get(record.name)
        if record.pinned and record.leaving_since is None and isinstance(view, Unknown):
            waits.append(Wait(f"{record.name} cannot be reached over SSH", 5.0))
        if record.droplet_id is None or not isinstance(view, MachineView):
            continue
        if view.cloud_init == "running":
            waits.append(Wait(f"{record.name} is being set up by cloud-init", 1.0))
        else:
            steps += host_key_steps(record)
    return Deliveries(tuple(steps), tuple(waits))


def deliveries(database: ReplicatedDatabase, records: Sequence[DropletRecord], world: DatabaseWorld) -> Deliveries:
    """To the members of the present membership."""
    membership = database.status.membership
    taking_part = {m.name for m in membership.members} if membership else set()
    mine = [r for r in records if r.name in taking_part and r.pinned]
    late = [(r, step) for r in mine if (step := _delivery(r, world)) is not None]
    if not late:
        return Deliveries()
    refusing = late[0][0].name
    late = [each for each in late if each[0].name not in world.refused]
    if not late:
        return Deliveries(waits=(Wait(f"{refusing} refused its delivery a moment ago", 5.0),))
    if not database.status.bootstrap or _never_made(database, world):
        return Deliveries(tuple(step for _, step in late))
    record, step = min(late, key=lambda each: _order(each[0], world, database))
    if step.restart and serves(world, record.name, role_of(database, record) == "witness"):
        idle = [
            r.name for r in mine if r is not record and not serves(world, r.name, role_of(database, r) == "witness")
        ]
        if idle:
            return Deliveries(
                waits=(Wait(f"{record.name} has to be brought up to date: {idle[0]} has to serve first", 2.0),)
            )
        primary = world.primary
        if primary is not None and primary.sender == record.name and _others(database, mine, record, world):
            return Deliveries(hand_over=f"{record.name} is to be brought up to date")
    return Deliveries((step,))


def _never_made(database: ReplicatedDatabase, world: DatabaseWorld) -> bool:
    return not database.status.made and world.reign == 0


def _delivery(record: DropletRecord, world: DatabaseWorld) -> DeliverGuard | None:
    guard, wanted = world.guard(record.name), world.versions.get(record.name)
    if guard is None or wanted is None:
        return None
    reason = _reason(guard, wanted.program, wanted.settings)
    if not reason:
        return None
    restart = guard.program != wanted.program or not guard.active
    return DeliverGuard(record.name, restart, reason)


def _reason(guard: GuardView, program: str, settings: str) -> str:
    if not guard.program:
        return "it has no guard yet"
    if guard.program != program:
        return "its guard is of another version"
    if guard.settings != settings:
        return "its settings are not those that it should have"
    if not guard.active:
        return "its guard does not run"
    return "" if guard.enabled else "its guard would not start at boot"


def _order(record: DropletRecord, world: DatabaseWorld, database: ReplicatedDatabase) -> tuple[bool, bool, str]:
    """Those that do not serve first, the holder last."""
    holder = world.holder
    serving = serves(world, record.name, role_of(database, record) == "witness")
    return (holder is not None and holder.sender == record.name, serving, record.name)


def _others(
    database: ReplicatedDatabase, mine: Sequence[DropletRecord], record: DropletRecord, world: DatabaseWorld
) -> bool:
    """Whether another member could be the primary."""
    return any(r is not record and role_of(database, r) == "db" and serves(world, r.name, False) for r in mine)
