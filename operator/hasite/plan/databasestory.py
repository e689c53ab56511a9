"""What happens to a database's primary, told from the beats of its guards: pure, one beat or one look at a time.

``hear`` takes a beat, ``look`` a moment, ``order`` what the guards were told; each gives the story as it goes on and
what is to be told. A *term* is one member's time as primary, over all epochs that it raises itself to. Everything is
told once a term, or again after ``AGAIN_SECONDS``. Times are Unix time, durations seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hasite.guard.messages import Beat, Order
from hasite.guard.model import Member
from hasite.plan import happenings as news
from hasite.plan.databaseworld import turns
from hasite.plan.happenings import Happening, How

RENEW_SECONDS = 0.5
"""Between two beats of a guard: the first that is missing was due so long after the last."""
LOST_SECONDS = 2.0
"""A primary that was not heard for so long, and that nobody streams from, is told to be lost."""
SILENT_SECONDS = 3.0
"""A guard that was not heard for so long is not known to be anything."""
RESTART_SECONDS = 1.0
"""A primary that says for so long itself that it is none is told to be lost."""
AWAY_SECONDS = 5.0
"""A standby whose stream was broken for less did not leave."""
REFUSED_SECONDS = 6.0
"""Why nobody takes over is told when a failover takes longer than it should: before that a voter's patience is what
keeps every candidate from it."""
HANDOVER_SECONDS = 30.0
"""After so long a switchover that did not come about is none any more."""
AGAIN_SECONDS = 600.0
ROW_SECONDS = 3.0
"""A conflict whose row is not known by then is told without."""

MOST_TOLD = 100
"""Different things that are told in one term; a reason that is worded anew each time must not go on for ever."""


@dataclass(frozen=True)
class Heard:
    """The newest beat of a guard, and when it came."""

    beat: Beat
    at: float


@dataclass(frozen=True)
class Loss:
    """``since``: when the first beat was missing, or the primary first said that it is none; None: before the story
    begins. ``told``: that it was."""

    since: float | None
    told: bool = False


@dataclass(frozen=True)
class Away:
    """A member that does not follow. ``saved``: what it kept before. ``turnover``: since the primary changed."""

    since: float
    saved: tuple[str, ...] = ()
    how: How = "followed"
    turnover: bool = False


@dataclass(frozen=True)
class Handover:
    """An order under way. ``stopped``: when the old primary first said that it is none any more."""

    order: Order
    at: float
    stopped: float | None = None


@dataclass(frozen=True)
class Turnover:
    """The latest change of the primary. ``seconds``: without one; None when its beginning was not seen."""

    kind: Literal["failover", "switchover"]
    at: float
    former: str
    primary: str
    epoch: int
    seconds: float | None


@dataclass(frozen=True)
class Story:
    """``began``: when this telling did. ``members``: who takes part. ``belonged``: those that were seen to reign or to
    follow: the others are new, and their first copy is no return. ``settled``: writes have been on more than one
    member, or the primary has changed, so that being alone is news. ``degraded``: since when acknowledged writes are on
    the primary alone, by the owner's choice. ``conflicts``: since when a member of a ring has one."""

    began: float
    primary: str = ""
    epoch: int = 0
    members: Mapping[str, Member] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    loss: Loss | None = None
    handover: Handover | None = None
    away: Mapping[str, Away] = field(default_factory=dict)
    belonged: frozenset[str] = frozenset()
    settled: bool = False
    degraded: float | None = None
    told: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    failovers: int = 0
    switchovers: int = 0
    failover_seconds: float | None = None
    last: Turnover | None = None
    conflicts: Mapping[str, float] = field(default_factory=dict)

    def fresh(self, name: str, at: float) -> Beat | None:
        """Of a guard that is heard."""
        heard = self.heard.get(name)
        return heard.beat if heard is not None and at - heard.at <= SILENT_SECONDS else None

    def follows(self, name: str, at: float) -> bool:
        """Whether a member receives what the primary writes."""
        beat = self.fresh(name, at)
        seen = beat.database if beat else None
        if beat is not None and beat.role == "ring":
            return turns(beat) and beat.database.streaming
        return bool(seen and seen.state == "standby" and seen.streaming and seen.upstream in (None, self.primary))


