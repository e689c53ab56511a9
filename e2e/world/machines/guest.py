"""One boot of a machine: a systemd-nspawn process and what runs below it."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from e2e.world.machines import cgroups

REBOOT = 133
"""systemd-nspawn's exit status when its guest asked for a reboot (with --keep-unit)."""

NSPAWN_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}
"""The guest sees cgroup v2 only, and no lock file stays behind when it is killed."""

PROPAGATE = Path("/run/systemd/nspawn/propagate")
"""Where systemd-nspawn makes a folder for each machine, and leaves it when it is killed."""

GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Guest:
    """A running Debian. `group` names its control group, which no other guest may use."""

    def __init__(self, group: str, process: asyncio.subprocess.Process) -> None:
        self.group = group
        self._process = process

    @classmethod
    async def boot(cls, group: str, root: Path, namespace: str, hostname: str) -> "Guest":
        """Start systemd in `root`, in a network namespace. Its console goes to console.log beside the root."""
        command = [
            "systemd-nspawn", "-q", "-D", str(root), "--boot", f"--machine={group}", f"--hostname={hostname}",
            "--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{namespace}", "--console=pipe",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--capability=CAP_NET_ADMIN",
            "--kill-signal=SIGRTMIN+4", "systemd.show_status=yes",
        ]  # fmt: skip
        with (root.parent / "console.log").open("ab") as console:
            process = await asyncio.create_subprocess_exec(
                *cgroups.command_in_group(cgroups.make(group), command),
                stdin=asyncio.subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
                env={"PATH": os.environ.get("PATH", GUEST_PATH), **NSPAWN_ENVIRONMENT},
            )  # fmt: skip
        return cls(group, process)

    @property
    def running(self) -> bool:
        """Whether the machine has not ended yet."""
        return self._process.returncode is None

    async def ended(self) -> int:
        """Wait for the end of the machine, however it comes; REBOOT when the guest wants to be booted again."""
        status = await self._process.wait()
        cgroups.kill(self.group)
        await cgroups.wait_until_empty(self.group)
        cgroups.remove(self.group)
        with contextlib.suppress(OSError):
            (PROPAGATE / self.group).rmdir()
        return status

    def kill(self) -> None:
        """End all its processes at one instant."""
        cgroups.kill(self.group)
        self._signal(signal.SIGKILL)  # one that was just started is not in its group yet

    def shut_down(self) -> None:
        """Ask the guest to power itself off."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        # Not Process.send_signal: it may reap the process, and asyncio's watcher then loses the exit status.
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def leader(self) -> int | None:
        """The host's id of the guest's process 1, or None while (or when) there is none."""
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(ids) > 1 and ids[-1] == "1":
                    return int(pid)
        return None

    def command(self, argv: tuple[str, ...]) -> list[str]:
        """What runs a command in the guest as root. RuntimeError: no guest."""
        leader = self.leader()
        if leader is None:
            raise RuntimeError(f"{self.group} is not running")
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        return ["nsenter", f"--target={leader}", *spaces, "--", *argv]

    async def execute(self, argv: tuple[str, ...], text: str = "") -> tuple[int, str]:
        """Run a command in the guest as root; its exit status and its standard output. RuntimeError: no guest."""
        process = await asyncio.create_subprocess_exec(
            *self.command(argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": GUEST_PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        )
        out, _ = await process.communicate(text.encode())
        return process.returncode or 0, out.decode(errors="replace")

    def memory(self) -> int:
        """Bytes of memory its processes use, shared pages counted in proportion (PSS)."""
        total = 0
        for pid in cgroups.processes(self.group):
            with contextlib.suppress(OSError, StopIteration):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]) * 1024
        return total
