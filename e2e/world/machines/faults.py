"""Faults inside one machine, made from outside: a disk that is slow to sync, and a process that gets no processor.

They act on the processes that a unit has when they begin, and on those that these start meanwhile.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from e2e.world.machines import cgroups

_STARVE = 'while kill -STOP "$@" && sleep "$AWAY" && kill -CONT "$@" && sleep "$AWAKE"; do :; done 2>/dev/null'


@contextlib.asynccontextmanager
async def slow_disk(group: str, delay: float, units: Sequence[str]) -> AsyncIterator[None]:
    """strace holds up each fsync and fdatasync. RuntimeError when the units have no process, or can't be traced."""
    pids = [pid for unit in units for pid in cgroups.processes_of_unit(group, unit)]
    if not pids:
        raise RuntimeError(f"{group} runs none of {', '.join(units)}")
    inject = f"inject=fsync,fdatasync:delay_enter={round(delay * 1e6)}"
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=fsync,fdatasync", "-e", inject,
        *(f"--attach={pid}" for pid in pids), start_new_session=True,
    )  # fmt: skip
    try:
        while not await asyncio.to_thread(_traced, pids) and process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield
        if process.returncode is not None:
            raise RuntimeError(f"strace ended with status {process.returncode}")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it lets go of them, and they go on
            await process.wait()


def _traced(pids: Sequence[int]) -> bool:
    """Whether somebody traces every thread of these processes."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/status")]
    for path in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if "TracerPid:\t0\n" in path.read_text():
                return False
    return True


@contextlib.asynccontextmanager
async def starved(group: str, unit: str, away: float, awake: float) -> AsyncIterator[None]:
    """By SIGSTOP and SIGCONT in turn: no priority helps against it. RuntimeError when the unit has no process."""
    pids = [str(pid) for pid in cgroups.processes_of_unit(group, unit)]
    if not pids:
        raise RuntimeError(f"{group} does not run {unit}")
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", _STARVE, "sh", *pids, env={"PATH": "/usr/bin:/bin", "AWAY": str(away), "AWAKE": str(awake)}
    )
    try:
        yield
        if process.returncode is not None:
            raise RuntimeError(f"{unit} of {group} ended while it was starved")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pid in cgroups.processes_of_unit(group, unit):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
