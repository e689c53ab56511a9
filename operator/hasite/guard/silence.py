"""That nobody acknowledges but who may, for servers that take anybody's answer (``election.SEMI_SYNC``). Pure.

Such a primary releases a write as soon as any server that answers has it. So what a record promises must be seen to by
the others: each keeps its own server from answering unless the primary's word, in its beats, names it as eligible, and
says which word it keeps to (``Beat.obeys``). A record is proposed only when all others have said so under a word of its
version: an older one can't turn them back.
"""

from hasite.guard import election
from hasite.guard.goal import goal
from hasite.guard.model import Database, SyncRecord
from hasite.guard.state import Reign, Turn

GONE_TIME = 20.0
"""Seconds without a connection, beside the lease's time, after which a server comes back by its guard's will alone: by
itself it tries for less than that, and a guard that hears nothing ends its tries."""


def watch(turn: Turn, database: Database) -> None:
    """A look at the primary: who has a connection. One that came to nothing shows nobody gone."""
    reign = turn.reign
    everybody = election.data_members(reign.membership, reign.previous, turn.guard.settings.membership)
    linked = database.receivers if database.position is not None else everybody
    turn.put_reign(looks=reign.looks + 1, linked={**reign.linked, **dict.fromkeys(linked, turn.now)})


def is_over_all(turn: Turn, intent: SyncRecord) -> bool:
    """Whether the others can acknowledge no more, so that what the server holds now is all that they may have released.

    "Now" is in a look that began after that: the second one from then on.
    """
    guard, reign = turn.guard, turn.reign
    if guard.settings.engine not in election.SEMI_SYNC:
        return True
    may = goal(guard).sync
    everybody = election.data_members(reign.membership, reign.previous, guard.settings.membership)
    others = everybody - (may.eligible if may else frozenset()) - {guard.name}
    if not others:
        return True
    if not all(is_over(turn, reign, name, intent) for name in others):
        turn.put_reign(hushed=None)
        return False
    if reign.hushed is None:
        turn.put_reign(hushed=reign.looks)
        return False
    return reign.looks >= reign.hushed + 2


def is_over(turn: Turn, reign: Reign, name: str, intent: SyncRecord) -> bool:
    """Whether this member is silent: by its own word, or because it has long not been connected."""
    heard = turn.guard.heard.get(name)
    gone = turn.now >= reign.linked.get(name, reign.began) + GONE_TIME + turn.guard.settings.timing.ttl
    return gone or (heard is not None and heard.beat.obeys >= intent.key)
