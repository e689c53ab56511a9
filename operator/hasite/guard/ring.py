"""Rings: every member takes writes and receives those of all others from its predecessor. Pure decisions.

The order is that of names. Each live member receives from the nearest live one before it, so that there is one way
through all of them. Nothing is fenced, frozen or rewound here: a lease says only where apps are led to, when they are
all led to one member, and any member that takes writes may hold it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from hasite.guard.model import Database, Desired, Membership, Position
from hasite.guard.state import Around, Guard, Turn

INCREMENT = 16
"""``auto_increment_increment``: the same for rings of any size, so that growing changes no member's numbers. Twice the
most members there may be, because a member and the one that replaces it are there at one time."""

MOST_MEMBERS = 8

CONFLICTED = Position(-1, 0)
"""What a member with a conflict tells for its position: any other comes before it."""


def predecessors(name: str, names: Collection[str]) -> tuple[str, ...]:
    """All others, the nearest before ``name`` first."""
    order = sorted({*names, name})
    at = order.index(name)
    return tuple(reversed(order[at + 1 :] + order[:at])) if len(order) > 1 else ()


def upstream(
    name: str, names: Collection[str], current: str | None, sound: Collection[str], settled: Collection[str]
) -> str | None:
    """Whom to receive from, of those that are ``sound``. One that has come back counts once it is ``settled``, unless
    it is wanted in place of one that is lost: so what comes and goes changes the ring at the pace of ``settled``."""
    able = {*settled, current} if current in sound else {*sound}
    return next((each for each in predecessors(name, names) if each in able and each in sound), None)


def members_of(membership: Membership) -> tuple[str, ...]:
    """In the order of the ring."""
    return tuple(sorted(member.name for member in membership.members if not member.witness))


def takes_writes(database: Database) -> bool:
    """Whether apps may be led to this server."""
    return database.state == "primary" and not database.read_only


def can_lead(database: Database) -> bool:
    """Whether it may hold the lease. A conflict does not forbid it, for every member may have one; it comes last."""
    return takes_writes(database) and database.position is not None


def may_found(guard: Guard) -> bool:
    """Whether this member made the database, and ended before it was founded: then it must lead to go on."""
    database = guard.database
    made = guard.settings.bootstrap == guard.name and database.state == "standby"
    return made and database.position is not None and database.position.epoch == 0


def told(guard: Guard) -> Database:
    """As a voter tells it to a candidate: the position says how good a leader it would be."""
    database = guard.database
    if not can_lead(database) and not may_found(guard):
        return replace(database, position=None)
    return replace(database, position=CONFLICTED) if database.conflict else database


def heard_lately(guard: Guard, now: float) -> dict[str, Database]:
    """Of each other member whose guard was heard within the lease's time."""
    horizon = now - guard.settings.timing.ttl
    names = {*members_of(guard.known[0])} - {guard.name}
    return {
        name: guard.heard[name].beat.database for name in names & guard.heard.keys() if guard.heard[name].at > horizon
    }


def look_around(turn: Turn) -> None:
    """Who lives, and whom this member is to receive from.

    A member that has a conflict keeps its upstream: what it has received and can't apply may be nowhere else. A member
    whose guard is silent is still received from while its server sends.
    """
    guard, now, before = turn.guard, turn.now, turn.guard.around
    if guard.member is None or guard.member.witness:
        return
    ttl = guard.settings.timing.ttl
    heard = heard_lately(guard, now)
    running = {name for name, seen in heard.items() if seen.state in ("primary", "standby")}
    sound = {name for name in running if takes_writes(heard[name]) and heard[name].conflict is None}
    since = {name: before.since.get(name, now) for name in sound}
    own, current = guard.database, before.upstream
    if current is not None and current not in heard and own.streaming and own.upstream == current:
        sound.add(current)
        since[current] = before.since.get(current, now)
    names = members_of(guard.known[0])
    chosen: str | None
    if own.conflict is not None and current in names:
        chosen = current
    else:
        settled = {name for name, at in since.items() if now >= at + ttl}
        chosen = upstream(guard.name, names, current, sound, settled) or upstream(
            guard.name, names, current, running, running
        )
    if chosen != current:
        turn.note(f"receives from {chosen or 'nobody'}")
    lonely = None if chosen else now if before.lonely is None else before.lonely
    alone = lonely is not None and (now >= lonely + ttl or set(names) <= {guard.name})
    turn.put(around=Around(chosen, alone, since, lonely))


def goal(guard: Guard) -> Desired:
    """What the local server is to be. Without a lease it goes on as with one."""
    reign, around = guard.reign, guard.around
    if reign is None or not reign.throned:
        return Desired("ring", 0, around.upstream, alone=around.alone)
    return Desired(
        "ring", reign.epoch, around.upstream, create=reign.create and not reign.primary_seen, alone=around.alone
    )


def rival(guard: Guard, now: float) -> str | None:
    """Who should lead in the place of a member that has a conflict: the nearest that has none."""
    heard = heard_lately(guard, now)
    able = (name for name in predecessors(guard.name, heard) if can_lead(heard[name]) and heard[name].conflict is None)
    return next(able, None)


def unready(guard: Guard, target: str, now: float) -> str:
    """Why apps can't be led to ``target``; empty when they can."""
    seen = heard_lately(guard, now).get(target)
    if seen is None:
        return f"{target} is not heard"
    if not can_lead(seen):
        return f"{target} takes no writes"
    if seen.conflict is not None:
        return f"{target} has stopped at a conflict: {seen.conflict.words}"
    if not seen.streaming or (seen.lag_seconds or 0.0) > guard.settings.maximum_lag:
        return f"{target} does not follow closely"
    return ""


def numbers(names: Sequence[str]) -> dict[str, int]:
    """``auto_increment_offset`` of each member, 1 to ``INCREMENT``, different for all.

    Made from the number in a member's name, which no other member ever gets; else of its place.
    """
    given: dict[str, int] = {}
    for place, name in enumerate(sorted(names, key=lambda name: (_ordinal(name, 0), name))):
        number = _ordinal(name, place) % INCREMENT + 1
        while number in given.values() and len(given) < INCREMENT:
            number = number % INCREMENT + 1
        given[name] = number
    return given


def _ordinal(name: str, otherwise: int) -> int:
    """Of a name like ``orders-db-new-york-3-4k2j9d-3e2bb83e``."""
    parts = name.split("-")
    return int(parts[-3]) if len(parts) > 3 and parts[-3].isdecimal() else otherwise
