"""Kubernetes Events about our objects: deduplicated, bounded in memory, sent in the background, in nobody's way."""

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
WAITING: Final = 200
"""Events that may wait for the API server; more are dropped and logged."""
MESSAGE_LIMIT: Final = 1024
"""Characters of a message: the API server's own limit for an Event's note."""

EventType = Literal["Normal", "Warning"]
_Key = tuple[str, str, str, str]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Occurrence:
    key: _Key
    manifest: dict[str, Any]
    at: str


@dataclass(frozen=True)
class _Posted:
    name: str
    count: int
    since: float


class EventRecorder:
    """Posts core/v1 Events, which ``kubectl describe`` shows. Nothing here raises."""

    def __init__(self, transport: Transport, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._identity = identity
        self._clock = clock
        self._posted: OrderedDict[_Key, _Posted] = OrderedDict()
        self._queue: asyncio.Queue[_Occurrence] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None

    def record(self, resource: Resource, kind: EventType, reason: str, message: str) -> None:
        """Queues one occurrence."""
        at = datetime.now(UTC)
        key = (resource.uid, kind, reason, message)
        occurrence = _Occurrence(key, self._manifest(resource, key, at), at.strftime("%Y-%m-%dT%H:%M:%SZ"))
        try:
            self._queue.put_nowait(occurrence)
        except asyncio.QueueFull:
            _log.warning("event dropped, too many wait: %s %s", reason, message)
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_all(), name="kubernetes events")

    async def close(self, patience: float = 1.0) -> None:
        """Waits at most ``patience`` seconds for what is queued."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._task

    async def _send_all(self) -> None:
        while not self._queue.empty():
            occurrence = self._queue.get_nowait()
            try:
                await self._send(occurrence)
            except HasiteError as error:
                _log.warning("event not recorded: %s", error)
            except Exception:
                _log.exception("event not recorded")

    async def _send(self, occurrence: _Occurrence) -> None:
        key, now = occurrence.key, self._clock()
        posted = self._posted.get(key)
        if posted is not None and now - posted.since < WINDOW:
            with contextlib.suppress(NotFound):
                await self._count_up(occurrence, posted)
                self._remember(key, _Posted(posted.name, posted.count + 1, posted.since))
                return
        namespace = occurrence.manifest["metadata"]["namespace"]
        path = path_of("api", "v1", "namespaces", namespace, "events")
        await self._transport.call(Request("POST", path, "create Event", body=occurrence.manifest))
        self._remember(key, _Posted(occurrence.manifest["metadata"]["name"], 1, now))

    async def _count_up(self, occurrence: _Occurrence, posted: _Posted) -> None:
        namespace = occurrence.manifest["metadata"]["namespace"]
        path = path_of("api", "v1", "namespaces", namespace, "events", posted.name)
        body = {"count": posted.count + 1, "lastTimestamp": occurrence.at}
        await self._transport.call(
            Request("PATCH", path, "patch Event", body=body, content_type="application/merge-patch+json")
        )

    def _remember(self, key: _Key, posted: _Posted) -> None:
        self._posted[key] = posted
        self._posted.move_to_end(key)
        while len(self._posted) > REMEMBERED:
            self._posted.popitem(last=False)

    def _manifest(self, resource: Resource, key: _Key, at: datetime) -> dict[str, Any]:
        _, kind, reason, message = key
        digest = hashlib.sha256(repr((key, at.timestamp(), self._identity)).encode()).hexdigest()[:16]
        stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{resource.name[:200]}.{digest}", "namespace": resource.namespace},
            "involvedObject": {
                "apiVersion": resource.api_version,
                "kind": resource.KIND,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": resource.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": "hasite-operator"},
            "reportingComponent": "hasite-operator",
            "reportingInstance": self._identity[:128],
        }
