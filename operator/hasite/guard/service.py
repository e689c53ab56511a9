"""The database server as a systemd unit."""

import asyncio

from hasite.guard import cgroup
from hasite.guard.engines.base import UNIT, EngineError


class SystemdService:
    """Started and stopped by systemd, seen and killed through its control group, which needs no one's answer."""

    def __init__(self, unit: str = UNIT) -> None:
        self._unit = unit
        self._groups = cgroup.folders(unit)
        self._hangs = False

    async def start(self) -> None:
        """As ``Service`` says."""
        self._hangs = False
        await self._systemctl("start")

    async def stop(self) -> None:
        """As ``Service`` says. When the machine shuts down, systemd stops the guard before the server, so the server's
        own turn would not come until the guard has ended."""
        await self._systemctl("stop", "--job-mode=ignore-dependencies")

    def pids(self) -> tuple[int, ...]:
        """As ``Service`` says."""
        return cgroup.pids(self._groups)

    def kill(self) -> None:
        """As ``Service`` says. What hangs in the kernel is waited for but once, for its caller has other things to do:
        it dies before it does anything more."""
        self._hangs = not cgroup.kill(self._groups, patience=0.0 if self._hangs else 0.4)

    async def _systemctl(self, verb: str, *options: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "systemctl", verb, *options, self._unit, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise EngineError(f"systemctl {verb} {self._unit}: {said.decode(errors='replace').strip()}")
