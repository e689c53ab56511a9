"""The reconcile loop: which object's reconciler runs when. It knows nothing of what a reconcile does.

Level-triggered: a wake says only that something about an object may have changed. An object is in one of five states:

===========  =========================================================  ==============================================
state        meaning                                                    a wake
===========  =========================================================  ==============================================
resting      it runs again when its timer is due                        queues it
backed off   its last run failed; the timer is the backoff              changes nothing, unless ``fresh`` or ``urgent``
queued       it waits for one of the ``concurrency`` slots              changes nothing; ``urgent`` runs it at once
running      its reconcile runs, and no other of the same object        makes it run again afterwards
unknown                                                                 queues it
===========  =========================================================  ==============================================

Of all that are queued, of whatever kind, the one that has been due for longest runs next. Urgent ones take no slot:
many of them at once keep nobody else waiting.
"""

import asyncio
import heapq
import itertools
import logging
import math
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol, assert_never

from hasite.api.common import Resource
from hasite.errors import Conflict, HasiteError, LeadershipLost, Permanent, Transient, Unclear
from hasite.kube.base import Leadership
from hasite.metrics import Metrics

BACKOFF_FIRST: Final = 1.0
BACKOFF_MOST: Final = 60.0
CONFLICT_FIRST: Final = 0.1
"""Seconds after the first conflict: the object only has to be read again."""
TIME_LIMIT: Final = 300.0
"""Seconds for one reconcile. Every call in it has a limit of its own: this one is for the bug that forgot it."""
NOT_LEADING: Final = 1.0

_RESULTS: Final[Mapping[type[Exception], str]] = {
    LeadershipLost: "stopped",
    Transient: "transient",
    Unclear: "unclear",
    HasiteError: "permanent",
    TimeoutError: "timeout",
    Exception: "error",
}
"""Label of the metric; the first class that fits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """``again_in``: seconds until the reconciler wants to be called again, at the latest.

    ``failed``: something that it tried went wrong. Then ``again_in`` is the least: the loop waits longer with each such
    run in a row.
    """

    again_in: float
    failed: bool = False


GONE: Final = Outcome(math.inf)
"""The object doesn't exist any more: the loop calls ``forget`` and drops it."""


