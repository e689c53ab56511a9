"""What was called, and what should never have been."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Phase = Literal["before", "after"]
Hook = Callable[[Phase, str, str], object]

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Call:
    """One request: when it came, how long it took (seconds) and its status; 0 when no answer was sent."""

    at: float
    method: str
    path: str
    query: str
    status: int
    seconds: float
    token: str


@dataclass(frozen=True)
class Violation:
    """Something that a careful client never does or lets happen.

    `kind` is "destroy-by-tag" or "dangling-record" (a name leads to an address of this cloud that no droplet
    or assigned reserved IP holds). `token` is the one whose call brought it about.
    """

    at: float
    kind: Literal["destroy-by-tag", "dangling-record"]
    detail: str
    token: str


class Journal:
    """The last calls, oldest first."""

    def __init__(self, size: int = 50_000) -> None:
        self._calls: deque[Call] = deque(maxlen=size)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def append(self, call: Call) -> None:
        """Remember a call."""
        self._calls.append(call)

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def writes(self) -> list[Call]:
        """The calls that could change something."""
        return [call for call in self._calls if call.method in WRITES]
