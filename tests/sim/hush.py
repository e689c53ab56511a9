"""Servers that run and don't answer the looks at them, and guards that hang, also while a primary dies: what is told of
them then must be nothing that has passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from hasite.guard.model import Database

if TYPE_CHECKING:
    from tests.sim.world import Node, World


def unseen(last: Database) -> Database:
    """What a driver says of a server that does not answer."""
    gone = replace(last, position=None, drained=False, acknowledging=True)
    return replace(gone, streaming=False, followers=frozenset())


class Hush:
    """Mixed into the faults."""

    world: World
    rng: Random
    over: bool
    busy: float
    tell: Callable[[str], None]
    crash_node: Callable[[Node], None]
    unlag: Callable[[str], None]

    def hush(self, chance: Random) -> None:
        """Now and then, for a moment."""
        if self.over or self.world.now > self.busy:
            return
        self.world.after(chance.uniform(1.0, 15.0), self.hush, chance)
        node = chance.choice(sorted(self.world.nodes.values(), key=lambda node: node.name))
        node.server.mute_until = self.world.now + chance.uniform(0.2, 2.5)

    def die_unheard(self) -> None:
        """The fastest follower's server does not answer its guard while the primary dies, and another lags."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone and not n.witness]
        if leader is None or len(others) < 2:
            return
        mute, late = self.rng.sample(others, 2)
        self.tell(f"{mute.name} does not answer, {late.name} lags, {leader.name} dies")
        death = self.rng.uniform(1.5, 3.0)
        mute.server.mute_until = self.world.now + death + 8.0
        self.world.db_lag[late.name] = self.rng.uniform(0.5, 1.0)
        self.world.after(death + 4.0, self.unlag, late.name)
        self.world.after(death, self.crash_node, leader)

    def die_by_halves(self) -> None:
        """The primary's server dies, then its machine, while one follower's guard hangs and another's stream lags."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone and not n.witness]
        if leader is None or len(others) < 2:
            return
        hung, late = self.rng.sample(others, 2)
        self.tell(f"{leader.name} dies by halves, {hung.name} hangs, {late.name} lags")
        hung.guard_paused_until = self.world.now + self.rng.uniform(0.8, 1.6)
        self.world.db_lag[late.name] = 1.5
        self.world.after(4.0, self.unlag, late.name)
        self.world.after(self.rng.uniform(0.3, 0.8), leader.server.kill)
        self.world.after(self.rng.uniform(0.8, 2.0), self.crash_node, leader)