class Reconciler(Protocol):
    """What the lead part of each kind implements."""

    @property
    def kind(self) -> type[Resource]:
        """What it reconciles."""
        ...

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Observe, plan, apply, report. Returns ``GONE`` when the object is not there."""
        ...

    async def forget(self, namespace: str, name: str) -> None:
        """Drops what is kept in memory of an object that is gone."""
        ...


class Wakes(Protocol):
    """What reconcilers may ask of the loop."""

    def wake(
        self, kind: type[Resource], namespace: str, name: str, *, urgent: bool = False, fresh: bool = False
    ) -> None:
        """Have the object looked at soon."""
        ...

    def urgent(self, kind: type[Resource], namespace: str, name: str) -> bool:
        """Whether a reconcile that runs should stop between two steps: something urgent came in, or the loop stops."""
        ...


class _State(Enum):
    RESTING = auto()
    BACKED_OFF = auto()
    QUEUED = auto()
    RUNNING = auto()


@dataclass(slots=True, eq=False)
class _Entry:
    kind: type[Resource]
    namespace: str
    name: str
    state: _State = _State.RESTING
    timer: asyncio.TimerHandle | None = None
    woken: bool = False
    urgent: bool = False
    fresh: bool = False
    failures: int = 0

    def __str__(self) -> str:
        return f"{self.kind.KIND} {self.namespace}/{self.name}"


_Key = tuple[type[Resource], str, str]


class Loop:
    """Runs reconcilers. An object at rest costs one timer and no task. It belongs to one event loop's thread."""

    def __init__(
        self,
        reconcilers: Mapping[type[Resource], Reconciler],
        leadership: Leadership,
        metrics: Metrics,
        *,
        concurrency: int = 20,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        """``reconcilers`` may be filled after this, before ``run``: they need the loop for their wakes."""
        self._reconcilers = reconcilers
        self._leadership = leadership
        self._metrics = metrics
        self._concurrency = concurrency
        self._time_limit = time_limit
        self._entries: dict[_Key, _Entry] = {}
        self._queue: list[tuple[float, int, _Entry]] = []
        self._queued = itertools.count()
        self._urgent_queue: deque[_Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_slots: set[asyncio.Task[None]] = set()
        self._started = False
        self._stopping = False
        self._stopped = asyncio.Event()

    def wake(
        self, kind: type[Resource], namespace: str, name: str, *, urgent: bool = False, fresh: bool = False
    ) -> None:
        """Idempotent. ``fresh``: the wish itself changed, so that the last failure says nothing any more; ends the
        backoff. ``urgent``: ends it too, waits for no slot, and ``urgent()`` tells a reconcile that runs."""
        key = (kind, namespace, name)
        if self._stopping or (self._started and kind not in self._reconcilers):
            return
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(*key)
        entry.urgent |= urgent
        entry.fresh |= fresh
        match entry.state:
            case _State.RUNNING:
                entry.woken = True
            case _State.RESTING:
                self._enqueue(entry)
            case _State.BACKED_OFF if urgent or fresh:
                self._enqueue(entry)
            case _State.QUEUED if urgent:
                self._enqueue(entry)
            case _State.BACKED_OFF | _State.QUEUED:
                pass
            case _:
                assert_never(entry.state)

    def urgent(self, kind: type[Resource], namespace: str, name: str) -> bool:
        """See ``Wakes``."""
        entry = self._entries.get((kind, namespace, name))
        return self._stopping or (entry is not None and entry.state is _State.RUNNING and entry.urgent)

    def known(self) -> int:
        """Number of objects that the loop keeps an eye on."""
        return len(self._entries)

    async def run(self) -> None:
        """Call it once this process leads. Returns after ``stop``. Until then wakes are only noted, so that a standby
        knows every object when it takes over."""
        self._started = True
        self._pump()
        await self._stopped.wait()

    async def stop(self, patience: float = 3.0) -> None:
        """Starts nothing more; what runs is told to stop between steps, and is cancelled after ``patience`` seconds."""
        self._stopping = True
        for entry in self._entries.values():
            _disarm(entry)
        self._queue.clear()
        self._urgent_queue.clear()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._stopped.set()

    def _enqueue(self, entry: _Entry, due: float | None = None) -> None:
        """``due``: since when (time of the event loop), if not now: its timer may be late."""
        _disarm(entry)
        entry.state = _State.QUEUED
        if entry.urgent:
            self._urgent_queue.append(entry)
        else:
            due = asyncio.get_running_loop().time() if due is None else due
            heapq.heappush(self._queue, (due, next(self._queued), entry))
        if self._started:
            self._pump()

    def _pump(self) -> None:
        """Starts every urgent object, and of the others as many as there are slots."""
        while self._urgent_queue:
            self._start(self._urgent_queue.popleft())
        while self._queue and len(self._in_slots) < self._concurrency:
            task = self._start(heapq.heappop(self._queue)[-1])
            if task is not None:
                self._in_slots.add(task)

    def _start(self, entry: _Entry) -> asyncio.Task[None] | None:
        if self._stopping or entry.state is not _State.QUEUED:
            return None  # it was queued twice, the second time as urgent
        if entry.kind not in self._reconcilers:
            self._entries.pop((entry.kind, entry.namespace, entry.name), None)
            return None
        if not self._leadership.is_leader():
            self._rest(entry, _State.RESTING, NOT_LEADING)
            return None
        entry.state = _State.RUNNING
        entry.woken = entry.urgent = entry.fresh = False
        task = asyncio.create_task(self._run(entry), name=f"reconcile {entry}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_slots.discard(task)
        self._pump()

    async def _run(self, entry: _Entry) -> None:
        started = time.monotonic()
        result, delay = "error", BACKOFF_MOST
        try:
            async with asyncio.timeout(self._time_limit):
                outcome = await self._reconcilers[entry.kind].reconcile(entry.namespace, entry.name)
                if outcome.again_in == math.inf:
                    await self._reconcilers[entry.kind].forget(entry.namespace, entry.name)
            result, delay = self._ended_with(entry, outcome)
        except Exception as error:
            entry.failures += 1
            result, delay = self._failed(entry, error)
        except asyncio.CancelledError:
            result = "stopped"
            raise
        finally:
            self._metrics.reconciled(entry.kind.KIND, result, time.monotonic() - started)
            self._settle(entry, result, delay)

    def _ended_with(self, entry: _Entry, outcome: Outcome) -> tuple[str, float]:
        if outcome.again_in == math.inf:
            return "gone", outcome.again_in
        if not outcome.failed:
            return "ok", outcome.again_in
        entry.failures += 1
        return "failed", max(outcome.again_in, backoff(entry.failures))

    def _failed(self, entry: _Entry, error: Exception) -> tuple[str, float]:
        result = next(name for kind, name in _RESULTS.items() if isinstance(error, kind))
        if result in ("timeout", "error"):
            _log.error("%s: %s", entry, error or f"given up after {self._time_limit:.0f} s", exc_info=error)
        else:
            _log.log(logging.DEBUG if isinstance(error, Conflict) else logging.WARNING, "%s: %s", entry, error)
        return result, delay_after(error, entry.failures)

    def _settle(self, entry: _Entry, result: str, delay: float) -> None:
        """What becomes of an object after its run."""
        if self._stopping:
            return
        ok = result in ("ok", "gone")
        if ok:
            entry.failures = 0
        if entry.urgent or entry.fresh or (ok and entry.woken):
            self._enqueue(entry)
        elif result == "gone":
            self._metrics.forget((entry.kind.KIND, entry.namespace, entry.name))
            self._entries.pop((entry.kind, entry.namespace, entry.name), None)
        else:
            self._rest(entry, _State.RESTING if ok else _State.BACKED_OFF, delay)

    def _rest(self, entry: _Entry, state: _State, delay: float) -> None:
        entry.state = state
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, delay)
        entry.timer = loop.call_at(due, self._enqueue, entry, due)


def delay_after(error: Exception, failures: int) -> float:
    """Seconds until the next attempt, after so many failures in a row."""
    match error:
        case LeadershipLost():
            return NOT_LEADING
        case Transient(retry_after=float() | int() as seconds):
            return seconds * random.uniform(1.0, 1.1)  # noqa: S311
        case Conflict():
            return backoff(failures, first=CONFLICT_FIRST)
        case Permanent():
            return BACKOFF_MOST
        case _:
            return backoff(failures)


def backoff(failures: int, first: float = BACKOFF_FIRST) -> float:
    """Doubled with each failure up to a minute, less a random part of up to a half."""
    return float(min(BACKOFF_MOST, first * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0))  # noqa: S311


def _disarm(entry: _Entry) -> None:
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None
