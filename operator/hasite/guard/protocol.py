"""The guard's protocol: ``step(guard, event, now)``. Pure: no clock, no network, no chance.

``now`` is CLOCK_BOOTTIME of the node, in seconds: monotonic, and a suspended machine counts the time that it slept. It
is read when the event is taken up, not when it came. Outputs are carried out strictly in order: a vote is on disk
before any answer that rests on it. The server is held to ``guard.desired``, and is primary only before
``guard.deadline``.

Why one primary at a time: a candidate reigns with the grants of a majority of voters, and a lease rests on the vouches
of a majority, so some voter gave both. It granted only after its patience since its last vouch, and the lease, counted
from when the vouch was asked for, had run out by then, the time to kill the server included (``Timing.check``).
"""

from dataclasses import replace

from hasite.guard import ballot as ballots
from hasite.guard import candidate, holder, ring
from hasite.guard.ballot import Ballot
from hasite.guard.goal import goal
from hasite.guard.messages import Answer, Ask, Beat, Order, Release, Renew, Renewed, Superseded, Yield
from hasite.guard.model import OPERATOR, Database, Desired, Settings, SyncRecord, Vote
from hasite.guard.state import (
    Event,
    Given,
    Guard,
    Handover,
    Heard,
    Leave,
    Note,
    Observed,
    Output,
    Owed,
    Received,
    Send,
    Store,
    Tick,
    Turn,
    learn,
)

__all__ = [
    "Event",
    "Given",
    "Guard",
    "Leave",
    "Note",
    "Observed",
    "Output",
    "Received",
    "Send",
    "Store",
    "Tick",
    "start",
    "step",
]

FORGET = 3
"""Times the lease's: after so long a silent peer's last word is nothing to go by."""


def start(settings: Settings, vote: Vote, now: float) -> Guard:
    """A guard that was just started, with the vote that it finds on disk. It is nothing yet, whatever it was."""
    settings.timing.check()
    guard = Guard(
        settings,
        Ballot(vote, quiet_from=now),
        Database("starting"),
        desired=Desired("frozen"),
        known=(vote.membership or settings.membership, vote.previous),
        highest=vote.epoch,
        reigned=vote.sync.epoch if vote.sync else 0,
    )
    return replace(guard, desired=goal(guard))


def step(guard: Guard, event: Event, now: float) -> tuple[Guard, tuple[Output, ...]]:
    """The next state, and what is to be done, in order."""
    turn = Turn(guard, now)
    holder.expire(turn)
    match event:
        case Received():
            hear(turn, event)
        case Observed():
            look(turn, event)
        case Given():
            take_settings(turn, event.settings)
        case Leave():
            turn.put(leaving=True)
        case Tick():
            pass
    if turn.guard.settings.ring:
        ring.look_around(turn)
    answer_owed(turn, asked=False)
    unfollow(turn)
    candidate.proceed(turn)
    candidate.consider(turn)
    if turn.guard.leaving:
        leave(turn)
    holder.advance(turn)
    give_up_former(turn)
    aim(turn)
    if now >= turn.guard.next_beat:
        beat(turn)
    return turn.guard, tuple(turn.out)


def hear(turn: Turn, event: Received) -> None:
    """One message."""
    match event.message:
        case Renew() as message:
            on_renew(turn, message)
        case Renewed() as message:
            holder.count(turn, message)
        case Beat() as message:
            on_beat(turn, message)
        case Ask() as message:
            on_ask(turn, message)
        case Answer() as message:
            candidate.on_answer(turn, message)
            holder.on_granted(turn, message)
        case Superseded() as message:
            learn(turn, message.vote)
        case Release() as message:
            turn.put(ballot=ballots.release(turn.guard.ballot, message))
        case Yield() as message:
            turn.put(urged=turn.now + turn.guard.settings.timing.ttl, next_try=turn.now, attempts=0)
        case Order() as message:
            on_order(turn, message)


def on_renew(turn: Turn, message: Renew) -> None:
    """Vouches for the holder of its vote; what the vote gains by it is stored first."""
    mind, answer = ballots.vouch(turn.guard.ballot, turn.guard.name, message, turn.now)
    turn.vote(mind)
    if answer is not None:
        turn.send(message.sender, answer)


def on_ask(turn: Turn, ask: Ask) -> None:
    """Grants or denies. A grant to a candidate freezes this member's data before it is answered."""
    guard, now = turn.guard, turn.now
    timing = guard.settings.timing
    if ask.trial:
        seen = candidate.alive(guard, ask.sender, now)
        reason = ballots.trial_objection(guard.ballot, ask, timing, now, seen)
        turn.send(ask.sender, reply(turn, ask, reason, candidate.told(guard)))
        return
    reason = ballots.objection(guard.ballot, ask, timing, now)
    if reason:  # its data are not frozen: their position means nothing
        turn.send(ask.sender, reply(turn, ask, reason, replace(guard.database, position=None)))
        return
    again = ask.epoch == guard.ballot.vote.epoch
    if not again:
        turn.vote(ballots.grant(guard.ballot, ask, now))
        turn.put(campaign=None)
    if ask.reigning:
        turn.put(owed=None, followed=guard.followed if guard.followed == ask.sender else None)
        turn.send(ask.sender, reply(turn, ask, "", replace(guard.database, position=None)))
        return
    since = guard.owed.since if guard.owed and again else now
    turn.put(followed=None, owed=Owed(ask.sender, ask.epoch, since))
    answer_owed(turn, asked=True)


