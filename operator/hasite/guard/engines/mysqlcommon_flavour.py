"""What a MySQL-like server's own module must know, and the handling of its files, which is the same for all."""

import asyncio
import json
import os
import pwd
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hasite.guard.engines.base import UNIT, EngineError, Layout
from hasite.guard.engines.mysqlcommon import History, Lonely, Look, Place, Source
from hasite.guard.engines.mysqlcommon_sql import Connection, Session
from hasite.guard.model import Member, Settings

Admitted = Callable[[str], bool]


class Flavour(Protocol):
    """One server's statements and programs. Everything may raise EngineError."""

    MOST_AWAITED: int
    """How many followers a primary can wait for."""
    STOP_RECEIVING: str
    """Leaves what is received to be applied."""
    START_APPLYING: str
    """While it receives: with both stopped, that may throw away what is received. Then ``recover`` is the way."""
    FORGET: tuple[str, ...]
    """The upstream, after everything from it is applied."""
    SILENCE: str
    """Stop answering a semi-synchronous primary."""
    OWN_WRITES: tuple[str, ...]
    """Lets root write, and nobody else."""
    TAKE_WRITES: tuple[str, ...]

    @property
    def files(self) -> "Files":
        """The server's."""
        ...

    def configure(self, settings: Settings) -> None:
        """For the next calls."""
        ...

    async def open(self, admitted: Admitted) -> None:
        """Called once. ``admitted``: whether a member may have a copy."""
        ...

    async def close(self) -> None:
        """Ends what ``open`` began."""
        ...

    async def make(self) -> None:
        """An empty database in ``files.fresh``."""
        ...

    async def copy(self, upstream: Member) -> None:
        """The upstream's in ``files.fresh``, whole and ready to be started."""
        ...

    async def prepare(self) -> None:
        """The server's configuration, before each start."""
        ...

    async def recover(self, hand: Session) -> None:
        """After each start: what had been received before, and what a fresh copy needs."""
        ...

    def look(self, connection: Connection) -> Look:
        """In a thread."""
        ...

    async def ask(self, upstream: Member) -> History:
        """How the upstream's history goes."""
        ...

    def follow(self, connection: Connection, upstream: Member, acknowledge: bool) -> None:
        """In a thread. Only when everything received is applied."""
        ...

    def damage(self, source: Source) -> str:
        """Why only a fresh copy helps against the errors of replication; empty: it may not be needed."""
        ...

    def stray(self, own: History, theirs: History) -> str:
        """Transactions that this server alone has, by their names; empty: none, or their names don't tell."""
        ...

    async def save(self, hand: Session, own: History, lonely: Lonely) -> None:
        """What this server alone has, into a folder of its own."""
        ...

    def found(self, connection: Connection) -> None:
        """In a thread: the epochs' table and the system's users, at the first promotion ever."""
        ...

    def await_followers(self, required: int) -> tuple[str, ...]:
        """How many must have a transaction before it is acknowledged."""
        ...

    def refuse_writes(self, connection: Connection) -> None:
        """In a thread: every transaction that was acknowledged is in the binary log when this returns."""
        ...

    def shut_down(self, connection: Connection) -> None:
        """In a thread: after the followers were sent everything."""
        ...


