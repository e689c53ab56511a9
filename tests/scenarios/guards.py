"""Guards of databases, as far as an operator sees them: machines that were told who takes part, elect and follow.

They stand for ``hasite.guard``, which has tests of its own. What they never do here is lose data; what they do is take
their time, count votes, and refuse what the real ones refuse.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.base import Goods
from hasite.databases.certificates import Authority
from hasite.databases.declare import Declaration, Server
from hasite.databases.guards import Paths
from hasite.databases.parcel import version_of
from hasite.guard.messages import Beat, Order
from hasite.guard.model import OPERATOR, Database, Member, Position, Settings, SyncRecord
from hasite.machines.base import Session
from hasite.plan.world import GuardView, Unknown

from tests.fakes.machines import OPERATOR as OUTSIDE
from tests.fakes.machines import touched
from tests.scenarios.clockwork import monotonic, now

if TYPE_CHECKING:
    from tests.scenarios.operators import Life
    from tests.scenarios.universe import Universe

COPY_SECONDS = 5.0
"""Until a new member has a copy and follows."""
ELECTION_SECONDS = 4.0
"""From a primary's loss to the next one."""


@dataclass
class FakeGuard:
    """On one machine. ``settings`` None: none was delivered. ``follows_from``: when its copy is ready."""

    name: str
    address: str
    version: tuple[str, str] = ("", "")
    settings: Settings | None = None
    has_data: bool = False
    follows_from: float = 0.0
    restarts: int = 0


@dataclass
class GuardGround:
    """All guards of a universe, one database at most. ``breaches``: what no operator may ever do to them."""

    universe: "Universe"
    guards: dict[str, FakeGuard] = field(default_factory=dict)
    epoch: int = 0
    holder: str = ""
    in_force: int = 0
    vacant_since: float | None = None
    handing_over: tuple[str, float] | None = None
    declared: Declaration | None = None
    databases_made: int = 0
    giving_up: bool = False
    """The data are not wanted any more: their owner is being deleted."""
    breaches: list[str] = field(default_factory=list)

    def guard(self, session: Session) -> FakeGuard:
        """That of a machine."""
        machine = touched(session)
        return self.guards.setdefault(machine.name, FakeGuard(machine.name, machine.address))

    def alive(self, name: str) -> bool:
        """Whether its machine runs and reaches the outside."""
        guard = self.guards.get(name)
        ground = self.universe.ground
        machine = ground.machines.get(guard.address) if guard else None
        return bool(
            guard and machine and machine.on and machine.name == name and ground.reaches(OUTSIDE, guard.address)
        )

    def follows(self, name: str) -> bool:
        """Whether it replicates."""
        return self.alive(name) and self.guards[name].has_data and monotonic() >= self.guards[name].follows_from

    def tick(self) -> None:
        """Elections, copies, changes of the membership."""
        at = monotonic()
        if self.holder and not self.alive(self.holder):
            self.vacant_since = self.vacant_since if self.vacant_since is not None else at
            if at - self.vacant_since >= ELECTION_SECONDS:
                self._elect()
            return
        self.vacant_since = None
        if not self.holder:
            self._bootstrap()
        elif self.handing_over is not None and at >= self.handing_over[1]:
            target, self.handing_over = self.handing_over[0], None
            if self.follows(target):
                self.holder, self.epoch = target, self.epoch + 1
        if self.holder:
            self._take_in()

    def _settings(self) -> Settings | None:
        """What the holder was told."""
        guard = self.guards.get(self.holder)
        return guard.settings if guard else None

    def _majority(self, settings: Settings) -> bool:
        voters = settings.membership.voters
        living = bool([o for o in self.universe.operators if not o.life.dead])
        votes = sum(living if v == OPERATOR else self._told(v) for v in voters)
        return votes >= settings.membership.majority

    def _told(self, name: str) -> bool:
        return self.alive(name) and self.guards[name].settings is not None

    def _bootstrap(self) -> None:
        for guard in self.guards.values():
            settings = guard.settings
            if settings and settings.bootstrap == guard.name and self._told(guard.name) and self._majority(settings):
                if self.databases_made:
                    self.breaches.append(f"{guard.name} was told to make the database again")
                self.databases_made += 1
                self.holder, self.epoch, guard.has_data = guard.name, 1, True
                self.in_force = settings.membership.version
                return

    def _elect(self) -> None:
        candidates = sorted(n for n in self.guards if n != self.holder and self.follows(n))
        for name in candidates:
            settings = self.guards[name].settings
            if settings is not None and self._majority(settings):
                self.holder, self.epoch, self.vacant_since = name, self.epoch + 1, None
                return

    def _take_in(self) -> None:
        settings = self._settings()
        if settings is None:
            return
        if settings.membership.version > self.in_force and self._majority(settings):
            self.in_force, self.epoch = settings.membership.version, self.epoch + 1
        for member in settings.membership.members:
            guard = self.guards.get(member.name)
            if guard and guard.settings and not member.witness and not guard.has_data and self.alive(member.name):
                guard.has_data, guard.follows_from = True, monotonic() + COPY_SECONDS

    def order(self, order: Order) -> None:
        """A switchover at the holder."""
        if order.kind == "switchover" and order.epoch == self.epoch and self.handing_over is None:
            self.handing_over = (order.member, monotonic() + 1.0)

    def beat(self, name: str) -> Beat | Unknown:
        """What a guard says, if it can be heard."""
        guard = self.guards.get(name)
        if guard is None or guard.settings is None or not self.alive(name):
            return Unknown("its guard is not heard")
        primary = name == self.holder
        state = "primary" if primary else "standby" if guard.has_data else "absent"
        server = Database(
            state,  # type: ignore[arg-type]
            Position(self.epoch, 1000) if guard.has_data else None,
            upstream=None if primary else self.holder,
            streaming=not primary and self.follows(name) and self.alive(self.holder),
            read_only=not primary,
            lag_seconds=None if primary else 0.1,
        )
        return Beat(
            name,
            self.epoch,
            self.holder,
            2.0 if primary else 0.0,
            "primary" if primary else "standby",
            server,
            SyncRecord(self.epoch, 1, frozenset(self.guards), 1),
            guard.settings.membership.version,
            self.in_force,
            reign=self.epoch,
        )

    def on_destruction(self, name: str) -> None:
        """Just before a machine is destroyed. Not the only copy, and nobody's primary, while the database is wanted."""
        if self.giving_up:
            return
        if name == self.holder:
            self.breaches.append(f"{name} was destroyed while it was the primary")
        elif self.guards.get(name) and self.guards[name].has_data and not self.alive(self.holder):
            self.breaches.append(f"{name} was destroyed while there was no primary")


