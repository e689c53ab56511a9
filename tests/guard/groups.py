"""Control groups of a test's own, where this machine lets it make them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from hasite.guard import cgroup

ROOTS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")


def possible() -> bool:
    """Whether a process can be moved into a new group."""
    return root() is not None


def root() -> str | None:
    for candidate in ROOTS:
        if os.access(f"{candidate}/cgroup.procs", os.W_OK):
            return candidate
    return None


@contextlib.contextmanager
def group() -> Iterator[str]:
    """The folder of a group; what is in it at the end is killed, and it is removed."""
    base = root()
    assert base is not None
    path = Path(base) / f"hasite-test-{uuid4().hex[:8]}"
    path.mkdir()
    try:
        yield str(path)
    finally:
        cgroup.kill((str(path),))
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
