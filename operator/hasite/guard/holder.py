"""A reign: the lease, the record of who has what, the epochs above its own, and its end."""

from dataclasses import replace
from math import inf

from hasite.guard import ballot as ballots
from hasite.guard import election, records, ring, silence
from hasite.guard.goal import allies_of, goal
from hasite.guard.messages import Answer, Ask, Order, Release, Renew, Renewed, Yield
from hasite.guard.model import OPERATOR, Database, Membership, SyncRecord, Timing
from hasite.guard.state import Handover, Raise, Reign, Turn, peers_of

KEPT_ROUNDS = 32
TAKEOVER_TIME = 10.0
CATCH_UP_TIME = 3.0


def electorates(reign: Reign) -> tuple[Membership, ...]:
    """On whose majorities the reign rests. From the moment that the old members are let go, theirs counts no more."""
    letting_go = reign.raising is not None and reign.raising.previous is None
    if reign.previous is None or letting_go:
        return (reign.membership,)
    return (reign.membership, reign.previous)


def lease_base(reign: Reign, membership: Membership) -> float:
    """The newest moment such that a majority has vouched for requests that were sent then or later."""
    times = sorted((reign.vouched.get(voter, -inf) for voter in membership.voters), reverse=True)
    return times[membership.majority - 1]


def lease_end(reign: Reign, timing: Timing) -> float:
    """When the server must begin to be stopped. While two majorities are needed against it, one is enough for it."""
    return max(lease_base(reign, membership) for membership in electorates(reign)) + timing.holder_deadline


def sent_at(reign: Reign, sequence: int, now: float) -> float:
    """When the request was sent that this answer belongs to: the voter may have vouched right then, and the answer
    may have been long under way. ``now`` is of no account."""
    return next((at for number, at in reign.sent if number == sequence), -inf)


def interval(reign: Reign, timing: Timing, now: float) -> float:
    """Seconds between two rounds: half as many while the answers fail to come."""
    behind = now > reign.deadline - timing.holder_deadline + 2 * timing.renew
    return timing.renew / 2 if behind else timing.renew


def expire(turn: Turn) -> None:
    """The first thing in every step: without a valid lease there is no primary."""
    guard = turn.guard
    reign = guard.reign
    if reign is None:
        return
    if reign.throned and turn.now >= reign.deadline:
        turn.note(f"the lease of epoch {reign.epoch} ran out")
        turn.put(reign=None, ended=not guard.settings.ring, followed=None, next_try=turn.now)
    elif not reign.throned and turn.now >= reign.began + guard.settings.timing.ttl:
        turn.note(f"elected in epoch {reign.epoch}, but no majority vouches")
        turn.put(reign=None, followed=None, next_try=turn.now + guard.settings.timing.renew)


def renew(turn: Turn) -> None:
    """A round of requests, its own voter's first. Latecomers are asked to grant the epoch."""
    guard, now = turn.guard, turn.now
    reign = turn.reign
    sequence = reign.sequence + 1
    message = Renew(guard.name, reign.epoch, sequence, reign.proposal or reign.record)
    turn.put_reign(sequence=sequence, sent=(*reign.sent[-KEPT_ROUNDS:], (sequence, now)), last_round=now)
    mind, own = ballots.vouch(guard.ballot, guard.name, message, now)
    turn.vote(mind)
    if isinstance(own, Renewed):
        count(turn, own)
    turn.broadcast(message)
    ask_in(turn)


def ask_in(turn: Turn) -> None:
    """Asks for the epoch that is being raised, or for the present one those who have not granted it."""
    guard = turn.guard
    reign = turn.reign
    up = reign.raising
    epoch, membership, previous = (up or reign).epoch, (up or reign).membership, (up or reign).previous
    there = up.granted if up else reign.joined
    ask = Ask(guard.name, epoch, False, membership, previous, True, reign.record)
    for peer in sorted((guard.peers_wanted() | peers_of(membership, previous)) - there - {guard.name}):
        turn.send(peer, ask)


