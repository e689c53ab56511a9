"""PostgreSQL, held to a role by the guard. Versions 15 and later, from the distribution's packages.

A server always starts as a standby that receives nothing; from there it is frozen, follows, or is promoted. It follows
only a member whose log continues its own (``postgresql_kin``); else what it alone has is saved and it is brought back.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hasite.guard.engines import postgresql_copy as copy
from hasite.guard.engines import postgresql_kin as kin
from hasite.guard.engines import postgresql_look as looks
from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.copies import Copies
from hasite.guard.engines.postgresql_reign import Reign
from hasite.guard.engines.postgresql_return import Return
from hasite.guard.engines.postgresql_server import SEGMENT, Files, Server, Tools, number, record_end
from hasite.guard.engines.postgresql_settings import Place, nobody, slot_name, unit_file
from hasite.guard.engines.postgresql_sql import NotAnswering
from hasite.guard.engines.threads import in_thread, to_the_end
from hasite.guard.model import Database, Desired, Member, Position, Settings

__all__ = ["PostgreSQL", "unit_file"]

FROZEN: Mapping[str, str] = {
    "primary_conninfo": "",
    "primary_slot_name": "",
    "max_standby_streaming_delay": "0",  # readers don't hold up what decides an election
    "max_standby_archive_delay": "0",
}

DEATHS = 3
"""Times that a standby may fail to start in a row (the last time without the user's settings), or end by itself without
having been ``STABLE`` seconds in between; then its data seem damaged, and are copied afresh (``copies.Copies``)."""
STABLE = 60.0

PATIENCE = 3.0
"""Seconds for a stream to come up before the histories are compared again."""


class PostgreSQL:
    """The driver. See ``Engine`` for what its methods promise."""

    def __init__(self, settings: Settings, layout: Layout, service: Service, place: Place | None = None) -> None:
        default = Place(layout.data.with_name("postgresql"), Path(f"/usr/lib/postgresql/{settings.version}/bin"))
        self._settings = settings
        self._files = Files(layout, place or default)
        self._service = service
        self._tools = Tools(self._files.place)
        self._server = Server(self._files, service, self._tools, looks.PREPARE)
        self._watch = looks.Watch(time.monotonic)
        self._reign = Reign(self._server)
        self._return = Return(self._server, settings.name)
        self._frozen = {**FROZEN, "synchronous_standby_names": nobody(settings.name)}
        self._upstream: str | None = None
        self._since = 0.0
        self._started = False
        self._deaths = 0
        self._last: Database | None = None
        self._epoch: int | None = None
        self._end: tuple[int, int | None] = (0, None)
        self._slot = False
        self._trouble = ""
        self._complaint = ""
        self._refused: Mapping[str, str] | None = None
        self._bare = ""
        self._failed = 0
        self._precious = False
        self._copies = Copies()

    async def open(self) -> None:
        """Notes which member a server that already runs is set to receive from."""
        with suppress(FileNotFoundError):
            found = re.search(
                r"^primary_conninfo = 'host=''([^']+)''", self._files.place.role.read_text(), re.MULTILINE
            )
            self._upstream = found[1] if found else None

    async def close(self) -> None:
        """Leaves the server as it is."""
        self._server.hands.close()
        self._server.eyes.close()

    def configure(self, settings: Settings) -> None:
        """For the next calls."""
        self._settings = settings

    def kill(self) -> None:
        """The fence."""
        self._started = False
        self._service.kill()

    async def observe(self) -> Database:
        """A look in one round trip. A server that runs and does not answer is what it was last seen to be."""
        try:
            seen = await self._observe()
        except (EngineError, OSError, ValueError) as error:
            seen = Database("failed", detail=str(error))
        doing = self._tools.progress or self._trouble or self._complaint or self._bare
        if doing and not seen.detail:
            seen = replace(seen, detail=doing)
        self._last = seen
        return seen

    async def _observe(self) -> Database:
        if not self._server.running:
            return await self._down()
        for attempt in range(2):
            try:
                look = looks.Look.of((await self._server.eyes.fetch(looks.LOOK, within=1.0))[0])
                self._epoch = look.epoch
                return self._watch.database(look, self._upstream)
            except NotAnswering as error:
                if attempt == 0 and not error.late:
                    continue
                if not self._server.running:
                    return await self._down()
                if self._last is not None and self._last.state in ("primary", "standby") and not error.passing:
                    return looks.unseen(self._last, str(error))
                return Database("starting", detail=str(error))
        raise AssertionError

    async def _down(self) -> Database:
        if not self._files.present:
            return Database("absent")
        if self._files.unusable.exists() or self._damaged:
            return Database("failed", detail=self._trouble)
        written = (self._files.data / "global" / "pg_control").stat().st_mtime_ns
        if written != self._end[0]:
            self._end = (written, await self._shutdown())
        position = None if self._end[1] is None or self._epoch is None else Position(self._epoch, self._end[1])
        return Database("stopped", position, drained=position is not None)

    async def _shutdown(self) -> int | None:
        """The end of the log after a clean shutdown as a primary; None after any other end."""
        control = await self._server.control()
        if control.get("Database cluster state") != "shut down":
            return None
        start = number(control["Latest checkpoint location"])
        timeline = int(control["Latest checkpoint's TimeLineID"])
        log = self._files.data / "pg_wal" / f"{timeline:08X}{kin.segment_suffix(start)}"
        with log.open("rb") as file:
            file.seek(start % SEGMENT)
            return record_end(start, int.from_bytes(file.read(4), "little"))

    async def reach(self, desired: Desired, upstream: Member | None, /) -> None:
        """One push."""
        try:
            await self._reach(desired, upstream)
            self._trouble = ""
        except (EngineError, OSError) as error:
            self._trouble = str(error)
            raise error if isinstance(error, EngineError) else EngineError(str(error)) from error

    async def _reach(self, desired: Desired, upstream: Member | None) -> None:
        await to_the_end(self._configure())
        sync = desired.sync
        self._precious = sync is not None and sync.required > 0 and self._settings.name in sync.eligible
        if desired.role == "stopped":
            await self._stop(clean=desired.clean)
        elif desired.role == "primary":
            await self._lead(desired)
        elif desired.role == "frozen" or upstream is None:
            await self._freeze()
        else:
            await self._follow(upstream)

    async def _configure(self) -> None:
        """A user's setting that the server refuses leaves the user's settings as they were, and is told."""
        wanted, before = self._settings.engine_settings, await in_thread(self._files.accepted)
        if wanted != self._refused:
            self._refused, self._complaint = None, ""
        given = wanted if self._refused is None else dict(before)
        changed = await in_thread(self._files.configure, replace(self._settings, engine_settings=given))
        if not self._files.present or not (changed or given != before):
            return
        try:
            await self._server.check()
            await in_thread(self._files.accept, given)
        except EngineError as error:
            self._refused, self._complaint = wanted, f"settings not taken over: {error}"
            await in_thread(self._files.configure, replace(self._settings, engine_settings=dict(before)))
        if self._server.running and changed:
            await self._server.reload()

    async def _stop(self, *, clean: bool) -> None:
        self._started = False
        await self._server.stop(clean=clean)

    async def _lead(self, desired: Desired) -> None:
        if not self._files.present:
            if not desired.create:
                raise EngineError("there is no data to be primary with")
            restored = self._settings.restore is not None
            await (copy.restore(self._server) if restored else copy.make(self._server))
        if not await self._leading():
            await self._freeze()
            await to_the_end(self._reign.begin(desired, self._settings))
            self._upstream = None
            self._started, self._deaths = False, 0
        await self._reign.keep(desired, self._settings)

    async def _leading(self) -> bool:
        """Whether a primary runs. A server that does not answer may be one; it is stopped."""
        if not self._server.running:
            return False
        try:
            return not await self._server.hands.value("SELECT pg_is_in_recovery()")
        except NotAnswering as error:
            if error.refused:
                raise
            await self._stop(clean=False)
            return False

    @property
    def _damaged(self) -> bool:
        """The data, as it seems."""
        return self._deaths >= DEATHS or self._failed >= DEATHS

    async def _freeze(self) -> looks.Look | None:
        """Runs as a standby, receives nothing, and has replayed everything. None: there is nothing to run."""
        if not self._files.present:
            return None
        if await self._leading():
            await self._stop(clean=False)
        if not self._server.running:
            await self._start()
        await self._server.assume(self._frozen)
        self._upstream = None
        try:
            return await self._drain()
        except looks.Paused:
            await self._again()
            return await self._drain()

    async def _again(self) -> None:
        """A standby whose replay is paused goes on once it is started with settings that are at least its primary's."""
        await self._stop(clean=False)
        await self._start()

    async def _start(self) -> None:
        if self._started:
            self._deaths += 1
        self._started = True
        self._upstream = None
        await in_thread(self._files.admit, True)
        bare = self._failed == DEATHS - 1 and bool(self._files.user_settings)
        if bare:
            await in_thread(self._files.configure, replace(self._settings, engine_settings={}))
        try:
            await self._server.start(self._frozen)
        except EngineError:
            self._started = False
            self._failed += 1
            raise
        self._failed = 0
        self._bare = "the server started only without the settings it was given" if bare else ""

    async def _drain(self) -> looks.Look:
        """The receiver is killed rather than waited for: it goes on for as long as the replay lags behind."""
        quiet = 0
        while True:
            row = (await self._server.hands.fetch(looks.LOOK))[0]
            look = looks.Look.of(row)
            if look.paused:
                raise looks.Paused(looks.PAUSED)
            quiet = quiet + 1 if self._watch.drained(look) and look.sender is None else 0
            if quiet >= 2:
                return look
            pid = await self._server.hands.value("SELECT pid FROM pg_stat_get_wal_receiver()")
            if pid in self._service.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.01)

    async def _follow(self, upstream: Member) -> None:
        """What is done to the data (a copy, a rewind) is followed by another look at them."""
        for attempt in range(3):
            if not self._files.present or self._files.unusable.exists():
                await self._clone(upstream)
            elif self._damaged and not self._server.running and self._copies.due(time.monotonic()):
                await self._clone(upstream)
                self._copies.made(time.monotonic())
            elif await self._follows(upstream):
                return
            frozen = await self._freeze()
            if frozen is not None and await self._join(upstream, frozen, rewind=attempt == 0):
                return
        raise EngineError(f"the data don't come to follow {upstream.name}")

    async def _follows(self, upstream: Member) -> bool:
        """It does, or was told to a moment ago."""
        if self._upstream != upstream.name or not self._server.running or await self._leading():
            return False
        look = looks.Look.of((await self._server.hands.fetch(looks.LOOK))[0])
        if look.paused:
            await self._again()
            return False
        if not self._watch.live(look):
            return time.monotonic() - self._since < PATIENCE
        if time.monotonic() - self._since > STABLE:
            self._deaths = 0
            self._copies = Copies()
        if not self._slot:
            await self._take_slot(upstream)
        await self._reign.end()
        await self._server.arm()  # rather now than when it is to be promoted
        return True

    async def _take_slot(self, upstream: Member) -> None:
        """Upstream may have become primary, and made slots, after this server turned to it."""
        session = copy.session(self._server, upstream)
        try:
            there = await kin.has_slot(session, slot_name(self._settings.name))
        finally:
            session.close()
        if there:
            await self._receive(upstream, slot=True)

    async def _join(self, upstream: Member, look: looks.Look, *, rewind: bool) -> bool:
        """The frozen server follows ``upstream``; or, False, its data were made such that it may, or marked unusable.

        ``rewind``: whether that may be tried.
        """
        log = self._files.data / "pg_wal"
        system = await self._server.hands.value("SELECT system_identifier::text FROM pg_control_system()")
        rows = await self._server.hands.fetch("SELECT epoch FROM hasite.epoch")
        own = await in_thread(kin.Own.read, system, look.replayed, frozenset(epoch for (epoch,) in rows), log)
        session = copy.session(self._server, upstream)
        try:
            other = await kin.ask(session, own.end, slot_name(self._settings.name))
        finally:
            session.close()
        relation = kin.kinship(own, other)
        if relation is kin.Kin.BEHIND:
            raise EngineError(f"{upstream.name}: {relation.value}")
        if relation is kin.Kin.SAME:
            await self._receive(upstream, slot=other.slot)
            return True
        self._started = False
        if relation is kin.Kin.DIVERGED:
            if await self._return.diverged(own, other, upstream if rewind else None):
                await self._start_rewound(upstream, slot=other.slot)
                return True
        elif relation is kin.Kin.FOREIGN:
            await self._return.foreign()
        else:
            await self._clone(upstream)
        return False

    async def _start_rewound(self, upstream: Member, *, slot: bool) -> None:
        """Its data are consistent only with more of upstream's log; without it they are to be copied."""
        role = self._receiving(upstream, slot=slot)
        try:
            await self._server.start(role, rewound=True)
            await in_thread(self._files.unusable.unlink)
        except BaseException:
            await self._server.stop()
            raise
        self._started = True

    async def _receive(self, upstream: Member, *, slot: bool) -> None:
        """From now on; returns when the stream lives, or after a moment without it."""
        await self._server.assume(self._receiving(upstream, slot=slot))
        while time.monotonic() - self._since < PATIENCE / 2:
            look = looks.Look.of((await self._server.hands.fetch(looks.LOOK))[0])
            if self._watch.live(look):
                return
            await asyncio.sleep(0.02)

    def _receiving(self, upstream: Member, *, slot: bool) -> Mapping[str, str]:
        """The role's settings."""
        name = self._settings.name
        self._upstream, self._since, self._slot = upstream.name, time.monotonic(), slot
        return copy.following(self._server, upstream, name, slot_name(name) if slot else None)

    async def _clone(self, upstream: Member) -> None:
        """Data that won't fit beside their copy go first, unless they may be the only second copy of a write."""
        crowded = await in_thread(copy.crowded, self._server)
        if crowded and self._precious and not self._files.unusable.exists():
            raise EngineError(f"{crowded}; the data are not taken away, they may be the only second copy of a write")
        self._started = False
        await self._server.stop()
        await self._return.unread()
        await copy.clone(self._server, upstream, alone=bool(crowded))
        self._deaths = self._failed = 0
