"""The database server as a systemd unit."""

import asyncio

from hasite.guard import cgroup
from hasite.guard.engines.base import UNIT, EngineError


class SystemdService:
    """Started and stopped by systemd, seen and killed through its control group, which needs no one's answer."""

    def __init__(self, unit: str = UNIT) -> None:
        self._unit = unit
        self._groups = cgroup.folders(unit)

    async def start(self) -> None:
        """As ``Service`` says."""
        await self._systemctl("start")

    async def stop(self) -> None:
        """As ``Service`` says."""
        await self._systemctl("stop")

    def pids(self) -> tuple[int, ...]:
        """As ``Service`` says."""
        return cgroup.pids(self._groups)

    def kill(self) -> None:
        """As ``Service`` says."""
        cgroup.kill(self._groups, patience=0.4)

    async def _systemctl(self, verb: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "systemctl", verb, self._unit, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise EngineError(f"systemctl {verb} {self._unit}: {said.decode(errors='replace').strip()}")
