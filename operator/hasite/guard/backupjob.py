"""Makes one backup, or restores one: a program of its own, told by JSON on standard input, answering by JSON.

A process apart, so that the guard stays small and the work can have a low priority; whoever ends its process group ends
its tools as well. What it is told may hold credentials: it is never an argument, and never in a log.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hasite.guard.backup import Target
from hasite.guard.wire import dump, load, parse


class JobError(Exception):
    """There is no backup, or nothing was restored; the text says why, in the tool's words."""


@dataclass(frozen=True)
class Where:
    """The server's own things. ``work``: a folder for the job's; ``binaries``: the server's programs."""

    data: str
    work: str
    binaries: str
    sockets: str
    port: int
    user: str


@dataclass(frozen=True)
class Job:
    """``credentials``: ``accessKeyId``, ``secretAccessKey`` and, where the endpoint needs them, ``ca.crt``.

    ``restore``: into the empty folder ``where.data``. ``label``: which one, or ``latest``; ``until``: a moment.
    """

    kind: Literal["backup", "restore"]
    engine: Literal["postgresql", "mysql", "mariadb"]
    version: str
    where: Where
    target: Target
    repository: str
    credentials: dict[str, str] = field(default_factory=dict, hash=False, repr=False)
    retention: int = 1
    full: bool = True
    label: str = "latest"
    until: str = ""

    @property
    def work(self) -> Path:
        """The folder for the job's own files."""
        return Path(self.where.work)


@dataclass(frozen=True)
class Result:
    """``size``: bytes that the backup takes in the target. ``reason``: why it failed; empty: it did not. ``note``: what
    went wrong beside a good one."""

    label: str = ""
    size: int = 0
    reason: str = ""
    note: str = ""


def main() -> int:
    """The exit status."""
    job = load(Job, parse(sys.stdin.buffer.read()))
    try:
        result = _work(job)
    except (JobError, OSError, ValueError) as error:
        result = Result(reason=clean(str(error), job.credentials)[:500] or repr(error))
    print(json.dumps(dump(result)), flush=True)
    return 1 if result.reason else 0


def _work(job: Job) -> Result:
    if job.engine == "postgresql":
        from hasite.guard import backup_postgresql as tool
    elif job.engine == "mariadb":
        from hasite.guard import backup_mariadb as tool  # type: ignore[no-redef]
    else:
        raise JobError(f"backups of {job.engine} are not supported")
    mounted(job)
    os.makedirs(job.where.work, exist_ok=True)
    return tool.backup(job) if job.kind == "backup" else tool.restore(job)


def clean(text: str, credentials: Mapping[str, str]) -> str:
    """Without secrets, should a tool ever repeat one, and in one line. Of an S3 server's answer what it says."""
    if code := re.search(r"<Code>([^<]*)</Code>", text):
        told = re.search(r"<Message>([^<]*)</Message>", text)
        text = f"{text.splitlines()[0]} {code[1]}: {told[1] if told else ''}"
    for name, value in credentials.items():
        if value and name != "ca.crt":
            text = text.replace(value, "…")
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())


def call(
    command: list[str],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    given: bytes | None = None,
    limit: float | None = None,
) -> str:
    """What a program writes. Raises JobError with its last words."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the arguments are the guard's
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            check=False,
            timeout=limit,
            **_identity(user, environment),
        )
    except subprocess.TimeoutExpired:
        raise JobError(f"{Path(command[0]).name}: no end after {limit:g} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace")
        raise JobError(f"{Path(command[0]).name}: {last_words(words) or f'status {done.returncode}'}")
    said: str = done.stdout.decode(errors="replace")
    return said


def begin(
    command: list[str],
    journal: Path,
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    **pipes: Any,
) -> "subprocess.Popen[bytes]":
    """A program that is part of a pipeline; its words go to ``journal``."""
    with journal.open("wb") as words:
        return subprocess.Popen(command, stderr=words, **_identity(user, environment), **pipes)  # noqa: S603


def ended(process: "subprocess.Popen[bytes]", command: list[str], journal: Path) -> str:
    """Why a program of a pipeline failed; empty: it did not."""
    if process.wait() == 0:
        return ""
    words = last_words(journal.read_text(errors="replace"))
    return f"{Path(command[0]).name}: {words or f'status {process.returncode}'}"


def stop(*processes: "subprocess.Popen[bytes]") -> None:
    """Whatever still runs of a pipeline."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


def last_words(text: str) -> str:
    """A program's last error with what follows it, or else the end of what it said."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [n for n, line in enumerate(lines) if any(mark in line for mark in ("ERROR", "FATAL", "Failed to"))]
    return "\n".join(lines[errors[-1] :] if errors else lines[-3:])[:2000]


def mounted(job: Job) -> None:
    """A folder must be there, and a backup elsewhere than on the database's own disk: where nothing is mounted, nothing
    is written. Raises JobError."""
    path = Path(job.target.path)
    if not job.target.path:
        return
    if not path.is_dir():
        raise JobError(f"{path} is no folder on this member: is it mounted?")
    if job.kind == "backup" and path.stat().st_dev == Path(job.where.data).stat().st_dev:
        raise JobError(f"{path} is on the database's own disk on this member: is it mounted?")


def _identity(user: str | None, environment: Mapping[str, str] | None) -> dict[str, Any]:
    base = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
    }
    asked: dict[str, Any] = {"env": {**base, **(environment or {})}, "cwd": "/"}
    return asked | ({"user": user, "group": user, "extra_groups": []} if user else {})
