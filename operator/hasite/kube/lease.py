"""Leadership by a Lease of ``coordination.k8s.io/v1``.

``kubernetes.aio.leaderelection`` is not used: it measures by the wall clock, waits for a hung renewal without a limit
of its own, looks at its deadline only between calls, and never gives a lease back.

The rules, which are those of client-go: every change is a compare-and-swap on the resourceVersion. A follower takes
over a lease that it has seen unchanged for the holder's whole lease duration by its own clock; the times in the lease,
written by other clocks, are for people. The leader counts from the moment *before* it sent its last successful renewal
and stops at the renew deadline, which is shorter than the lease duration: it stops before anybody else may start.
"""

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hasite.errors import Conflict, HasiteError
from hasite.kube.transport import NotFound, Request, Transport, path_of

Clock = Callable[[], float]
_LEAST_PATIENCE: Final = 0.5
"""Seconds that even the last attempt before the deadline gets."""
_log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds by a clock that no one can set and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class LeaseTimes:
    """In seconds. Between ``renew_deadline`` and ``duration`` lies the margin in which calls already sent may land."""

    duration: float = 15.0

    @property
    def renew_deadline(self) -> float:
        """Without a renewal for so long the leader stops."""
        return self.duration * 2 / 3

    @property
    def retry(self) -> float:
        """Between two renewals of the leader."""
        return self.duration * 2 / 15

    @property
    def poll(self) -> float:
        """Between two looks of a follower: a lease that was given back is taken within a second."""
        return min(1.0, self.retry)


def unique_identity(name: str) -> str:
    """Never the same twice: two processes that were given one name are still two candidates."""
    return f"{name}_{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class _Seen:
    version: str
    holder: str
    duration: float
    transitions: int
    at: float


class Lease:
    """One candidate for one lease; implements ``Leadership``. Run ``run`` as a task."""

    def __init__(
        self,
        transport: Transport,
        location: tuple[str, str],
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Clock = boot_clock,
    ) -> None:
        """``location`` is the lease's namespace and name; ``identity`` comes from ``unique_identity``."""
        self.identity = identity
        self.term = ("", 0)
        self._transport = transport
        self._namespace, self._name = location
        self._times = times
        self._clock = clock
        self._renewed: float | None = None
        self._seen: _Seen | None = None
        self._looked: float | None = None
        self._leading = asyncio.Event()

    def is_leader(self) -> bool:
        """By the clock, so that it holds also while renewals hang or the event loop stood still."""
        return self._renewed is not None and self._clock() - self._renewed < self._times.renew_deadline

    def in_touch(self) -> bool:
        """Whether the lease was read or written within its duration: a leader, or a standby that would notice."""
        return self._looked is not None and self._clock() - self._looked < self._times.duration

    async def acquired(self) -> None:
        """Returns once this process leads."""
        await self._leading.wait()

    async def run(self) -> None:
        """Acquires the lease, keeps it, and returns when it is lost: the process must end then."""
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._times.poll)
        _log.info("leading as %s", self.identity)
        self._leading.set()
        while self.is_leader():
            if not await self._attempt() and self._renewed is None:
                break
            await asyncio.sleep(self._pause())
        self._renewed = None
        _log.error("the lease %s/%s is lost", self._namespace, self._name)

    async def release(self) -> None:
        """Gives the lease back, so that a standby takes over at once. Call it when nothing acts any more, after ``run``
        was cancelled. Never raises."""
        if self._renewed is None:
            return
        with contextlib.suppress(HasiteError):
            # Looked at first: the answer of a renewal that was cancelled may have got lost.
            self._look(await self._get())
            if self._renewed is not None and self._seen is not None:
                body = self._manifest("", self._seen.version)
                await self._transport.call(Request("PUT", self._path(), "put Lease", body=body, timeout=2.0))
                _log.info("lease given back")
        self._renewed = None

    def _pause(self) -> float:
        left = (self._renewed or 0.0) + self._times.renew_deadline - self._clock()
        return max(0.0, min(self._times.retry, left))

    async def _attempt(self) -> bool:
        """One look, and one write when the lease is ours or may be taken. True when it was written."""
        started = self._clock()
        try:
            if not self.is_leader() and not await self._may_take():
                return False
            answer = await (self._create() if self._seen is None else self._update(self._seen.version))
        except NotFound:
            self._vanished()
            return False
        except Conflict:
            await self._look_again()
            return False
        except HasiteError as error:
            _log.warning("lease: %s", error)
            return False
        self._look(answer)
        self._renewed = started
        self.term = (str(answer["metadata"].get("uid", "")), _transitions(answer))
        return True

    async def _may_take(self) -> bool:
        try:
            self._look(await self._get())
        except NotFound:
            self._vanished()
        return self._seen is None or self._seen.holder in ("", self.identity) or self._expired(self._seen)

    def _expired(self, seen: _Seen) -> bool:
        return self._clock() - seen.at >= seen.duration

    def _vanished(self) -> None:
        """Somebody deleted the lease. Its holder makes it again; a follower waits as if it were still there."""
        if self._seen is not None and (self.is_leader() or not self._seen.holder or self._expired(self._seen)):
            self._seen = None

    async def _look_again(self) -> None:
        """After a conflict: was it a renewal of our own whose answer got lost, or somebody else?"""
        with contextlib.suppress(HasiteError):
            self._look(await self._get())

    def _look(self, lease: dict[str, Any]) -> None:
        now = self._clock()
        self._looked = now
        spec, version = lease.get("spec") or {}, str(lease["metadata"]["resourceVersion"])
        holder = spec.get("holderIdentity") or ""
        if self._seen is None or self._seen.version != version:
            duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
            self._seen = _Seen(version, holder, duration, _transitions(lease), now)
        if holder != self.identity:
            self._renewed = None

    async def _get(self) -> dict[str, Any]:
        return await self._transport.call(Request("GET", self._path(), "get Lease", timeout=self._patience()))

    async def _update(self, version: str) -> dict[str, Any]:
        body = self._manifest(self.identity, version)
        return await self._transport.call(
            Request("PUT", self._path(), "put Lease", body=body, timeout=self._patience())
        )

    async def _create(self) -> dict[str, Any]:
        path = path_of("apis", "coordination.k8s.io", "v1", "namespaces", self._namespace, "leases")
        body = self._manifest(self.identity, None)
        return await self._transport.call(Request("POST", path, "create Lease", body=body, timeout=self._patience()))

    def _patience(self) -> float:
        if self._renewed is None:
            return self._times.renew_deadline
        left = self._renewed + self._times.renew_deadline - self._clock()
        return max(_LEAST_PATIENCE, min(self._times.renew_deadline / 2, left))

    def _path(self) -> str:
        return path_of("apis", "coordination.k8s.io", "v1", "namespaces", self._namespace, "leases", self._name)

    def _manifest(self, holder: str, version: str | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = self._seen if version else None
        transitions = before.transitions + (holder not in ("", before.holder)) if before else 0
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                **({"resourceVersion": version} if version else {}),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": math.ceil(self._times.duration) if holder else 1,
                "renewTime": now,
                "acquireTime": now,
                "leaseTransitions": transitions,
            },
        }


def _transitions(lease: dict[str, Any]) -> int:
    return int((lease.get("spec") or {}).get("leaseTransitions") or 0)
