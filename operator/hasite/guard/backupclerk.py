"""Sees to backups on one member, beside the guard's own work: nothing that a database's life rests on waits for it.

Once a second it looks at what is known (``backup.assign`` decides), and says in the beats what it has assigned, what it
makes, and what became of it. See ``backup``.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from hasite.guard import backup_postgresql, backupfiles, backuprun, storage
from hasite.guard.backup import GIVE_UP, Outcome, Scene, Task, Word, assign, newest, takes_up
from hasite.guard.backupjob import Job, Result, Where
from hasite.guard.cron import Schedule, ScheduleError
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.messages import Beat
from hasite.guard.model import Settings
from hasite.guard.wire import WireError, dump, load, parse

log = logging.getLogger("hasite.backups")

INTERVAL = 1.0
LIMIT = 86400.0
"""Seconds that one backup may take."""
RESTORE_PAUSE = 20.0
"""Seconds before a restore that failed is tried again."""
FRESH = 4.0
"""Seconds for which a guard's word counts."""

Run = Callable[[Job], Awaitable[Result]]


async def _humbly(job: Job) -> Result:
    return await backuprun.run(job, backuprun.humble(), LIMIT)


@dataclass
class _Work:
    """What is being made. ``heard``: when its assignment was heard last."""

    task: Task
    doing: "asyncio.Task[None]"
    heard: float


