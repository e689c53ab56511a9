"""A control group for each machine: so that guests don't share one, and so that a machine can die all at once."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> tuple[Path, ...]:
    """The hierarchies a machine is put in, the one with `cgroup.kill` first.

    With cgroup v2 alone there is one; in the hybrid layout systemd-nspawn uses the named v1 hierarchy as well.
    RuntimeError where there is no cgroup v2.
    """
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        return (CGROUP_ROOT,)
    if (CGROUP_ROOT / "unified" / "cgroup.controllers").exists():
        return (CGROUP_ROOT / "unified", *filter(Path.is_dir, [CGROUP_ROOT / "systemd"]))
    raise RuntimeError("the local world needs cgroup v2 (mounted at /sys/fs/cgroup, alone or as `unified`)")


def make(name: str) -> tuple[Path, ...]:
    """Make the group in each hierarchy, and return the groups."""
    groups = tuple(root / name for root in hierarchies())
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def command_in_group(groups: tuple[Path, ...], argv: list[str]) -> list[str]:
    """The command line that runs `argv` in these groups from its first instruction on."""
    enter = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
    return ["sh", "-c", f'{enter}exec "$@"', "sh", *argv]


def kill(name: str) -> None:
    """Kill every process of the group at one instant, as a power cut does. Does nothing when there is no group."""
    with contextlib.suppress(FileNotFoundError):
        (hierarchies()[0] / name / "cgroup.kill").write_text("1")


async def wait_until_empty(name: str, seconds: float = 20.0) -> None:
    """Return when the group has no process any more; TimeoutError when it still has after that many seconds."""
    events = hierarchies()[0] / name / "cgroup.events"
    deadline = time.monotonic() + seconds
    while True:
        try:
            if "populated 0" in events.read_text():
                return
        except OSError:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the processes of cgroup {name} do not die")
        await asyncio.sleep(0.01)


def processes(name: str) -> list[int]:
    """The process ids in the group and the groups below it, as the host sees them."""
    pids: list[int] = []
    for path in (hierarchies()[0] / name).rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            pids += map(int, path.read_text().split())
    return pids


def processes_of_unit(name: str, unit: str) -> list[int]:
    """Those in the group that systemd in the guest made for one of its units."""
    pids: list[int] = []
    for path in (hierarchies()[0] / name).rglob("cgroup.procs"):
        if unit in path.parts:
            with contextlib.suppress(OSError):
                pids += map(int, path.read_text().split())
    return pids


def remove(name: str) -> None:
    """Remove the group, which must be empty of processes, and all that the guest made below it."""
    for root in hierarchies():
        for path, _, _ in os.walk(root / name, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)


def names(prefix: str) -> list[str]:
    """The groups whose names begin with a prefix."""
    return sorted({path.name for root in hierarchies() for path in root.glob(f"{prefix}*") if path.is_dir()})
