"""The operator's vote in one database: the pure ``guard.sharedvoter`` with the resource's status as its object.

A task of its own, beside the reconciles. Everything that it says rests on a read of the live object that began after
the question came; it falls silent in the instant in which the leadership is lost.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from hasite.api.databasestatus import VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.errors import Conflict, HasiteError
from hasite.guard import lease
from hasite.guard.messages import Message
from hasite.guard.model import Vote
from hasite.guard.sharedvoter import (
    Begun,
    Fetch,
    Fetched,
    Passed,
    SharedEvent,
    SharedOutput,
    Stored,
    Write,
    Written,
    start_shared,
    step_shared,
)
from hasite.guard.state import Received, Send
from hasite.guard.wire import WireError, dump, load
from hasite.kube.base import Kube, Leadership
from hasite.plan.membership import timing_of

AGAIN_SECONDS = 5.0
"""A leader whose vote was taken over by another process takes it back after so long: one of the two is no leader."""

_CALL_SECONDS = 10.0

_log = logging.getLogger(__name__)


def stored_of(record: VoteRecord | None) -> Stored | None:
    """None: there is no vote, or none that can be read; then the operator says nothing."""
    if record is None:
        return None
    try:
        vote = load(Vote, json.loads(record.ballot)) if record.ballot else Vote()
    except (WireError, ValueError) as error:
        _log.error("the operator's vote cannot be read: %s", error)
        return None
    return Stored(vote, record.owner, record.term)


def record_of(stored: Stored) -> VoteRecord:
    """Epoch and holder are for people; the ballot holds all."""
    vote = stored.vote
    ballot = json.dumps(dump(vote), separators=(",", ":"))
    return VoteRecord(epoch=vote.epoch, holder=vote.holder, ballot=ballot, owner=stored.owner, term=stored.term)


class OperatorVoter:
    """``send`` may be called until ``close``."""

    def __init__(
        self,
        kube: Kube,
        leadership: Leadership,
        database: ReplicatedDatabase,
        send: Callable[[str, Message], None],
        clock: Callable[[], float] = lease.clock,
    ) -> None:
        self._kube, self._leadership, self._send, self._clock = kube, leadership, send, clock
        self._uid, self._namespace, self._name = database.uid, database.namespace, database.name
        self._timing = timing_of(database)
        self._live: ReplicatedDatabase | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._closed = False
        self._mind = start_shared(leadership.identity, self._timing)
        self._ticking = asyncio.create_task(self._tick(), name=f"vote of {self._name}")

    def received(self, message: Message) -> None:
        """See ``guards.Voter``."""
        self._feed(Received(message))

    async def close(self) -> None:
        """See ``guards.Voter``."""
        self._closed = True
        tasks = {self._ticking, *self._calls}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        self._feed(Begun())
        lost = 0.0
        while True:
            await asyncio.sleep(self._timing.renew)
            self._feed(Passed())
            lost = lost + self._timing.renew if self._mind.phase == "lost" else 0.0
            if lost >= AGAIN_SECONDS and self._leadership.is_leader():
                _log.warning("%s/%s: another process took the vote over", self._namespace, self._name)
                self._mind = start_shared(self._leadership.identity, self._timing)
                self._feed(Begun())

    def _feed(self, event: SharedEvent) -> None:
        """One step. What it wants to be read or written is answered by a later step."""
        if self._closed or not self._leadership.is_leader():
            return
        self._mind, outputs = step_shared(self._mind, event, self._clock())
        for output in outputs:
            self._carry_out(output)

    def _carry_out(self, output: SharedOutput) -> None:
        match output:
            case Send(to, message):
                self._send(to, message)
            case Fetch():
                self._call(self._fetch())
            case Write(stored):
                self._call(self._write(stored))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _fetch(self) -> None:
        stored = None
        with suppress(HasiteError, TimeoutError):
            async with asyncio.timeout(_CALL_SECONDS):
                live = await self._kube.get(ReplicatedDatabase, self._namespace, self._name)
            if live is not None and live.uid == self._uid:
                self._live, stored = live, stored_of(live.status.vote)
        self._feed(Fetched(stored))

    async def _write(self, stored: Stored) -> None:
        """On the condition that the object is as it was read or written last."""
        live = self._live
        if live is None:
            self._feed(Written("conflict"))
            return
        status = live.status.model_copy(update={"vote": record_of(stored)})
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                self._live = await self._kube.write_status(live, status.wire())
            outcome = Written("done")
        except Conflict:
            outcome = Written("conflict")
        except (HasiteError, TimeoutError):
            outcome = Written("unclear")
        self._feed(outcome)
