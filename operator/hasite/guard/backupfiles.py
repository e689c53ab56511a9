"""Where a member keeps what belongs to backups, and the job for its server."""

from pathlib import Path

from hasite.guard.backup import Restore
from hasite.guard.backupjob import Job, Where
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.model import Settings
from hasite.guard.wire import WireError, parse

ARCHIVE = "pgbackrest-archive"
"""The program that takes each file of PostgreSQL's log. pgBackRest wants its own name in the command."""


def backup_folder(layout: Layout) -> Path:
    """Configuration and scratch files of backups."""
    return layout.data.with_name("backup")


def memory(layout: Layout) -> Path:
    """The newest outcomes that this guard knows of."""
    return layout.vote.with_name("backups.json")


def credentials_file(layout: Layout) -> Path:
    """Which the operator delivers, for root alone: an object with the targets' credentials, by ``purpose``."""
    return layout.settings.with_name("backup.json")


def credentials(layout: Layout, purpose: str) -> dict[str, str]:
    """``purpose``: ``backup`` or ``restore``. Empty for a folder, which needs none. Raises EngineError."""
    try:
        held = parse(credentials_file(layout).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, WireError) as error:
        raise EngineError(f"the credentials for backups can't be read: {error}") from None
    own = held.get(purpose) if isinstance(held, dict) else None
    return {str(name): str(value) for name, value in own.items()} if isinstance(own, dict) else {}


def backup_job(settings: Settings, layout: Layout, where: Where, *, full: bool) -> Job:
    """Of this member's server, by its settings. Raises EngineError."""
    plan = settings.backup
    if plan is None:
        raise EngineError("no backups are asked for")
    return Job(
        kind="backup",
        engine=settings.engine,
        version=settings.version,
        where=where,
        target=plan.target,
        repository=plan.repository,
        credentials=credentials(layout, "backup"),
        retention=plan.retention,
        full=full,
    )


def restore_job(settings: Settings, layout: Layout, where: Where, plan: Restore) -> Job:
    """Into ``where.data``. Raises EngineError."""
    return Job(
        kind="restore",
        engine=settings.engine,
        version=settings.version,
        where=where,
        target=plan.target,
        repository=plan.repository,
        credentials=credentials(layout, "restore"),
        label=plan.backup,
        until=plan.until,
    )
