"""Backups: what is asked for, what was done, and who does the next one. Pure.

Whoever reigns assigns each backup to one member, and says so in its beats: there is never more than one that reigns.
The member that makes it gives up when it does not hear that any more, before a new reign assigns anything that it does
not hear of. Every guard keeps and passes on the newest outcomes that it knows of, so that a new reign knows what was
done. No operator takes part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hasite.guard.cron import Schedule

GIVE_UP = 30.0
"""Seconds without a word of whoever assigned it after which a backup is broken off."""
SETTLE = 45.0
"""Seconds of a reign before it assigns anything: by then a backup that it does not hear of has been given up."""
TAKE_UP = 60.0
"""Seconds in which a member must have begun what it was assigned."""
TRIES = 3
"""Of one backup; after that the next one is waited for."""
PAUSE = 60.0
"""Seconds after the first failure; twice and thrice that after the next ones."""


@dataclass(frozen=True)
class Target:
    """Where backups are kept: a bucket, or ``path``, a folder that is mounted on each member."""

    path: str = ""
    endpoint: str = ""
    bucket: str = ""
    region: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Backup:
    """``schedule``: as ``cron`` reads it. ``retention``: how many backups are kept. ``repository``: this database's own
    place within the target; nothing outside it is ever changed."""

    schedule: str
    retention: int
    target: Target
    repository: str


@dataclass(frozen=True)
class Restore:
    """What a new database begins with. ``repository``: whole, or without the last part when that is clear.

    ``backup``: a label, or ``latest``. ``until``: a moment (RFC 3339, UTC), where the engine can do that.
    """

    target: Target
    repository: str
    backup: str = "latest"
    until: str = ""


@dataclass(frozen=True)
class Task:
    """One backup, of the scheduled time ``slot`` (Unix seconds), for one member to make."""

    slot: int
    attempt: int
    member: str
    epoch: int
    full: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a task ended. ``reason``: why there is no backup; empty: there is one. ``note``: what went wrong beside it.
    ``began``: Unix seconds."""

    task: Task
    began: int
    seconds: float
    label: str = ""
    size: int = 0
    reason: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """Greater is newer."""
        return (self.task.slot, self.task.attempt)

    @property
    def ended(self) -> float:
        """Unix seconds."""
        return self.began + self.seconds


@dataclass(frozen=True)
class Word:
    """What a guard says of backups in its beats. ``assigned``: by itself, while it reigns; ``running``: what it makes.

    ``good``, ``bad``: the newest outcomes that it knows of, anybody's. ``archiving``: what keeps the log's files from
    being archived, in the tool's words. ``restoring``: how a restore stands, ``failed``: that it does so badly.
    """

    assigned: Task | None = None
    running: Task | None = None
    good: Outcome | None = None
    bad: Outcome | None = None
    archiving: str = ""
    restoring: str = ""
    failed: bool = False


def newest(*outcomes: Outcome | None) -> Outcome | None:
    """Of those that are there."""
    return max((each for each in outcomes if each is not None), key=lambda each: each.key, default=None)


@dataclass(frozen=True)
class Scene:
    """What whoever reigns knows. ``reigned``, ``waited``: seconds of this reign, and since the present assignment.

    ``words``: of all guards heard lately, its own too. ``able``: members other than itself that may make a backup.
    ``continuous``: a log is archived, so that a change of the primary, or a ``gap`` in the archive, wants a new backup.
    """

    name: str
    epoch: int
    now: float
    reigned: float
    waited: float = 0.0
    assigned: Task | None = None
    words: Mapping[str, Word] = field(default_factory=dict)
    able: frozenset[str] = frozenset()
    good: Outcome | None = None
    bad: Outcome | None = None
    continuous: bool = False
    gap: bool = False


def assign(schedule: Schedule, scene: Scene) -> Task | None:
    """The task that stands. One that is being made stands, whoever assigned it; nothing else is assigned beside it."""
    running = sorted((word.running for word in scene.words.values() if word.running), key=lambda task: task.member)
    if running:
        return running[0]
    if scene.reigned < SETTLE:
        return None
    task = scene.assigned
    if task is not None and not _settled(task, scene):
        if scene.waited < TAKE_UP and (task.member == scene.name or task.member in scene.able):
            return task
        scene = _without(scene, task.member)
    found = due(schedule, scene)
    if found is None:
        return None
    slot, attempt, full = found
    return Task(slot, attempt, min(scene.able, default=scene.name), scene.epoch, full)


def due(schedule: Schedule, scene: Scene) -> tuple[int, int, bool] | None:
    """Slot, attempt, and whether all of it is wanted; None: nothing is due. A slot that was missed is made up once."""
    slot, good, bad = schedule.latest(scene.now), scene.good, scene.bad
    if slot is None:
        return None
    last = newest(good, bad)
    if last is None or slot > last.task.slot:
        return slot, 1, True
    if last is bad and bad is not None:
        if bad.task.attempt >= TRIES or scene.now < bad.ended + PAUSE * bad.task.attempt:
            return None
        return bad.task.slot, bad.task.attempt + 1, bad.task.full
    stale = good is not None and good.task.epoch < scene.epoch
    if scene.continuous and (stale or scene.gap) and int(scene.now) > last.task.slot:
        return int(scene.now), 1, scene.gap
    return None


def takes_up(name: str, task: Task, good: Outcome | None, bad: Outcome | None) -> bool:
    """Whether a member begins what it hears that it was assigned: not what is known to have been done."""
    last = newest(good, bad)
    return task.member == name and (last is None or (task.slot, task.attempt) > last.key)


def _settled(task: Task, scene: Scene) -> bool:
    last = newest(scene.good, scene.bad)
    return last is not None and last.key >= (task.slot, task.attempt)


def _without(scene: Scene, member: str) -> Scene:
    """Without one that did not begin what it was assigned."""
    return replace(scene, able=scene.able - {member})
