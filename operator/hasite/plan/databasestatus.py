"""Conditions and summary columns of a ReplicatedDatabase. Nothing in them changes on every look: lag is a class, and
what was measured stays as it was first said, for metrics have it as it is."""

import re
from collections.abc import Sequence

from hasite.api.common import Condition, DropletRecord, seconds
from hasite.api.databasestatus import Lagging, MemberRecord, MemberStatus, ReplicatedDatabaseStatus
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.messages import Beat
from hasite.plan.database import DatabasePlan, members_of
from hasite.plan.databasebackup import backup_conditions, backup_status
from hasite.plan.databaseleave import DISCARD, rests
from hasite.plan.databaseorders import promotion_condition
from hasite.plan.databaseworld import DatabaseWorld, turns
from hasite.plan.happenings import conflict_text
from hasite.plan.status import Problem, condition, kstatus, machine_problems
from hasite.plan.steps import describe

_MEASURED = re.compile(r"\d+(?:\.\d+)?(?:/\d+)?(?= ?(?:s\b|kB\b|bytes\b|%))")

WORST: tuple[Lagging, ...] = ("unknown", "lagging", "ok")


def database_report(
    database: ReplicatedDatabase, world: DatabaseWorld, plan: DatabasePlan, failures: Sequence[Problem]
) -> ReplicatedDatabaseStatus:
    """The plan's status with conditions (without times) and columns."""
    status, spec = plan.status, database.spec
    members = _members(database, plan, world)
    wanted = sum(location.members for location in spec.locations)
    parts = [p for p in members_of(database, world) if p.group[0] == "db" and not p.leaving]
    ready = min(sum(p.serving for p in parts), wanted)
    problems = _problems(database, world, plan, failures)
    progressing = _progress(plan, ready, wanted, bool(status.primary or world.primary))
    lags = [m.lag for m in members if m.role != "witness"]
    heard = any(isinstance(b, Beat) for b in world.beats.values())
    backup = backup_status(database, world)
    kept = tuple(r.name for r in status.droplets if rests(database, r, world))
    conditions = (
        *kstatus(problems, progressing),
        _replication(ready, wanted, world),
        _degraded(database, world),
        _refused(world),
        _saved(members, kept),
        promotion_condition(database, world),
        *_conflict(database, members),
        *backup_conditions(database, world, backup),
    )
    primary = world.primary
    leader = primary.sender if primary else "" if heard else status.primary
    return status.model_copy(
        update={
            "observed_generation": database.generation,
            "backup": backup,
            "conditions": steady(database.status.conditions, conditions),
            "members": members,
            "members_ready": f"{ready}/{wanted}",
            "lag": next((lag for lag in WORST if lag in lags), "unknown"),
            "primary": leader,
            "writers": _writers(database, world, leader),
            "epoch": max(world.reign, status.epoch),
        }
    )