class Files:
    """A member's database as files. A folder is made aside, and takes the place of the old one by a rename."""

    def __init__(self, layout: Layout, place: Place) -> None:
        self._layout, self.place = layout, place
        self.data = layout.data
        self.fresh = layout.data.with_name(layout.data.name + ".new")
        self._old = layout.data.with_name(layout.data.name + ".old")
        self.tls = layout.data.with_name("server-tls")
        self.exchange = layout.data.with_name("exchange")

    @property
    def ca(self) -> Path:
        """The server's copy, as are the certificate and the key."""
        return self.tls / self._layout.ca.name

    @property
    def certificate(self) -> Path:
        """For the server, and for it as a client."""
        return self.tls / self._layout.certificate.name

    @property
    def key(self) -> Path:
        """Of the certificate."""
        return self.tls / self._layout.key.name

    def tls_files(self) -> dict[str, Path]:
        """By the names that options end with."""
        return {"ca": self.ca, "cert": self.certificate, "key": self.key}

    def local(self) -> dict[str, Any]:
        """How root reaches the server: it proves who it is by the socket's other end."""
        return {"unix_socket": str(self.place.socket), "user": "root", "ssl_disabled": True}

    def present(self) -> bool:
        """There is a database; one that is still being made or copied is none."""
        return (self.data / "mysql").is_dir()

    def own(self, path: Path) -> None:
        """Gives a tree to the server's user."""
        account = pwd.getpwnam(self.place.user)
        for folder, _, names in os.walk(path):
            for each in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(each, account.pw_uid, account.pw_gid, follow_symlinks=False)

    def folder(self, path: Path, mode: int = 0o750) -> Path:
        """Made when it is missing; the server's own."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        account = pwd.getpwnam(self.place.user)
        os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def begin(self) -> Path:
        """``fresh``, empty."""
        shutil.rmtree(self.fresh, ignore_errors=True)
        return self.folder(self.fresh)

    def tidy(self) -> None:
        """After a crash between two steps of ``adopt``."""
        if not self.data.exists() and self._old.exists():
            self._old.rename(self.data)
        if self.data.exists() and not self.present():
            shutil.rmtree(self.data)

    async def adopt(self) -> None:
        """``fresh`` is the database from now on. The server does not run."""
        await asyncio.to_thread(sync_tree, self.fresh)
        shutil.rmtree(self._old, ignore_errors=True)
        if self.data.exists():
            self.data.rename(self._old)
        self.fresh.rename(self.data)
        _sync(self.data.parent)
        await asyncio.to_thread(shutil.rmtree, self._old, True)

    def certificates(self) -> None:
        """Copies that the server's user may read: the guard's own are root's. And the only folder that SQL may read."""
        self.folder(self.exchange, 0o700)
        self.folder(self.tls, 0o700)
        for source in (self._layout.ca, self._layout.certificate, self._layout.key):
            self.write(self.tls / source.name, source.read_bytes(), 0o600)

    def write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Whole or not at all; the server's own."""
        if path.exists() and path.read_bytes() == content:
            return
        aside = path.with_name(path.name + ".new")
        aside.unlink(missing_ok=True)
        aside.touch(mode)
        aside.write_bytes(content)
        account = pwd.getpwnam(self.place.user)
        os.chown(aside, account.pw_uid, account.pw_gid)
        aside.rename(path)

    def save_into(self, epoch: int) -> Path:
        """A new folder for what this member alone had."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._layout.saved.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._layout.saved / f"{epoch}-{stamp}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def already(self, **told: object) -> bool:
        """Whether it was saved before an earlier copy was broken off."""
        for path in self._layout.saved.glob("*/saved.json"):
            summary = json.loads(path.read_text())
            if all(summary.get(name) == value for name, value in told.items()):
                return True
        return False

    def keep(self, into: Path) -> None:
        """The last binary logs, and relay logs: they may hold what could not be applied. As links, where that goes."""
        for name in self.logs():
            try:
                os.link(self.data / name, into / name)
            except OSError:
                shutil.copy2(self.data / name, into)

    def logs(self) -> list[str]:
        """The last eight of each kind."""
        kinds = [sorted(self.data.glob(pattern))[-8:] for pattern in ("binlog.[0-9]*", "relay.[0-9]*")]
        return [path.name for kind in kinds for path in kind]

    def seal(self, path: Path, summary: dict[str, Any]) -> None:
        """What was saved is on the disk, with a summary beside it."""
        (path / "saved.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
        sync_tree(path)
        _sync(path.parent)

    async def last_words(self) -> str:
        """Of the server, in one line."""
        file = self.place.extra.get("log_error")
        command = (
            ["tail", "-n", "20", file] if file else ["journalctl", "-u", UNIT, "-n", "20", "-o", "cat", "--no-pager"]
        )
        with suppress(OSError, EngineError):
            return _end(await run(command))
        return ""


def row_counts(statements: Path) -> dict[str, int]:
    """Of which tables' rows, by the comments that the servers' tools write beside the statements."""
    rows: Counter[str] = Counter()
    with statements.open(errors="replace") as file:
        for line in file:
            if line.startswith("### ") and line.split()[1] in ("INSERT", "UPDATE", "DELETE"):
                verb, table = line.split()[1], line.split()[-1].replace("`", "")
                rows[f"{table} {verb.lower()}"] += 1
    return dict(sorted(rows.items()))


def _end(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "[ERROR]" in line]
    return " / ".join((errors or lines)[-2:])[-500:]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Every file and folder is on the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                _sync(Path(folder) / name)
        _sync(Path(folder))


async def run(
    command: list[str], *, user: str | None = None, stdin: int | None = None, stdout: int | None = None
) -> str:
    """What a program wrote, unless ``stdout`` takes it. Raises EngineError with its last words.

    Cancelled: it has ended. ``user``: as whom; root without.
    """
    identity: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/nonexistent"},
        cwd="/",
        start_new_session=True,
        **identity,
    )
    try:
        said, words = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        raise
    if process.returncode:
        text = _end(words.decode(errors="replace")) or _end((said or b"").decode(errors="replace"))
        raise EngineError(f"{Path(command[0]).name}: {text or f'status {process.returncode}'}")
    return (said or b"").decode(errors="replace")


async def pipe(writing: list[str], reading: list[str]) -> tuple[str | None, str | None]:
    """Runs two programs, one's output the other's input; each one's failure, None when there was none."""
    receiving, sending = os.pipe()

    async def attempt(work: Awaitable[str], *ends: int) -> str | None:
        try:
            await work
        except EngineError as error:
            return str(error)
        finally:
            for end in ends:
                os.close(end)
        return None

    return await _both(
        attempt(run(writing, stdout=sending), sending), attempt(run(reading, stdin=receiving), receiving)
    )


async def _both(first: Awaitable[str | None], second: Awaitable[str | None]) -> tuple[str | None, str | None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_as_task(each)) for each in (first, second)]
    return tasks[0].result(), tasks[1].result()


async def _as_task(work: Awaitable[str | None]) -> str | None:
    return await work
