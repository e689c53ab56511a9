"""A person's orders to promote, at any price or not, in time and in vain."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from hasite.guard.messages import Order
from hasite.guard.model import OPERATOR

from tests.sim.checks import FORCED

if TYPE_CHECKING:
    from tests.sim.world import Node, World


class Promotions:
    """Mixed into the faults."""

    world: World
    rng: Random
    over: bool
    busy: float
    tell: Callable[[str], None]
    abandon: Callable[[Node, Node, float], None]
    in_vain = False

    def promote(self, chance: Random) -> None:
        """Once or more often, for whatever epoch is known, whether there is a primary or not; often at any price."""
        if self.over or self.world.now > self.busy:
            return
        if chance.random() < 0.6:
            self.world.after(chance.uniform(1.0, 25.0), self.promote, chance)
        guards = [node.guard for node in self.world.nodes.values() if node.guard is not None]
        targets = sorted(node.name for node in self.world.nodes.values() if not node.witness and not node.gone)
        epoch = max((guard.reigned for guard in guards), default=0)
        order = Order(OPERATOR, "promote", chance.choice(targets), epoch, chance.random() < 0.5)
        self.tell(f"orders a promotion of {order.member}{', at any price' if order.accept_data_loss else ''}")
        self.world.send(chance.choice(self.world.operators), order.member, order)

    def order_in_vain(self) -> None:
        """A promotion at any price that a living primary turns down. Three quarters of a minute later it dies, and the
        chosen one has been left behind: nothing may come of the order any more. Once only."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone and not n.witness]
        if leader is None or leader.guard is None or not others or self.in_vain:
            return
        self.in_vain = True
        late = self.rng.choice(others)
        order = Order(OPERATOR, "promote", late.name, leader.guard.reigned, True)
        self.tell(f"orders a promotion of {late.name}, at any price, in vain")
        self.world.send(self.world.operators[0], late.name, order)
        self.world.after(FORCED - 11.0, self.abandon, leader, late, 12.0)
