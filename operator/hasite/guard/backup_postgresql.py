"""PostgreSQL's backups by pgBackRest: base backups and the archived log, so that a moment can be restored.

Run on the primary: pgBackRest needs to talk to it, and without a way from member to member it is the only place. What
is written needs no lock that a commit waits for.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hasite.guard.backup import Target
from hasite.guard.backupjob import Job, JobError, Result, begin, call, clean, ended, last_words, stop
from hasite.guard.engines.postgresql_settings import assignments

PGBACKREST = "/usr/bin/pgbackrest"
QUEUE = "2GiB"
"""Of the log that waits to be archived: beyond it pgBackRest lets it go, which is told, and begins anew with a backup:
a target that is away must not fill the primary's disk."""

CONFIGURATION, SCRIPT, GAP, SAID = "pgbackrest.conf", "pgbackrest-archive", "gap", "archive.said"
"""Files in the folder ``work``. ``gap``: there, some of the log was let go and is in no archive."""

_UNREADABLE = 99
"""pgBackRest's code for a repository that could not be looked at."""


def configuration(job: Job) -> str:
    """pgbackrest.conf. Raises ValueError for a value that can't be written there."""
    work, where, target = job.work, job.where, job.target
    values = {
        "repo1-path": target.path or f"/{target.prefix.strip('/')}",
        **(_bucket(job, target) if not target.path else {"repo1-type": "posix"}),
        "repo1-retention-full": str(job.retention),
        "repo1-bundle": "y",
        "archive-push-queue-max": QUEUE,
        "archive-timeout": "60",
        "compress-type": "zst",
        "compress-level": "3",
        "process-max": "1",
        "start-fast": "y",
        "lock-path": str(work / "lock"),
        "log-path": str(work / "log"),
        "spool-path": str(work / "spool"),
        "log-level-file": "off",
        "log-level-console": "off",
        "log-level-stderr": "warn",
        "db-timeout": "120",
    }
    own = {
        "pg1-path": where.data,
        "pg1-socket-path": where.sockets,
        "pg1-port": str(where.port),
        "pg1-user": where.user,
    }
    return f"[global]\n{_lines(values)}\n[{job.repository}]\n{_lines(own)}"


def _bucket(job: Job, target: Target) -> dict[str, str]:
    given = job.credentials
    values = {
        "repo1-type": "s3",
        "repo1-s3-endpoint": target.endpoint.removeprefix("https://"),
        "repo1-s3-bucket": target.bucket,
        "repo1-s3-region": target.region or "us-east-1",
        "repo1-s3-uri-style": "path",
        "repo1-s3-key": given.get("accessKeyId", ""),
        "repo1-s3-key-secret": given.get("secretAccessKey", ""),
    }
    if given.get("ca.crt"):
        values["repo1-storage-ca-file"] = str(job.work / "endpoint-ca.pem")
    return values


def _lines(values: dict[str, str]) -> str:
    for name, value in values.items():
        if not value or value != value.strip() or any(ord(character) < 32 for character in value):
            raise ValueError(f"{name} is empty, or has spaces around it or control characters")
    return "".join(f"{name}={value}\n" for name, value in values.items())


def script(job: Job) -> str:
    """What PostgreSQL runs for each file of its log. Its last words stay for the guard to read."""
    work = job.work
    command = f"{PGBACKREST} --config={work / CONFIGURATION} --stanza={job.repository} archive-push"
    return f"""#!/bin/sh
{command} "$1" >{work}/{SAID}.new 2>&1
status=$?
if grep -q 'dropped WAL file' {work}/{SAID}.new; then touch {work}/{GAP}; fi
mv -f {work}/{SAID}.new {work}/{SAID}
exit $status
"""


def install(job: Job) -> None:
    """The files that archiving needs, readable by the server's user alone. Raises OSError, ValueError."""
    account = pwd.getpwnam(job.where.user)
    work = job.work
    for folder in (work, work / "lock", work / "log", work / "spool"):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, account.pw_uid, account.pw_gid)
        folder.chmod(0o700)
    if job.credentials.get("ca.crt"):
        _write(work / "endpoint-ca.pem", job.credentials["ca.crt"], account, 0o400)
    _write(work / CONFIGURATION, configuration(job), account, 0o400)
    _write(work / SCRIPT, script(job), account, 0o500)


def _write(path: Path, text: str, account: pwd.struct_passwd, mode: int) -> None:
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    aside.touch(0o600)
    aside.write_text(text)
    os.chown(aside, account.pw_uid, account.pw_gid)
    aside.chmod(mode)
    aside.rename(path)


def archiving(work: Path) -> str:
    """The words of the last attempt to archive a file of the log; empty: it went well."""
    with suppress(OSError):
        return clean(last_words((work / SAID).read_text(errors="replace")), {})[:500]
    return ""


def backup(job: Job) -> Result:
    """A full one, or what has changed since the last."""
    install(job)
    gap = job.work / GAP
    known = gap.stat().st_mtime_ns if gap.exists() else None
    _tool(job, "stanza-create")
    _tool(job, "backup", f"--type={'full' if job.full else 'incr'}")
    if known is not None and gap.exists() and gap.stat().st_mtime_ns == known:
        gap.unlink()
    last = _stanza(job, job.repository)["backup"][-1]
    return Result(str(last["label"]), int(last["info"]["repository"]["delta"]))


