"""Rate limits per token: a number of requests in any hour, and in any minute."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass

from .rest import ApiError

HOUR = 3600.0
MINUTE = 60.0


@dataclass(frozen=True)
class RateLimits:
    """DigitalOcean's published limits."""

    per_hour: int = 5000
    per_minute: int = 250


DEFAULT_LIMITS = RateLimits()
UNLIMITED = RateLimits(per_hour=10**9, per_minute=10**9)


class Window:
    """The requests of one token in the last hour and minute."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._hour: deque[float] = deque()
        self._minute: deque[float] = deque()

    def admit(self, now: float) -> None:
        """Count a request; raises ApiError 429 and does not count it when a limit is reached."""
        self._forget(now)
        waits = []
        if len(self._minute) >= self.limits.per_minute:
            waits.append(self._minute[0] + MINUTE - now)
        if len(self._hour) >= self.limits.per_hour:
            waits.append(self._hour[0] + HOUR - now)
        if waits:
            raise too_many_requests(max(waits))
        self._hour.append(now)
        self._minute.append(now)

    def headers(self, now: float) -> dict[str, str]:
        """The RateLimit headers: of the hour, with the time at which its oldest request expires."""
        self._forget(now)
        oldest = self._hour[0] if self._hour else now
        return {
            "RateLimit-Limit": str(self.limits.per_hour),
            "RateLimit-Remaining": str(max(0, self.limits.per_hour - len(self._hour))),
            "RateLimit-Reset": str(math.ceil(oldest + HOUR)),
        }

    def _forget(self, now: float) -> None:
        for times, span in ((self._hour, HOUR), (self._minute, MINUTE)):
            while times and times[0] <= now - span:
                times.popleft()


class Meter:
    """A window for every token."""

    def __init__(self, limits: RateLimits) -> None:
        self._windows: defaultdict[str, Window] = defaultdict(lambda: Window(limits))

    def __getitem__(self, token: str) -> Window:
        return self._windows[token]


def too_many_requests(wait: float) -> ApiError:
    """429 with the seconds to wait, rounded up."""
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    return ApiError(429, "too_many_requests", "API rate limit exceeded.", headers)
