"""Which members of a database are made and which leave. Make before break, one at a time, the primary last.

Before the database was ever made there is nothing to lose, and all is done at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hasite.plan.names import Role, ordinal_of

Group = tuple[Role, str]
"""Members of one role at one location."""


@dataclass(frozen=True)
class Part:
    """One member. ``current``: made from the present template; ``holder``: it has the newest epoch."""

    name: str
    group: Group
    current: bool
    serving: bool
    leaving: bool = False
    holder: bool = False


@dataclass(frozen=True)
class Wanted:
    """A member to be made."""

    group: Group
    reason: str


@dataclass(frozen=True)
class Change:
    """What is to be done now. ``hand_over``: why the primary has to hand over before it may leave."""

    create: tuple[Wanted, ...] = ()
    leave: Mapping[str, str] | None = None
    hand_over: str = ""
    waiting_for: tuple[str, ...] = ()


def plan_members(want: Mapping[Group, int], parts: Sequence[Part], careful: bool) -> Change:
    """``careful``: there may be data. ``leave``: names with reasons, one at most then."""
    create = tuple(w for group, count in want.items() for w in _missing(group, count, parts))
    waiting = tuple(sorted(p.name for p in parts if p.current and not p.leaving and not p.serving and p.group in want))
    if not careful:
        fresh = tuple(
            w for group, count in want.items() for w in _missing(group, count, [p for p in parts if p.current])
        )
        return Change(fresh, {p.name: "it is not wanted" for p in parts if _needless(p, want, parts)}, "", waiting)
    victim = _superfluous(want, parts)
    idle = victim is not None and _is_idle(victim, want, parts)
    if create or (waiting and not idle) or any(p.leaving for p in parts):
        # Elected after it had begun to leave: by the membership that it was still in.
        again = next((f"{p.name} is to leave" for p in parts if p.leaving and p.holder), "")
        return Change(create, hand_over=again, waiting_for=waiting)
    if victim is None:
        old = min((p for p in parts if not p.current and p.group in want), key=_order, default=None)
        return Change() if old is None else Change((Wanted(old.group, "the template changed"),))
    reason = (
        "its location is not wanted any more" if victim.group not in want else f"{want[victim.group]} are wanted here"
    )
    if not victim.current:
        reason = "a member of the new template serves in its place" if victim.group in want else reason
    return Change(hand_over=f"{victim.name} is to leave") if victim.holder else Change(leave={victim.name: reason})


def _missing(group: Group, count: int, parts: Sequence[Part]) -> list[Wanted]:
    staying = sum(p.group == group and not p.leaving for p in parts)
    return [Wanted(group, "it is wanted")] * (count - staying)


def _needless(part: Part, want: Mapping[Group, int], parts: Sequence[Part]) -> bool:
    if part.leaving:
        return False
    here = sorted((p.name for p in parts if p.group == part.group and p.current and not p.leaving), key=ordinal_of)
    return not part.current or part.name not in here[: want.get(part.group, 0)]


def _superfluous(want: Mapping[Group, int], parts: Sequence[Part]) -> Part | None:
    """One that is more than wanted where it stands: the holder last of all."""
    more = [p for p in parts if sum(q.group == p.group for q in parts) > want.get(p.group, 0)]
    return min(more, key=_order, default=None)


def _is_idle(part: Part, want: Mapping[Group, int], parts: Sequence[Part]) -> bool:
    """It does nothing, and as many as are wanted serve beside it: nobody need be waited for before it goes."""
    beside = sum(p.group == part.group and p.serving and not p.leaving for p in parts)
    return part.group in want and not part.serving and not part.holder and beside >= want[part.group]


def _order(part: Part) -> tuple[bool, bool, bool, int]:
    """Who goes first: the old before the new, never the holder while there is another, the idle, the youngest."""
    return (part.current, part.holder, part.serving, -ordinal_of(part.name))