def count(turn: Turn, answer: Renewed) -> None:
    """A vouch: valid for as long as the request that it answers."""
    reign = turn.guard.reign
    if reign is None or not reign.first <= answer.epoch <= reign.epoch:
        return
    at = sent_at(reign, answer.sequence, turn.now)
    vouched = {**reign.vouched, answer.sender: max(at, reign.vouched.get(answer.sender, -inf))}
    stored = ballots.newer(reign.stored.get(answer.sender), answer.sync)
    stores = {**reign.stored, answer.sender: stored} if stored else reign.stored
    joined = reign.joined | {answer.sender} if answer.epoch == reign.epoch else reign.joined
    turn.put_reign(vouched=vouched, stored=stores, joined=joined)
    take_stock(turn)


def take_stock(turn: Turn) -> None:
    """What the vouches amount to: the deadline, and whether the reign's first record is in force."""
    guard = turn.guard
    reign = turn.reign
    deadline = lease_end(reign, guard.settings.timing)
    throned = reign.throned
    if not throned and deadline > turn.now and records.is_stored(reign, reign.record, electorates(reign)):
        throned = True
        turn.note(f"reigns in epoch {reign.epoch}")
    turn.put_reign(deadline=deadline, throned=throned)


def advance(turn: Turn) -> None:
    """Everything that a holder does by itself, in order."""
    reign = turn.guard.reign
    if reign is None:
        return
    if turn.now >= reign.last_round + interval(reign, turn.guard.settings.timing, turn.now):
        renew(turn)
    reign = turn.guard.reign
    if reign is None or not reign.throned:
        return
    if turn.guard.settings.ring:
        lead_ring(turn, reign)
        return
    if reign.handover is not None:
        hand_over(turn, reign.handover)
        return
    if is_down(turn, reign):
        return
    if reign.raising is None:
        change_membership(turn, reign)
    advance_record(turn)


def lead_ring(turn: Turn, reign: Reign) -> None:
    """All apps are led here, for as long as the server takes writes and nobody is better. It is never stopped."""
    guard = turn.guard
    if ring.takes_writes(guard.database):  # even when the last look could not see how far it is
        if not reign.primary_seen:
            turn.put_reign(primary_seen=True)
        better = ring.rival(guard, turn.now) if guard.database.conflict else None
        if better is not None:
            turn.note(f"has stopped at a conflict: {better} should lead")
            abdicate(turn, better)
        elif reign.raising is None:
            change_membership(turn, turn.reign)
    elif reign.primary_seen or (not reign.create and turn.now > reign.began + 10 * guard.settings.timing.ttl):
        turn.note(f"the server is {guard.database.state}: gives epoch {reign.epoch} up")
        abdicate(turn, None)


def is_down(turn: Turn, reign: Reign) -> bool:
    """A server that was primary and is none any more: another is faster than its restart, and has all that counts.

    A semi-synchronous server would come back with transactions that nobody acknowledged.
    """
    guard = turn.guard
    if guard.database.state == "primary":
        if not reign.primary_seen and guard.reached is not None and guard.reached.role == "primary":
            turn.put_reign(primary_seen=True)
        return False
    slow = not reign.primary_seen and turn.now > reign.began + 10 * guard.settings.timing.ttl
    if not reign.primary_seen and not slow:
        return False
    risky = guard.settings.engine in election.SEMI_SYNC and reign.record.required > 0
    if not slow and not risky and not any(there for there, _ in reign.seen.values()):
        return False
    turn.note(f"the server is {guard.database.state}: gives epoch {reign.epoch} up")
    turn.put_reign(handover=Handover(None, False, turn.now))
    return True


# --- the membership, and epochs above one's own


def change_membership(turn: Turn, reign: Reign) -> None:
    """Begins the next change that is due, if any: to both memberships, then from both to the new one, or only above an
    epoch that somebody granted to a candidate that came to nothing."""
    guard = turn.guard
    if reign.proposal is not None:
        return
    timing, new = guard.settings.timing, guard.settings.membership
    if reign.previous is not None:
        fresh = lease_base(reign, reign.membership) + timing.holder_deadline > turn.now + timing.holder_deadline / 2
        if fresh and records.is_stored(reign, reign.record, (reign.membership,)):
            raise_epoch(turn, reign.membership, None)
            return
    elif new.version > reign.membership.version:
        reason = unfit(turn, reign, new)
        turn.put(refusal=reason)
        if not reason:
            raise_epoch(turn, new, reign.membership)
            return
    if guard.highest > reign.epoch:
        raise_epoch(turn, reign.membership, reign.previous)


