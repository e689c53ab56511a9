"""How often data that seem to be damaged are copied afresh."""

from math import inf


class Copies:
    """When such a copy may be made: when it does not help, ever more rarely. ``now``: monotonic seconds."""

    def __init__(self) -> None:
        self._pause, self._next = 300.0, -inf

    def due(self, now: float) -> bool:
        """Whether one may be made."""
        return now >= self._next

    def made(self, now: float) -> None:
        """One was."""
        self._next = now + self._pause
        self._pause = min(2 * self._pause, 86400.0)
