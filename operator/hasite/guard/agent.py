"""The guard as a running program: the protocol, with a clock, a disk, a network and a server around it.

Every event goes through ``_feed``: one step of the pure protocol, its outputs carried out in their order, then the
lease and the goal handed to the driver; but a fence comes before anything else, for a disk may take its time. A vote
that can't be stored ends the process before anything rests on it; the fuse does the rest.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace

from hasite.guard import lease, protocol
from hasite.guard.backupclerk import Clerk
from hasite.guard.backupjob import Where
from hasite.guard.driver import Driver, is_fence
from hasite.guard.engines.base import Engine, Layout, Service
from hasite.guard.health import Health, Status
from hasite.guard.link import Tls
from hasite.guard.messages import Beat, Message
from hasite.guard.model import OPERATOR, Database, Desired, Member, Settings, Vote
from hasite.guard.notify import Notifier
from hasite.guard.storage import VoteStore, read_settings, saved
from hasite.guard.transport import Address, Transport

log = logging.getLogger("hasite.agent")

TICK = 0.1
"""Seconds between two ticks: part of what the holder's deadline allows for."""

LEAVE = 16.0
"""Seconds, at most, that an orderly end takes: a handover's (``holder``), and ``_STAY``."""

_STAY = 2.0
_LINGER = 0.5
TOLD = 20
"""Of what is kept, how many a beat names: it must fit a line."""

_FIXED = ("cluster", "name", "engine", "topology")
_ALIVE = 5.0
_ABSENT = Database("absent")


class VoteLost(Exception):
    """A vote could not be stored: nothing that rests on it was said, and this process must end."""