Told = tuple[Story, tuple[Happening, ...]]


def reigns(beat: Beat) -> bool:
    """Whether a guard says that its server takes writes, under a valid lease."""
    server = beat.database
    leads = beat.lease_left > 0 and beat.holder == beat.sender and beat.role in ("primary", "ring")
    return leads and server.state == "primary" and not server.read_only


def begin(at: float, primary: str, epoch: int, degraded: bool = False, belonged: frozenset[str] = frozenset()) -> Story:
    """What a status remembers. ``primary``: "" when there was none; with an ``epoch`` it had been lost by then."""
    lost = Loss(None, told=True) if epoch and not primary else None
    return Story(at, primary, epoch, loss=lost, settled=epoch > 0, degraded=at if degraded else None, belonged=belonged)


def cast(story: Story, members: Sequence[Member]) -> Story:
    """Who takes part from now on."""
    names = {member.name for member in members}
    heard = {name: heard for name, heard in story.heard.items() if name in names}
    away = {name: left for name, left in story.away.items() if name in names}
    return replace(story, members={member.name: member for member in members}, heard=heard, away=away)


def order(story: Story, given: Order, at: float) -> Story:
    """The guards were told. The same order again is no other."""
    under_way = story.handover
    if under_way is not None and under_way.order == given and at - under_way.at < HANDOVER_SECONDS:
        return story
    return replace(story, handover=Handover(given, at))


def hear(story: Story, beat: Beat, at: float) -> Told:
    """One beat. Of a guard that takes no part it is nothing."""
    name = beat.sender
    if name not in story.members:
        return story, ()
    story = replace(story, heard={**story.heard, name: Heard(beat, at)})
    vacant = not story.primary and beat.epoch >= story.epoch
    if reigns(beat) and (name == story.primary or beat.epoch > story.epoch or vacant):
        story, told = _reign(story, beat, at)
    elif name == story.primary:
        story, told = _no_longer(story, at)
    else:
        story, told = _standby(story, beat, at)
    story, clash = _conflict(story, beat, at)
    story, more = look(story, at)
    return story, (*told, *clash, *more)


def look(story: Story, at: float) -> Told:
    """A moment: what silence means, and what has lasted long enough to be told."""
    told: list[Happening] = []
    for part in (_silence, _absence, _refusals, _no_switchover):
        story, more = part(story, at)
        told += more
    return story, tuple(told)


# --- the primary


def _reign(story: Story, beat: Beat, at: float) -> Told:
    if beat.sender != story.primary:
        story, told = _turnover(story, beat, at)
    else:
        story, told = _goes_on(story, beat, at)
    story, more = _record(story, beat, at)
    return story, (*told, *more)


def _turnover(story: Story, beat: Beat, at: float) -> Told:
    former, epoch = story.primary, story.epoch
    since = _since(story, at)
    seconds = None if since is None else max(0.0, at - since)
    handover = story.handover
    order = handover.order if handover and handover.order.member == beat.sender else None
    switched = order is not None and order.kind == "switchover"
    others = {n: h.beat.saved for n, h in story.heard.items() if n != beat.sender and not story.members[n].witness}
    away = {n: Away(at, saved, turnover=True) for n, saved in others.items()}
    belonged = story.belonged | {beat.sender, former}
    story = replace(story, primary=beat.sender, epoch=beat.epoch, loss=None, handover=None, told={}, belonged=belonged)
    if not epoch:
        return story, ()
    if not former and epoch == beat.epoch:
        return _tell(story, news.primary_back(beat.sender, beat.epoch, at, None), at)
    kind: Literal["failover", "switchover"] = "switchover" if switched else "failover"
    story = replace(
        story,
        away=away,
        settled=True,
        failovers=story.failovers + (not switched),
        switchovers=story.switchovers + switched,
        failover_seconds=story.failover_seconds if switched else seconds,
        last=Turnover(kind, at, former, beat.sender, beat.epoch, seconds),
    )
    if switched:
        return story, (news.switchover_done(beat.sender, beat.epoch, at, former, seconds),)
    ordered = order is not None
    return story, (news.promoted(beat.sender, beat.epoch, at, former, seconds, ordered=ordered),)


