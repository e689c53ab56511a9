"""Until when this machine's server may take writes, in a file that the guard writes and the fuse reads.

16 bytes, little-endian: the deadline in nanoseconds of the machine's clock since boot, and its complement, so that a
half-written value is known as one. The file is on a tmpfs: a boot begins without it. Imports next to nothing, for the
fuse's sake.
"""

import os
import time

NEVER = (1 << 64) - 1
"""No deadline: the server is no primary, and nothing that could make it one is under way."""


def clock() -> float:
    """Seconds that no one can set, which go on while the machine is suspended: a lease does not wait for it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def clock_ns() -> int:
    """The same in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Writer:
    """Keeps the file open: one that has run out of descriptors can still write."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def write(self, deadline_ns: int) -> None:
        """Raises OSError: then the server may not become, or remain, a primary on the strength of it."""
        if self._descriptor is not None and not os.fstat(self._descriptor).st_nlink:
            self.close()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        text = deadline_ns.to_bytes(8, "little") + (NEVER ^ deadline_ns).to_bytes(8, "little")
        os.pwrite(self._descriptor, text, 0)

    def close(self) -> None:
        """The file stays as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def write(path: str, deadline_ns: int) -> None:
    """Once. Raises OSError."""
    writer = Writer(path)
    try:
        writer.write(deadline_ns)
    finally:
        writer.close()


def read(path: str) -> int:
    """The deadline in nanoseconds. A file that is missing or unreadable permits nothing: 0."""
    for _ in range(3):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            text = os.pread(descriptor, 17, 0)
        except OSError:
            return 0
        finally:
            os.close(descriptor)
        deadline = int.from_bytes(text[:8], "little")
        if len(text) == 16 and deadline ^ NEVER == int.from_bytes(text[8:], "little"):
            return deadline
    return 0
