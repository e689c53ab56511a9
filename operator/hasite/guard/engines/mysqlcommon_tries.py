"""When a server that does not start gets a fresh copy of the data. ``now``: monotonic seconds."""

from hasite.guard.engines.base import EngineError

_HOPELESS = 3
"""Starts that fail before the data is blamed; the last of them is without the user's settings."""
_AGAIN = 60.0
"""Seconds between two attempts at a copy."""
_SELDOM = 300.0
"""Seconds after such a copy, doubled with each, in which there is no other: most causes are not in the data."""
_RAREST = 86400.0


class Tries:
    """``failures``: starts since the last one that succeeded. Copies that were made for another reason don't count."""

    def __init__(self) -> None:
        self.failures = 0
        self._next = float("-inf")
        self._pause = _SELDOM
        self._called_for = False

    @property
    def is_last(self) -> bool:
        """Whether the data is to blame if this start fails as well."""
        return self.failures >= _HOPELESS - 1

    def are_over(self, error: EngineError, now: float) -> bool:
        """Whether to begin a copy now. Raises EngineError when it would be too soon after the last."""
        if self.failures < _HOPELESS:
            return False
        if now < self._next:
            raise EngineError(f"a fresh copy did not help: {error}")
        self._next = now + _AGAIN
        self._called_for = True
        return True

    def copied(self, now: float) -> None:
        """There is a fresh copy."""
        if self._called_for:
            self._called_for = False
            self._next = now + self._pause
            self._pause = min(2 * self._pause, _RAREST)
