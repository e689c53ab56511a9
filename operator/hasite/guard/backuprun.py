"""Runs a job of ``backupjob`` in a process of its own, and waits for it."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hasite.guard.backupfiles import backup_folder, restore_job
from hasite.guard.backupjob import Job, Result, Where
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.model import Settings
from hasite.guard.wire import WireError, dump, load, parse

SCOPE = "hasite-backup"
_HUMBLE = ("CPUWeight=20", "IOWeight=20")


def program() -> list[str]:
    """The command that runs a job: of the same file as this guard."""
    if sys.argv[0].endswith(".pyz"):
        return [sys.executable, "-I", sys.argv[0], "backup"]
    return [sys.executable, "-m", "hasite.guard", "backup"]


def humble() -> list[str]:
    """Before a command: outside the guard's control group, whose share of the machine is not for backups."""
    nice = ["nice", "-n", "10"]
    if not _by_systemd():
        return nice
    options = [f"--property={each}" for each in _HUMBLE]
    return ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={SCOPE}", *options, *nice]


def _by_systemd() -> bool:
    return sys.argv[0].endswith(".pyz") and Path("/run/systemd/system").is_dir()


async def leftover() -> None:
    """A backup that outlived the guard that began it has nobody who waits for it."""
    if _by_systemd():
        for verb in (("kill", "--signal=KILL"), ("stop",)):
            process = await asyncio.create_subprocess_exec(
                "systemctl",
                *verb,
                f"{SCOPE}.scope",
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()


async def run(job: Job, before: Sequence[str] = (), limit: float | None = None) -> Result:
    """What came of it; never raises for what the job says. Cancelled: it has ended.

    ``before``: words before its command. ``limit``: seconds, after which it is ended.
    """
    process = await asyncio.create_subprocess_exec(
        *before,
        *program(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 20,
    )
    try:
        async with asyncio.timeout(limit):
            said, words = await process.communicate(json.dumps(dump(job)).encode())
    except TimeoutError:
        return Result(reason=f"it was not done after {limit:g} s")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
    try:
        return load(Result, parse(said))
    except WireError:
        end = words.decode(errors="replace").strip().splitlines()
        return Result(reason=f"the backup's program ended with status {process.returncode}: {end[-1] if end else ''}")


def restored(layout: Layout) -> Path:
    """There: a backup's data, whole, for the new database to begin with."""
    return layout.data.with_name(layout.data.name + ".restored")


def pending(settings: Settings, layout: Layout) -> bool:
    """This member is to make the database from a backup, and has not got that yet."""
    wanted = settings.restore is not None and settings.bootstrap == settings.name
    return wanted and not layout.data.exists() and not restored(layout).exists()


async def prepare(settings: Settings, layout: Layout, where: Where) -> None:
    """Makes ``restored``, which may take hours. Raises EngineError: then there is nothing."""
    if settings.restore is None:
        raise EngineError("there is nothing to restore")
    aside = layout.data.with_name(layout.data.name + ".restoring")
    await asyncio.to_thread(_empty, aside, where.user)
    result = await run(restore_job(settings, layout, replace(where, data=str(aside)), settings.restore))
    if result.reason:
        await asyncio.to_thread(shutil.rmtree, aside, True)
        raise EngineError(f"nothing was restored: {result.reason}")
    aside.rename(restored(layout))


def take(layout: Layout, into: Path) -> None:
    """What was restored becomes ``into``, in no time. Raises EngineError."""
    if not restored(layout).exists():
        raise EngineError("nothing was restored yet")
    shutil.rmtree(into, ignore_errors=True)
    restored(layout).rename(into)


def _empty(path: Path, user: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    shutil.chown(path, user, user)


def where_of(settings: Settings, layout: Layout) -> Where:
    """On a real member."""
    postgresql = settings.engine == "postgresql"
    return Where(
        data=str(layout.data),
        work=str(backup_folder(layout)),
        binaries=f"/usr/lib/postgresql/{settings.version}/bin" if postgresql else "/usr/sbin",
        sockets="/var/run/postgresql" if postgresql else "/run/mysqld",
        port=5432 if postgresql else 3306,
        user="postgres" if postgresql else "mysql",
    )
