"""The driver of MariaDB and of MySQL, as far as they are alike: looking, and the roads between roles.

A ``Flavour`` knows one server's statements and files. Safety rests on this order, in both: what was received is applied
before anything discards relay logs; a server that took writes is killed before it is anything else; a history that has
what the upstream's lacks is saved before it is replaced.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace

from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.mysqlcommon import WAITING, Lonely, Look, Source, fork, pulse, quoted, server_ids
from hasite.guard.engines.mysqlcommon_flavour import Flavour
from hasite.guard.engines.mysqlcommon_history import history
from hasite.guard.engines.mysqlcommon_links import cut
from hasite.guard.engines.mysqlcommon_sql import Connection, NotAnswering, Session, SqlError
from hasite.guard.engines.mysqlcommon_tries import Tries
from hasite.guard.engines.mysqlcommon_watch import Watch
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Database, Desired, Member, Settings

_POLL = 0.02
_START = 60.0
_DRAIN = 600.0
_CLEAN = 5.0
_ENDING = 1.0
log = logging.getLogger("hasite.driver")

COPY_AGAIN = 60.0
_ANSWERED = 3.0
"""Seconds in which a follower that was sent everything answers."""


class Driver:
    """Satisfies ``Engine``."""

    def __init__(self, settings: Settings, layout: Layout, service: Service, flavour: Flavour) -> None:
        self._settings, self._layout, self._service = settings, layout, service
        self._flavour, self._files = flavour, flavour.files
        parameters = self._files.local()
        self._eye = Session({**parameters, "read_timeout": 1.0, "write_timeout": 1.0})
        self._hand = Session(parameters, stuck=service.kill)
        self._pulse = Session(parameters)
        self._beats = 0
        self._beating: asyncio.Task[None] | None = None
        self._seen: Database | None = None
        self._watched: tuple[int, ...] = ()
        self._recovered: tuple[int, ...] | None = None
        self._watch = Watch(settings.membership.members, self._files.place.port)
        self._copied = float("-inf")
        self._tries = Tries()
        self._failure = ""
        self._remark = ""
        self._loaded = False
        self._doing = ""

    async def open(self) -> None:
        """As ``Engine`` says."""
        await self._flavour.open(self._admitted)

    async def close(self) -> None:
        """As ``Engine`` says."""
        await self._flavour.close()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        for session in (self._eye, self._hand, self._pulse):
            session.close()

    def configure(self, settings: Settings) -> None:
        """As ``Engine`` says. The server's own settings change with its next start."""
        self._settings = settings
        self._watch.configure(settings.membership.members)
        self._flavour.configure(settings)

    def kill(self) -> None:
        """As ``Engine`` says."""
        self._service.kill()

    # looking

    async def observe(self) -> Database:
        """As ``Engine`` says."""
        if not self._files.present():
            return Database("absent", detail=self._doing or self._failure)
        pids = self._service.pids()[:1]
        if not pids:
            position, drained = (self._seen.position, self._seen.drained) if self._seen else (None, False)
            detail = self._doing or self._failure
            return Database("failed" if self._failure else "stopped", position, drained, detail=detail)
        if pids != self._watched:
            self._eye.close()  # it was with another process
            self._watched = pids
        if self._flavour.foreign():
            return Database("starting", detail=self._doing)
        try:
            look = await self._eye.run(self._flavour.look, 1.2)
        except EngineError as error:
            if self._seen is None or self._seen.state not in ("standby", "primary"):
                return Database("starting", detail=self._doing or str(error), acknowledging=True)
            now = replace(self._seen, position=None, drained=False, acknowledging=True)  # who knows
            return replace(now, streaming=False, followers=frozenset(), detail=str(error))
        self._seen = self._described(look)
        if look.waiting >= 1 and look.caught_up and (self._beating is None or self._beating.done()):
            self._beating = asyncio.create_task(self._beat())
        return self._seen

    async def _beat(self) -> None:
        """A follower that lost its connection after it received a transaction never answers for that one alone, once it
        is back, but for the next: so there is a next, and who waits for the one before is released."""
        self._beats += 1
        with suppress(EngineError):
            try:
                await self._pulse.do(pulse(self._beats), timeout=_ANSWERED)
            except NotAnswering:
                await self._pulse.run(self._release, 5.0)

    def _release(self, connection: Connection) -> None:
        """In a thread. Two groups of transactions that lost their answers stop the log, so that no pulse gets into it.
        Who waits for the first is cut off, then: not told of a success, and committed all the same."""
        look = self._flavour.look(connection)
        if look.waiting < _ANSWERED or not look.caught_up:
            return
        for row in connection.rows(f"{WAITING} AND TIME >= {_ANSWERED:.0f}"):
            log.warning("connection %s waits for an answer that was lost: it is cut off", row["ID"])
            with suppress(SqlError):
                connection.rows(f"KILL {row['ID']}")

    def _described(self, look: Look) -> Database:
        recovered = self._recovered == self._service.pids()[:1]
        return self._watch.describe(look, recovered=recovered, doing=self._doing or self._remark)

    # reaching

    async def reach(self, desired: Desired, upstream: Member | None, /) -> None:
        """As ``Engine`` says."""
        self._doing = ""
        try:
            await self._reach(desired, upstream)
            self._failure = ""
        except EngineError as error:
            if not self._service.pids():
                self._failure = str(error)
            raise
        finally:
            self._doing = ""

    async def _reach(self, desired: Desired, upstream: Member | None) -> None:
        if desired.role == "stopped":
            await self._stop(clean=desired.clean)
            return
        if not self._files.present() and not await self._obtain(desired, upstream):
            return
        if desired.role == "primary":
            await self._rule(desired)
            return
        await self._leave_rule()
        try:
            await self._up()
        except EngineError as error:
            if upstream is None or not self._tries.are_over(error, time.monotonic()):
                raise
            await self._set_aside(0, f"the server does not start: {error}")
            await self._renew(upstream)
        if desired.role == "frozen" or upstream is None:
            await self._freeze(forget=desired.role == "standby")
        else:
            await self._follow(desired, upstream)

    async def _obtain(self, desired: Desired, upstream: Member | None) -> bool:
        """Whether there is a database now. One is made for the first primary alone."""
        self._files.tidy()
        if self._files.present():
            return True
        if desired.role == "primary" and not desired.create:
            raise EngineError("there is no database here, and none may be made")
        if desired.role == "primary":
            self._doing = "making an empty database"
            await self._flavour.make()
        elif desired.role == "standby" and upstream is not None:
            self._doing = f"copying from {upstream.name}"
            await self._flavour.copy(upstream)
        else:
            return False
        await self._files.adopt()
        return True

    async def _up(self) -> None:
        """The server runs, answers, and what it had received before it was stopped is applied."""
        try:
            if not self._service.pids():
                await self._start_anew()
            await self._answers()
            pids = self._service.pids()[:1]
            if self._recovered != pids:
                await self._flavour.recover(self._hand)
                self._recovered = pids
        except EngineError:
            self._tries.failures += 1
            raise
        self._tries.failures = 0
        await self._load_certificates()

    async def _start_anew(self) -> None:
        self._seen = None
        plain = self._tries.is_last and bool(self._settings.engine_settings)
        await self._flavour.prepare(plain=plain)
        self._remark = "runs without the user's settings: with them it did not start" if plain else ""
        await self._service.start()

    async def _load_certificates(self) -> None:
        """Renewed ones are for the connections that come; a follower reads its own whenever it connects. Files of which
        not all have come yet are refused by the server, which then goes on with what it has."""
        if await in_thread(self._files.certificates) or not self._loaded:
            with suppress(EngineError, OSError):
                self._loaded = False
                await self._hand.do(self._flavour.RELOAD, timeout=5.0)
                self._flavour.renew()
                self._loaded = True

    async def _answers(self) -> None:
        deadline = time.monotonic() + _START
        while True:
            try:
                await self._hand.rows("SELECT 1", 2.0)
            except NotAnswering as error:
                if not self._service.pids():
                    raise EngineError(await self._files.last_words() or str(error)) from None
                if time.monotonic() > deadline:
                    raise EngineError(f"the server does not answer: {error}") from None
            else:
                return
            await asyncio.sleep(_POLL)

    async def _look(self) -> Look:
        return await self._hand.run(self._flavour.look, 5.0)

    async def _leave_rule(self) -> None:
        """A server that takes writes is never turned: it starts anew, and a start is read-only."""
        if not self._service.pids():
            return
        with suppress(NotAnswering):
            if (await self._look()).read_only:
                return
            self._service.kill()

    async def _drain(self, *, whole: bool = True) -> Look:
        """Everything received is applied. ``whole``: raises EngineError when that can't be."""
        deadline = time.monotonic() + _DRAIN
        while True:
            look = await self._look()
            if look.source is None or look.applied >= look.received:
                return look
            if not look.source.sql:
                if not whole:
                    return look
                raise EngineError(f"what was received can't be applied: {look.source.sql_error or 'it stopped'}")
            if time.monotonic() > deadline:
                raise EngineError("what was received is not applied yet")
            await asyncio.sleep(_POLL)

    async def _stop_receiving(self, look: Look) -> None:
        """What stopped applying without lasting damage goes on first, in the way that keeps the relay logs."""
        source = look.source
        if source is None:
            return
        stuck = not source.sql and look.applied < look.received and not self._flavour.damage(source)
        if stuck and source.io != "No":
            await self._hand.do(self._flavour.START_APPLYING, timeout=10.0)
        elif stuck:
            await self._flavour.recover(self._hand)
        if source.io != "No":
            await self._until_stopped(source)

    async def _until_stopped(self, source: Source) -> None:
        """A server that is connecting to somebody who says nothing waits for its own timeout: its attempts are cut."""
        stopping = asyncio.create_task(self._hand.do(self._flavour.STOP_RECEIVING, timeout=10.0))
        try:
            while not (await asyncio.wait([stopping], timeout=0.1))[0]:
                await asyncio.to_thread(cut, source.host, self._files.place.port)
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])
        stopping.result()

    async def _freeze(self, *, forget: bool) -> None:
        """``forget``: the upstream as well, once everything from it is applied."""
        look = await self._look()
        await self._stop_receiving(look)
        await self._drain()
        if forget and look.source is not None:
            await self._hand.do(*self._flavour.FORGET)

    # following

    async def _follow(self, desired: Desired, upstream: Member) -> None:
        look = await self._look()
        source = look.source
        sync = desired.sync
        wanted = sync is not None and sync.required > 0 and self._settings.name in sync.eligible
        same = source is not None and source.host == upstream.address
        if same and source is not None and source.sql and source.io != "No" and look.acknowledging == wanted:
            return
        await self._stop_receiving(look)
        look = await self._drain(whole=False)
        damage = self._flavour.damage(source) if same and source is not None else ""
        damage = damage or (self._flavour.damage(look.source) if same and look.source is not None else "")
        if look.applied < look.received and not damage:
            raise EngineError(f"what was received is not applied: {look.source.sql_error if look.source else ''}")
        await self._join(desired, upstream, look, damage)
        await self._hand.run(lambda connection: self._flavour.follow(connection, upstream, wanted), 15.0)

    async def _join(self, desired: Desired, upstream: Member, look: Look, damage: str) -> None:
        """Nothing, when what this server has is a beginning of what the upstream has; else a fresh copy of that."""
        own = await self._hand.run(lambda connection: history(connection, look.applied), 5.0)
        own = replace(own, gtids=look.gtid)
        theirs = await self._flavour.ask(upstream)
        if theirs.epoch < max(desired.epoch, own.epoch):
            raise EngineError(f"{upstream.name} has not begun epoch {desired.epoch} yet")
        if not theirs.writable and theirs.epoch == own.epoch and own.offset > theirs.offset:
            raise EngineError(f"{upstream.name} has less than this member, and takes no writes")
        after, stray = fork(own, theirs), self._flavour.stray(own, theirs)
        if after is None and stray:
            after = own.reigns[-1].begins if own.reigns else 0
        if after is None and not damage:
            return
        reason = stray or damage or f"{upstream.name} does not have them"
        if time.monotonic() - self._copied < COPY_AGAIN:
            raise EngineError(f"a fresh copy did not help: {reason}")
        self._doing = f"saving what {upstream.name} does not have"
        if after is None:
            await self._set_aside(own.epoch, reason)
        else:
            await self._flavour.save(self._hand, own, Lonely(after, theirs, reason))
        await self._renew(upstream)

    async def _set_aside(self, epoch: int, reason: str) -> None:
        """The last logs as they are, where nothing says that they hold what nobody else has."""
        told = {"engine": self._settings.engine, "member": self._settings.name, "logs": self._files.logs()}
        if not self._files.already(**told):
            into = self._files.save_into(epoch)
            await in_thread(self._files.keep, into)
            await in_thread(self._files.seal, into, {**told, "reason": reason})

    async def _renew(self, upstream: Member) -> None:
        """A fresh copy takes the place of what is here."""
        self._doing = f"copying from {upstream.name}"
        await self._flavour.copy(upstream)
        self._copied = time.monotonic()
        self._tries.copied(self._copied)
        self._service.kill()
        await self._files.adopt()
        await self._up()

    def _admitted(self, name: str) -> bool:
        return any(member.name == name and not member.witness for member in self._settings.membership.members)

    # ruling

    async def _rule(self, desired: Desired) -> None:
        required = desired.sync.required if desired.sync else 0
        if required > self._flavour.MOST_AWAITED:
            raise EngineError(f"this server can wait for {self._flavour.MOST_AWAITED} standby, not for {required}")
        await self._up()
        look = await self._look()
        if look.read_only:
            look = await self._take_over(desired, look)
        elif look.reign is None or look.reign.epoch < desired.epoch:
            await self._hand.do(self._row(desired, look.applied), timeout=3.0)
        if look.awaiting != required:
            await self._hand.do(*self._flavour.await_followers(required))
        if look.read_only:
            await self._hand.do(*self._flavour.TAKE_WRITES)

    async def _take_over(self, desired: Desired, look: Look) -> Look:
        if look.source is not None:
            await self._stop_receiving(look)
            look = await self._drain()
            await self._hand.do(*self._flavour.FORGET)
        if look.acknowledging:
            await self._hand.do(self._flavour.SILENCE)
        if look.awaiting:  # its own first rows must not wait for followers that can't have turned to it yet
            await self._hand.do(*self._flavour.await_followers(0))
        await self._hand.do(*self._flavour.OWN_WRITES)
        if look.reign is None:
            await self._hand.run(self._flavour.found, 10.0)
        if look.reign is None or look.reign.epoch < desired.epoch:
            await self._hand.do(self._row(desired, look.applied if look.reign else 0))
        return replace(await self._look(), read_only=True)

    def _row(self, desired: Desired, begins: int) -> str:
        name = self._settings.name
        return (
            "INSERT INTO hasite.epoch (epoch, holder, server, begins)"  # noqa: S608
            f" VALUES ({desired.epoch}, {quoted(name)}, {self._number()}, {begins})"
        )

    def _number(self) -> int:
        names = {member.name for member in self._settings.membership.members} | {self._settings.name}
        return server_ids(names)[self._settings.name]

    # stopping

    async def _stop(self, *, clean: bool) -> None:
        if not self._service.pids():
            return
        if not clean:
            self._service.kill()
            return
        self._seen = None  # until writes are refused, it may take more than any look has shown
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(_CLEAN):
                await self._quiesce()
        self._service.kill()

    async def _quiesce(self) -> None:
        if not (await self._look()).read_only:
            await self._hand.run(self._flavour.refuse_writes, _CLEAN)
        self._seen = self._described(await self._drain(whole=False))
        await self._hand.run(self._flavour.shut_down, _CLEAN)
        for session in (self._eye, self._hand):
            session.close()  # MySQL waits ten seconds for those who stay
        async with asyncio.timeout(_ENDING):  # everything is on the disk, and sent: a kill loses nothing
            while self._service.pids():  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