def _since(story: Story, at: float) -> float | None:
    """When the old primary's time ended; None when that was not seen."""
    if story.loss is not None:
        return story.loss.since
    heard = story.heard.get(story.primary)
    return None if heard is None else min(at, heard.at + RENEW_SECONDS)


def _goes_on(story: Story, beat: Beat, at: float) -> Told:
    """The primary reigns, as before or again."""
    loss, handover = story.loss, story.handover
    story = replace(story, epoch=max(story.epoch, beat.reign), loss=None)
    away = {name: left for name, left in story.away.items() if name != beat.sender}
    story = replace(story, away=away)
    seconds = at - loss.since if loss is not None and loss.since is not None else None
    if handover is not None and handover.stopped is not None:
        failed = news.switchover_failed(beat.sender, handover.order.member, story.epoch, at - handover.stopped)
        return _tell(replace(story, handover=None), failed, at)
    if loss is not None and loss.told:
        return _tell(story, news.primary_back(beat.sender, story.epoch, at, seconds), at)
    return story, ()


def _no_longer(story: Story, at: float) -> Told:
    """Its own word: it has no lease, or its server is down."""
    if story.loss is not None:
        return story, ()
    story = replace(story, loss=Loss(at))
    handover = story.handover
    if handover is None or handover.order.kind != "switchover":
        return story, ()
    story = replace(story, handover=replace(handover, stopped=at))
    return _tell(story, news.switchover_started(story.primary, handover.order.member, story.epoch, at), at)


def _silence(story: Story, at: float) -> Told:
    """A primary that nobody sees. One that a member still receives from is only not heard by the operator."""
    handover = story.handover
    if not story.primary or (handover is not None and handover.stopped is not None):
        return story, ()
    heard = story.heard.get(story.primary)
    last = story.began if heard is None else heard.at
    loss = story.loss
    if loss is None and at - last > 2 * RENEW_SECONDS:
        loss = Loss(None if heard is None else last + RENEW_SECONDS)
        story = replace(story, loss=loss)
    if loss is None or loss.told:
        return story, ()
    silent = at - last > LOST_SECONDS
    over = loss.since is not None and at - loss.since >= RESTART_SECONDS
    said = heard is not None and not silent and over and not reigns(heard.beat)
    others = sorted(n for n, m in story.members.items() if n != story.primary and not m.witness)
    there = [name for name in others if story.fresh(name, at) is not None]
    if not (silent or said) or any(story.follows(name, at) for name in there):
        return story, ()
    story = replace(story, loss=replace(loss, told=True))
    witnesses = ([f"{story.primary} itself"] if said else ["the operator, which does not hear it"]) + [
        f"{name}, whose stream is broken" for name in there
    ]
    return _tell(story, news.primary_lost(story.primary, story.epoch, loss.since, witnesses), at)


def _refusals(story: Story, at: float) -> Told:
    loss = story.loss
    if loss is None or at - (story.began if loss.since is None else loss.since) < REFUSED_SECONDS:
        return story, ()
    told: list[Happening] = []
    for name in sorted(story.members):
        beat = story.fresh(name, at)
        if beat is not None and beat.refusal:
            story, more = _tell(story, news.failover_refused(name, beat.refusal), at)
            told += more
    return story, tuple(told)


