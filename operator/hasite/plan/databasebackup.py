"""Backups as the operator sees them: what guards are told, and what their words come to. It takes no part in any."""

from hasite.api.common import Condition
from hasite.api.databasebackup import BackupStatus, BackupTarget
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.backup import Backup, Outcome, Restore, Target, newest
from hasite.guard.cron import Schedule, ScheduleError, stamp, unstamp
from hasite.guard.messages import Beat
from hasite.plan.databaseworld import DatabaseWorld
from hasite.plan.happenings import Happening
from hasite.plan.status import condition

ENGINES = ("postgresql", "mariadb")
"""Whose backups are made."""

PERIODS = 2
"""A good backup that is older than so many periods of the schedule is too old."""


def repository_of(database: ReplicatedDatabase) -> str:
    """Where this database's backups are within the target: its name, and what no other database of that name has."""
    return f"{database.name}-{database.uid.replace('-', '')[:8]}"


def backup_of(database: ReplicatedDatabase) -> Backup | None:
    """For the guards; credentials come beside it."""
    plan = database.spec.backup
    if plan is None or database.spec.engine not in ENGINES:
        return None
    return Backup(plan.schedule, plan.retention, _target(plan.target), repository_of(database))


def restore_of(database: ReplicatedDatabase) -> Restore | None:
    """For ever: should this member ever have to make the database, then from this and from nothing else."""
    bootstrap = database.spec.bootstrap
    if bootstrap is None or restore_error(database):
        return None
    source = bootstrap.from_backup
    return Restore(_target(source.target), source.name, source.backup, source.point_in_time or "")


def restore_error(database: ReplicatedDatabase) -> str:
    """Why this database can't begin with a backup; it begins with nothing else either. Empty: it can."""
    spec = database.spec
    if spec.bootstrap is None:
        return ""
    if spec.engine not in ENGINES:
        return f"bootstrap.fromBackup of {spec.engine} is not carried out yet"
    return "" if spec.topology == "PrimaryReplica" else f"bootstrap.fromBackup is not for topology {spec.topology}"


def _target(target: BackupTarget) -> Target:
    if target.s3 is None:
        return Target(path=target.path or "")
    s3 = target.s3
    return Target(endpoint=s3.endpoint, bucket=s3.bucket, region=s3.region, prefix=s3.prefix or "")


def outcomes(world: DatabaseWorld) -> tuple[Outcome | None, Outcome | None]:
    """The newest good backup and the newest that failed, by all guards that are heard."""
    words = [beat.backup for beat in world.beats.values() if isinstance(beat, Beat) and beat.backup]
    return newest(*(word.good for word in words)), newest(*(word.bad for word in words))


def backup_status(database: ReplicatedDatabase, world: DatabaseWorld) -> BackupStatus | None:
    """What silent guards said is remembered."""
    if database.spec.backup is None:
        return None
    known = database.status.backup or BackupStatus()
    good, bad = outcomes(world)
    changes: dict[str, object] = {"repository": repository_of(database)}
    if good is not None:
        changes |= {
            "last_successful": stamp(good.began),
            "label": good.label,
            "member": good.task.member,
            "size_bytes": good.size,
            "duration_seconds": round(good.seconds),
        }
    if bad is not None:
        changes |= {"last_failure": stamp(bad.began), "reason": bad.reason}
    return known.model_copy(update=changes)


def backup_conditions(
    database: ReplicatedDatabase, world: DatabaseWorld, status: BackupStatus | None
) -> tuple[Condition, ...]:
    """Of those that the spec asks for."""
    return (*backed_up(database, world, status), *restoration(database, world))


def backed_up(database: ReplicatedDatabase, world: DatabaseWorld, status: BackupStatus | None) -> tuple[Condition, ...]:
    """Nothing where no backups are asked for."""
    if database.spec.backup is None or status is None:
        return ()
    reason, message = _trouble(database, world, status)
    if reason:
        return (condition("BackedUp", False, reason, message),)
    good, _ = outcomes(world)
    note = f"; {good.note}" if good is not None and good.note else ""
    return (condition("BackedUp", True, "BackedUp", f"{status.label} of {status.last_successful}{note}"),)


def restoration(database: ReplicatedDatabase, world: DatabaseWorld) -> tuple[Condition, ...]:
    """How a database stands that begins with a backup; nothing for others."""
    if database.spec.bootstrap is None:
        return ()
    if database.status.made:
        return (condition("Restored", True, "Restored", ""),)
    words = [b.backup for b in world.beats.values() if isinstance(b, Beat) and b.backup and b.backup.restoring]
    said = sorted((word.failed, word.restoring) for word in words)
    if said and said[-1][0]:
        return (condition("Restored", False, "RestoreFailed", said[-1][1]),)
    return (condition("Restored", False, "Restoring", said[-1][1] if said else "the member is not there yet"),)


def _trouble(database: ReplicatedDatabase, world: DatabaseWorld, status: BackupStatus) -> tuple[str, str]:
    """Reason and words of the worst; empty: all is well."""
    if database.spec.engine not in ENGINES:
        return "NotSupported", f"backups of {database.spec.engine} are not carried out yet"
    says = [b.backup.archiving for b in world.beats.values() if isinstance(b, Beat) and b.backup and b.backup.archiving]
    if says:
        return "ArchivingFails", sorted(says)[0]
    if status.last_failure and status.last_failure > status.last_successful:
        return "BackupFailed", f"at {status.last_failure}: {status.reason}"
    if not status.last_successful:
        return "NoBackupYet", "no backup was made yet"
    age = world.now - unstamp(status.last_successful)
    period = _period(database, world.now)
    if period is not None and age > PERIODS * period + status.duration_seconds:
        return "TooOld", f"the last good backup, {status.label}, is of {status.last_successful}"
    return "", ""


def _period(database: ReplicatedDatabase, now: float) -> float | None:
    plan = database.spec.backup
    try:
        return Schedule.parse(plan.schedule).period(now) if plan else None
    except ScheduleError:
        return None


def backup_happenings(before: BackupStatus | None, after: BackupStatus | None) -> tuple[Happening, ...]:
    """What became of backups since the last status, each once."""
    old, new = before or BackupStatus(), after or BackupStatus()
    told = []
    if new.last_failure and new.last_failure != old.last_failure:
        text = f"the backup of {new.last_failure} failed: {new.reason}"
        told.append(Happening("BackupFailed", text, (new.last_failure,), warning=True))
    if new.label and new.label != old.label:
        size = f"{new.size_bytes / 1e6:.1f} MB in {new.duration_seconds} s"
        told.append(Happening("BackedUp", f"{new.label} was made by {new.member}: {size}", (new.label,)))
    return tuple(told)