class Clerk:
    """``look``: how this guard is. ``where``: the server's own things; None on a witness, which only passes on.
    ``restored``: called once a backup is there that the database can begin with."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        look: Callable[[], Beat],
        where: Where | None = None,
        run: Run = _humbly,
        restored: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout, self._look, self._where, self._run = layout, look, where, run
        self._beats: dict[str, tuple[Beat, float]] = {}
        self._good, self._bad = _remembered(layout)
        self._kept = (self._good, self._bad)
        self._assigned: Task | None = None
        self._assigned_at = 0.0
        self._reign: tuple[int, float] | None = None
        self._work: _Work | None = None
        self._schedule: Schedule | None = None
        self._trouble = ""
        self._restored = restored
        self._restoring: asyncio.Task[None] | None = None
        self._progress, self._failed, self._again = "", False, 0.0
        self.configure(settings)
        self.word = self._said()

    def configure(self, settings: Settings) -> None:
        """New settings, or new credentials. What keeps backups from being made is told, and nothing else fails."""
        self._settings = settings
        self._schedule, self._trouble = None, ""
        plan = settings.backup
        if plan is None:
            return
        try:
            self._schedule = Schedule.parse(plan.schedule)
            if settings.engine == "postgresql" and self._where is not None:
                backup_postgresql.install(self._job(full=True))
        except (ScheduleError, EngineError, OSError, ValueError, KeyError) as error:
            self._trouble = f"backups can't be made: {error}"
            log.error("%s", self._trouble)

    def admitted(self, settings: Settings) -> Settings:
        """As the protocol may have them: it makes no database before there is what it is to be made from."""
        return replace(settings, bootstrap=None) if backuprun.pending(settings, self._layout) else settings

    def heard(self, beat: Beat) -> None:
        """Of another guard."""
        self._beats[beat.sender] = (beat, time.monotonic())
        if beat.backup is not None:
            self._learn(beat.backup.good, beat.backup.bad)

    async def run(self) -> None:
        """Until cancelled; then nothing of its doing is left."""
        with suppress(OSError):
            await backuprun.leftover()
        try:
            while True:
                try:
                    await self._step()
                except Exception:
                    log.exception("backups")
                await asyncio.sleep(INTERVAL)
        finally:
            await self._end()

    async def _step(self) -> None:
        own, now = self._look(), time.monotonic()
        if self._schedule is None:
            self._assigned = self._reign = None
            await self._end_work()
        else:
            self._preside(own, now)
            self._take_part(own, now)
        self._restore(now)
        self.word = self._said()
        if (self._good, self._bad) != self._kept:
            kept = (self._good, self._bad)
            text = json.dumps(dump(Word(good=kept[0], bad=kept[1])), indent=1).encode() + b"\n"
            await asyncio.to_thread(storage.replace, backupfiles.memory(self._layout), text)
            self._kept = kept

    def _said(self) -> Word | None:
        if self._settings.backup is None:
            return Word(restoring=self._progress, failed=self._failed) if self._progress else None
        archiving = self._trouble
        presides = self._reign is not None and self._where is not None
        if (
            not archiving and presides and self._continuous and self._good is not None
        ):  # the first one makes the archive
            archiving = backup_postgresql.archiving(backupfiles.backup_folder(self._layout))
        running = self._work.task if self._work else None
        return Word(self._assigned, running, self._good, self._bad, archiving, self._progress, self._failed)

    @property
    def _continuous(self) -> bool:
        return self._settings.engine == "postgresql"

    def _preside(self, own: Beat, now: float) -> None:
        """While it reigns, and has a lease."""
        if not _reigns(own):
            self._reign = self._assigned = None
            return
        folder = backupfiles.backup_folder(self._layout)
        if self._reign is None or self._reign[0] != own.epoch:
            self._reign = (own.epoch, now)
            (folder / backup_postgresql.SAID).unlink(missing_ok=True)  # of an earlier reign
        assert self._schedule is not None  # noqa: S101
        words = {n: beat.backup for n, (beat, at) in self._beats.items() if now - at < FRESH and beat.backup}
        mine = Word(running=self._work.task if self._work else None)
        task = assign(
            self._schedule,
            Scene(
                name=own.sender,
                epoch=own.epoch,
                now=time.time(),
                reigned=now - self._reign[1],
                waited=now - self._assigned_at,
                assigned=self._assigned,
                words={**words, own.sender: mine},
                able=frozenset() if self._continuous else own.database.followers & set(words),
                good=self._good,
                bad=self._bad,
                continuous=self._continuous,
                gap=self._continuous and (folder / backup_postgresql.GAP).exists(),
            ),
        )
        if task != self._assigned:
            self._assigned, self._assigned_at = task, now

    def _take_part(self, own: Beat, now: float) -> None:
        if self._where is None:
            return
        orders = [self._assigned] if self._assigned else []
        for beat, at in self._beats.values():
            if now - at < FRESH and beat.backup and beat.backup.assigned and _reigns(beat):
                orders.append(beat.backup.assigned)
        work = self._work
        if work is not None:
            if work.task in orders:
                work.heard = now
            elif now - work.heard > GIVE_UP:
                work.doing.cancel()
            return
        for task in orders:
            if takes_up(own.sender, task, self._good, self._bad):
                self._work = _Work(task, asyncio.create_task(self._make(task)), now)
                return

    async def _make(self, task: Task) -> None:
        began, start = int(time.time()), time.monotonic()
        log.info("backup %d, attempt %d, begins", task.slot, task.attempt)
        result = Result(reason="broken off: the primary that asked for it is not heard any more")
        try:
            result = await self._run(self._job(full=task.full))
        except EngineError as error:
            result = Result(reason=str(error))
        except OSError as error:
            result = Result(reason=f"its program can't be run: {error}")
        finally:
            seconds = round(time.monotonic() - start, 1)
            outcome = Outcome(task, began, seconds, result.label, result.size, result.reason, result.note)
            self._learn(*((None, outcome) if outcome.reason else (outcome, None)))
            self._work = None
            log.log(
                logging.WARNING if outcome.reason else logging.INFO,
                "backup %d: %s after %.1f s",
                task.slot,
                outcome.reason or outcome.label,
                seconds,
            )

    def _job(self, *, full: bool) -> Job:
        if self._where is None:
            raise EngineError("there is no server here")
        return backupfiles.backup_job(self._settings, self._layout, self._where, full=full)

    def _learn(self, good: Outcome | None, bad: Outcome | None) -> None:
        self._good, self._bad = newest(self._good, good), newest(self._bad, bad)

    def _restore(self, now: float) -> None:
        if not backuprun.pending(self._settings, self._layout):
            self._progress, self._failed = "", False
        elif self._restoring is None and now >= self._again:
            self._restoring = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        """After a failure it is tried again, for ever: there is nothing else that this database may begin with."""
        try:
            if self._where is None:
                raise EngineError("a witness restores nothing")
            if not self._failed:
                self._progress = "a backup is being restored"
            await backuprun.prepare(self._settings, self._layout, self._where)
            self._progress, self._failed = "", False
            self._restored()
        except (EngineError, OSError) as error:
            log.error("%s", error)
            self._progress, self._failed = str(error), True
        finally:
            self._restoring, self._again = None, time.monotonic() + RESTORE_PAUSE

    async def _end(self) -> None:
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.gather(self._restoring, return_exceptions=True)
        await self._end_work()

    async def _end_work(self) -> None:
        if self._work is not None:
            self._work.doing.cancel()
            await asyncio.gather(self._work.doing, return_exceptions=True)
            self._work = None


def _reigns(beat: Beat) -> bool:
    """One at a time: also where all members take writes."""
    return beat.lease_left > 0 and beat.holder == beat.sender and beat.database.state == "primary"


def _remembered(layout: Layout) -> tuple[Outcome | None, Outcome | None]:
    """Damaged or gone: then one backup more is made."""
    try:
        word = load(Word, parse(backupfiles.memory(layout).read_bytes()))
    except (OSError, WireError):
        return None, None
    return word.good, word.bad
