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

_FIXED = ("cluster", "name", "engine", "topology")
_ALIVE = 5.0
_ABSENT = Database("absent")


class VoteLost(Exception):
    """A vote could not be stored: nothing that rests on it was said, and this process must end."""


class Agent:
    """``ports``: those of the guards and of the pages; the same on every member, but for tests (``address_of``)."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        server: tuple[Engine, Service] | None,
        *,
        address_of: Callable[[Member], Address],
        version: str = "",
    ) -> None:
        """Raises DamagedVote or OSError: without its vote a guard does not start."""
        settings.timing.check()
        self._settings, self._layout, self._version = settings, layout, version
        self._store = VoteStore(layout.vote, layout.data)
        self._address_of = address_of
        self._guard = protocol.start(settings, self._store.load(), lease.clock())
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
        self._timer: asyncio.TimerHandle | None = None
        self._peers: frozenset[str] = frozenset()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, listen: Address, pages: Address | None) -> None:
        """Until cancelled. Raises VoteLost, or OSError when a port or a certificate can't be used."""
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
        self._feed(protocol.Given(settings))

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
            saved=self._saved,
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
        )

    async def _ticks(self) -> None:
        self._tick()
        alive = asyncio.create_task(self._alive())
        try:
            await self._failure
        finally:
            alive.cancel()
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
            self._saved = saved(self._layout.saved)
            guard = self._guard
            self._notifier.say(f"WATCHDOG=1\nSTATUS={guard.desired.role}, epoch {guard.ballot.vote.epoch}")
            await asyncio.sleep(_ALIVE)

    def _received(self, message: Message) -> None:
        self._feed(protocol.Received(message))

    def _observed(self, database: Database, reached: Desired | None) -> None:
        if database.state == "primary" and not database.read_only and self._guard.desired.role == "primary":
            epoch = self._guard.desired.epoch
            self._promotions += epoch != self._reigned
            self._reigned = epoch
        self._feed(protocol.Observed(database, reached))

    def _feed(self, event: protocol.Event) -> None:
        """Nothing more happens once a vote was lost. An error in the protocol is as fatal: its state is not to be
        trusted."""
        if self._failure.done():
            return
        self._fed = asyncio.get_running_loop().time()
        try:
            self._guard, outputs = protocol.step(self._guard, event, lease.clock())
            if is_fence(self._guard.desired):
                self._aim()
            for output in outputs:
                self._carry_out(output)
        except Exception as error:
            self._failure.set_exception(error if isinstance(error, VoteLost) else RuntimeError(repr(event)[:400]))
            log.critical("the guard ends", exc_info=error)
            return
        self._aim()
        self._connect()

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
            self._last = replace(beat, saved=self._saved)
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
