"""Hears the guards of all databases, keeps each one's story, and gives it out: as Events, as metrics, as a record.

Kept in memory: after a restart a story goes on from what the status says. What is told waits for the next reconcile,
for which the object is woken.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hasite.api.databasestatus import TurnoverRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.backup import newest
from hasite.guard.messages import Answer, Beat, Order
from hasite.guard.model import Member
from hasite.metrics import DatabaseFigures, MemberFigures
from hasite.plan import databasestory as stories
from hasite.plan.databasestory import Story, Told, Turnover
from hasite.plan.happenings import Happening
from hasite.plan.world import Unknown


@dataclass
class _Telling:
    """``wanted``: members with data. ``answers``: the last answer to each candidate, which it may ask for again."""

    owner: tuple[str, str]
    story: Story
    wanted: int = 0
    waiting: list[Happening] = field(default_factory=list)
    votes: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: dict[tuple[str, bool], tuple[int, bool]] = field(default_factory=dict)


class Narrator:
    """``clock``: Unix time. ``wake``: namespace and name of a database of which there is something to tell. ``uid``
    everywhere: the database's."""

    def __init__(self, clock: Callable[[], float], wake: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._tellings: dict[str, _Telling] = {}

    def follow(self, database: ReplicatedDatabase, members: Sequence[Member]) -> None:
        """From now on, or as before, with these members."""
        telling, status = self._tellings.get(database.uid), database.status
        if telling is None:
            degraded = any(c.type == "DegradedWrites" and c.status == "True" for c in status.conditions)
            belonged = frozenset(m.name for m in status.members if m.role != "absent")
            story = stories.begin(self._clock(), status.primary, status.epoch, degraded, belonged)
            telling = self._tellings[database.uid] = _Telling((database.namespace, database.name), story)
        telling.story = stories.cast(telling.story, members)
        telling.wanted = sum(location.members for location in database.spec.locations)

    def heard(self, uid: str, beat: Beat) -> None:
        """See ``guards.Listener``."""
        telling = self._tellings.get(uid)
        if telling is not None:
            told = stories.hear(telling.story, beat, self._clock())
            self._goes_on(telling, told)
            if told[1]:
                self._wake(*telling.owner)

    def answered(self, uid: str, to: str, answer: Answer) -> None:
        """See ``guards.Listener``. One answer that is given again counts once."""
        telling = self._tellings.get(uid)
        given = (answer.epoch, answer.granted)
        if telling is None or telling.answers.get((to, answer.trial)) == given:
            return
        telling.answers[to, answer.trial] = given
        telling.votes["trial" if answer.trial else "vote", "granted" if answer.granted else "refused"] += 1

    def ordered(self, uid: str, order: Order) -> None:
        """The guards were told."""
        telling = self._tellings.get(uid)
        if telling is not None:
            telling.story = stories.order(telling.story, order, self._clock())

    def saw(self, uid: str, beats: Mapping[str, Beat | Unknown]) -> None:
        """A look at all guards: what had been heard before this listened, and what silence means."""
        telling = self._tellings.get(uid)
        if telling is None:
            return
        now = self._clock()
        for name, beat in beats.items():
            before = telling.story.heard.get(name)
            if isinstance(beat, Beat) and (before is None or before.beat is not beat):
                self._goes_on(telling, stories.hear(telling.story, beat, now))
        self._goes_on(telling, stories.look(telling.story, now))

    def tell(self, uid: str) -> tuple[Happening, ...]:
        """What happened since the last time, once."""
        telling = self._tellings.get(uid)
        if telling is None:
            return ()
        waiting, telling.waiting = tuple(telling.waiting), []
        return waiting

    def last(self, uid: str) -> TurnoverRecord | None:
        """The latest change of the primary that was seen; None: none was."""
        telling = self._tellings.get(uid)
        last = telling.story.last if telling is not None else None
        return None if last is None else record_of(last)

    def figures(self, uid: str) -> DatabaseFigures:
        """For the metrics; all of them empty for a database that is not followed."""
        telling = self._tellings.get(uid)
        if telling is None:
            return DatabaseFigures(0, "", (), 0, 0, 0)
        return figures_of(telling.story, telling.wanted, telling.votes, self._clock())

    def forget(self, uid: str) -> None:
        """The database is gone."""
        self._tellings.pop(uid, None)

    def _goes_on(self, telling: _Telling, told: Told) -> None:
        telling.story, happenings = told
        telling.waiting += happenings


def record_of(last: Turnover) -> TurnoverRecord:
    """For the status."""
    at = datetime.fromtimestamp(last.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    took = "" if last.seconds is None else f"{last.seconds:.1f}s"
    return TurnoverRecord(kind=last.kind, at=at, former=last.former, primary=last.primary, epoch=last.epoch, took=took)


def figures_of(story: Story, wanted: int, votes: Mapping[tuple[str, str], int], now: float) -> DatabaseFigures:
    """At this moment: what a lease has left has become less since its beat came."""
    beats = {name: story.fresh(name, now) for name in story.members}
    data = [name for name, member in story.members.items() if not member.witness]
    primary = beats.get(story.primary)
    reigning = primary if primary is not None and stories.reigns(primary) else None
    heard_at = story.heard[story.primary].at if reigning is not None else now
    words = [heard.beat.backup for heard in story.heard.values() if heard.beat.backup is not None]
    backup = newest(*(word.good for word in words))
    ready = [n for n in data if story.follows(n, now) or (reigning is not None and n == story.primary)]
    return DatabaseFigures(
        epoch=story.epoch,
        primary=story.primary if reigning is not None else "",
        members=tuple(_member(member, beats[name]) for name, member in story.members.items()),
        ready=min(len(ready), wanted),
        wanted=wanted,
        heard=sum(beat is not None for beat in beats.values()),
        lease_left=max(0.0, reigning.lease_left - (now - heard_at)) if reigning is not None else 0.0,
        synchronous=reigning.sync.required if reigning is not None and reigning.sync is not None else None,
        failovers=story.failovers,
        failover_seconds=story.failover_seconds,
        switchovers=story.switchovers,
        votes=dict(votes),
        backup_age=max(0.0, now - backup.began) if backup else None,
        backup_bytes=backup.size if backup else None,
    )


def _member(member: Member, beat: Beat | None) -> MemberFigures:
    if beat is None:
        return MemberFigures(member.name, member.location, "unknown")
    server, saved = beat.database, beat.saved_count
    if member.witness:
        return MemberFigures(member.name, member.location, "witness", saved=saved)
    figures = MemberFigures(member.name, member.location, server.state, server.lag_bytes, server.lag_seconds, saved)
    return replace(figures, conflict=server.conflict is not None) if beat.role == "ring" else figures