def _no_switchover(story: Story, at: float) -> Told:
    handover = story.handover
    if handover is None:
        return story, ()
    if at - (handover.stopped or handover.at) > HANDOVER_SECONDS:
        return replace(story, handover=None), ()
    heard = story.heard.get(story.primary)
    answered = handover.stopped is None and heard is not None and heard.at > handover.at
    if answered and heard is not None and handover.order.kind == "switchover" and heard.beat.refusal:
        target = handover.order.member
        refused = news.switchover_refused(story.primary, target, heard.beat.refusal)
        return _tell(replace(story, handover=None), refused, at)
    return story, ()


def _record(story: Story, beat: Beat, at: float) -> Told:
    """Who has every acknowledged write."""
    sync, several = beat.sync, sum(not m.witness for m in story.members.values()) > 1
    if sync is None or not sync.eligible or not several:
        return replace(story, degraded=None), ()
    if sync.required == 0 and story.degraded is None:
        story = replace(story, degraded=at)
        return _tell(story, news.degraded(beat.sender, at), at) if story.settled else (story, ())
    if sync.required > 0:
        since = story.degraded
        known = story.settled
        story = replace(story, degraded=None, settled=True)
        if known and since is not None:
            return _tell(story, news.restored(beat.sender, at, at - since), at)
    return story, ()


# --- the others


def _standby(story: Story, beat: Beat, at: float) -> Told:
    name, left = beat.sender, story.away.get(beat.sender)
    if story.members[name].witness:
        return story, ()
    if not story.follows(name, at):
        left = left or Away(at, beat.saved)
        return replace(story, away={**story.away, name: replace(left, how=_how(left, beat))}), ()
    if left is None:
        return replace(story, belonged=story.belonged | {name}), ()
    new, belonged = name not in story.belonged, story.belonged | {name}
    away = {other: each for other, each in story.away.items() if other != name}
    story = replace(story, away=away, belonged=belonged)
    if new or not (left.turnover or at - left.since >= AWAY_SECONDS):
        return story, ()
    saved = tuple(path for path in beat.saved if path not in left.saved)
    return _tell(story, news.rejoined(name, story.epoch, _how(left, beat), at - left.since, saved), at)


def _absence(story: Story, at: float) -> Told:
    """Guards that are not heard do not follow."""
    away = dict(story.away)
    for name, heard in story.heard.items():
        gone = at - heard.at > SILENT_SECONDS and name not in away and name != story.primary
        if gone and not story.members[name].witness:
            away[name] = Away(heard.at + RENEW_SECONDS, heard.beat.saved)
    return (replace(story, away=away) if away != story.away else story), ()


def _how(left: Away, beat: Beat) -> How:
    """How a member came by the data of the others, as far as its beats show it. Without data of its own, or with such
    as can't be used, it was copied; with its own, beside what it saved, they were rewound."""
    server = beat.database
    if left.how == "copied" or server.state in ("absent", "failed") or server.detail.startswith("copying"):
        return "copied"
    rewound = left.how == "rewound" or "rewind" in server.detail or set(beat.saved) - set(left.saved)
    return "rewound" if rewound else "followed"


def _conflict(story: Story, beat: Beat, at: float) -> Told:
    """Of a ring: what stopped a member from applying what others wrote. The row is known a moment after the error."""
    name, found = beat.sender, beat.database.conflict
    since = story.conflicts.get(name)
    if found is not None:
        began = at if since is None else since
        story = replace(story, conflicts={**story.conflicts, name: began})
        if not found.row and at - began < ROW_SECONDS:
            return story, ()
        return _tell(story, news.conflict(name, found), at)
    if since is None:
        return story, ()
    left = {other: each for other, each in story.conflicts.items() if other != name}
    told = {key: when for key, when in story.told.items() if key[:2] != ("ReplicationConflict", name)}
    return replace(story, conflicts=left, told=told), (news.conflict_over(name, at - since),)


# --- telling


def _tell(story: Story, happening: Happening, at: float) -> Told:
    key = (happening.reason, *happening.key)
    before = story.told.get(key)
    if (before is not None and at - before < AGAIN_SECONDS) or len(story.told) >= MOST_TOLD:
        return story, ()
    return replace(story, told={**story.told, key: at}), (happening,)
