"""Whether a candidate's data is good enough to reign with. Pure decisions over what the voters told.

A synchronous record says: every acknowledged write is on at least ``required + 1`` of ``eligible``. So among any
``len(eligible) - required`` of them at least one has all, and the greatest position among those is such a one. The
positions count only from members whose receivers were frozen by the grant: what a member receives after it told its
position could be acknowledged and not be on the winner.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from hasite.guard.model import Membership, Position, Settings, SyncRecord

SEMI_SYNC = frozenset({"mysql", "mariadb"})
"""Their primaries, when they restart, take on transactions that nobody acknowledged."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a candidate knows: ``heard``, by member, the frozen positions, its own among them; ``silent``: data members
    that said nothing; ``lag``: seconds of acknowledged writes that it may not have; ``forced``: by an order that
    accepts the loss of data."""

    settings: Settings
    membership: Membership
    record: SyncRecord | None
    heard: Mapping[str, Position]
    silent: frozenset[str] = frozenset()
    lag: float | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``yield``: to ``better``. ``refuse``: with the reason, unless more is heard."""

    kind: Literal["win", "yield", "refuse"]
    better: str = ""
    reason: str = ""


WIN = Verdict("win")


def judge(facts: Facts) -> Verdict:
    """The rules of data, in the order of their strength. The candidate's own position must be in ``heard``."""
    me = facts.settings.name
    if facts.forced:
        return WIN
    record = facts.record
    pool = pool_of(facts.settings, record)
    if record is not None and pool is not None:
        needed = needed_of(pool, record)
        present = {name: position for name, position in facts.heard.items() if name in pool}
        if len(present) < needed:
            who = ", ".join(sorted(pool - set(present)))
            return Verdict(
                "refuse", reason=f"acknowledged writes may be on {who} alone: {needed} of {len(pool)} needed"
            )
        return compare(me, present, facts)
    verdict = compare(me, facts.heard, facts)
    last_to_reign = record is not None and record.holder == me
    if verdict.kind == "win" and facts.silent and not last_to_reign:
        reason = too_far_behind(facts)
        return Verdict("refuse", reason=reason) if reason else WIN
    return verdict


def pool_of(settings: Settings, record: SyncRecord | None) -> frozenset[str] | None:
    """Who may reign by a synchronous record; None: by an asynchronous one, anybody.

    A semi-synchronous primary that restarted is out while there is another: what it alone has, nobody acknowledged.
    """
    if record is None or not record.eligible:
        return None
    others = record.eligible - {record.holder}
    if settings.engine in SEMI_SYNC and record.required and others:
        return others
    return record.eligible


def needed_of(pool: frozenset[str], record: SyncRecord) -> int:
    """How many of the pool must be heard so that one of them has every acknowledged write."""
    without_holder = 1 if pool != record.eligible else 0
    return len(pool) - record.required + without_holder


def compare(me: str, positions: Mapping[str, Position], facts: Facts) -> Verdict:
    """Wins with the greatest position; yields to a greater one, or at a tie to the preferred location."""
    best = max(positions, key=lambda name: (claim(name, positions[name], facts), name == me), default="")
    if not best or best == me:
        return WIN if best else Verdict("refuse", reason="no usable data")
    if me not in positions:
        return Verdict("yield", best)
    return Verdict("yield", best) if claim(best, positions[best], facts) > claim(me, positions[me], facts) else WIN


def claim(name: str, position: Position, facts: Facts) -> tuple[Position, bool]:
    """The order of candidates: data first, then the preferred location."""
    return (position, _preferred(name, facts))


def too_far_behind(facts: Facts) -> str:
    """Asynchronous: why the lag forbids it. A lag that is not known is too much."""
    if facts.lag is None:
        return f"{_names(facts.silent)} unheard, and how far this member was behind is unknown"
    if facts.lag > facts.settings.maximum_lag:
        return f"{facts.lag:.1f} s behind, {facts.settings.maximum_lag:g} s allowed; {_names(facts.silent)} unheard"
    return ""


def data_members(*memberships: Membership | None) -> frozenset[str]:
    """Everybody but witnesses."""
    return frozenset(m.name for ms in memberships if ms for m in ms.members if not m.witness)


def has_majority(membership: Membership, names: Collection[str]) -> bool:
    """Of all voters, not of those who can be reached."""
    return sum(voter in names for voter in membership.voters) >= membership.majority


def has_majorities(memberships: Collection[Membership | None], names: Collection[str]) -> bool:
    """Of each; while the membership changes, of the old and of the new."""
    return all(has_majority(membership, names) for membership in memberships if membership)


def _preferred(name: str, facts: Facts) -> bool:
    return any(m.name == name and m.location == facts.settings.preferred_location for m in facts.membership.members)


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
