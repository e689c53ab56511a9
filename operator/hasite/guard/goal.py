"""What the local server is to be: one function of the guard's state, so that no path can forget a fence."""

from hasite.guard import election, records, ring
from hasite.guard.model import Desired, SyncRecord
from hasite.guard.state import Guard, Reign


def goal(guard: Guard) -> Desired:
    """By the topology. A witness has nothing to run in either."""
    if guard.settings.ring and guard.member is not None and not guard.member.witness:
        return ring.goal(guard)
    return single(guard)


def single(guard: Guard) -> Desired:
    """In the order of their strength: what must not run, what may be primary, what must keep still, whom to follow.

    Without a known primary the data is frozen: whatever a guard was before it started, it waits for an election. One
    that is about to end starts nothing that it has stopped.
    """
    reign, epoch = guard.reign, guard.ballot.vote.epoch
    if guard.ended:
        return Desired("stopped", epoch)
    if reign is not None and reign.throned:
        if reign.handover is not None:
            return Desired("stopped", reign.epoch, clean=reign.handover.clean)
        return Desired(
            "primary",
            reign.epoch,
            None,
            records.waits(guard.settings, reign, allies_of(guard, reign)),
            False,
            reign.create,
        )
    leaves = guard.leaving and guard.desired.role == "stopped"
    if guard.member is None or guard.member.witness or leaves:
        return guard.desired if leaves else Desired("stopped")
    asking = guard.campaign is not None and not guard.campaign.trial
    if reign is not None or asking or guard.owed is not None or guard.followed is None:
        return Desired("frozen")
    return Desired("standby", epoch, upstream_of(guard, guard.followed), sync_told(guard, guard.followed))


def upstream_of(guard: Guard, primary: str) -> str:
    """The primary; to copy from, rather a standby that streams from it.

    A member that may have had the only second copy of a write takes its new copy from the primary alone.
    """
    record = guard.ballot.vote.sync
    if guard.database.state != "absent" or (record and guard.name in record.eligible):
        return primary
    begun = guard.desired.upstream if guard.desired.role == "standby" else None
    if begun is not None and begun in guard.heard:
        return begun
    for name, heard in sorted(guard.heard.items()):
        database = heard.beat.database
        if database.state == "standby" and database.streaming and database.upstream == primary:
            return name
    return primary


def sync_told(guard: Guard, primary: str) -> SyncRecord | None:
    """What the primary waits for, as it says: a follower that is not in it does not acknowledge."""
    heard = guard.heard.get(primary)
    return heard.beat.sync if heard else None


def allies_of(guard: Guard, reign: Reign) -> frozenset[str]:
    """Whose copies count: in the membership that is wanted next, if any. Those who leave must not hold the only copy,
    and those who come may hold one before they have a say."""
    wanted = guard.settings.membership
    if wanted.version > reign.membership.version and guard.name in election.data_members(wanted):
        return records.partners(guard.name, wanted)
    return records.partners(guard.name, reign.membership)
