"""Snapshots of whole listings, shared by everyone who looks at an account."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from hasite.clouds.limiter import is_urgent
from hasite.errors import RateLimited, Transient

T = TypeVar("T")


@dataclass(frozen=True)
class _Snapshot(Generic[T]):
    value: T
    started: float
    generation: int


class Snapshots(Generic[T]):
    """One listing, read as a whole.

    Invariant: what ``get`` returns was read by a refresh that began no earlier than ``max_age`` seconds before the
    call, and after the end of every write that had ended before the call. A refresh that fails does so for all who
    waited for it, and leaves nothing behind.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._generation = 0
        self._snapshot: _Snapshot[T] | None = None
        self._refresh: asyncio.Task[_Snapshot[T]] | None = None
        self._refresh_is_urgent = False

    async def get(self, max_age: float) -> T:
        """The listing, no older than ``max_age`` seconds. Callers at the same time share one refresh."""
        asked, generation = self._clock(), self._generation

        def usable(snapshot: _Snapshot[T]) -> bool:
            return snapshot.started >= asked - max_age and snapshot.generation >= generation

        if self._snapshot is not None and usable(self._snapshot):
            return self._snapshot.value
        while True:
            task, mine = self._join()
            try:
                snapshot = await self._outcome(task)
            except RateLimited:
                if mine or not is_urgent():
                    raise
                continue
            if usable(snapshot):
                return snapshot.value

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a write, however it ends: nothing that was read before its end is used after it."""
        try:
            yield
        finally:
            self._generation += 1

    def close(self) -> None:
        """Give up a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()

    @staticmethod
    async def _outcome(task: "asyncio.Task[_Snapshot[T]]") -> _Snapshot[T]:
        """What the refresh came to; a waiter that is cancelled leaves it running for the others."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is not None and waiter.cancelling():
                raise
            raise Transient("the listing was given up: its client is closed") from None

    def _join(self) -> tuple["asyncio.Task[_Snapshot[T]]", bool]:
        """The refresh under way, or a new one; and whether it carries this caller's urgency."""
        # One that has ended is not joined, even before its callback ran: waiting for it would not let the loop go on.
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._read())
            self._refresh.add_done_callback(self._done)
            self._refresh_is_urgent = is_urgent()
        return self._refresh, self._refresh_is_urgent or not is_urgent()

    def _done(self, task: "asyncio.Task[_Snapshot[T]]") -> None:
        if self._refresh is task:
            self._refresh = None
        if not task.cancelled() and task.exception() is None:
            self._snapshot = task.result()

    async def _read(self) -> _Snapshot[T]:
        started, generation = self._clock(), self._generation
        return _Snapshot(await self._fetch(), started, generation)
