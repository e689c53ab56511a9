"""The event loop, the nodes, the network and the clocks. Everything random comes from one seed."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from hasite.guard import protocol
from hasite.guard.messages import Message, Order
from hasite.guard.model import OPERATOR, Desired, Membership, Settings, Vote
from hasite.guard.state import Event, Given, Guard, Leave, Note, Observed, Output, Received, Send, Store, Tick

from tests.sim.checks import FORCED, Checks
from tests.sim.driver import Driven

POLL = 0.05
"""Seconds between two looks of the fuse."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Node:
    """A machine: a guard and its disk, a fuse, a server. ``lease``: the file that the fuse reads; None: NEVER."""

    def __init__(self, world: World, settings: Settings, rate: float, offset: float) -> None:
        self.world = world
        self.settings = settings
        self.name = settings.name
        member = next(m for m in settings.membership.members if m.name == self.name)
        self.location, self.witness = member.location, member.witness
        self.rate, self.offset, self.wall = rate, offset, 0.0
        self.up = False
        self.life = 0
        self.guard: Guard | None = None
        self.disk = Vote()
        self.server = Driven(world, self)
        self.lease: float | None = None
        self.paused_until = 0.0
        self.guard_paused_until = 0.0
        self.busy_until = 0.0
        self.waking = False
        self.inbox: list[Event] = []
        self.woke_at = -10.0
        self.gone = False

    def clock(self, now: float) -> float:
        """CLOCK_BOOTTIME: runs on while the machine is suspended."""
        return self.offset + self.rate * now

    def guard_wake(self) -> float:
        """When the guard's process runs again."""
        return max(self.paused_until, self.guard_paused_until)

    def boot(self) -> None:
        if self.up or self.gone:
            return
        self.up = True
        self.lease = None
        self.start_guard()

    def start_guard(self) -> None:
        if not self.up or self.guard is not None:
            return
        self.life += 1
        self.inbox = []
        self.busy_until = self.guard_paused_until = self.world.now
        self.guard = protocol.start(self.settings, self.disk, self.clock(self.world.now))
        self.aim()
        self.world.after(self.world.rng.uniform(0, 0.1), self.tick, self.life)
        self.world.after(0.05, self.keep_observing, self.life)

    def end_guard(self, since: float) -> None:
        """Asked to end, it ends once it reigns no more, or is killed after a while; later it is started again."""
        if self.guard is None:
            return
        if not self.guard.leaving:
            self.deliver(Leave())
        over = self.guard is not None and self.guard.leaving and self.guard.reign is None
        if over or self.world.now > since + 14.0:
            self.world.after(0.3, self.stop_life, self.life)
        else:
            self.world.after(0.1, self.end_life, self.life, since)

    def end_life(self, life: int, since: float) -> None:
        if life == self.life:
            self.end_guard(since)

    def stop_life(self, life: int) -> None:
        if life == self.life:
            self.stop_guard()
            self.world.after(self.world.rng.uniform(0.3, 12.0), self.start_guard)

    def stop_guard(self) -> None:
        """The process dies; a store under way may have come to the disk or not."""
        if self.guard is None:
            return
        self.guard = None
        self.life += 1
        self.server.forget_runtime()

    def crash(self) -> None:
        if not self.up:
            return
        self.stop_guard()
        self.up = False
        self.server.die(self.server.incarnation)

    # --- the guard's process

    def tick(self, life: int) -> None:
        if life != self.life or self.guard is None:
            return
        self.deliver(Tick())
        self.world.after(self.world.rng.uniform(0.06, 0.14), self.tick, life)

    def keep_observing(self, life: int) -> None:
        if life != self.life or self.guard is None:
            return
        self.observe()
        self.world.after(self.world.rng.uniform(0.2, 0.3), self.keep_observing, life)

    def observe(self) -> None:
        """A look at the server; what was reached is known from before it."""
        if self.guard is None or not self.up or self.guard_wake() > self.world.now:
            return
        if self.server.astray():
            self.server.push()
        reached = self.server.reached
        if reached is not None and reached != self.guard.desired:
            reached = None
        self.deliver(Observed(self.server.look(), reached))

    def deliver(self, event: Event) -> None:
        """To the guard, now or when it runs again. A paused one gets no more than it would find in its queues."""
        if self.guard is None or not self.up:
            return
        wake = max(self.guard_wake(), self.busy_until)
        if wake > self.world.now:
            if isinstance(event, Received | Given) or not self.inbox:
                self.inbox.append(event)
            if not self.waking:
                self.waking = True
                self.world.at(wake, self.wake, self.life)
            return
        self.take(event)

    def resume(self) -> None:
        """Ends every pause now."""
        self.guard_paused_until = min(self.guard_paused_until, self.world.now)
        self.paused_until = min(self.paused_until, self.world.now)
        self.busy_until = min(self.busy_until, self.world.now)
        self.wake(self.life)
        if self.guard is not None:
            self.server.push()
        self.world.fuse_look(self)

    def wake(self, life: int) -> None:
        self.waking = False
        if life != self.life or self.guard is None:
            return
        wake = max(self.guard_wake(), self.busy_until)
        if wake > self.world.now:
            self.waking = True
            self.world.at(wake, self.wake, life)
            return
        queue, self.inbox = self.inbox, []
        while queue:
            self.take(queue.pop(0))
            if self.guard is None or self.busy_until > self.world.now:
                self.inbox = queue + self.inbox
                if self.inbox and not self.waking:
                    self.waking = True
                    self.world.at(self.busy_until, self.wake, self.life)
                return

    def take(self, event: Event) -> None:
        """One step of the protocol, and its outputs."""
        if self.guard is None:
            return
        self.world.steps += 1
        message = event.message if isinstance(event, Received) else None
        if isinstance(message, Order) and message.accept_data_loss:
            self.world.forced_until = self.world.now + FORCED
        self.guard, outputs = protocol.step(self.guard, event, self.clock(self.world.now))
        self.aim()
        if outputs:
            self.carry_out(outputs)

    def carry_out(self, outputs: tuple[Output, ...]) -> None:
        """In order; a store holds up what follows it, and the process with it."""
        for number, output in enumerate(outputs):
            if isinstance(output, Send):
                self.world.send(self, output.to, output.message)
            elif isinstance(output, Store):
                delay = self.world.fsync(self)
                if delay > 0:
                    self.busy_until = self.world.now + delay
                    self.world.after(delay, self.stored, self.life, output.vote, outputs[number + 1 :])
                    return
                self.store(output.vote)
            elif isinstance(output, Note):
                self.world.story(self.name, output.text)

    def store(self, vote: Vote) -> None:
        self.disk = vote

    def stored(self, life: int, vote: Vote, rest: tuple[Output, ...]) -> None:
        if life != self.life:
            if self.world.rng.random() < 0.5 and vote.epoch > self.disk.epoch:
                self.store(vote)
            return
        self.store(vote)
        self.carry_out(rest)

    def aim(self) -> None:
        """The lease file first, then the server's goal."""
        guard = self.guard
        assert guard is not None
        if guard.deadline is not None and guard.deadline != self.lease:
            self.lease = guard.deadline
            self.world.fuse_look(self)
        if guard.desired is not self.server.desired:
            self.server.aim(guard.desired)
        harmless = self.server.state in ("standby", "stopped", "absent") and not self.server.dying
        if harmless and guard.deadline is None and guard.desired.role != "primary":
            self.lease = None