def reply(turn: Turn, ask: Ask, reason: str, database: Database) -> Answer:
    """An answer as the vote stands now."""
    name, mind = turn.guard.name, turn.guard.ballot
    quiet = turn.now - mind.quiet_from
    return Answer(name, ask.epoch, ask.trial, not reason, mind.vote, database.position, reason, database.state, quiet)


def answer_owed(turn: Turn, asked: bool) -> None:
    """The answer to a granted Ask, once the data is frozen. When that takes long, the grant goes without a position,
    for it is a vote all the same; the position follows."""
    guard = turn.guard
    owed = guard.owed
    if owed is None:
        return
    database = guard.database
    frozen = candidate.is_frozen(guard)
    nothing = database.state in ("absent", "failed") or guard.member is None or guard.member.witness or guard.leaving
    nothing = nothing or guard.settings.ring
    late = asked and turn.now >= owed.since + 2 * guard.settings.timing.renew
    if not (frozen or nothing or late):
        return
    position = candidate.told(guard).position if frozen else None
    mind, quiet = guard.ballot, turn.now - guard.ballot.quiet_from
    answer = Answer(guard.name, owed.epoch, False, True, mind.vote, position, "", database.state, quiet)
    turn.send(owed.candidate, answer)
    if frozen or nothing:
        turn.put(owed=None)


def on_beat(turn: Turn, message: Beat) -> None:
    """How another guard is. The holder of this guard's vote is followed once its server is primary."""
    guard = turn.guard
    before = guard.heard.get(message.sender)
    told = before.beat.sync if before else None
    if told is not None and message.sync is not None and message.sync.key < told.key:
        message = replace(message, sync=told)  # it came late
    heard = {**guard.heard, message.sender: Heard(message, turn.now)}
    reigned = max(guard.reigned, message.reign)
    turn.put(heard=heard, highest=max(guard.highest, message.epoch), reigned=reigned)
    if guard.reign is not None and message.epoch < guard.reign.epoch and message.sender in guard.reign.joined:
        turn.put_reign(joined=guard.reign.joined - {message.sender})
    reigning = message.role == ("ring" if guard.settings.ring else "primary")
    primary = message.lease_left > 0 and reigning and message.database.state == "primary"
    if not primary or message.sender != guard.ballot.vote.holder or guard.reign is not None:
        return
    asking = guard.campaign is not None and not guard.campaign.trial
    if guard.followed != message.sender and not asking:
        turn.note(f"follows {message.sender}")
    if not asking:
        turn.put(followed=message.sender, owed=None, campaign=None, attempts=0, refusal="")


def unfollow(turn: Turn) -> None:
    """A primary that neither renews nor streams nor says that it lives is followed no more, so that this member's
    server can start by itself: it may be what the next election waits for."""
    guard = turn.guard
    if guard.followed is None:
        return
    receives = guard.database.streaming and not guard.settings.ring
    if receives and not candidate.denies(guard, guard.followed, turn.now):
        return
    heard = guard.heard.get(guard.followed)
    spoke = heard is not None and turn.now < heard.at + guard.settings.timing.ttl and heard.beat.lease_left > 0
    if not spoke and ballots.has_waited(guard.ballot, guard.settings.timing, turn.now):
        turn.put(followed=None)


def on_order(turn: Turn, message: Order) -> None:
    """From the operator alone."""
    if message.sender != OPERATOR:
        return
    if message.kind == "switchover":
        holder.on_order(turn, message)
        return
    turn.put(order=message, ordered_at=turn.now)
    if candidate.valid_order(turn.guard, turn.now) is not None and turn.guard.reign is None:
        turn.put(
            urged=turn.now + turn.guard.settings.timing.ttl, next_try=min(turn.guard.next_try, turn.now), attempts=0
        )


def look(turn: Turn, event: Observed) -> None:
    """What the server is like now."""
    guard, database = turn.guard, event.database
    reached = event.reached if event.reached == guard.desired else None
    changed = database.state != guard.database.state
    turn.put(database=database, reached=reached)
    if database.streaming and database.lag_seconds is not None:
        turn.put(lag=database.lag_seconds, streamed_at=turn.now)
    if database.position is not None and database.position.epoch > guard.reigned:
        turn.put(reigned=database.position.epoch)
    if guard.ended and reached is not None and reached.role == "stopped":
        turn.put(ended=False)
    holder.watch_followers(turn, database)
    obeyed = kept_to(guard, database)
    if changed or awaited(guard, database) or obeyed != guard.obeyed:
        turn.put(next_beat=turn.now, obeyed=obeyed)


