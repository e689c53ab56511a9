"""Kubernetes Events about our objects: deduplicated, bounded in memory, sent in the background, in nobody's way.

There is no rate limit; one call at a time is sent. What waits is counted up where it stands, so that only different
Events take room. Those that tell a failover go first, then those that a person would want to be warned of.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from hasite.api.common import Resource
from hasite.errors import HasiteError
from hasite.kube.transport import NotFound, Request, Transport, path_of

WINDOW: Final = 600.0
"""Seconds within which the same Event counts up instead of being new."""
REMEMBERED: Final = 1000
"""Events that are remembered for counting up; the one unseen for longest is forgotten first."""
WAITING: Final = 1000
"""Events that may wait for the API server, as many as with client-go's own recorder; what is beyond is dropped."""
MESSAGE_LIMIT: Final = 1024
"""Characters of a message: the API server's own limit for an Event's note."""

FAILOVER: Final = frozenset(
    {
        *("AddressWithdrawn", "LocationDown", "NothingReachable"),
        *("PrimaryLost", "Promoted", "PrimaryBack", "GiveOrder", "SwitchoverFailed"),
        *("FailoverRefused", "Refused", "DegradedWrites", "NoStandby", "Diverged"),
    }
)
"""Reasons that tell a failover, or why there is none."""
WORTH_KNOWING: Final = frozenset({"AddressPublished", "Ready"})
"""Reasons of good news that people wait for."""

EventType = Literal["Normal", "Warning"]
_Key = tuple[str, str, str, str]
_log = logging.getLogger(__name__)


@dataclass
class _Occurrence:
    """``involved``: the Event's involvedObject. ``times``: how often it occurred while it waited."""

    key: _Key
    involved: dict[str, str]
    first: datetime
    last: datetime
    times: int = 1


@dataclass(frozen=True)
class _Posted:
    name: str
    count: int
    since: float


class EventRecorder:
    """Posts core/v1 Events, which ``kubectl describe`` shows. Nothing here raises."""

    def __init__(
        self,
        transport: Transport,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """``dropped`` is called for each Event that is given up because too many wait."""
        self._transport = transport
        self._identity = identity
        self._clock = clock
        self._dropped = dropped
        self._dropping = False
        self._posted: OrderedDict[_Key, _Posted] = OrderedDict()
        self._waiting: tuple[OrderedDict[_Key, _Occurrence], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        """By rank, the first to be sent first."""
        self._task: asyncio.Task[None] | None = None

    def record(self, resource: Resource, kind: EventType, reason: str, message: str) -> None:
        """Queues one occurrence."""
        at, key = datetime.now(UTC), (resource.uid, kind, reason, message)
        rank = _rank(kind, reason)
        waiting = self._waiting[rank].get(key)
        if waiting is not None:
            waiting.times, waiting.last = waiting.times + 1, at
        elif self._has_room(rank):
            self._waiting[rank][key] = _Occurrence(key, _involved(resource), at, at)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_all(), name="kubernetes events")

    def _has_room(self, rank: int) -> bool:
        """Where all places are taken, the latest Event of the lowest rank makes room, or is the one that is dropped."""
        if sum(len(each) for each in self._waiting) < WAITING:
            return True
        if not self._dropping:
            self._dropping = True
            _log.warning("Kubernetes Events are dropped: %d wait for the API server already", WAITING)
        self._dropped()
        for lower in reversed(self._waiting[rank + 1 :]):
            if lower:
                lower.popitem()
                return True
        return False

    async def close(self, patience: float = 1.0) -> None:
        """Waits at most ``patience`` seconds for what is queued."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._task

    async def _send_all(self) -> None:
        while waiting := next((each for each in self._waiting if each), None):
            _, occurrence = waiting.popitem(last=False)
            try:
                await self._send(occurrence)
            except HasiteError as error:
                _log.warning("event not recorded: %s", error)
            except Exception:
                _log.exception("event not recorded")
        self._dropping = False

    async def _send(self, occurrence: _Occurrence) -> None:
        key, now = occurrence.key, self._clock()
        posted = self._posted.get(key)
        if posted is not None and now - posted.since < WINDOW:
            with contextlib.suppress(NotFound):
                await self._count_up(occurrence, posted)
                self._remember(key, _Posted(posted.name, posted.count + occurrence.times, posted.since))
                return
        manifest = self._manifest(occurrence)
        path = path_of("api", "v1", "namespaces", occurrence.involved["namespace"], "events")
        await self._transport.call(Request("POST", path, "create Event", body=manifest))
        self._remember(key, _Posted(manifest["metadata"]["name"], occurrence.times, now))

    async def _count_up(self, occurrence: _Occurrence, posted: _Posted) -> None:
        path = path_of("api", "v1", "namespaces", occurrence.involved["namespace"], "events", posted.name)
        body = {"count": posted.count + occurrence.times, "lastTimestamp": _text(occurrence.last)}
        await self._transport.call(
            Request("PATCH", path, "patch Event", body=body, content_type="application/merge-patch+json")
        )

    def _remember(self, key: _Key, posted: _Posted) -> None:
        self._posted[key] = posted
        self._posted.move_to_end(key)
        while len(self._posted) > REMEMBERED:
            self._posted.popitem(last=False)

    def _manifest(self, occurrence: _Occurrence) -> dict[str, Any]:
        _, kind, reason, message = occurrence.key
        unique = (occurrence.key, occurrence.first.timestamp(), self._identity)
        digest = hashlib.sha256(repr(unique).encode()).hexdigest()[:16]
        involved = occurrence.involved
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{involved['name'][:200]}.{digest}", "namespace": involved["namespace"]},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
            "count": occurrence.times,
            "firstTimestamp": _text(occurrence.first),
            "lastTimestamp": _text(occurrence.last),
            "source": {"component": "hasite-operator"},
            "reportingComponent": "hasite-operator",
            "reportingInstance": self._identity[:128],
        }


def _rank(kind: EventType, reason: str) -> int:
    if reason in FAILOVER:
        return 0
    return 1 if kind == "Warning" or reason in WORTH_KNOWING else 2


def _involved(resource: Resource) -> dict[str, str]:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.KIND,
        "namespace": resource.namespace,
        "name": resource.name,
        "uid": resource.uid,
    }


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
