"""The client's own rate limit, shared by all users of one token, so that the provider's is not reached.

Failover may not wait behind routine work: what runs inside ``with urgent():`` may use the head-room that everything
else leaves free.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hasite.errors import RateLimited

HOUR = 3600.0
MINUTE = 60.0
PATIENCE = 3.0  # seconds that a call waits for its turn before it is turned away
LEARNT_FOR = 60.0  # seconds for which the provider's own count is believed; then one call may ask again
URGENT_GAP = 1.0  # seconds between urgent calls after the provider answered 429

_urgent: ContextVar[bool] = ContextVar("hasite_urgent", default=False)


@contextmanager
def urgent() -> Iterator[None]:
    """Everything called inside, in this task and in those it starts, goes first and may use the head-room."""
    token = _urgent.set(True)
    try:
        yield
    finally:
        _urgent.reset(token)


def is_urgent() -> bool:
    """Whether the caller runs inside ``urgent()``."""
    return _urgent.get()


@dataclass(frozen=True)
class Limits:
    """Requests that the provider allows in any hour and minute; ``head_room``: the share kept for urgent calls."""

    per_hour: int = 5000
    per_minute: int = 250
    head_room: float = 0.1


class Budget:
    """The arithmetic of the limits. Pure: times are arguments, in seconds of one monotonic clock.

    Invariant: in any minute and any hour no more calls are admitted than the limits; those that are not urgent stop
    at the head-room.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._per_hour = limits.per_hour
        self._minute: deque[float] = deque()
        self._hour: deque[tuple[float, int]] = deque()  # (start, calls) of each minute
        self._learnt: tuple[float, int] | None = None  # (when, calls in the hour), ours since then added
        self._closed_until = -math.inf
        self._last = -math.inf

    def wait(self, now: float, *, urgent: bool) -> float:
        """Seconds until a call may be made; 0 when it may be made now."""
        self._forget(now)
        share = 1.0 if urgent else 1.0 - self._limits.head_room
        closed_until = min(self._closed_until, self._last + URGENT_GAP) if urgent else self._closed_until
        return max(0.0, closed_until - now, self._minute_wait(now, share), self._hour_wait(now, share))

    def spend(self, now: float) -> None:
        """A call is being made."""
        self._last = now
        self._minute.append(now)
        if self._hour and now - self._hour[-1][0] < MINUTE:
            start, calls = self._hour.pop()
            self._hour.append((start, calls + 1))
        else:
            self._hour.append((now, 1))
        if self._learnt is not None:
            self._learnt = (self._learnt[0], self._learnt[1] + 1)

    def learn(self, now: float, limit: int, remaining: int) -> None:
        """The provider's headers: its hourly limit for this token and what is left of it, whoever used the rest."""
        if limit > 0:
            self._per_hour = limit
            self._learnt = (now, max(0, limit - remaining))

    def refused(self, now: float, retry_after: float) -> None:
        """The provider answered 429: nothing but an urgent call a second until it says so."""
        self._closed_until = max(self._closed_until, now + retry_after)

    def remaining(self, now: float) -> int:
        """Calls left in this hour, head-room included."""
        self._forget(now)
        return max(0, self._per_hour - self._used())

    def _used(self) -> int:
        own = sum(calls for _, calls in self._hour)
        return max(own, self._learnt[1]) if self._learnt is not None else own

    def _minute_wait(self, now: float, share: float) -> float:
        allowed = max(1, int(self._limits.per_minute * share))
        return self._minute[-allowed] + MINUTE - now if len(self._minute) >= allowed else 0.0

    def _hour_wait(self, now: float, share: float) -> float:
        allowed = max(1, int(self._per_hour * share))
        if sum(calls for _, calls in self._hour) >= allowed:
            return self._hour[0][0] + HOUR + MINUTE - now
        if self._learnt is not None and self._learnt[1] >= allowed:
            return self._learnt[0] + LEARNT_FOR - now
        return 0.0

    def _forget(self, now: float) -> None:
        while self._minute and self._minute[0] <= now - MINUTE:
            self._minute.popleft()
        while self._hour and self._hour[0][0] <= now - HOUR - MINUTE:
            self._hour.popleft()
        if self._learnt is not None and self._learnt[0] <= now - LEARNT_FOR:
            self._learnt = None


class Limiter:
    """A budget that is waited for."""

    def __init__(
        self,
        clock: Callable[[], float],
        limits: Limits | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.budget = Budget(limits or Limits())

    async def admit(self) -> None:
        """Return when the call may be made. Raises RateLimited when that would be more than a few seconds away."""
        deadline = self._clock() + PATIENCE
        while (wait := self.budget.wait(now := self._clock(), urgent=is_urgent())) > 0:
            if now + wait > deadline:
                raise RateLimited("held back to stay below the provider's rate limit", retry_after=wait)
            await self._sleep(wait)
        self.budget.spend(now)