def kept_to(guard: Guard, database: Database) -> tuple[int, ...]:
    """The key of the primary's word that the server keeps to: none that is to answer less is still to be stopped."""
    sync = guard.desired.sync
    if guard.desired.role != "standby" or sync is None:
        return ()
    answers = sync.required > 0 and guard.name in sync.eligible
    return sync.key if answers or not database.acknowledging else ()


def awaited(guard: Guard, database: Database) -> bool:
    """Whether a primary that hands over waits to hear that this member has everything."""
    heard = guard.heard.get(guard.followed or "")
    return heard is not None and heard.beat.role == "stopped" and database.position != guard.database.position


def take_settings(turn: Turn, settings: Settings) -> None:
    """Given by the operator. A new membership is only a proposal, which the holder acts on."""
    settings.timing.check()
    turn.put(settings=settings)
    if turn.guard.ballot.vote.membership is None:
        turn.put(known=(settings.membership, None))


def leave(turn: Turn) -> None:
    """Who is to end asks for no office any more. What it reigns over it hands over, as by a switchover, to whoever can
    take it, or else gives up, so that nobody waits for the end of a lease."""
    guard, reign = turn.guard, turn.guard.reign
    if guard.campaign is not None:
        candidate.give_back(turn, guard.campaign)
        turn.put(campaign=None)
    if reign is None or not reign.throned or reign.handover is not None:
        return
    if guard.settings.ring:
        holder.abdicate(turn, ring.rival(guard, turn.now))
        return
    able = [m for m in reign.membership.members if m.name != guard.name and not holder.unready(turn, reign, m.name)]
    able.sort(key=lambda member: (member.location != guard.settings.preferred_location, member.name))
    target = able[0].name if able else None
    turn.note(f"is to end: hands over{f' to {target}' if target else ''}")
    turn.put_reign(handover=Handover(target, True, turn.now))


def give_up_former(turn: Turn) -> None:
    """The last holder that neither reigns nor asks says so, once its server is proved not to be primary: others need
    not wait for its lease. Again with every beat, as it may be lost."""
    guard = turn.guard
    vote = guard.ballot.vote
    if vote.holder != guard.name or guard.reign or guard.campaign or guard.ended:
        return
    proved = (
        guard.reached is not None and guard.reached == guard.desired and guard.reached.role in ("frozen", "stopped")
    )
    harmless = guard.settings.ring or (proved and guard.database.state != "primary")
    if harmless and not guard.ballot.given_up:
        turn.put(ballot=ballots.release(guard.ballot, Release(guard.name, vote.epoch)))
    if turn.guard.ballot.given_up and turn.now >= guard.next_beat:
        turn.broadcast(Release(guard.name, vote.epoch))


def aim(turn: Turn) -> None:
    """What follows for the server. A proof of having reached another goal is void with that goal."""
    guard = turn.guard
    desired = goal(guard)
    reign = guard.reign
    deadline = reign.deadline if reign is not None and reign.throned else None
    if desired != guard.desired:
        turn.put(desired=desired, reached=None, deadline=deadline, obeyed=())
        if desired.role != guard.desired.role or (desired.role == "primary" and desired.sync != guard.desired.sync):
            turn.put(next_beat=turn.now)
    elif deadline != guard.deadline:
        turn.put(deadline=deadline)
    if reign is not None and reign.throned and reign.primary_seen and guard.reigned < reign.epoch:
        turn.put(reigned=reign.epoch)


def beat(turn: Turn) -> None:
    """Tells everybody how this guard is."""
    guard, now = turn.guard, turn.now
    left = max(0.0, guard.deadline - now) if guard.deadline is not None else 0.0
    vote = guard.ballot.vote
    message = Beat(
        guard.name,
        vote.epoch,
        vote.holder,
        left,
        guard.desired.role,
        guard.database,
        sync=sync_said(guard),
        settings_version=guard.settings.membership.version,
        membership_version=vote.membership.version if vote.membership and vote.previous is None else 0,
        refusal=guard.refusal,
        reign=guard.reigned,
        obeys=guard.obeyed,
    )
    horizon = now - FORGET * guard.settings.timing.ttl
    lately = {name: heard for name, heard in guard.heard.items() if heard.at > horizon}
    turn.put(next_beat=now + guard.settings.timing.renew, heard=lately)
    turn.broadcast(message)


def sync_said(guard: Guard) -> SyncRecord | None:
    """Of a primary, what its server waits for; when that is nobody, its record, which says whether it should be so."""
    if guard.reign is None:
        return guard.ballot.vote.sync
    return guard.desired.sync or (guard.reign.record if guard.desired.role == "primary" else None)