def unfit(turn: Turn, reign: Reign, new: Membership) -> str:
    """Why the holder does not go along with a new membership, yet."""
    data = election.data_members(new)
    if turn.guard.name not in data:
        return "the primary itself would be removed: switch over first"
    leaving = reign.record.eligible - data
    if leaving:
        return f"{', '.join(sorted(leaving))} may have the only other copy of acknowledged writes"
    horizon = turn.now - turn.guard.settings.timing.ttl
    there = {name for name, heard in turn.guard.heard.items() if heard.at > horizon}
    if not election.has_majority(new, there | {turn.guard.name, OPERATOR}):
        return "most voters of the new membership are silent"
    return ""


def raise_epoch(turn: Turn, membership: Membership, previous: Membership | None) -> None:
    """Votes for itself in a higher epoch and asks the others. The lease goes on under the old one until then."""
    guard = turn.guard
    epoch = max(guard.highest, guard.ballot.vote.epoch) + 1
    ask = Ask(guard.name, epoch, False, membership, previous, True, turn.reign.record)
    turn.vote(ballots.grant(guard.ballot, ask, turn.now))
    turn.put_reign(raising=Raise(epoch, membership, previous, frozenset({guard.name})))
    turn.note(f"raises its epoch to {epoch}, membership {membership.version}{' with the old one' if previous else ''}")
    take_stock(turn)
    ask_in(turn)


def on_granted(turn: Turn, answer: Answer) -> None:
    """A voter granted the epoch that is being raised, or is above it."""
    reign = turn.guard.reign
    if reign is None or answer.trial:
        return
    up = reign.raising
    if not answer.granted:
        goes_on = up or (reign if reign.throned and reign.handover is None else None)
        taken = goes_on is not None and answer.vote.epoch >= goes_on.epoch and answer.vote.holder != turn.guard.name
        if goes_on is not None and taken:
            raise_epoch(turn, goes_on.membership, goes_on.previous)
        return
    if up is None or answer.epoch != up.epoch:
        if answer.epoch == reign.epoch:
            turn.put_reign(joined=reign.joined | {answer.sender})
        return
    up = replace(up, granted=up.granted | {answer.sender})
    turn.put_reign(raising=up)
    if election.has_majorities(raise_needs(reign, up), up.granted):
        turn.put_reign(epoch=up.epoch, membership=up.membership, previous=up.previous, raising=None, joined=up.granted)
        turn.note(f"reigns in epoch {up.epoch}, membership {up.membership.version}")
        take_stock(turn)
        renew(turn)


def raise_needs(reign: Reign, up: Raise) -> tuple[Membership | None, ...]:
    """Whose majorities a raise needs. To both memberships: of both. From both to the new one: of the new one."""
    if up.previous is None and up.membership.version == reign.membership.version:
        return (up.membership,)
    return (reign.membership, reign.previous, up.membership, up.previous)


# --- the record


def advance_record(turn: Turn) -> None:
    """The next safe step from the record in force to the one that is wanted."""
    guard, reign = turn.guard, turn.reign
    if not reign.primary_seen:
        return
    if reign.proposal is not None:
        if records.is_stored(reign, reign.proposal, electorates(reign)):
            turn.note(f"record: {reign.proposal.required} of {', '.join(sorted(reign.proposal.eligible)) or 'anybody'}")
            turn.put_reign(record=reign.proposal, proposal=None)
        return
    eligible, required = records.wanted(guard.settings, reign, allies_of(guard, reign), turn.now)
    version = max(reign.record.version, reign.issued) + 1
    change = replace(reign.record, version=version, eligible=eligible, required=required)
    if records.same(change, reign.record):
        if reign.intent is not None:
            turn.put_reign(intent=None, mark=None, hushed=None, issued=version)
    elif required == 0:
        propose(turn, change)
    else:
        prepare(turn, change)


def prepare(turn: Turn, change: SyncRecord) -> None:
    """Towards a record with a promise: the server keeps it first, then what came before is where it should be."""
    guard, reign = turn.guard, turn.reign
    if reign.intent is None or not records.same(change, reign.intent):
        turn.put_reign(intent=change, mark=None, hushed=None, issued=change.version)
    elif reign.mark is None:
        if server_waits(turn) and silence.is_over_all(turn, reign.intent):
            turn.put_reign(mark=guard.database.position)
    elif records.caught_up(reign.intent, reign.mark, guard.name, guard.heard):
        propose(turn, reign.intent)


