"""Which members of a tier are created and which leave: scaling, replacement and roll-out in one set of rules.

One location is rolled at a time, with one member more than wanted at most; a member leaves only while those that serve
at its location stay as many as serve now, or as are wanted. A new version that does not serve therefore stops the
roll-out by itself, with the old one still serving.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hasite.plan.names import ordinal_of


@dataclass(frozen=True)
class Member:
    """One machine of a tier. ``serving``: it takes requests right now."""

    name: str
    location: str
    template: str
    serving: bool
    leaving: bool = False

    @property
    def ordinal(self) -> int:
        """Counts the members of one template at one location from 0."""
        return ordinal_of(self.name)


@dataclass(frozen=True)
class Create:
    """A new member at a location, with an ordinal that no other of its template there has."""

    location: str
    ordinal: int
    reason: str


@dataclass(frozen=True)
class Leave:
    """A member begins to leave."""

    name: str
    reason: str


@dataclass(frozen=True)
class Rollout:
    """What is to be done now. ``rolling``: the location at work; ``waiting_for``: new members that do not serve yet."""

    create: tuple[Create, ...] = ()
    leave: tuple[Leave, ...] = ()
    rolling: str | None = None
    waiting_for: tuple[str, ...] = ()


def plan_rollout(want: Mapping[str, int], template: str, members: Sequence[Member]) -> Rollout:
    """``want``: members by location, in the order in which locations are rolled."""
    create: list[Create] = []
    leave: list[Leave] = []
    rolling: str | None = None
    waiting: list[str] = []
    for location, count in want.items():
        here = [m for m in members if m.location == location]
        staying = [m for m in here if not m.leaving]
        old = [m for m in staying if m.template != template]
        new = [m for m in staying if m.template == template]
        waiting += [m.name for m in new if not m.serving]
        if not old:
            create += _create(location, here, template, count - len(new), "it is wanted")
            leave += _shrink(new, count)
        elif rolling is None:
            rolling = location
            if len(here) <= count:
                create += _create(location, here, template, max(1, count - len(staying)), "the template changed")
            elif len(staying) > count and len(here) == len(staying) and all(m.serving for m in new):
                victim = min(old, key=lambda m: (m.serving, -m.ordinal))
                leave.append(Leave(victim.name, "a member of the new template serves in its place"))
        else:
            create += _create(location, here, template, count - len(staying), "it is wanted")
        if rolling is None and any(m.leaving and m.template != template for m in here):
            rolling = location
    leave += _given_up(want, members)
    return Rollout(tuple(create), tuple(leave), rolling, tuple(waiting))


def _create(location: str, here: Sequence[Member], template: str, count: int, reason: str) -> list[Create]:
    taken = {m.ordinal for m in here if m.template[:6] == template[:6]}
    free = (n for n in range(len(taken) + max(count, 0)) if n not in taken)
    return [Create(location, next(free), reason) for _ in range(count)]


def _shrink(new: Sequence[Member], count: int) -> list[Leave]:
    """The ones that do not serve go first, then the highest ordinals; those that stay must serve."""
    order = sorted(new, key=lambda m: (m.serving, -m.ordinal))
    go = order[: max(0, len(new) - count)]
    rest_serving = sum(m.serving for m in new if m not in go)
    return [
        Leave(m.name, f"{count} are wanted here")
        for m in go
        if not m.serving or rest_serving >= min(count, sum(x.serving for x in new))
    ]


def _given_up(want: Mapping[str, int], members: Sequence[Member]) -> list[Leave]:
    """Of locations that are not wanted any more: what doesn't serve, once a wanted one does; the rest, once all do."""
    serving = sum(m.serving and not m.leaving and m.location in want for m in members)
    complete = serving >= sum(want.values()) > 0
    return [
        Leave(m.name, "its location is not wanted any more")
        for m in members
        if m.location not in want and not m.leaving and (complete or (serving and not m.serving))
    ]
