"""When a server that does not start gets a fresh copy of the data. ``now``: monotonic seconds."""

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.copies import Copies

_HOPELESS = 3
"""Starts that fail before the data is blamed; the last of them is without the user's settings."""
_AGAIN = 60.0
"""Seconds between two attempts at a copy."""


class Tries:
    """``failures``: starts since the last one that succeeded. Copies that were made for another reason don't count."""

    def __init__(self) -> None:
        self.failures = 0
        self._copies = Copies()
        self._next = float("-inf")
        self._called_for = False

    @property
    def is_last(self) -> bool:
        """Whether the data is to blame if this start fails as well."""
        return self.failures >= _HOPELESS - 1

    def are_over(self, error: EngineError, now: float) -> bool:
        """Whether to begin a copy now. Raises EngineError when it would be too soon after the last."""
        if self.failures < _HOPELESS:
            return False
        if now < self._next or not self._copies.due(now):
            raise EngineError(f"a fresh copy did not help: {error}")
        self._next = now + _AGAIN
        self._called_for = True
        return True

    def copied(self, now: float) -> None:
        """There is a fresh copy."""
        if self._called_for:
            self._called_for = False
            self._copies.made(now)
