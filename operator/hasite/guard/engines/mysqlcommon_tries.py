"""When a server that does not start gets a fresh copy of the data."""

import time

from hasite.guard.engines.base import EngineError

_HOPELESS = 3
"""Starts that fail before the data is blamed; the last of them is without the user's settings."""
_AGAIN = 60.0
"""Seconds between two attempts at a copy."""
_SELDOM = 300.0
"""Seconds after a copy, doubled with each, in which there is no other: most causes are not in the data."""


class Tries:
    """``failures``: starts since the last one that succeeded."""

    def __init__(self) -> None:
        self.failures = 0
        self._began = float("-inf")
        self._copies = 0

    @property
    def is_last(self) -> bool:
        """Whether the data is to blame if this start fails as well."""
        return self.failures >= _HOPELESS - 1

    def are_over(self, error: EngineError, copied: float) -> bool:
        """Whether to begin a copy now. ``copied``: when there was one. Raises EngineError when it would be too soon."""
        if self.failures < _HOPELESS:
            return False
        now = time.monotonic()
        if now < max(self._began + _AGAIN, copied + _SELDOM * 2 ** min(self._copies, 8)):
            raise EngineError(f"a fresh copy did not help: {error}")
        self._began = now
        self._copies += 1
        return True
