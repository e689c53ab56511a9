"""Who has every acknowledged write, and how that changes while the primary goes on writing. Pure.

A change of the record from R to R' is safe in this order: the server satisfies both; everything acknowledged before
that is where R' wants it; a majority of voters stores R'; the server satisfies R' alone. An election in between may
find either, and either is true. To wait for nobody (degraded, asynchronous) is satisfied by any server, so there the
storing comes first.
"""

from collections.abc import Mapping
from dataclasses import replace

from hasite.guard.election import has_majorities
from hasite.guard.model import Membership, Position, Settings, SyncRecord
from hasite.guard.state import Heard, Reign


def first_record(settings: Settings, found: SyncRecord | None, epoch: int, forced: bool) -> SyncRecord:
    """With which a reign begins: what the last one left, under a new number, or the winner alone."""
    me = settings.name
    if found is not None and not forced:
        return SyncRecord(epoch, 0, found.eligible, found.required, me)
    alone = frozenset({me}) if settings.durability == "synchronous" else frozenset[str]()
    return SyncRecord(epoch, 0, alone, 0, me)


def partners(name: str, membership: Membership) -> frozenset[str]:
    """Whose copy protects a write of this member: members of other locations, or of the only one."""
    own = next((m.location for m in membership.members if m.name == name), "")
    data = [m for m in membership.members if not m.witness and m.name != name]
    elsewhere = [m.name for m in data if m.location != own]
    return frozenset(elsewhere or [m.name for m in data])


def wanted(settings: Settings, reign: Reign, allies: frozenset[str], now: float) -> tuple[frozenset[str], int]:
    """The record's (eligible, required) that would be best now. A follower that was gone for less than the lease's
    time stays: a record changes at the pace of failures, not of packets."""
    if settings.durability == "asynchronous":
        return frozenset(), 0
    me = settings.name
    record = reign.record
    there = {name for name in allies if reign.seen.get(name, (False, 0.0))[0]}
    lately = {
        n for n in allies & record.eligible if now < reign.seen.get(n, (False, reign.began))[1] + settings.timing.ttl
    }
    others = there | lately if record.required else there
    if others:
        return frozenset(others | {me}), 1
    if settings.degraded_writes:
        return frozenset({me}), 0
    return record.eligible, record.required


def waits(settings: Settings, reign: Reign, allies: frozenset[str]) -> SyncRecord | None:
    """What the server is to wait for: both the record and the one on its way; None: for nobody."""
    record, change = reign.record, reign.intent or reign.proposal
    if change is not None and change.required and record.required:
        both = SyncRecord(*change.key, record.eligible & change.eligible, 1, settings.name)
        return _without(both, settings.name, allies)
    if change is not None and change.required:
        return _without(change, settings.name, allies)
    now = replace(record, version=max(record.version, reign.issued))  # newer than an intent that came to nothing
    if record.required:
        return _without(now, settings.name, allies)
    if settings.durability == "synchronous" and not settings.degraded_writes:
        return SyncRecord(*now.key, frozenset({settings.name}), 1, settings.name)
    return None


def _without(record: SyncRecord, me: str, allies: frozenset[str]) -> SyncRecord:
    """A copy in the primary's own location keeps the record true, but not the promise to survive the location."""
    return SyncRecord(*record.key, (record.eligible & allies) | {me}, record.required, me)


def caught_up(intent: SyncRecord, mark: Position, me: str, heard: Mapping[str, Heard]) -> bool:
    """Whether everything before the mark is on ``required`` of the others."""
    count = 0
    for name in intent.eligible - {me}:
        if name in heard:
            database = heard[name].beat.database
            count += bool(database.position and database.position >= mark)
    return count >= intent.required


def same(one: SyncRecord, other: SyncRecord) -> bool:
    """Whether two records promise the same."""
    return (one.eligible, one.required) == (other.eligible, other.required)


def is_stored(reign: Reign, record: SyncRecord, electorates: tuple[Membership, ...]) -> bool:
    """At a majority of each electorate's voters: then no election can miss it."""
    names = [name for name, stored in reign.stored.items() if stored.key >= record.key]
    return has_majorities(electorates, names)
