"""The interface to a database server: what the guard's loop needs of one, and what it gives to a driver.

A driver is one module here, registered in ``engines/__init__.py``, with a class that satisfies ``Engine``, built by
``Factory``, and a function ``unit_file(version: str) -> str``: the text of the server's systemd unit, which the
operator delivers. The operator imports these modules as well: database libraries are imported when first used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hasite.guard.model import Database, Desired, Member, Settings

UNIT = "hasite-db.service"
"""The server's unit: never enabled, without ``Restart=``; the guard alone starts it."""


class EngineError(Exception):
    """The server could not be brought nearer to what it is to be; the text says why, in the server's own words."""


@dataclass(frozen=True)
class Layout:
    """Where things are on a member. ``saved`` and ``data`` share a file system, so that a rename is enough."""

    data: Path = Path("/var/lib/hasite/data")
    saved: Path = Path("/var/lib/hasite/saved")
    vote: Path = Path("/var/lib/hasite/vote.json")
    settings: Path = Path("/etc/hasite/guard.json")
    tls: Path = Path("/etc/hasite/tls")
    run: Path = Path("/run/hasite")

    @property
    def ca(self) -> Path:
        """Of the cluster's own certificate authority."""
        return self.tls / "ca.pem"

    @property
    def certificate(self) -> Path:
        """This member's, with its name as common name, for servers and clients."""
        return self.tls / "cert.pem"

    @property
    def key(self) -> Path:
        """Of the certificate."""
        return self.tls / "key.pem"

    @property
    def lease(self) -> Path:
        """The deadline that the fuse reads."""
        return self.run / "lease"

    @property
    def socket(self) -> Path:
        """Where the guard tells people on the machine how it is."""
        return self.run / "guard.sock"


class Service(Protocol):
    """The server as processes: a systemd unit, or in tests a process of the test's own."""

    async def start(self) -> None:
        """Returns once the unit's main process runs, ready or not; at once if it does already. Raises EngineError."""
        ...

    async def stop(self) -> None:
        """By the unit's own signal, in its own time; returns when nothing is left. Raises EngineError."""
        ...

    def pids(self) -> tuple[int, ...]:
        """Every process of the unit, the main one first if it is known; empty: nothing runs. Raises OSError when that
        can't be seen."""
        ...

    def kill(self) -> None:
        """SIGKILL to every process of the unit until none is left; blocks the caller for milliseconds."""
        ...


class Engine(Protocol):
    """One database server, on this machine. Its calls never block the event loop, but for ``kill``."""

    async def open(self) -> None:
        """Called once, before anything else: for a driver that serves something of its own, such as copies."""
        ...

    async def observe(self) -> Database:
        """A look, under 100 ms when all is well. Never raises: what can't be seen is said in ``detail``.

        ``primary`` is said of a server that takes writes, or could without anyone's doing more.
        """
        ...

    async def reach(self, desired: Desired, upstream: Member | None, /) -> None:
        """One push towards ``desired``; nothing when it is reached. ``upstream``: the member that it names.

        May take long, and is called again until ``observe`` says what is desired. Raises EngineError. When it is
        cancelled it ends soon, and it has *ended* when it returns or raises: no thread or process of its doing may
        still change the server after that. A server that is primary and is to be anything else is stopped first.
        """
        ...

    def kill(self) -> None:
        """The fence: ``Service.kill``. Must be safe while ``reach`` and ``observe`` are under way."""
        ...

    def configure(self, settings: Settings) -> None:
        """New settings, for the next calls."""
        ...

    async def close(self) -> None:
        """Ends what ``open`` began. Leaves the server as it is."""
        ...


Factory = Callable[[Settings, Layout, Service], Engine]
