"""Who takes part in a database, whose vote counts, and what each guard is told.

A name has a vote, so it is never given to another machine: the ordinal within a member's name counts up for ever.
"""

from collections.abc import Sequence

from hasite.api.common import DropletRecord, seconds
from hasite.api.databasestatus import MemberRecord, MembershipRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.model import OPERATOR, Member, Membership, Settings, Timing
from hasite.plan.databasebackup import backup_of, restore_of
from hasite.plan.databaseworld import DatabaseWorld, role_of
from hasite.plan.names import ordinal_of


def voters_of(members: Sequence[MemberRecord]) -> tuple[str, ...]:
    """The oldest guard of each location; the operator too when their number is even, so that a majority is clear."""
    first: dict[str, str] = {}
    for member in sorted(members, key=lambda m: ordinal_of(m.name)):
        first.setdefault(member.location, member.name)
    guards = tuple(sorted(first.values()))
    return guards if len(guards) % 2 else (*guards, OPERATOR)


def member_of(database: ReplicatedDatabase, record: DropletRecord) -> MemberRecord:
    """The part that a machine plays."""
    witness = role_of(database, record) == "witness"
    return MemberRecord(name=record.name, location=record.location, address=record.public_ipv4 or "", witness=witness)


def with_members(before: MembershipRecord | None, members: Sequence[MemberRecord]) -> MembershipRecord | None:
    """The next version with these members; the same as before when nobody comes, goes or moves."""
    ordered = tuple(sorted(members, key=lambda m: m.name))
    if not ordered or (before is not None and before.members == ordered):
        return before
    version = 1 if before is None else before.version + 1
    return MembershipRecord(version=version, members=ordered, voters=voters_of(ordered))


def membership_of(record: MembershipRecord) -> Membership:
    """As the guards speak of it."""
    members = tuple(Member(m.name, m.location, m.address, m.witness) for m in record.members)
    return Membership(record.version, members, record.voters)


def timing_of(database: ReplicatedDatabase) -> Timing:
    """The lease's times. They hold ``Timing.check`` for every ttl that the schema admits."""
    return Timing(ttl=seconds(database.spec.failover.ttl))


def settings_of(database: ReplicatedDatabase, name: str) -> Settings:
    """What one member's guard is told. There has to be a membership."""
    spec, status = database.spec, database.status
    if status.membership is None:
        raise ValueError("nobody takes part yet")
    return Settings(
        cluster=database.uid,
        name=name,
        engine=spec.engine,
        version=spec.version,
        topology=spec.topology,
        durability=spec.durability,
        degraded_writes=spec.degraded_writes == "allow",
        maximum_lag=seconds(spec.maximum_lag),
        membership=membership_of(status.membership),
        bootstrap=status.bootstrap if status.bootstrap and not status.made else None,
        preferred_location=spec.primary_location,
        engine_settings=dict(sorted(spec.parameters.items())),
        timing=timing_of(database),
        write_routing=spec.write_routing,
        backup=backup_of(database),
        restore=restore_of(database),
    )


def in_force(database: ReplicatedDatabase, world: DatabaseWorld) -> bool:
    """The holder reigns with the present membership: majorities of the one before and of this one agreed to it."""
    membership, holder = database.status.membership, world.holder
    return membership is not None and holder is not None and holder.membership_version >= membership.version


def is_unmade(database: ReplicatedDatabase, world: DatabaseWorld) -> bool:
    """Nobody has made the database: every member whose machine is there says that it has none and never voted."""
    status = database.status
    there = {r.name for r in status.droplets if r.droplet_id is not None}
    members = [m.name for m in status.membership.members if m.name in there] if status.membership else []
    beats = [world.beat(name) for name in members]
    untouched = all(b and not b.epoch and not b.reign and b.database.state == "absent" for b in beats)
    return bool(members) and untouched and not status.made and not (status.vote and status.vote.epoch)