class World(Checks):
    """Time is real time; nodes know their own clocks only. ``kill_time``: the longest that a kill takes; with the
    fuse's poll it is within ``Timing.kill``."""

    kill_time = 0.4

    def __init__(self, seed: int, story: bool = False) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.number = 0
        self.nodes: dict[str, Node] = {}
        self.operators: list[Any] = []
        self.blocked: Counter[tuple[str, str, str]] = Counter()
        self.loss = self.double = 0.0
        self.delay = (0.001, 0.02)
        self.db_lag: dict[str, float] = {}
        self.slow_disk: set[str] = set()
        self.slow_links: dict[tuple[str, str], float] = {}
        self.doomed: set[str] = set()
        self.ambush: Callable[[], None] | None = None
        self.ambush_after, self.ambush_word = 0, ""
        self.count: Counter[str] = Counter()
        self.semi_sync = False
        self.appended: dict[int, float] = {}
        self.last_value = 0
        self.told = story
        self.tale: list[str] = []
        self.begin_checks()

    # --- time

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        self.number += 1
        heapq.heappush(self.queue, (when, self.number, what, args))

    def after(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        self.number += 1
        heapq.heappush(self.queue, (self.now + delay, self.number, what, args))

    def run_until(self, when: float) -> None:
        queue = self.queue
        while queue and queue[0][0] <= when:
            self.now, _, what, args = heapq.heappop(queue)
            what(*args)
        self.now = when

    # --- the network

    def linked(self, one: Node | Any, other: Node | Any, kind: str) -> bool:
        """Whether what ``one`` sends comes to ``other``."""
        return one.up and other.up and not self.blocked[(one.name, other.name, kind)]

    def cut(self, one: str, other: str, kinds: tuple[str, ...] = ("guard", "db")) -> None:
        for kind in kinds:
            self.blocked[(one, other, kind)] += 1

    def mend(self, one: str, other: str, kinds: tuple[str, ...] = ("guard", "db")) -> None:
        for kind in kinds:
            self.blocked[(one, other, kind)] = max(0, self.blocked[(one, other, kind)] - 1)

    def send(self, source: Node | Any, to: str, message: Message) -> None:
        if to == OPERATOR:
            for operator in self.operators:
                self.carry(source, operator, message)
        elif to in self.nodes:
            self.carry(source, self.nodes[to], message)

    def carry(self, source: Node | Any, target: Node | Any, message: Message) -> None:
        rng = self.rng
        if self.blocked[(source.name, target.name, "guard")] or (self.loss and rng.random() < self.loss):
            return
        low, high = self.delay
        delay = low + (high - low) * rng.random()
        if self.slow_links:
            delay += self.slow_links.get((source.name, target.name), 0.0)
        self.after(delay, self.arrive, source, target, message)
        if self.double and rng.random() < self.double:
            self.after(delay + rng.uniform(0, 3.0), self.arrive, source, target, message)

    def arrive(self, source: Node | Any, target: Node | Any, message: Message) -> None:
        if target.up:
            target.deliver(Received(message))

    def db_delay(self, source: Node, target: Node) -> float:
        low, high = self.delay
        return self.rng.uniform(low, high) + self.db_lag.get(target.name, 0.0)

    def flow_from(self, source: Node) -> None:
        for node in self.nodes.values():
            stream = node.server.stream
            if stream is not None and stream.upstream == source.name:
                node.server.flow()

    # --- the fuse

    def fuse_look(self, node: Node) -> None:
        """The fuse will see the deadline at the latest one poll after it; it needs no guard."""
        if node.lease is None:
            return
        when = max(self.now, (node.lease - node.offset) / node.rate) + self.rng.uniform(0.0, POLL)
        self.at(when, self.fuse, node)

    def fuse(self, node: Node) -> None:
        if not node.up or node.lease is None or node.server.state in ("absent", "stopped") or node.server.dying:
            return
        if node.paused_until > self.now:
            self.at(node.paused_until + self.rng.uniform(0.0, POLL), self.fuse, node)
            return
        if node.clock(self.now) >= node.lease:
            self.count["fuse fences"] += 1
            node.server.kill()

    # --- the disk

    def fsync(self, node: Node) -> float:
        if node.name in self.doomed:
            self.doomed.discard(node.name)
            self.count["crashes in a store"] += 1
            self.after(self.rng.uniform(0.0, 0.3), node.crash)
            self.after(self.rng.uniform(0.5, 3.0), node.boot)
            return 0.3
        if node.name in self.slow_disk:
            return self.rng.uniform(0.05, 1.5)
        return 0.0

    def value(self) -> int:
        self.last_value += 1
        return self.last_value

    # --- the story

    def story(self, who: str, text: str) -> None:
        self.count_note(text)
        if self.ambush is not None and who != "~" and self.ambush_word in text:
            self.ambush_after -= 1
            if self.ambush_after < 0:
                strike, self.ambush = self.ambush, None
                strike()
        if self.told:
            print(f"{self.now:9.3f} {who:9} {text}")
        else:
            self.tale.append(f"{self.now:9.3f} {who:9} {text}")

    def fail(self, text: str) -> None:
        """An invariant does not hold."""
        raise Violation(f"seed {self.seed}, {self.now:.3f} s: {text}")

    def give(self, settings: Settings) -> None:
        """The operator's settings come to every guard, some later than others."""
        for name, node in self.nodes.items():
            mine = replace(settings, name=name)
            self.after(self.rng.uniform(0.0, 2.0), self.given, node, mine)

    def given(self, node: Node, settings: Settings) -> None:
        if settings.membership.version >= node.settings.membership.version:
            node.settings = settings
            node.deliver(Given(settings))


__all__ = ["Desired", "Membership", "Node", "Violation", "World"]
