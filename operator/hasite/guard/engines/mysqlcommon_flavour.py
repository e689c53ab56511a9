"""What a MySQL-like server's own module must know, and the handling of its files, which is the same for all."""

import json
import os
import pwd
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hasite.guard.engines.base import UNIT, EngineError, Layout
from hasite.guard.engines.mysqlcommon import History, Lonely, Look, Place, Source
from hasite.guard.engines.mysqlcommon_programs import last_lines, run
from hasite.guard.engines.mysqlcommon_sql import Connection, Session
from hasite.guard.engines.threads import in_thread
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
    RELOAD: str
    """The certificates."""

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

    def renew(self) -> None:
        """The certificate, where others than the server show it. Raises OSError."""
        ...

    async def make(self) -> None:
        """An empty database in ``files.fresh``."""
        ...

    async def copy(self, upstream: Member) -> None:
        """The upstream's in ``files.fresh``, whole and ready to be started."""
        ...

    async def prepare(self, *, plain: bool) -> None:
        """The server's configuration, before each start. ``plain``: without the user's settings."""
        ...

    async def recover(self, hand: Session) -> None:
        """After each start: what had been received before, and what a fresh copy needs."""
        ...

    def foreign(self) -> bool:
        """Whether the data still speak of another database's reigns: they were restored, and not started yet."""
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

    async def has(self, upstream: Member) -> str:
        """Of a ring: the names of all transactions that the upstream has."""
        ...

    def lacks(self, one: str, other: str) -> str:
        """What of ``one`` is not in ``other``, both as ``has`` says; empty: nothing."""
        ...

    def lost(self, theirs: str, own: str) -> bool:
        """Of a ring: whether others have what this server itself wrote in its present incarnation, and lacks."""
        ...

    async def stopped_at(self) -> tuple[str, str, str] | None:
        """Of a ring: the transaction that can't be applied, who wrote it, and its first row; None: can't be told."""
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

    async def begin(self) -> Path:
        """``fresh``, empty."""
        await in_thread(shutil.rmtree, self.fresh, True)
        return self.folder(self.fresh)

    @property
    def incarnation(self) -> int:
        """How often a database was made or copied here: see ``mysqlcommon_members``."""
        with suppress(OSError, ValueError):
            return int(self.data.with_name("incarnation").read_text())
        return 0

    def incarnate(self) -> None:
        """The database that was just made or copied is another server's than the one before."""
        self.write(self.data.with_name("incarnation"), f"{self.incarnation + 1}\n".encode())
        (self.data / "auto.cnf").unlink(missing_ok=True)  # MySQL names itself anew
        _sync(self.data.parent)

    def tidy(self) -> None:
        """After a crash between two steps of ``adopt``. What is no database is put aside: nobody knows its worth."""
        if not self.data.exists() and self._old.exists():
            self._old.rename(self.data)
        if self.data.exists() and not self.present():
            self._layout.saved.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.data.rename(self._layout.saved / f"damaged-{_stamp()}")

    async def adopt(self) -> None:
        """``fresh`` is the database from now on. The server does not run."""
        await in_thread(sync_tree, self.fresh)
        await in_thread(shutil.rmtree, self._old, True)
        if self.data.exists():
            self.data.rename(self._old)
        self.fresh.rename(self.data)
        await in_thread(_sync, self.data.parent)
        await in_thread(shutil.rmtree, self._old, True)

    def certificates(self) -> bool:
        """Copies that the server's user may read: the guard's own are root's. And the only folder that SQL may read.

        Whether any are new.
        """
        self.folder(self.exchange, 0o700)
        self.folder(self.tls, 0o700)
        sources = (self._layout.ca, self._layout.certificate, self._layout.key)
        return any([self.write(self.tls / source.name, source.read_bytes(), 0o600) for source in sources])

    def write(self, path: Path, content: bytes, mode: int = 0o644) -> bool:
        """Whole or not at all; the server's own. Whether it is new."""
        if path.exists() and path.read_bytes() == content:
            return False
        aside = path.with_name(path.name + ".new")
        aside.unlink(missing_ok=True)
        aside.touch(mode)
        aside.write_bytes(content)
        account = pwd.getpwnam(self.place.user)
        os.chown(aside, account.pw_uid, account.pw_gid)
        aside.rename(path)
        return True

    def save_into(self, epoch: int) -> Path:
        """A new folder for what this member alone had, which does not count until it is sealed. What an earlier try
        has left half done goes."""
        self._layout.saved.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in self._layout.saved.glob("*.new"):
            shutil.rmtree(stale)
        path = self._layout.saved / f"{epoch}-{_stamp()}.new"
        path.mkdir(mode=0o700)
        return path

    def already(self, **told: object) -> bool:
        """Whether it was saved before an earlier copy was broken off."""
        for path in self._layout.saved.glob("*Z/saved.json"):
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
        path.rename(path.with_name(path.name.removesuffix(".new")))
        _sync(path.parent)

    async def last_words(self) -> str:
        """Of the server, in one line."""
        file = self.place.extra.get("log_error")
        command = (
            ["tail", "-n", "20", file] if file else ["journalctl", "-u", UNIT, "-n", "20", "-o", "cat", "--no-pager"]
        )
        with suppress(OSError, EngineError):
            return last_lines(await run(command))
        return ""


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


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
