"""The interface to a machine: commands and files over one kept-open SSH connection."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Target:
    """A machine and the only host keys that it may show (OpenSSH public keys without comment). User is root."""

    name: str
    address: str
    host_keys: tuple[str, ...]
    port: int = 22


@dataclass(frozen=True)
class Result:
    """What a command left. ``stdout`` and ``stderr`` are decoded with replacement."""

    status: int
    stdout: str
    stderr: str


class Session(Protocol):
    """A live connection. Methods raise ``Unreachable`` when it breaks or ``timeout`` (seconds) passes.

    ``host_key``: the OpenSSH public key, without comment, that the machine showed on it.
    """

    host_key: str

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        """Runs a shell command as root; any exit status is a result."""
        ...

    async def read(self, path: str) -> bytes | None:
        """None only when the file is definitely not there."""
        ...

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Aside, synced, then renamed over ``path``.

        Raises ``Permanent`` with the machine's own words, for example when the disk is full.
        """
        ...

    async def unix_request(self, path: str, request: bytes, *, timeout: float = 2.0) -> bytes:  # noqa: ASYNC109
        """Opens the Unix socket on the machine (direct-streamlocal), sends, reads to the end.

        Raises ``Transient``, not ``Unreachable``, when the machine says that nothing listens there.
        """
        ...


class Machines(Protocol):
    """Keeps one connection a machine."""

    async def session(self, target: Target, *, timeout: float = 5.0) -> Session:  # noqa: ASYNC109
        """The kept-open session, or a new one. Raises ``Unreachable`` or ``HostKeyMismatch``."""
        ...

    async def drop(self, name: str) -> None:
        """Closes the connection to a machine that is not ours any more."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...
