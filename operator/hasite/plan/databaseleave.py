"""When a member that leaves may be destroyed: never with what nobody else has."""

from collections.abc import Sequence

from hasite.api.common import DropletRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.databaseworld import DatabaseWorld, serves
from hasite.plan.membership import in_force
from hasite.plan.steps import DestroyDroplet, Step, Wait

DISCARD = "hasite.dev/discard-saved-data"
"""Annotation of a ReplicatedDatabase: names of members, separated by commas, whose saved data are not wanted."""


def release(
    database: ReplicatedDatabase, records: Sequence[DropletRecord], world: DatabaseWorld
) -> tuple[tuple[DropletRecord, ...], tuple[Step, ...], tuple[Wait, ...]]:
    """A member that leaves is destroyed once the guards reign without it, and its data are at two other places, or at
    as many as there are locations. One that keeps data which nobody else has stays until a person lets it go."""
    kept: list[DropletRecord] = []
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        if record.leaving_since is None or record.droplet_id is None:
            kept.append(record)
            continue
        reason = _still_needed(database, record, world) if database.status.bootstrap else ""
        if reason:
            kept.append(record)
            waits.append(Wait(f"{record.name} cannot go yet: {reason}", 1.0))
        elif keeps_data(database, record.name, world):
            kept.append(record)
        else:
            kept.append(record.model_copy(update={"released_since": record.released_since or world.now}))
            steps.append(DestroyDroplet(record.name, record.droplet_id, "it takes no part any more"))
    return tuple(kept), tuple(steps), tuple(waits)


def keeps_data(database: ReplicatedDatabase, name: str, world: DatabaseWorld) -> bool:
    """It alone has something, by its own word or by its last one, and no person has said that it is not wanted."""
    annotation = str((database.metadata.get("annotations") or {}).get(DISCARD, ""))
    if name in (each.strip() for each in annotation.split(",")):
        return False
    beat = world.beat(name)
    remembered = next((m.saved for m in database.status.members if m.name == name), ())
    return bool(beat.saved if beat else remembered)


def rests(database: ReplicatedDatabase, record: DropletRecord, world: DatabaseWorld) -> bool:
    """It takes no part any more, and is there only for what it keeps."""
    membership = database.status.membership
    outside = membership is not None and all(m.name != record.name for m in membership.members)
    leads = world.holder is not None and world.holder.sender == record.name
    return record.leaving_since is not None and outside and not leads and keeps_data(database, record.name, world)


def _still_needed(database: ReplicatedDatabase, record: DropletRecord, world: DatabaseWorld) -> str:
    membership = database.status.membership
    if membership is None or any(m.name == record.name for m in membership.members):
        return "it still takes part"
    if not in_force(database, world):
        return "the members have not agreed to go on without it"
    primary = world.primary
    if primary is None or primary.sender == record.name:
        return "no other member is primary"
    members = [m for m in membership.members if not m.witness]
    elsewhere = {m.location for m in members if serves(world, m.name, False)}
    if len(elsewhere) < min(2, len({m.location for m in members})):
        return "the data are not at two other locations"
    return ""