class Agent:
    """``ports``: those of the guards and of the pages; the same on every member, but for tests (``address_of``).

    ``where``: the server's own things, for backups; None: this member makes none."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        server: tuple[Engine, Service] | None,
        *,
        address_of: Callable[[Member], Address],
        version: str = "",
        where: Where | None = None,
    ) -> None:
        """Raises DamagedVote or OSError: without its vote a guard does not start."""
        settings.timing.check()
        self._settings, self._layout, self._version = settings, layout, version
        self._store = VoteStore(layout.vote, layout.data)
        self._address_of = address_of
        self._clerk = Clerk(settings, layout, lambda: self.status().beat, where, restored=self._restored)
        self._guard = protocol.start(self._clerk.admitted(settings), self._store.load(), lease.clock())
        self._transport = Transport(settings.name, Tls(layout.ca, layout.certificate, layout.key), self._received)
        self._health = Health(self.status)
        self._notifier = Notifier()
        self._driver = Driver(*server, layout.lease, self.member, self._observed) if server else None
        self._engine = server[0] if server else None
        self._saved = saved(layout.saved)
        self._promotions = 0
        self._reigned = 0
        self._last = Beat(settings.name, 0, "", 0.0, "standby", _ABSENT)
        self._said: Beat | None = None
        self._fed = 0.0
        self._left = False
        self._timer: asyncio.TimerHandle | None = None
        self._peers: frozenset[str] = frozenset()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, listen: Address, pages: Address | None) -> None:
        """Until ``leave`` has done its work, or it is cancelled. Raises VoteLost, or OSError when a port or a
        certificate can't be used."""
        os.makedirs(self._layout.run, exist_ok=True)
        await self._transport.start(listen)
        await self._health.start(pages, self._layout.socket)
        try:
            self._connect()
            if self._driver is not None:
                self._driver.interval = self._settings.timing.renew / 2
                await self._driver.start()
            self._notifier.say("READY=1")
            await self._ticks()
        finally:
            await self._health.close()
            if self._driver is not None:
                await self._driver.close()
            await self._transport.close()

    def reload(self) -> None:
        """New settings from the disk; those that can't be used leave the old in force."""
        try:
            settings = read_settings(self._layout.settings)
            for name in _FIXED:
                if getattr(settings, name) != getattr(self._settings, name):
                    raise ValueError(f"{name} can't change")
        except (OSError, ValueError) as error:
            log.error("the new settings can't be used: %s", error)
            return
        log.info("new settings, of membership %d", settings.membership.version)
        self._settings = settings
        self._peers = frozenset()  # a member may have another address
        if self._engine is not None and self._driver is not None:
            self._engine.configure(settings)
            self._driver.interval = settings.timing.renew / 2
            self._driver.again()
        self._clerk.configure(settings)
        self._feed(protocol.Given(self._clerk.admitted(settings)))

    def leave(self) -> None:
        """Ends ``run`` once what this member reigns over is handed over; when asked again, at once."""
        if self._guard.leaving:
            self._end()
            return
        asyncio.get_running_loop().call_later(LEAVE, self._end)
        self._feed(protocol.Leave())

    def _depart(self) -> None:
        """Who has given up an epoch stays for a moment: the next primary may need its vote, and its first vouch."""
        if not self._guard.ballot.given_up:
            asyncio.get_running_loop().call_later(_LINGER if self._left else 0.0, self._end)
        elif not self._left:
            self._left = True
            asyncio.get_running_loop().call_later(_STAY, self._end)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _restored(self) -> None:
        """There is what the database is to be made from."""
        self._feed(protocol.Given(self._clerk.admitted(self._settings)))

    def member(self, name: str) -> Member | None:
        """By the settings, else by the vote: one that was just removed may still be needed."""
        for membership in (self._settings.membership, *self._guard.known):
            for member in membership.members if membership else ():
                if member.name == name:
                    return member
        return None

    def status(self) -> Status:
        """As of now."""
        left = self._lease_left()
        database = self._driver.database if self._driver is not None else None
        beat = replace(
            self._last,
            role=self._guard.desired.role,
            lease_left=left,
            database=database or self._last.database,
            saved=self._saved[-TOLD:],
            saved_count=len(self._saved),
            backup=self._clerk.word,
        )
        connected = tuple(name for name in sorted({*self._peers, OPERATOR}) if self._transport.connected(name))
        error = self._driver.error if self._driver is not None else ""
        settings = self._settings
        return Status(
            beat,
            self._guard.ballot.vote,
            settings.cluster,
            settings.engine,
            self._version,
            self._promotions,
            connected,
            error,
            settings.write_routing == "local",
        )

    async def _ticks(self) -> None:
        self._tick()
        beside = [asyncio.create_task(work) for work in (self._alive(), self._clerk.run())]
        try:
            await self._over
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self) -> None:
        """Every event is a tick as well: there is one more only when nothing has happened for a while."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._fed >= TICK:
            self._feed(protocol.Tick())
        self._timer = loop.call_at(self._fed + TICK, self._tick)

    async def _alive(self) -> None:
        """A loop that hangs does not send it."""
        while True:
            try:
                self._saved = saved(self._layout.saved)
            except OSError as error:
                log.error("what is saved can't be listed: %s", error)
            guard = self._guard
            self._notifier.say(f"WATCHDOG=1\nSTATUS={guard.desired.role}, epoch {guard.ballot.vote.epoch}")
            await asyncio.sleep(_ALIVE)

    def _received(self, message: Message) -> None:
        if isinstance(message, Beat):
            self._clerk.heard(message)
        self._feed(protocol.Received(message))

    def _observed(self, database: Database, reached: Desired | None) -> None:
        desired = self._guard.desired
        rules = desired.role == "primary" or (desired.role == "ring" and desired.epoch > 0)
        if database.state == "primary" and not database.read_only and rules:
            epoch = desired.epoch
            self._promotions += epoch != self._reigned
            self._reigned = epoch
        self._feed(protocol.Observed(database, reached))

    def _feed(self, event: protocol.Event) -> None:
        """Nothing more happens once a vote was lost. An error in the protocol is as fatal: its state is not to be
        trusted."""
        if self._over.done():
            return
        self._fed = asyncio.get_running_loop().time()
        try:
            self._guard, outputs = protocol.step(self._guard, event, lease.clock())
            if is_fence(self._guard.desired):
                self._aim()
            for output in outputs:
                self._carry_out(output)
        except Exception as error:
            self._over.set_exception(error if isinstance(error, VoteLost) else RuntimeError(repr(event)[:400]))
            log.critical("the guard ends", exc_info=error)
            return
        self._aim()
        self._connect()
        if self._guard.leaving and self._guard.reign is None:
            self._depart()

    def _aim(self) -> None:
        if self._driver is not None:
            self._driver.aim(self._guard.desired, self._guard.deadline)

    def _carry_out(self, output: protocol.Output) -> None:
        match output:
            case protocol.Store(vote):
                self._keep(vote)
            case protocol.Send(to, message):
                self._transport.send(to, self._completed(message) if isinstance(message, Beat) else message)
            case protocol.Note(text):
                log.warning("%s", text)

    def _completed(self, beat: Beat) -> Beat:
        """With what the protocol does not know. The same object for every peer that it goes to."""
        if beat is not self._said:
            self._said = beat
            self._last = replace(beat, saved=self._saved[-TOLD:], saved_count=len(self._saved), backup=self._clerk.word)
        return self._last

    def _keep(self, vote: Vote) -> None:
        try:
            self._store.store(vote)
        except OSError as error:
            raise VoteLost(f"the vote for epoch {vote.epoch} can't be stored: {error}") from error

    def _connect(self) -> None:
        wanted = self._guard.peers_wanted()
        if wanted == self._peers:
            return
        found = {name: self.member(name) for name in wanted if name not in (OPERATOR, self._settings.name)}
        self._transport.peers({name: self._address_of(member) for name, member in found.items() if member})
        self._peers = wanted

    def _lease_left(self) -> float:
        deadline = self._guard.deadline
        return max(0.0, deadline - lease.clock()) if deadline is not None else 0.0