class GuardsPort:
    """``Guards`` of one operator's process."""

    def __init__(self, ground: GuardGround, life: "Life") -> None:
        self._ground = ground
        self._life = life
        self._ordered: tuple[Order, float] | None = None
        self._authority: Authority | None = None

    async def follow(self, database: ReplicatedDatabase, authority: Authority, members: Sequence[Member]) -> None:
        self._life.check()
        self._authority = authority

    def authority(self, uid: str) -> Authority | None:
        return self._authority

    def beats(self, uid: str, names: Sequence[str]) -> Mapping[str, Beat | Unknown]:
        return {name: self._ground.beat(name) for name in names}

    def order(self, uid: str, order: Order) -> None:
        self._life.check()
        self._ordered = (order, now())
        self._ground.order(order)

    def ordered(self, uid: str) -> tuple[Order, float] | None:
        return self._ordered

    def paths(self, uid: str) -> Paths | None:
        return Paths("ca", "certificate", "key")

    async def drop(self, uid: str) -> None:
        """Nothing is kept."""


class MembersPort:
    """``MemberOperations`` of one operator's process."""

    def __init__(self, ground: GuardGround, life: "Life") -> None:
        self._ground = ground
        self._life = life
        self._busy: set[str] = set()

    async def observe(self, session: Session) -> GuardView:
        self._life.check()
        guard = self._ground.guard(session)
        there = guard.settings is not None
        return GuardView(*guard.version, there, there)

    async def deliver(self, session: Session, goods: Goods, *, restart: bool) -> None:
        async with self._ground.universe.ssh(self._life, "deliver_guard", session):
            guard = self._ground.guard(session)
            self._busy.add(guard.name)
            if self._ground.holder and len(self._busy) > 1:
                self._ground.breaches.append(f"{sorted(self._busy)} were touched at once")
            await asyncio.sleep(0.5)
            self._busy.discard(guard.name)
            if restart and guard.name == self._ground.holder and len(self._ground.guards) > 1:
                self._ground.breaches.append(f"the primary {guard.name} was restarted")
            version = version_of(goods.settings, goods.authority, goods.now, goods.secrets)
            guard.version, guard.settings = (version.program, version.settings), goods.settings
            guard.restarts += restart

    async def declare(self, engine: str, server: Server, declaration: Declaration) -> None:
        self._life.check()
        holder = self._ground.guards.get(self._ground.holder)
        assert holder is not None and holder.address == server.address
        self._ground.declared = declaration
