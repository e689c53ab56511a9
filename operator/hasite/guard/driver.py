"""Holds the local server to what the protocol wants it to be, and to nothing more than its lease permits.

The protocol says a goal and a deadline (``aim``); the driver looks at the server again and again, pushes it towards the
goal, one push at a time, and is the first of two fences (the second is ``fuse``).

A server is *suspect* from before it may become a primary until a look has shown that it is none, with no push under way
that could make it one. While it is suspect, the deadline in the lease file stands; only then is the file set to NEVER,
so that a standby may run without a lease.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hasite.guard import lease
from hasite.guard.engines.base import Engine, EngineError, Service
from hasite.guard.model import Database, Desired, Member

log = logging.getLogger("hasite.driver")

_SOON = 0.05
_HURRY = 10.0
_RETRY = (0.1, 2.0)
_DRIFT = 5.0
_PATIENCE = 2.0
_AGAIN = 0.1

Find = Callable[[str], Member | None]
Report = Callable[[Database, Desired | None], None]


def is_fence(desired: Desired) -> bool:
    """A stop that waits for nothing."""
    return desired.role == "stopped" and not desired.clean


def reached(desired: Desired, database: Database | None) -> bool:
    """Whether the server looks as it is to be."""
    if database is None:
        return False
    match desired.role:
        case "primary":
            return database.state == "primary" and not database.read_only
        case "standby":
            followed = database.upstream == desired.upstream
            return database.state == "standby" and followed and (database.streaming or desired.upstream is None)
        case "frozen":
            return database.state == "absent" or (
                database.state == "standby" and not database.streaming and database.drained
            )
        case "stopped":
            return database.state in ("stopped", "absent")
        case "ring":
            tied = desired.upstream is None or (database.upstream == desired.upstream and database.streaming)
            return database.state == "primary" and not database.read_only and tied


class Driver:
    """``observed`` is called in the event loop with each look that is worth something, and with what had been reached
    before the look began: the desired state, once its push was done and while no other has begun. ``find``: a member.
    """

    def __init__(self, engine: Engine, service: Service, path: Path, find: Find, observed: Report) -> None:
        self._engine, self._service, self._path = engine, service, str(path)
        self._find, self._report = find, observed
        self._file = lease.Writer(self._path)
        self._next_kill = 0.0
        self._desired = Desired("standby")
        self._since = lease.clock()
        self._written = lease.read(self._path)
        self._suspect = self._written != lease.NEVER
        self._era = 0
        self._ending = False
        self._pushing = False
        self._done: Desired | None = None
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.interval = 0.25
        self.database: Database | None = None
        self.error = ""

    async def start(self) -> None:
        """Looks and pushes from now on."""
        await self._engine.open()
        loops = (("looks", self._looks()), ("pushes", self._pushes()))
        self._tasks = [asyncio.create_task(loop, name=name) for name, loop in loops]

    async def close(self) -> None:
        """Stops looking and pushing. The server stays as it is, under the deadline that the fuse knows."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._engine.close()
        self._file.close()

    def aim(self, desired: Desired, deadline: float | None) -> None:
        """What the server is to be from now on. ``deadline``: of the lease, by ``lease.clock``; None without one.

        The deadline is in the lease file before anything is done by it; a fence has happened when this returns.
        """
        if deadline is not None and (desired.role == "primary" or self._suspect):
            self._extend(int(deadline * 1e9), desired)
        if desired != self._desired:
            log.info("the server is to be %s", desired)
            self._desired = desired
            self._since = lease.clock()
            self._era += 1
            self._done = None
            self._changed.set()
            self._wake.set()
            self._look.set()
        self.enforce()

    def enforce(self) -> None:
        """Kills what may not run: called at every tick, for a server may be on its way up when it is first killed. One
        that does not die is killed again, but not so often that nothing else is done."""
        expired = self._suspect and lease.clock_ns() >= self._written
        if (expired or is_fence(self._desired)) and lease.clock() >= self._next_kill and self._runs():
            log.warning("killing the server: %s", "its lease is over" if expired else "it is to be stopped")
            self._changed.set()
            self._done = None
            self._engine.kill()
            self._next_kill = lease.clock() + _AGAIN if self._runs() else 0.0
            self._look.set()

    def _runs(self) -> bool:
        """Whether a server may run: what can't be seen may."""
        try:
            return bool(self._service.pids())
        except OSError as error:
            log.error("whether the server runs can't be seen: %s", error)
            return True

    def again(self) -> None:
        """Something that the server depends on has changed, such as its settings."""
        self._wake.set()

    def _extend(self, deadline: int, desired: Desired) -> None:
        if deadline == self._written:
            return
        try:
            self._file.write(deadline)
        except OSError as error:
            log.error("the lease can't be written: %s", error)
            return
        self._written = deadline
        if desired.role == "primary":
            self._suspect = True

    def _goal(self) -> Desired | None:
        """What to push to now. A suspect server is stopped before it is anything but a primary."""
        if is_fence(self._desired):
            return None
        valid = lease.clock_ns() < self._written
        if self._desired.role == "primary":
            return self._desired if self._suspect and valid else None
        if self._suspect:
            return Desired("stopped", self._desired.epoch, clean=True) if valid else None
        return self._desired

    async def _pushes(self) -> None:
        pause = _RETRY[0]
        while True:
            self._changed.clear()
            self._wake.clear()
            goal = self._goal()
            if goal is not None:
                await self._push(goal)
            content = goal is not None and not self.error and reached(goal, self.database)
            pause = _DRIFT if content else _RETRY[0] if not self.error else min(pause * 2, _RETRY[1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _push(self, goal: Desired) -> None:
        """Until the engine has done its push, or the goal has changed and the push has ended."""
        upstream = self._find(goal.upstream) if goal.upstream else None
        self._done = None
        self._pushing = True
        push = asyncio.ensure_future(self._engine.reach(goal, upstream))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({push, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            self._ending = not push.done()
            push.cancel()
            await asyncio.wait({push})
            self._pushing = False
            if self._ending:
                self._ending = False
                self._era += 1
        self._note(push)
        if not (push.cancelled() or self.error) and goal == self._desired:
            self._done = goal
        self._look.set()

    def _note(self, push: asyncio.Future[None]) -> None:
        if push.cancelled():
            return
        failure = push.exception()
        error = "" if failure is None else str(failure) if isinstance(failure, EngineError) else repr(failure)
        if error and error != self.error:
            log.error("%s", error, exc_info=None if isinstance(failure, EngineError) else failure)
        self.error = error

    async def _looks(self) -> None:
        while True:
            self._look.clear()
            era, done = self._era, self._proved()
            database = await self._observe()
            if era == self._era and not self._ending:
                self._take(database, done)
            hurry = not reached(self._desired, self.database) and lease.clock() - self._since < _HURRY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOON if hurry else self.interval):
                    await self._look.wait()

    def _proved(self) -> Desired | None:
        """What is known to be reached, if the look that begins now shows it."""
        if is_fence(self._desired) and not self._pushing and not self._runs():
            return self._desired
        return self._done

    async def _observe(self) -> Database:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._engine.observe()
        except Exception as error:
            why = "the server does not answer" if isinstance(error, TimeoutError) else repr(error)
            last = replace(self.database or Database("starting"), acknowledging=True)  # for all that is known
            return replace(last, position=None, drained=False, streaming=False, followers=frozenset(), detail=why)

    def _take(self, database: Database, done: Desired | None) -> None:
        """A look of this era: no push of an earlier goal was, or is, under way."""
        if self._suspect and self._desired.role != "primary" and self._harmless(database):
            self._settle()
        if not self._suspect and database.state == "primary" and self._desired.role != "ring":
            log.error("the server is primary, and nobody asked it to be")
            self._suspect = True
            self._written = 0
            with contextlib.suppress(OSError):
                self._file.write(0)
            self.enforce()
        if reached(self._desired, self.database) and not reached(self._desired, database):
            self._wake.set()
        self.database = database
        self._report(database, done if done == self._done or is_fence(self._desired) else None)

    def _harmless(self, database: Database) -> bool:
        if database.state == "standby":
            return database.read_only
        return database.state in ("stopped", "absent", "failed") and not self._runs()

    def _settle(self) -> None:
        try:
            self._file.write(lease.NEVER)
        except OSError as error:
            log.error("the lease can't be written: %s", error)
            return
        self._written = lease.NEVER
        self._suspect = False
        self._wake.set()
