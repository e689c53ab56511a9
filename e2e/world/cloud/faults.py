"""Trouble on command: calls that fail, hang or lie, tokens that lose their rights, droplets that never boot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Access = Literal["read-write", "read-only", "revoked"]


class Kind(StrEnum):
    """How a call fails. "After" means that the work was done and only its answer is lost.

    A short list lacks the second half of its page, and its total gives that away. A last page says that the list ends
    with it, and its total agrees.
    """

    RATE_LIMITED = "rate-limited"
    ERROR_BEFORE = "error-before"
    ERROR_AFTER = "error-after"
    UNAVAILABLE = "unavailable"
    HANG_BEFORE = "hang-before"
    HANG_AFTER = "hang-after"
    RESET_BEFORE = "reset-before"
    RESET_AFTER = "reset-after"
    EMPTY_LIST = "empty-list"
    SHORT_LIST = "short-list"
    LAST_PAGE = "last-page"


@dataclass
class Failure:
    """Calls to fail: `method` or "*", a `path` that the regex matches as a whole, `page` of a list when given.

    It ends after `left` calls (None: never) or at the time `until` (None: never).
    """

    kind: Kind
    method: str
    path: re.Pattern[str]
    page: int | None
    left: int | None
    until: float | None
    hits: int = 0

    def matches(self, method: str, path: str, page: int) -> bool:
        """Whether this call is one of them."""
        right_page = self.page is None or self.page == page
        return self.method in ("*", method) and right_page and self.path.fullmatch(path) is not None

    def over(self, now: float) -> bool:
        """Whether it has ended."""
        return self.left == 0 or (self.until is not None and now >= self.until)


@dataclass
class Stuck:
    """Droplets to be born dead: names that the regex matches as a whole, `left` of them (None: all)."""

    name: re.Pattern[str]
    left: int | None
    errored: bool


class Faults:
    """The faults in force. Slowness is in real seconds, durations are in seconds of the cloud's clock."""

    def __init__(self, now: Callable[[], float], tokens: MutableMapping[str, Access]) -> None:
        self._now = now
        self._tokens = tokens
        self._failures: list[Failure] = []
        self._slow: list[tuple[re.Pattern[str], float]] = []
        self._stuck: list[Stuck] = []
        self._released = asyncio.Event()

    def fail(
        self,
        kind: Kind | str,
        *,
        method: str = "*",
        path: str = ".*",
        page: int | None = None,
        count: int | None = 1,
        duration: float | None = None,
    ) -> Failure:
        """Make calls fail. With a `duration` and no other `count` than 1, all calls in that time fail."""
        left = None if duration is not None and count == 1 else count
        until = None if duration is None else self._now() + duration
        failure = Failure(Kind(kind), method, re.compile(path), page, left, until)
        self._failures.append(failure)
        return failure

    def slow(self, seconds: float, *, path: str = ".*") -> None:
        """Delay every answer to a matching path; 0 takes all delays of that pattern away."""
        self._slow = [(pattern, delay) for pattern, delay in self._slow if pattern.pattern != path]
        if seconds > 0:
            self._slow.append((re.compile(path), seconds))

    def never_active(self, name: str = ".*", *, count: int | None = 1, errored: bool = True) -> None:
        """Let droplets to come stay `new`: with their create action errored, or in progress for ever."""
        self._stuck.append(Stuck(re.compile(name), count, errored))

    def set_token(self, token: str, access: Access) -> None:
        """Change what a token may do."""
        self._tokens[token] = access

    def revoke(self, token: str) -> None:
        """The token is no longer known: 401."""
        self.set_token(token, "revoked")

    def make_read_only(self, token: str) -> None:
        """The token may not write: 403."""
        self.set_token(token, "read-only")

    def restore(self, token: str) -> None:
        """The token may do everything again."""
        self.set_token(token, "read-write")

    def clear(self) -> None:
        """End all failures, delays and hanging calls; tokens stay as they are."""
        self._failures.clear()
        self._slow.clear()
        self._stuck.clear()
        self.release()

    def release(self) -> None:
        """Drop the connections of the calls that hang now."""
        self._released.set()
        self._released = asyncio.Event()

    def delay_of(self, path: str) -> float:
        """The seconds by which this call is delayed."""
        return sum(delay for pattern, delay in self._slow if pattern.fullmatch(path))

    def take(self, method: str, path: str, page: int) -> Kind | None:
        """The failure of this call, which is used up by it."""
        now = self._now()
        self._failures = [failure for failure in self._failures if not failure.over(now)]
        for failure in self._failures:
            if failure.matches(method, path, page):
                failure.hits += 1
                failure.left = None if failure.left is None else failure.left - 1
                return failure.kind
        return None

    def take_stuck(self, name: str) -> Stuck | None:
        """The rule by which a droplet of this name never becomes active, used up by it."""
        for stuck in self._stuck:
            if stuck.left != 0 and stuck.name.fullmatch(name):
                stuck.left = None if stuck.left is None else stuck.left - 1
                return stuck
        return None

    async def hang(self, gone: Callable[[], bool]) -> None:
        """Wait until the client has gone or the fault was cleared."""
        released = self._released
        while not released.is_set() and not gone():
            try:
                await asyncio.wait_for(released.wait(), timeout=0.2)
            except TimeoutError:
                continue
