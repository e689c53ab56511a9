"""One run of one seed: a topology, a durability, a time of faults, a time to heal, and rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from hasite.guard.election import SEMI_SYNC
from hasite.guard.model import Member, Membership, Settings
from hasite.guard.sharedvoter import Stored

from tests.sim.checks import PROGRESS, REST
from tests.sim.faults import Faults, changed, voters_of
from tests.sim.operators import Operator, Shared
from tests.sim.world import Node, World

TOPOLOGIES: dict[str, tuple[str, ...]] = {
    "1+1": ("a1", "b1"),
    "2+2": ("a1", "a2", "b1", "b2"),
    "1+1+witness": ("a1", "b1", "w1"),
    "1+1+1": ("a1", "b1", "c1"),
    "1+1+1+1+1": ("a1", "b1", "c1", "d1", "e1"),
    "2": ("a1", "a2"),
}


Kind = Literal["faults", "calm", "deaf"]


@dataclass(frozen=True)
class Shape:
    """What a seed runs on."""

    topology: str
    durability: str
    degraded: bool
    engine: str
    operators: int


def shape_of(seed: int, world: World) -> Shape:
    """Drawn from the seed."""
    rng = world.rng
    topology = rng.choice(("1+1", "1+1", "1+1", "2+2", "1+1+witness", "1+1+1", "1+1+1", "1+1+1+1+1", "2"))
    durability = rng.choice(("synchronous", "synchronous", "synchronous", "asynchronous"))
    engine = rng.choice(("postgresql", "postgresql", "mariadb"))
    return Shape(topology, durability, rng.random() < 0.4, engine, 2 if rng.random() < 0.3 else 1)


LOCATIONS = {"a": "new-york", "b": "amsterdam", "c": "paris", "d": "dublin", "e": "essen", "w": "oslo"}


def member_of(name: str) -> Member:
    return Member(name, LOCATIONS[name[0]], name, name[0] == "w")


class Scenario:
    """Runs a seed. ``calm``: without faults, but with losses, delays and starved guards throughout. ``deaf``: one
    follower no longer hears the primary's guard, and nothing else is wrong. ``shape`` and ``focus`` may be drawn."""

    def __init__(
        self,
        seed: int,
        story: bool = False,
        kind: Kind = "faults",
        busy: float = 40.0,
        shape: Shape | None = None,
        focus: tuple[str, ...] = (),
    ) -> None:
        self.world = World(seed, story)
        drawn = shape_of(seed, self.world)
        self.shape = shape or (drawn if kind == "faults" else replace(drawn, operators=1))
        self.kind, self.busy, self.focus = kind, busy, focus
        rng = self.world.rng
        names = TOPOLOGIES[self.shape.topology]
        members = tuple(member_of(n) for n in names)
        self.membership = Membership(1, members, voters_of(members))
        self.settings = Settings(
            "shop",
            "",
            self.shape.engine,  # type: ignore[arg-type]
            "15",
            "PrimaryReplica",
            self.shape.durability,  # type: ignore[arg-type]
            self.shape.degraded,
            3.0,
            self.membership,
            bootstrap="a1",
            preferred_location="new-york",
        )
        self.world.semi_sync = self.shape.engine in SEMI_SYNC
        self.world.synchronous = self.shape.durability == "synchronous"
        self.world.maximum_lag = 3.0
        self.shared = Shared(Stored())
        for name in names:
            self.add(name)
        for number in range(self.shape.operators):
            operator = Operator(self.world, f"op{number + 1}", self.shared, rng.uniform(0.99, 1.01))
            self.world.operators.append(operator)
            self.world.after(rng.uniform(0, 3), operator.boot)
        self.faults: Faults | None = None
        self.world.after(0.2, self.write)

    def add(self, name: str) -> Node:
        rng = self.world.rng
        node = Node(self.world, replace(self.settings, name=name), rng.uniform(0.99, 1.01), rng.uniform(0, 10_000))
        self.world.nodes[name] = node
        self.world.after(rng.uniform(0, 1), node.boot)
        return node

    def write(self) -> None:
        """Clients write to whatever takes writes, as any of them may believe in any of the servers."""
        world = self.world
        for node in world.nodes.values():
            if node.server.accepting and node.paused_until <= world.now:
                node.server.write(world.value())
        world.after(world.rng.uniform(0.02, 0.5), self.write)

    def run(self) -> World:
        """Raises Violation."""
        world = self.world
        if self.kind == "calm":
            return self.run_calm()
        if self.kind == "deaf":
            return self.run_deaf()
        world.run_until(12.0)
        if world.primary() is None or not world.acks_total:
            world.fail("no database came up")
        if self.settings.bootstrap:
            self.give(replace(self.settings, bootstrap=None))
        self.faults = Faults(self, world.now + self.busy, world.rng.choice((1.0, 2.5, 5.0)), self.focus)
        world.run_until(world.now + self.busy)
        self.heal()
        self.expect_progress()
        self.expect_rest()
        world.check_final(None)
        return world

    def give(self, settings: Settings) -> None:
        self.settings = settings
        self.world.give(settings)

    def heal(self) -> None:
        world = self.world
        assert self.faults is not None
        self.faults.over = True
        self.faults.good_network()
        self.faults.quick_object()
        world.blocked.clear()
        world.slow_disk.clear()
        world.slow_links.clear()
        world.doomed.clear()
        world.ambush = None
        world.db_lag.clear()
        for node in world.nodes.values():
            world.after(0.05, node.resume)
            world.after(0.1, node.boot)
            world.after(0.2, node.start_guard)
        for number, operator in enumerate(world.operators):
            operator.paused_until = operator.alone_until = world.now
            if number == 0:
                world.after(0.1, operator.boot)
        world.story("~", "everything is healed")

    def expect_progress(self) -> None:
        world = self.world
        since = world.now
        while world.now < since + PROGRESS:
            world.run_until(world.now + 1.0)
            if world.acked_last > since + 0.5 and world.primary() is not None:
                world.count["recovered"] += 1
                return
        if world.excuse():
            world.count["left to a person"] += 1
            return
        world.fail(f"no write was acknowledged within {PROGRESS} s: {self.states()}")

    def expect_rest(self) -> None:
        """Nothing is elected any more, and everybody follows."""
        world = self.world
        limit = world.now + PROGRESS
        if world.primary() is None:
            return
        quiet_since, before = world.now, self.portrait()
        while world.now < limit:
            world.run_until(world.now + 1.0)
            now = self.portrait()
            if now != before or not self.all_follow():
                quiet_since, before = world.now, now
            if world.now >= quiet_since + REST:
                return
        world.fail(f"does not come to rest: {self.states()}")

    def portrait(self) -> object:
        return [(n.name, n.guard.ballot.vote if n.guard else None) for n in self.world.nodes.values()]

    def all_follow(self) -> bool:
        leader = self.world.primary()
        if leader is None or leader.guard is None or leader.guard.reign is None:
            return False
        reign = leader.guard.reign
        if reign.membership.version != self.settings.membership.version or reign.previous is not None:
            return bool(leader.guard.refusal)
        return all(
            node.witness or node is leader or (node.server.stream is not None and node.server.is_live())
            for node in self.world.nodes.values()
            if any(m.name == node.name for m in reign.membership.members)
        )

    def states(self) -> str:
        parts = []
        for node in self.world.nodes.values():
            guard = node.guard
            if guard is not None:
                vote = guard.ballot.vote
                parts.append(f"{node.name} {guard.desired.role} {node.server.state} e{vote.epoch} {guard.refusal}")
        return "; ".join(parts)

    def run_calm(self) -> World:
        """Five percent lost, up to 200 ms of delay, guards starved of CPU: nobody takes over."""
        world = self.world
        world.run_until(15.0)
        world.loss, world.delay = 0.05, (0.001, 0.2)
        before = world.count["promotions"]
        until = world.now + self.busy

        def starve() -> None:
            node = world.rng.choice(list(world.nodes.values()))
            if node.guard_paused_until < world.now - 0.3:
                node.guard_paused_until = world.now + world.rng.uniform(0.05, 0.7)
            if world.now < until:
                world.after(world.rng.uniform(0.1, 1.0), starve)

        starve()
        world.run_until(until)
        if world.count["promotions"] != before:
            world.fail("a needless failover")
        return world

    def run_deaf(self) -> World:
        """Everybody else sees the primary live: nobody votes for anybody, and writes go on."""
        world = self.world
        world.run_until(15.0)
        leader = world.primary()
        if leader is None:
            world.fail("no database came up")
            return world
        follower = next(n for n in world.nodes.values() if n is not leader and not n.witness)
        world.cut(leader.name, follower.name, ("guard",))
        before = [n.disk for n in world.nodes.values()]
        for _ in range(int(self.busy)):
            world.run_until(world.now + 1.0)
            if world.acked_last < world.now - 4.0:
                world.fail("writes stand still although the primary lives")
        if [n.disk for n in world.nodes.values()] != before:
            world.fail("votes changed although the primary lives")
        return world

    # --- changes that faults begin

    def lose_data(self, node: Node) -> None:
        """Only while nothing else is broken: two copies lost at once are more than is promised."""
        server = node.server
        server.die(server.incarnation)
        server.log, server.state = [], "absent"

    def change_membership(self) -> None:
        world, rng = self.world, self.world.rng
        current = self.settings.membership
        if world.now < 14.0 or any(
            n.guard and n.guard.reign and n.guard.reign.membership.version != current.version
            for n in world.nodes.values()
        ):
            return
        names = [m.name for m in current.members]
        kinds: list[Callable[[list[str]], str]] = [self.grow, self.shrink, self.witness]
        what = rng.choice(kinds)(names)
        if not what or len([n for n in names if n[0] != "w"]) < 2:
            return
        world.story("~", f"the membership should be {names}")
        members = tuple(member_of(n) for n in sorted(names))
        self.give(replace(self.settings, membership=changed(current, members)))
        for name in names:
            if name not in world.nodes:
                self.add(name)
        if what == "shrink":
            world.after(8.0, self.destroy)

    def grow(self, names: list[str]) -> str:
        letter = self.world.rng.choice("abc")
        number = 1 + max((int(n[1:]) for n in self.world.nodes if n[0] == letter), default=0)
        if len(names) >= 5 or number > 9:
            return ""
        names.append(f"{letter}{number}")
        return "grow"

    def shrink(self, names: list[str]) -> str:
        leader = self.world.primary()
        others = [n for n in names if leader is None or n != leader.name]
        names.remove(self.world.rng.choice(others))
        return "shrink"

    def witness(self, names: list[str]) -> str:
        number = 1 + max((int(n[1:]) for n in self.world.nodes if n[0] == "w"), default=0)
        if any(n[0] == "w" for n in names) or any(n[0] == "c" for n in names):
            return ""
        names.append(f"w{number}")
        return "witness"

    def destroy(self) -> None:
        """Members that the membership in force is without, as the operator does it."""
        world = self.world
        leader = world.primary()
        reign = leader.guard.reign if leader and leader.guard else None
        version = self.settings.membership.version
        if reign is None or reign.membership.version != version or reign.previous is not None:
            world.after(3.0, self.destroy)
            return
        keep = {m.name for m in reign.membership.members}
        for node in world.nodes.values():
            if node.name not in keep and not node.gone:
                node.crash()
                node.gone = True
                world.count["members removed"] += 1
