"""A fault against semi-synchronous replication: one answers for writes that a record does not count it for."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.world import Node, World


class Undertones:
    """Mixed into the faults."""

    world: World
    rng: Random
    tell: Callable[[str], None]
    crash_node: Callable[[Node], None]
    unlag: Callable[[str], None]

    def answer_out_of_turn(self) -> None:
        """A follower's guard hangs and its stream lags, so that it should count no more; then it is the fastest to
        answer, until the primary dies."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone and not n.witness]
        if leader is None or len(others) < 2:
            return
        hung, late = self.rng.sample(others, 2)
        self.tell(f"{hung.name} hangs and lags, then {late.name} lags, then {leader.name} dies")
        span = self.rng.uniform(6.0, 9.0)
        hung.guard_paused_until = self.world.now + span + 6.0
        self.world.db_lag[hung.name] = 5.0
        self.world.after(span, self.unlag, hung.name)
        self.world.after(span, self.world.db_lag.__setitem__, late.name, self.rng.uniform(0.7, 1.5))
        self.world.after(span + 6.0, self.unlag, late.name)
        self.world.after(span + self.rng.uniform(1.0, 3.0), self.crash_node, leader)
