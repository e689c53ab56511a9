"""What goes wrong, by seed. Every fault ends by itself or when everything is healed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from hasite.guard import election
from hasite.guard.messages import Order
from hasite.guard.model import OPERATOR, Member, Membership

from tests.sim.checks import WAKE_WINDOW
from tests.sim.hush import Hush
from tests.sim.promotions import Promotions
from tests.sim.undertones import Undertones

if TYPE_CHECKING:
    from tests.sim.scenario import Scenario
    from tests.sim.world import Node


class Faults(Undertones, Hush, Promotions):
    """``busy``: until when faults are begun. ``focus``: only these kinds; none named: a few drawn by chance, or all, as
    a few kinds that come often reach states that all kinds together never do."""

    def __init__(self, scenario: Scenario, busy: float, pace: float, focus: tuple[str, ...] = ()) -> None:
        self.scenario, self.world, self.rng = scenario, scenario.world, scenario.world.rng
        self.busy, self.pace = busy, pace
        self.over = False
        kinds: list[tuple[int, Callable[[], None]]] = [
            (6, self.cut_site),
            (4, self.cut_pair),
            (4, self.cut_one_way),
            (2, self.cut_guards_only),
            (2, self.cut_operator),
            (6, self.crash_node),
            (4, self.crash_primary),
            (3, self.crash_site),
            (1, self.reboot_all),
            (4, self.restart_guard),
            (4, self.end_guard),
            (5, self.pause_guard),
            (3, self.pause_primary_guard),
            (2, self.pause_node),
            (4, self.crash_server),
            (2, self.crash_operator),
            (2, self.pause_operator),
            (2, self.slow_object),
            (2, self.lose_object),
            (2, self.mute_object),
            (3, self.slow_disk),
            (3, self.bad_network),
            (2, self.jump_clock),
            (3, self.slow_link),
            (3, self.crash_in_store),
            (6, self.lie_in_wait),
            (3, self.kill_at_turn),
            (2, self.crash_follower),
            (1, self.die_by_halves),
            (1, self.lose_a_record),
            (4, self.switch_over),
            (3, self.change_membership),
            (2, self.lag),
            (2, self.leave_behind),
            (1, self.lose_disk),
        ]
        self.kinds = [kind for weight, kind in kinds for _ in range(weight)]
        if focus:
            self.kinds = [getattr(self, name) for name in focus]
        elif self.rng.random() < 0.6:
            self.kinds = [kind for _, kind in self.rng.sample(kinds, self.rng.randint(2, 6))]
        self.world.after(self.rng.uniform(0, 2 * pace), self.strike)
        # By a chance of their own: whatever orders there are, other seeds tell the stories that they told.
        chance = Random(f"{self.world.seed} orders")
        if not focus and chance.random() < 0.2:
            self.promote(chance)
        chance = Random(f"{self.world.seed} looks")
        if not focus and chance.random() < 0.3:
            self.hush(chance)

    def strike(self) -> None:
        if self.over or self.world.now > self.busy:
            return
        self.rng.choice(self.kinds)()
        self.world.after(self.rng.expovariate(1 / self.pace), self.strike)

    # --- helpers

    def some(self) -> Node:
        return self.rng.choice([n for n in self.world.nodes.values() if not n.gone])

    def span(self) -> float:
        return self.rng.choice((0.3, 1.0, 3.0, 5.0, 8.0, 15.0)) * self.rng.uniform(0.5, 1.5)

    def tell(self, text: str) -> None:
        self.world.count["faults"] += 1
        self.world.story("~", text)

    def names(self) -> list[str]:
        return [*self.world.nodes, *(o.name for o in self.world.operators)]

    def cut_all(self, pairs: list[tuple[str, str]], kinds: tuple[str, ...] = ("guard", "db")) -> None:
        for one, other in pairs:
            self.world.cut(one, other, kinds)
        self.world.after(self.span(), self.mend_all, pairs, kinds)

    def mend_all(self, pairs: list[tuple[str, str]], kinds: tuple[str, ...]) -> None:
        for one, other in pairs:
            self.world.mend(one, other, kinds)

    # --- the network

    def cut_site(self) -> None:
        """A location from all others; the operators stay on one side or the other."""
        location = self.some().location
        inside = {n.name for n in self.world.nodes.values() if n.location == location}
        inside |= {o.name for o in self.world.operators if self.rng.random() < 0.5}
        way = self.rng.choice(("both", "both", "in", "out"))
        self.tell(f"cuts {sorted(inside)} off: {way}")
        pairs = []
        for one in inside:
            for other in set(self.names()) - inside:
                if way in ("both", "out"):
                    pairs.append((one, other))
                if way in ("both", "in"):
                    pairs.append((other, one))
        self.cut_all(sorted(pairs))

    def cut_pair(self) -> None:
        one, other = self.rng.sample(self.names(), 2)
        self.tell(f"cuts {one} from {other}")
        self.cut_all([(one, other), (other, one)])

    def cut_one_way(self) -> None:
        one, other = self.rng.sample(self.names(), 2)
        self.tell(f"{other} no longer hears {one}")
        self.cut_all([(one, other)])

    def cut_guards_only(self) -> None:
        one, other = self.rng.sample(self.names(), 2)
        kind = self.rng.choice(("guard", "db"))
        self.tell(f"cuts {one} from {other}, {kind} only")
        self.cut_all([(one, other), (other, one)], (kind,))

    def cut_operator(self) -> None:
        operator = self.rng.choice(self.world.operators)
        self.tell(f"cuts {operator.name} off")
        self.cut_all([p for n in self.world.nodes for p in ((operator.name, n), (n, operator.name))])

    def bad_network(self) -> None:
        world = self.world
        world.loss, world.double = self.rng.uniform(0.05, 0.3), self.rng.uniform(0, 0.2)
        world.delay = (0.001, self.rng.choice((0.1, 0.3, 0.6, 3.0)))
        self.tell(f"loses {world.loss:.0%}, delays by up to {world.delay[1]:.1f} s")
        world.after(self.span(), self.good_network)

    def slow_link(self) -> None:
        """One way only: an answer is under way for longer than anything else."""
        one, other = self.rng.sample(self.names(), 2)
        self.world.slow_links[one, other] = self.rng.uniform(0.3, 4.0)
        self.tell(f"what {one} sends to {other} takes {self.world.slow_links[one, other]:.1f} s")
        self.world.after(self.span(), self.quicken, one, other)

    def lie_in_wait(self) -> None:
        """Something goes wrong right after one of the next turns of the story, whatever it is."""
        self.lurk(self.spring, "", self.rng.randrange(4))

    def spring(self) -> None:
        kind = self.rng.choice(
            (self.crash_primary, self.crash_node, self.pause_primary_guard, self.cut_site, self.cut_pair)
        )
        self.world.after(self.rng.choice((0.0, self.rng.uniform(0.0, 0.4))), kind)

    def kill_at_turn(self) -> None:
        """The primary dies right after one of the next turns of the story."""
        self.lurk(lambda: self.world.after(self.rng.uniform(0.0, 0.3), self.crash_primary), "", self.rng.randrange(4))

    def lurk(self, strike: Callable[[], None], word: str, skip: int) -> None:
        self.world.ambush, self.world.ambush_word, self.world.ambush_after = strike, word, skip

    def lose_a_record(self) -> None:
        """A follower goes; a voter crashes while it stores what follows from that; then the primary goes as well."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone]
        followers = [n for n in others if not n.witness]
        if leader is None or len(others) < 2 or not followers:
            return
        follower = self.rng.choice(followers)
        voter = self.rng.choice([n for n in others if n is not follower])
        self.tell(f"{follower.name} goes, {voter.name} will crash while it stores a vote, then {leader.name} goes")
        follower.crash()
        self.world.after(6.0, follower.boot)
        self.world.doomed.add(voter.name)
        self.lurk(lambda: self.world.after(self.rng.uniform(0.3, 1.2), self.lose_for, leader, 20.0), "record:", 0)

    def lose_for(self, node: Node, span: float) -> None:
        node.crash()
        self.world.after(span, node.boot)

    def crash_in_store(self) -> None:
        node = self.some()
        self.tell(f"{node.name} will crash while it stores a vote")
        self.world.doomed.add(node.name)

    def good_network(self) -> None:
        self.world.loss = self.world.double = 0.0
        self.world.delay = (0.001, 0.02)

    def lag(self) -> None:
        node = self.some()
        self.world.db_lag[node.name] = self.rng.choice((0.5, 1.0, 1.0, 4.0, 12.0)) * self.rng.uniform(0.3, 1.0)
        self.tell(f"{node.name} receives {self.world.db_lag[node.name]:.1f} s late")
        self.world.after(self.span(), self.unlag, node.name)

    def unlag(self, name: str) -> None:
        self.world.db_lag.pop(name, None)

    def quicken(self, one: str, other: str) -> None:
        self.world.slow_links.pop((one, other), None)

    # --- machines and processes

    def crash_node(self, node: Node | None = None) -> None:
        node = node or self.some()
        self.tell(f"crashes {node.name}")
        node.crash()
        self.world.after(self.span(), node.boot)

    def crash_primary(self) -> None:
        self.crash_node(self.world.primary())

    def crash_follower(self) -> None:
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone]
        if others:
            self.crash_node(self.rng.choice(others))

    def crash_site(self) -> None:
        location = self.some().location
        for node in self.world.nodes.values():
            if node.location == location and not node.gone:
                self.crash_node(node)

    def reboot_all(self) -> None:
        for node in self.world.nodes.values():
            self.crash_node(node)

    def restart_guard(self) -> None:
        node = self.some()
        self.tell(f"kills the guard of {node.name}")
        node.stop_guard()
        self.world.after(self.rng.uniform(0.1, 4.0), node.start_guard)

    def end_guard(self) -> None:
        """As a shutdown, or an upgrade, of the primary or another member: in order, and started again later."""
        node = self.rng.choice((self.world.primary() or self.some(), self.some()))
        self.tell(f"asks the guard of {node.name} to end")
        node.end_guard(self.world.now)

    def pause_guard(self, node: Node | None = None) -> None:
        node = node or self.some()
        span = self.rng.choice((self.span(), self.rng.uniform(2.0, 6.0), 60.0 if self.rng.random() < 0.2 else 1.0))
        self.tell(f"stops the guard of {node.name} for {span:.1f} s")
        node.guard_paused_until = max(node.guard_paused_until, self.world.now + span)

    def pause_primary_guard(self) -> None:
        self.pause_guard(self.world.primary())

    def pause_node(self) -> None:
        node = self.some()
        span = self.span()
        self.tell(f"suspends {node.name} for {span:.1f} s")
        node.paused_until = max(node.paused_until, self.world.now + span)
        node.woke_at = node.paused_until
        self.world.at(node.paused_until, self.world.fuse_look, node)
        self.world.at(node.paused_until + WAKE_WINDOW + 0.001, self.world.check_single)

    def crash_server(self) -> None:
        node = self.world.primary() or self.some()
        self.tell(f"kills the server of {node.name}")
        node.server.kill()

    def leave_behind(self) -> None:
        """The primary and a follower lose sight of each other, and after a while the primary dies: what it acknowledged
        meanwhile is on it alone."""
        leader = self.world.primary()
        others = [n for n in self.world.nodes.values() if n is not leader and not n.gone and not n.witness]
        if leader is None or not others:
            return
        self.abandon(leader, self.rng.choice(others), self.rng.uniform(1.0, 20.0))

    def abandon(self, leader: Node, late: Node, death: float) -> None:
        self.tell(f"{late.name} is left behind by {leader.name}")
        pairs = [(leader.name, late.name), (late.name, leader.name)]
        for pair in pairs:
            self.world.cut(*pair, ("guard", "db"))
        self.world.after(death, self.crash_node, leader)
        self.world.after(death + self.span(), self.mend_all, pairs, ("guard", "db"))

    def lose_disk(self) -> None:
        """A standby's data turns out to be unusable; it is thrown away."""
        node = self.some()
        if node.server.state == "standby" and node.server.is_live():
            self.tell(f"{node.name} loses its data")
            self.scenario.lose_data(node)

    def crash_operator(self) -> None:
        operator = self.rng.choice(self.world.operators)
        self.tell(f"crashes {operator.name}")
        operator.crash()
        self.world.after(self.span(), operator.boot)

    def pause_operator(self) -> None:
        operator = self.rng.choice(self.world.operators)
        operator.paused_until = self.world.now + self.span()
        self.tell(f"stops {operator.name}")

    def lose_object(self) -> None:
        operator = self.rng.choice(self.world.operators)
        operator.alone_until = self.world.now + self.span()
        self.tell(f"{operator.name} does not reach the API server")

    def slow_object(self) -> None:
        shared = self.scenario.shared
        shared.slow, shared.away = self.rng.uniform(0, 3.0), self.rng.random() < 0.5
        self.tell(f"the API server is {'away' if shared.away else 'slow'}")
        self.world.after(self.span(), self.quick_object)

    def mute_object(self) -> None:
        self.scenario.shared.mute = True
        self.tell("writes to the API server time out")
        self.world.after(self.span(), self.quick_object)

    def quick_object(self) -> None:
        shared = self.scenario.shared
        shared.slow, shared.away, shared.mute = 0.0, False, False

    def slow_disk(self) -> None:
        node = self.some()
        self.tell(f"{node.name} has a slow disk")
        self.world.slow_disk.add(node.name)
        self.world.after(self.span(), self.world.slow_disk.discard, node.name)
        if self.rng.random() < 0.5:
            self.world.after(self.rng.uniform(0.5, 4.0), self.crash_node, node)

    def jump_clock(self) -> None:
        node = self.some()
        node.wall += self.rng.choice((-300.0, 300.0, -2.0, 2.0))
        self.tell(f"the wall clock of {node.name} jumps")

    # --- what people order

    def switch_over(self) -> None:
        leader = self.world.primary()
        if leader is None or leader.guard is None or leader.guard.reign is None:
            return
        targets = sorted(election.data_members(leader.guard.reign.membership) - {leader.name})
        if targets:
            order = Order(OPERATOR, "switchover", self.rng.choice(targets), leader.guard.reign.epoch)
            self.tell(f"orders a switchover from {leader.name} to {order.member}")
            self.world.send(self.rng.choice(self.world.operators), leader.name, order)

    def change_membership(self) -> None:
        self.scenario.change_membership()


def voters_of(members: tuple[Member, ...]) -> tuple[str, ...]:
    """One guard a location, and the operator when that makes an odd number."""
    first: dict[str, str] = {}
    for member in sorted(members, key=lambda m: m.name):
        first.setdefault(member.location, member.name)
    voters = tuple(sorted(first.values()))
    return voters if len(voters) % 2 else (*voters, OPERATOR)


def changed(old: Membership, members: tuple[Member, ...]) -> Membership:
    """The next version, with these members."""
    return replace(old, version=old.version + 1, members=members, voters=voters_of(members))
