"""How a voter decides. Pure: the same for a guard, whose vote is a file, and for the operator, whose vote is an object.

What a voter promises. By a *grant* of epoch e: to grant no other candidate e, and to vouch for no older epoch than its
holder's. By a *vouch*: to grant nobody else an epoch until its patience is over. The first promise is durable, the
second is kept in memory: a voter that restarts may have vouched a moment ago, so its patience begins at its start.
From this follows why one grant suffices: by the time that a voter grants, every lease that rests on it has run out.
"""

from dataclasses import dataclass, replace
from math import inf

from hasite.guard.messages import Ask, Release, Renew, Renewed, Superseded
from hasite.guard.model import Membership, SyncRecord, Timing, Vote


@dataclass(frozen=True, slots=True)
class Ballot:
    """A voter's mind: ``vote`` is durable, the rest is forgotten by a restart.

    ``quiet_from``: its last vouch, or its start. ``granted_at``: when it last granted a candidate an epoch.
    ``released``: the epoch that its holder gave up; then the promise to it is void.
    """

    vote: Vote
    quiet_from: float
    granted_at: float = -inf
    released: int = 0

    @property
    def given_up(self) -> bool:
        """Whether the holder of the vote's epoch has stopped for good."""
        return self.vote.epoch > 0 and self.released == self.vote.epoch


def has_waited(ballot: Ballot, timing: Timing, now: float) -> bool:
    """Whether every lease that rests on this voter's vouches has run out, by its own clock."""
    return now >= ballot.quiet_from + timing.voter_patience


def standing(membership: Membership | None, previous: Membership | None) -> tuple[int, bool]:
    """Orders configurations: a later version is newer, and of one version the settled form (no ``previous``)."""
    return (membership.version if membership else 0, previous is None)


def objection(ballot: Ballot, ask: Ask, timing: Timing, now: float) -> str:
    """Why this voter may not grant; empty when it may.

    The holder of the vote itself need not wait: it can't come into conflict with its own lease. Nor need anybody
    when the holder gave up, or when this voter never voted, for then it never vouched.
    """
    vote = ballot.vote
    if ask.epoch < vote.epoch or (ask.epoch == vote.epoch and ask.sender != vote.holder):
        return f"epoch {vote.epoch} is granted to {vote.holder}"
    if standing(ask.membership, ask.previous) < standing(vote.membership, vote.previous):
        return "asked with an outdated membership"
    if vote.epoch == 0 or vote.holder == ask.sender or ballot.given_up or has_waited(ballot, timing, now):
        return ""
    return f"vouched for {vote.holder} a moment ago, or started just now"


def trial_objection(ballot: Ballot, ask: Ask, timing: Timing, now: float, alive: str) -> str:
    """Why this voter would not grant, or why nobody should ask: ``alive`` says who sees the primary live.

    A candidate that has just been granted an epoch is given the time to make something of it.
    """
    reason = objection(ballot, ask, timing, now)
    if reason or ballot.given_up:
        return reason
    if alive:
        return alive
    if ballot.vote.holder != ask.sender and now < ballot.granted_at + 2 * timing.renew:
        return f"{ballot.vote.holder} was granted epoch {ballot.vote.epoch} just now"
    return ""


def newer(one: SyncRecord | None, other: SyncRecord | None) -> SyncRecord | None:
    """The newer of two records."""
    if one is None or other is None:
        return one or other
    return other if other.key > one.key else one


def grant(ballot: Ballot, ask: Ask, now: float) -> Ballot:
    """The ballot with the grant in it: to be stored before it is answered."""
    sync = newer(ballot.vote.sync, ask.sync)
    vote = Vote(ask.epoch, ask.sender, ask.membership, sync, ask.previous)
    return replace(ballot, vote=vote, granted_at=now)


def vouch(ballot: Ballot, name: str, renew: Renew, now: float) -> tuple[Ballot, Renewed | Superseded | None]:
    """The answer to a request for a vouch. A changed vote is to be stored before it is sent.

    While the holder raises its own epoch, some voters are ahead of it: they vouch for the lower one all the same, as
    the promise is made to the holder. To one whose epoch this voter never granted it says nothing: that one asks.
    """
    vote = ballot.vote
    if vote.holder != renew.sender:
        return ballot, Superseded(name, vote) if vote.epoch > renew.epoch else None
    if renew.epoch > vote.epoch or renew.epoch <= ballot.released:
        return ballot, None
    sync = newer(vote.sync, renew.sync)
    if sync is not vote.sync:
        vote = replace(vote, sync=sync)
    ballot = replace(ballot, vote=vote, quiet_from=now)
    return ballot, Renewed(name, renew.epoch, renew.sequence, vote.sync)


def release(ballot: Ballot, message: Release) -> Ballot:
    """The holder gave up its epoch, and all below."""
    if message.sender == ballot.vote.holder and message.epoch >= ballot.vote.epoch:
        return replace(ballot, released=ballot.vote.epoch)
    return ballot