def propose(turn: Turn, change: SyncRecord) -> None:
    """Sends a record to the voters."""
    turn.put_reign(proposal=change, intent=None, mark=None, hushed=None, issued=change.version)
    renew(turn)


def server_waits(turn: Turn) -> bool:
    """Whether the server has been seen to wait for whom it is to wait for, since it is to."""
    return turn.guard.reached is not None and turn.guard.reached == turn.guard.desired == goal(turn.guard)


def watch_followers(turn: Turn, database: Database) -> None:
    """Since when each member follows, or does not."""
    reign = turn.guard.reign
    if reign is None or database.state != "primary":
        return
    seen = dict(reign.seen)
    for name in election.data_members(reign.membership, reign.previous) | database.followers:
        there = name in database.followers
        if name not in seen or seen[name][0] != there:
            seen[name] = (there, turn.now)
    turn.put_reign(seen=seen)
    silence.watch(turn, database)


# --- the end


def on_order(turn: Turn, order: Order) -> None:
    """A switchover, when the target can take it."""
    reign = turn.guard.reign
    if reign is None or order.epoch != reign.epoch or reign.handover is not None or not reign.throned:
        return
    if turn.guard.settings.ring:
        reason = "" if order.member == turn.guard.name else ring.unready(turn.guard, order.member, turn.now)
    else:
        reason = unready(turn, reign, order.member)
    turn.put(refusal=reason)
    if turn.guard.settings.ring and not reason and order.member != turn.guard.name:
        abdicate(turn, order.member)
    elif not reason and order.member != turn.guard.name:
        turn.note(f"hands over to {order.member}")
        turn.put_reign(handover=Handover(order.member, True, turn.now))


def unready(turn: Turn, reign: Reign, target: str) -> str:
    """Why the target can't take over; empty when it can."""
    guard = turn.guard
    if target not in election.data_members(reign.membership):
        return f"{target} is no member with data"
    if target not in guard.database.followers:
        return f"{target} does not follow closely"
    if reign.record.eligible and reign.record.required and target not in reign.record.eligible:
        return f"{target} may lack acknowledged writes"
    if reign.raising is not None or reign.previous is not None:
        return "a change of the membership is under way"
    return ""


def hand_over(turn: Turn, handover: Handover) -> None:
    """The server stops first, then the target has everything, and only then is the epoch given up."""
    now = turn.now
    if handover.stopped is None:
        if handover.clean and now > handover.began + TAKEOVER_TIME:
            turn.put_reign(handover=replace(handover, clean=False))
        if is_stopped(turn):
            turn.put_reign(handover=replace(handover, stopped=now))
            hand_over(turn, replace(handover, stopped=now))
        return
    waits = handover.target and now < handover.stopped + CATCH_UP_TIME
    if not waits or has_everything(turn, handover.target or ""):
        abdicate(turn, handover.target)


def abdicate(turn: Turn, target: str | None) -> None:
    """The epoch is free, and the target is asked to take the next."""
    guard = turn.guard
    message = Release(guard.name, guard.ballot.vote.epoch)
    turn.note(f"has stopped, epoch {message.epoch} is free")
    turn.put(ballot=ballots.release(guard.ballot, message), reign=None, followed=None)
    turn.put(next_try=turn.now + (TAKEOVER_TIME if target else 2 * guard.settings.timing.renew))
    turn.broadcast(message)
    if target:
        turn.send(target, Yield(guard.name, guard.highest))


def is_stopped(turn: Turn) -> bool:
    """Whether the server was seen stopped since it is to be."""
    reached = turn.guard.reached
    return reached is not None and reached == turn.guard.desired and reached.role == "stopped"


def has_everything(turn: Turn, target: str) -> bool:
    """Whether the target's last word is that it has all that this member has."""
    mine, heard = turn.guard.database.position, turn.guard.heard.get(target)
    theirs = heard.beat.database.position if heard else None
    return mine is not None and theirs is not None and theirs >= mine
