"""Taking a world away, whoever left it behind: found by its prefix and its directory, not by anybody's memory of it."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from e2e.world.machines import cgroups
from e2e.world.machines.guest import PROPAGATE
from e2e.world.network import DEFAULT_PREFIX, CommandError, run
from e2e.world.network.namespaces import NAMESPACES


def run_directory() -> Path:
    """Where a running world keeps its state: `$HASITE_RUN`, or /run/hasite-world."""
    return Path(os.environ.get("HASITE_RUN") or "/run/hasite-world")


async def clean(directory: Path, prefix: str = DEFAULT_PREFIX) -> None:
    """End every process, namespace, mount and control group of a world and empty its directory. Idempotent.

    A process belongs to a world when it is in one of its control groups or network namespaces: nothing is ever killed
    because of a remembered process id. This process itself is spared.
    """
    groups = cgroups.names(prefix)
    for name in groups:
        cgroups.kill(name)
    namespaces = sorted(path.name for path in NAMESPACES.glob(f"{prefix}*"))
    _kill_inhabitants(namespaces)
    await asyncio.gather(*map(cgroups.wait_until_empty, groups))
    for namespace in namespaces:
        await run(["ip", "netns", "del", namespace])
    for mount in _mounts_below(directory):
        await _unmount(mount)
    for name in groups:
        cgroups.remove(name)
    for leftover in PROPAGATE.glob(f"{prefix}*"):
        leftover.rmdir()
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _kill_inhabitants(namespaces: list[str]) -> None:
    inodes = {(NAMESPACES / namespace).stat().st_ino for namespace in namespaces}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                # The handle is taken before the look: a process id that is reused meanwhile can't be hit.
                handle = os.pidfd_open(int(entry.name))
                try:
                    if (entry / "ns" / "net").stat().st_ino in inodes:
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)


def _mounts_below(directory: Path) -> list[str]:
    """The mount points in a directory, the latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


async def _unmount(point: str) -> None:
    """Unmount; what a dying process still holds goes when it goes."""
    try:
        await run(["umount", point])
    except CommandError:
        await run(["umount", "--lazy", point])