def restore(job: Job) -> Result:
    """Into ``where.data``, as a history of its own: recovered to where it is to end, and with no reign in it.

    The source's configuration stands in a folder that is gone when this returns: nothing is ever written there.
    """
    folder = job.work / "restoring"
    shutil.rmtree(folder, ignore_errors=True)
    job = replace(job, where=replace(job.where, work=str(folder)))
    try:
        install(job)
        stanza = chosen(job.repository, [str(each["name"]) for each in _stanzas(job)])
        job = replace(job, repository=stanza)
        install(job)
        backups = {str(each["label"]): each for each in _stanza(job, stanza)["backup"]}
        label = max(backups, default="", key=_stopped(backups)) if job.label == "latest" else job.label
        if label not in backups:
            raise JobError(f"{stanza} has no backup {job.label!r}; it has {', '.join(list(backups)[-5:]) or 'none'}")
        _tool(job, "restore", *goal(job), "--archive-mode=off", limit=None)
        _recover(job)
        return Result(label, int(backups[label]["info"]["size"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def goal(job: Job) -> list[str]:
    """pgBackRest's options. The latest: all of the log that was archived; a label: as it was when that was made."""
    options = [] if job.label == "latest" else [f"--set={job.label}"]
    if job.until:
        moment = datetime.fromisoformat(job.until.replace("Z", "+00:00")).astimezone(UTC)
        return [*options, "--type=time", f"--target={moment:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote"]
    return [*options, "--type=immediate", "--target-action=promote"] if options else options


def _recover(job: Job) -> None:
    """A server for nobody reads the log to its end. What people may not see of a reign of another database is taken
    out: members would compare epochs with it."""
    data, work, binaries = Path(job.where.data), job.work, Path(job.where.binaries)
    account = pwd.getpwnam(job.where.user)
    log = work / "recovery.log"
    _write(work / "pg_hba.conf", f"local all {job.where.user} peer\n", account, 0o400)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(work),
        "port": str(job.where.port),
        "hba_file": str(work / "pg_hba.conf"),
        "archive_mode": "off",
        "hot_standby": "off",  # then no setting need be as large as the primary's was
        "logging_collector": "off",
        "log_destination": "stderr",
        "restart_after_crash": "off",
        "wal_level": "replica",
    }
    _write(work / "postgresql.conf", assignments(settings), account, 0o400)
    command = [str(binaries / "postgres"), "-D", str(data), "-c", f"config_file={work / 'postgresql.conf'}"]
    # Not by pg_ctl, whose server would outlive this process' group.
    server = begin(command, log, user=job.where.user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    shell = [str(binaries / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", str(work), "-p", str(job.where.port)]
    shell += ["-U", job.where.user, "-d", "postgres", "-c"]
    try:
        while not _answers([*shell, "SELECT 1"], job.where.user):
            if server.poll() is not None:
                raise JobError(f"what was restored can't be recovered: {ended(server, command, log)}")
            time.sleep(0.2)
        call([*shell, "TRUNCATE hasite.epoch"], user=job.where.user)
        server.send_signal(signal.SIGINT)
        if failure := ended(server, command, log):
            raise JobError(failure)
    finally:
        stop(server)
    for name in ("postgresql.auto.conf", "recovery.done", "recovery.signal", "standby.signal"):
        (data / name).unlink(missing_ok=True)
    _write(data / "postgresql.auto.conf", "", account, 0o600)


def _answers(command: list[str], user: str) -> bool:
    try:
        call(command, user=user, limit=10)
    except JobError:
        return False
    return True


def chosen(wanted: str, names: list[str]) -> str:
    """The one that is meant: by its whole name, or without the last part, when no other begins so."""
    alike = [name for name in names if name == wanted or name.rpartition("-")[0] == wanted]
    if wanted in alike:
        return wanted
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise JobError(f"{wanted!r} may be any of {', '.join(sorted(alike))}: name one of them in full")
    raise JobError(f"there are no backups of {wanted!r}" + (f", but of {', '.join(sorted(names))}" if names else ""))


def _stopped(backups: dict[str, Any]) -> Callable[[str], int]:
    return lambda label: int(backups[label]["timestamp"]["stop"])


def _stanzas(job: Job, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_tool(job, "info", "--output=json", *options, stanza=False))
    for each in found:
        if each["status"]["code"] == _UNREADABLE:
            words = [str(repository["status"]["message"]) for repository in each.get("repo", ())]
            raise JobError(f"pgbackrest: {' '.join(words) or each['status']['message']}")
    return found


def _stanza(job: Job, name: str) -> dict[str, Any]:
    for each in _stanzas(job, f"--stanza={name}"):
        if each["name"] == name and each.get("backup"):
            each["backup"].sort(key=lambda backup: backup["timestamp"]["stop"])
            return each
    raise JobError(f"{name} has no backup")


def _tool(job: Job, command: str, *options: str, stanza: bool = True, limit: float | None = None) -> str:
    which = [f"--stanza={job.repository}"] if stanza else []
    return call(
        [PGBACKREST, f"--config={job.work / CONFIGURATION}", *which, *options, command],
        user=job.where.user,
        limit=limit,
    )
