"""A machine's disk: an overlay over the image, its changes on a tmpfs of bounded size."""

import asyncio
import contextlib
import os
from pathlib import Path

from e2e.world.network.commands import CommandError, run

ATTEMPTS = 100


class Disk:
    """The root of one machine, at `root` once it is mounted. It keeps its content through a power cut."""

    def __init__(self, directory: Path, size: int) -> None:
        self._store = directory / "disk"
        self.root = directory / "root"
        self._size = size

    async def mount(self, image: Path) -> None:
        """Make an empty disk over an image and mount it."""
        for path in (self._store, self.root):
            path.mkdir(parents=True)
        await run(["mount", "-t", "tmpfs", "-o", f"size={self._size},mode=755", "hasite-disk", str(self._store)])
        upper, work = self._store / "upper", self._store / "work"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir={image},upperdir={upper},workdir={work}"
        await run(["mount", "-t", "overlay", "-o", options, "hasite-root", str(self.root)])

    async def unmount(self) -> None:
        """Unmount the disk; what was on it is lost."""
        for point in (self.root, self._store):
            if await asyncio.to_thread(os.path.ismount, point):
                await run(["umount", str(point)])

    def used(self) -> int:
        """Bytes written by the machine so far."""
        stat = os.statvfs(self._store)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    async def fill(self) -> None:
        """Make the disk full: its size becomes what it holds, so that the next byte written is ENOSPC."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(CommandError):  # the machine wrote between the look and the act
                return await self._resize(max(self.used(), 4096))
        raise TimeoutError(f"the machine writes too fast to fill {self._store} up")

    async def free(self) -> None:
        """Give the disk its size back."""
        await self._resize(self._size)

    async def _resize(self, size: int) -> None:
        await run(["mount", "-o", f"remount,size={size}", str(self._store)])
