"""Long-running programs of the local world: recorded on disk, so that a run that crashed is cleaned by the next."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT = 15.0
"""Seconds a program has to end after SIGTERM, before SIGKILL."""


@dataclass(frozen=True)
class Recorded:
    """A process as written to disk. A PID is used again by the kernel; a PID with its start time is not."""

    pid: int
    start_time: int
    """In clock ticks since the boot: field 22 of /proc/PID/stat."""

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie doesn't)."""
        return start_time(self.pid) == self.start_time


class Processes:
    """The programs that were started from one directory, by name.

    Every command line must contain the directory's path: a recorded process is only ever signalled when its start
    time is the recorded one and its command line names the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._record = directory / "processes.json"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], detach: bool) -> None:
        """Starts a program with its output appended to logs/NAME.log. Unless detached it is killed by the kernel
        when the thread that started it ends, however that happens."""
        if not detach:
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        logs = self._directory / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[name] = child
        self._write({**self._read(), name: Recorded(child.pid, start_time(child.pid) or 0)})

    def running(self, name: str) -> bool:
        """Whether the program of that name runs, started by this object or by an earlier one."""
        # Of a child the kernel knows best: in the moment of its exec the command line in /proc is empty.
        if child := self._children.get(name):
            return child.poll() is None
        recorded = self._read().get(name)
        return recorded is not None and self._is_ours(recorded)

    def pid(self, name: str) -> int | None:
        """The PID of the running program of that name."""
        return self._read()[name].pid if self.running(name) else None

    def log(self, name: str) -> Path:
        """The file with the output of the program of that name, all its runs one after the other."""
        return self._directory / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of that output."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    async def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the program of that name and waits until it is gone; no error when it doesn't run."""
        recorded = self._read().get(name)
        if recorded is not None:
            if self.running(name):
                await _end(recorded.pid, how)
            self._write({key: value for key, value in self._read().items() if key != name})
        if child := self._children.pop(name, None):
            child.wait()

    def _is_ours(self, recorded: Recorded) -> bool:
        if not recorded.alive():
            return False
        try:
            command_line = Path(f"/proc/{recorded.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(self._directory) in command_line

    def _read(self) -> dict[str, Recorded]:
        try:
            content = json.loads(self._record.read_text())
        except FileNotFoundError:
            return {}
        return {name: Recorded(**value) for name, value in content.items()}

    def _write(self, processes: Mapping[str, Recorded]) -> None:
        content = {name: {"pid": value.pid, "start_time": value.start_time} for name, value in processes.items()}
        aside = self._record.with_suffix(".new")
        aside.write_text(json.dumps(content, indent=2) + "\n")
        aside.replace(self._record)


async def _end(pid: int, how: signal.Signals) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, how)
        if not await _gone(descriptor, STOP_TIMEOUT):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await _gone(descriptor, STOP_TIMEOUT)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


async def _gone(descriptor: int, timeout: float) -> bool:  # noqa: ASYNC109 (a bool, not an exception, is wanted)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(timeout):
            await ended.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
