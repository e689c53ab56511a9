"""The driver of a member of a ring: it takes writes all the time, and receives those of the others.

Nothing is rewound. Where applying stops, it is tried again as it is, again and again, and goes on once a person has
made it possible; nothing is ever skipped. A fresh copy is taken only when the logs that are needed are gone everywhere
upstream, or the server does not start, and what this member alone has is saved before.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon import History, Lonely, Look, Source
from hasite.guard.engines.mysqlcommon_driver import COPY_AGAIN, Driver
from hasite.guard.engines.mysqlcommon_sql import NotAnswering
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Conflict, Database, Desired, Member, Position

_POLL = 0.05
_CATCH_UP = 60.0
_SURE = 1.0
"""Seconds for which applying has to go on before a conflict is over."""
_PASSING = frozenset({0, 1053, 1158, 1159, 1160, 1161, 1205, 1213, 1317, 1927, 2003, 2006, 2013})
"""Errors that are no conflict: the server tries again by itself, or was stopped."""
_HANDED_ON = 10.0
"""Seconds that the others are given to receive what this member alone has, before it is saved and given up."""


class RingDriver(Driver):
    """A ``Driver`` that knows the role ``ring`` as well."""

    _conflict: Conflict | None = None
    _running_since: float | None = None
    _explaining: asyncio.Task[None] | None = None
    _copy_is_new = False

    async def close(self) -> None:
        """As ``Engine`` says."""
        if self._explaining is not None:
            self._explaining.cancel()
            await asyncio.gather(self._explaining, return_exceptions=True)
        await super().close()

    # looking

    def _described(self, look: Look) -> Database:
        seen = super()._described(look)
        if not self._settings.ring:
            return seen
        self._note_conflict(look.source)
        addresses = {member.name: member.address for member in self._settings.membership.members}
        return replace(
            seen,
            position=Position(look.reign.epoch if look.reign else 0, 0),
            followers=frozenset(name for name, address in addresses.items() if address in look.caught_up),
            conflict=self._conflict,
            detail=self._conflict.words if self._conflict else seen.detail,
        )

    def _note_conflict(self, source: Source | None) -> None:
        """One that is tried again is a conflict until it has gone on for a moment."""
        now = time.monotonic()
        if source is None:
            self._conflict = None
        elif source.sql:
            self._running_since = self._running_since or now
            if now - self._running_since >= _SURE:
                self._conflict = None
        else:
            self._running_since = None
            if source.sql_errno not in _PASSING and not self._known(source):
                self._conflict = Conflict(source.sql_errno, source.sql_error[:500])
                if self._explaining is None or self._explaining.done():
                    self._explaining = asyncio.create_task(self._explain())

    def _known(self, source: Source) -> bool:
        return self._conflict is not None and self._conflict.words == source.sql_error[:500]

    async def _explain(self) -> None:
        """Which transaction it is, whose, and of which row: read from the relay log."""
        with suppress(EngineError, OSError, ValueError):
            told = await self._flavour.stopped_at()
            if told is not None and self._conflict is not None:
                transaction, writer, row = told
                self._conflict = replace(self._conflict, transaction=transaction, writer=writer, row=row)

    # reaching

    async def _reach(self, desired: Desired, upstream: Member | None) -> None:
        if desired.role != "ring":
            await super()._reach(desired, upstream)
            return
        if not self._files.present() and not await self._begin(desired, upstream):
            return
        await self._start(upstream)
        look = await self._without_copied_source()
        if upstream is not None:
            if look.read_only and (look.source is None or look.source.io == "No"):
                await self._mind_losses(upstream, look)
            await self._turn_to(upstream, look)
        await self._open(desired, upstream)

    async def _begin(self, desired: Desired, upstream: Member | None) -> bool:
        """The first member makes the database, the others copy it."""
        begun = await self._obtain(replace(desired, role="primary" if desired.create else "standby"), upstream)
        if begun:
            await in_thread(self._files.incarnate)
            self._copy_is_new = True
        return begun

    async def _start(self, upstream: Member | None) -> None:
        try:
            await self._up()
        except EngineError as error:
            if self._service.pids() and await self._answers_now():
                # What was received before can't be applied. It comes again from upstream, and stops there again.
                await self._set_aside(0, str(error))
                self._recovered = self._service.pids()[:1]
                return
            if upstream is None or not self._tries.are_over(error, time.monotonic()):
                raise
            await self._copy_afresh(upstream, f"the server does not start: {error}", None)

    async def _answers_now(self) -> bool:
        with suppress(NotAnswering):
            await self._hand.rows("SELECT 1", 2.0)
            return True
        return False

    async def _without_copied_source(self) -> Look:
        """A fresh copy may be set to receive from whom the copied one receives from: perhaps this very member."""
        look = await self._look()
        if self._copy_is_new and look.source is not None:
            await self._hand.do(*self._flavour.FORGET)
            look = await self._look()
        self._copy_is_new = False
        return look

    async def _mind_losses(self, upstream: Member, look: Look) -> None:
        """Before anything is received: when the disk was put back, others have writes of this server that it lacks. As
        another server it receives them like those of others, and gives none of their numbers out again."""
        if self._flavour.lost(await self._flavour.has(upstream), look.gtid):
            await in_thread(self._files.incarnate)
            self._service.kill()
            raise EngineError(f"{upstream.name} has writes of this member's that it has lost: it starts as another")

    async def _turn_to(self, upstream: Member, look: Look) -> None:
        """Receives from this member, from where it is. What has been received from another is applied first."""
        source = look.source
        same = source is not None and source.host == upstream.address
        if source is not None and source.io != "No" and not source.sql:
            await self._hand.do(self._flavour.START_APPLYING, timeout=10.0)
            look = await self._settled()
            source = look.source
        if source is not None and not source.sql and source.sql_errno not in _PASSING:
            if same and source.io != "No":
                raise EngineError(source.sql_error)
            if not same and look.applied < look.received:
                raise EngineError(f"what was received can't be applied: {source.sql_error}")
        if same and source is not None and source.io == "No" and "purged" in source.io_error:
            await self._copy_afresh(upstream, source.io_error, look)
            look, source, same = await self._without_copied_source(), None, False
        if same and source is not None and source.io != "No" and source.sql:
            return
        if source is not None:
            await self._stop_receiving(look)
            await self._drain(whole=False)
        await self._hand.run(lambda connection: self._flavour.follow(connection, upstream, False), 15.0)
        if same and source is not None and source.io == "No" and source.io_error:
            raise EngineError(source.io_error)  # tried again, less and less often

    async def _settled(self) -> Look:
        """After applying was begun again: whether it stops again at once."""
        deadline = time.monotonic() + _SURE
        while True:
            look = await self._look()
            stopped = look.source is None or not look.source.sql
            if stopped or look.applied >= look.received or time.monotonic() > deadline:
                return look
            await asyncio.sleep(_POLL)

    async def _open(self, desired: Desired, upstream: Member | None) -> None:
        """Takes writes. After its start first what its upstream had by then, so that nobody reads of yesterday."""
        look = await self._look()
        if look.read_only:
            founds = look.reign is None and bool(desired.epoch)  # who leads, and nobody else
            if upstream is None and not (desired.alone or founds):
                return
            if upstream is not None and look.reign is not None:
                await self._catch_up(upstream)
            if look.reign is None and not founds:
                raise EngineError("the database is not made yet")
            await self._hand.do(*self._flavour.OWN_WRITES)
            if founds:
                await self._hand.run(self._flavour.found, 10.0)
        if desired.epoch and (look.reign is None or look.reign.epoch < desired.epoch):
            await self._hand.do(self._row(desired, 0).replace("INSERT", "INSERT IGNORE", 1), timeout=3.0)
        if look.read_only:
            await self._hand.do(*self._flavour.TAKE_WRITES)

    async def _catch_up(self, upstream: Member) -> None:
        """A conflict does not keep it: then it would take no writes until a person comes."""
        self._doing = f"catching up with {upstream.name}"
        theirs = await self._flavour.has(upstream)
        deadline = time.monotonic() + _CATCH_UP
        while True:
            look = await self._look()
            stopped = look.source is not None and not look.source.sql and look.source.sql_errno not in _PASSING
            if stopped or not self._flavour.lacks(theirs, look.gtid):
                return
            if look.source is not None and look.source.io == "No":
                raise EngineError(look.source.io_error or f"nothing is received from {upstream.name}")
            if time.monotonic() > deadline:
                raise EngineError(f"it has not caught up with {upstream.name} yet")
            await asyncio.sleep(_POLL)

    async def _copy_afresh(self, upstream: Member, reason: str, look: Look | None) -> None:
        """``look`` None: the server does not run, so that its logs are all that can be saved."""
        if time.monotonic() - self._copied < COPY_AGAIN:
            raise EngineError(f"a fresh copy did not help: {reason}")
        self._doing = f"saving what {upstream.name} does not have"
        theirs = await self._flavour.has(upstream)
        deadline = time.monotonic() + _HANDED_ON
        while look is not None and self._flavour.lacks(look.gtid, theirs) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)  # the others receive it from here meanwhile
            theirs = await self._flavour.has(upstream)
        if look is not None and self._flavour.lacks(look.gtid, theirs):
            own = History(offset=look.applied, gtids=look.gtid)
            await self._flavour.save(self._hand, own, Lonely(0, History(gtids=theirs), reason))
        else:
            await self._set_aside(0, reason)
        self._doing = f"copying from {upstream.name}"
        await self._flavour.copy(upstream)
        self._copied = time.monotonic()
        self._tries.copied(self._copied)
        self._service.kill()
        await self._files.adopt()
        await in_thread(self._files.incarnate)
        self._copy_is_new = True
        await self._up()