def steady(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[Condition, ...]:
    """A message that differs from the last one only in what was measured, stays."""
    said = {(c.type, c.status, c.reason, _MEASURED.sub("#", c.message)): c.message for c in before}
    return tuple(
        c.model_copy(
            update={"message": said.get((c.type, c.status, c.reason, _MEASURED.sub("#", c.message)), c.message)}
        )
        for c in after
    )


def _members(database: ReplicatedDatabase, plan: DatabasePlan, world: DatabaseWorld) -> tuple[MemberStatus, ...]:
    membership = plan.status.membership
    before = {m.name: m for m in database.status.members}
    members = tuple(_member(m, before.get(m.name), database, world) for m in (membership.members if membership else ()))
    names = {m.name for m in members}
    gone = [r for r in plan.status.droplets if r.leaving_since is not None and r.name not in names]
    return members + tuple(kept for r in gone if (kept := _kept(r, before.get(r.name), world)) is not None)


def _kept(record: DropletRecord, before: MemberStatus | None, world: DatabaseWorld) -> MemberStatus | None:
    """Of one that takes no part any more, but keeps what it alone had."""
    beat = world.beat(record.name)
    saved = beat.saved if beat else before.saved if before else ()
    kept = MemberStatus(name=record.name, location=record.location, role="unknown", lag="ok", saved=saved)
    return kept if saved else None


def _member(
    member: MemberRecord, before: MemberStatus | None, database: ReplicatedDatabase, world: DatabaseWorld
) -> MemberStatus:
    """What a silent member saved is remembered."""
    beat = world.beat(member.name)
    saved = beat.saved if beat else before.saved if before else ()
    if beat is None:
        return MemberStatus(name=member.name, location=member.location, role="unknown", lag="unknown", saved=saved)
    if member.witness:
        return MemberStatus(name=member.name, location=member.location, role="witness", lag="ok", saved=saved)
    lag = _lag(beat, database, world)
    status = MemberStatus(name=member.name, location=member.location, role=beat.database.state, lag=lag, saved=saved)
    found = beat.database.conflict
    return status if found is None else status.model_copy(update={"conflict": conflict_text(found)})


def _writers(database: ReplicatedDatabase, world: DatabaseWorld, primary: str) -> str:
    """Whom apps are led to. Each to its own location's member: the primary of status is the one that leads them all
    when no other can be had."""
    if database.spec.write_routing != "local":
        return primary
    able = {b.sender for b in world.beats.values() if isinstance(b, Beat) and turns(b)}
    return ",".join(sorted(able | ({primary} if primary else set())))


def _lag(beat: Beat, database: ReplicatedDatabase, world: DatabaseWorld) -> Lagging:
    if world.primary is beat:
        return "ok"
    seen = beat.database
    if not (seen.state == "standby" or beat.role == "ring") or (seen.streaming and seen.lag_seconds is None):
        return "unknown"
    within = seen.lag_seconds is not None and seen.lag_seconds <= seconds(database.spec.maximum_lag)
    return "ok" if seen.streaming and within else "lagging"


def _conflict(database: ReplicatedDatabase, members: Sequence[MemberStatus]) -> tuple[Condition, ...]:
    """Of a ring: members that have stopped, in the server's words. Nothing goes on there until a person has been."""
    if database.spec.topology != "PrimaryPrimary":
        return ()
    found = [f"{m.name}: {m.conflict}" for m in members if m.conflict]
    message = "; ".join(found)
    return (condition("ReplicationConflict", bool(found), "Stopped" if found else "NoConflict", message),)


def _problems(
    database: ReplicatedDatabase, world: DatabaseWorld, plan: DatabasePlan, failures: Sequence[Problem]
) -> list[Problem]:
    problems = [Problem(r.reason, r.message, True) for r in plan.refusals]
    problems += list(failures) + machine_problems(plan.status.droplets, world.machines)
    if plan.status.made and world.primary is None and any(isinstance(b, Beat) for b in world.beats.values()):
        problems.append(Problem("NoPrimary", _why_no_primary(world)))
    if plan.strange:
        names = ", ".join(plan.strange)
        message = f"{names}: with this database's tags, but made by nobody who is remembered: look, and destroy by hand"
        problems.append(Problem("UnknownDroplets", message))
    problems += [
        Problem("ReplicationConflict", f"{beat.sender} has stopped applying what others wrote: {found.words}")
        for beat in world.beats.values()
        if isinstance(beat, Beat) and (found := beat.database.conflict) is not None
    ]
    problems += [
        Problem("ServerFailed", f"{beat.sender}: {beat.database.detail or 'the server cannot start'}")
        for beat in world.beats.values()
        if isinstance(beat, Beat) and beat.database.state == "failed"
    ]
    return problems


def _why_no_primary(world: DatabaseWorld) -> str:
    reasons = sorted({b.refusal for b in world.beats.values() if isinstance(b, Beat) and b.refusal})
    return "no member takes writes" + (f": {'; '.join(reasons)}" if reasons else "")


def _progress(plan: DatabasePlan, ready: int, wanted: int, has_primary: bool) -> str | None:
    if plan.waits:
        return plan.waits[0].message
    if plan.steps:
        return describe(plan.steps[0])
    return None if ready >= wanted and has_primary else f"{ready} of {wanted} members replicate"


def _replication(ready: int, wanted: int, world: DatabaseWorld) -> Condition:
    healthy = ready >= wanted and world.primary is not None
    message = f"{ready} of {wanted} members replicate" + ("" if world.primary else ", and none takes writes")
    return condition("ReplicationHealthy", healthy, "Replicating" if healthy else "Incomplete", message)


def _degraded(database: ReplicatedDatabase, world: DatabaseWorld) -> Condition:
    """Owner's choice, while it is in force: writes that only one location has."""
    holder = world.holder
    sync = holder.sync if holder else None
    degraded = database.spec.durability == "synchronous" and sync is not None and sync.required == 0
    alone = len(database.spec.locations) == 1 and database.spec.locations[0].members == 1
    message = "acknowledged writes are at one location only" if degraded and not alone else ""
    on = degraded and not alone
    return condition("DegradedWrites", on, "NoStandby" if on else "Synchronous", message)


def _refused(world: DatabaseWorld) -> Condition:
    """Why a member that should take over does not. A primary's own refusal is of a switchover."""
    said = sorted((b.sender, b.refusal) for b in world.beats.values() if isinstance(b, Beat) and b.refusal)
    message = "; ".join(f"{name}: {why}" for name, why in said)
    return condition("FailoverRefused", bool(said), "Refused" if said else "NotRefused", message)


def _saved(members: Sequence[MemberStatus], held: Sequence[str]) -> Condition:
    """Data that an old primary alone had, kept on it for a person to look at. ``held``: machines that are there only
    for that."""
    kept = [f"{m.name}: {path}" for m in members for path in m.saved]
    if held:
        kept.append(f"{', '.join(held)} would be destroyed but for that: annotate {DISCARD} when it is not wanted")
    return condition("DataSaved", bool(kept), "Diverged" if kept else "NothingSaved", "; ".join(kept))
