"""Files that are on no disk, for libraries that take certificates and keys by their paths only."""

import os


class MemoryFile:
    """Readable at ``path`` by this process, until it is closed."""

    def __init__(self, name: str, data: bytes) -> None:
        self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.fchmod(self._descriptor, 0o600)
        os.write(self._descriptor, data)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
