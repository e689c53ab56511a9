"""The driver of a modelled server: what ``reach`` does, and how long it takes.

Operations are generators that yield seconds; they end when what is desired changes, as ``reach`` does.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from hasite.guard.model import Desired

from tests.sim.server import Server, Stream

if TYPE_CHECKING:
    from tests.sim.world import Node, World

Operation = Generator[float, None, bool]


class Driven(Server):
    """``op``: number of the operation under way."""

    def __init__(self, world: World, node: Node) -> None:
        super().__init__(world, node)
        self.running: Operation | None = None
        self.op = 0

    # --- what the guard's runtime does with it

    def aim(self, desired: Desired) -> None:
        """Another goal: whatever was under way ends, and a fence is immediate."""
        if desired == self.desired:
            return
        self.desired = desired
        self.push()

    def push(self) -> None:
        self.op += 1
        self.reached = None
        desired = self.desired
        if desired is None:
            return
        if desired.role == "stopped" and not desired.clean:
            self.kill()
        self.running = self.reach(desired)
        self.world.after(self.world.rng.uniform(0.0, 0.03), self.proceed, self.op)

    def proceed(self, op: int) -> None:
        if op != self.op or self.running is None or not self.node.up:
            return
        wake = self.node.guard_wake()
        if wake > self.world.now:
            self.world.at(wake, self.proceed, op)
            return
        if self.node.guard is None:
            return
        try:
            delay = next(self.running)
        except StopIteration as end:
            self.running = None
            if end.value:
                self.reached = self.desired
                self.world.after(self.world.rng.uniform(0.0, 0.03), self.node.observe)
            else:
                self.running = self.reach(self.desired) if self.desired else None
                self.world.after(0.3, self.proceed, op)
            return
        self.world.after(delay, self.proceed, op)

    def forget_runtime(self) -> None:
        """The guard is gone, and with it the driver."""
        self.op += 1
        self.running = None
        self.desired = self.reached = None

    # --- operations

    def reach(self, desired: Desired) -> Operation:
        if desired.role == "primary":
            return self.to_primary(desired)
        if desired.role == "standby":
            return self.to_standby(desired)
        if desired.role == "frozen":
            return self.to_frozen()
        return self.to_stopped(desired)

    def start(self) -> Operation:
        rng = self.world.rng
        while self.dying:
            yield 0.05
        if self.state in ("standby", "primary"):
            return True
        if self.state != "stopped":
            yield 0.1
            return False
        self.state = "starting"
        life = self.incarnation
        self.world.fuse_look(self.node)
        yield rng.uniform(0.1, 1.0)
        if self.incarnation != life or self.state != "starting":
            return False
        self.state = "standby"
        return True

    def no_primary(self) -> Operation:
        """A server that is primary and is to be anything else is stopped first."""
        if self.state == "primary":
            self.kill()
        while self.dying:
            yield 0.05
        if self.state == "starting":
            self.die(self.incarnation)
        return True

    def to_primary(self, desired: Desired) -> Operation:
        rng = self.world.rng
        if self.state == "absent":
            if not desired.create:
                yield 0.3
                return False
            yield rng.uniform(0.2, 0.8)
            self.state = "stopped"
        if self.state == "starting":
            self.die(self.incarnation)
        if self.state == "stopped" and not (yield from self.start()):
            return False
        if self.state == "standby":
            self.stream = None
            life = self.incarnation
            yield rng.uniform(0.02, 0.4)
            if self.incarnation != life or self.state != "standby" or self.dying:
                return False
            self.promote(desired)
        elif self.state == "primary":
            yield rng.uniform(0.0, 0.05)
            if self.state != "primary":
                return False
            self.sync = desired.sync
            if self.epoch != desired.epoch:
                self.begin_epoch(desired.epoch)
            self.settle()
        return self.state == "primary"

    def to_standby(self, desired: Desired) -> Operation:
        rng = self.world.rng
        yield from self.no_primary()
        upstream = self.world.nodes.get(desired.upstream or "")
        if upstream is None or desired.upstream == self.node.name:
            yield 0.3
            return False
        if self.state == "absent":
            yield rng.uniform(0.5, 3.0)
            return self.copy(upstream)
        if not (yield from self.start()):
            return False
        sync, me = desired.sync, self.node.name
        answers = not self.world.semi_sync or (sync is not None and sync.required > 0 and me in sync.eligible)
        stream = self.stream
        if stream is not None and stream.upstream == upstream.name and stream.answers == answers and self.is_live():
            return True
        self.stream = None
        yield rng.uniform(0.01, 0.2)
        return (yield from self.connect(upstream, answers))

    def connect(self, upstream: Node, answers: bool) -> Operation:
        """Streams from the upstream; a history that isn't part of the upstream's is taken back and saved first."""
        source = upstream.server
        if self.state != "standby" or self.dying:
            return False
        if source.state not in ("primary", "standby") or not self.world.linked(upstream, self.node, "db"):
            return False
        if self.log != source.log[: len(self.log)]:
            if source.position() < self.position() or source.state != "primary":
                self.world.count["stale upstream refused"] += 1
                return False
            self.die(self.incarnation)
            yield self.world.rng.uniform(0.3, 2.0)
            if not self.is_down() or source.state != "primary" or not self.world.linked(upstream, self.node, "db"):
                return False
            common = 0
            for mine, theirs in zip(self.log, source.log, strict=False):
                if mine != theirs:
                    break
                common += 1
            self.saved += self.log[common:]
            self.world.count["rewinds"] += 1
            self.log = list(source.log)
            if not (yield from self.start()) or self.log != source.log[: len(self.log)]:
                return False
        self.stream = Stream(upstream.name, source.incarnation, answers=answers)
        self.drained_at = self.world.now
        self.flow()
        self.acknowledge()
        return True

    def copy(self, upstream: Node) -> bool:
        source = upstream.server
        if source.state not in ("primary", "standby") or not self.world.linked(upstream, self.node, "db"):
            return False
        if self.state != "absent":
            return False
        self.log = list(source.log)
        self.state = "stopped"
        self.world.count["clones"] += 1
        return False

    def to_frozen(self) -> Operation:
        rng = self.world.rng
        if self.state == "absent":
            yield 0.01
            return True
        yield from self.no_primary()
        if not (yield from self.start()):
            return False
        yield rng.uniform(0.0, 0.15)
        self.stream = None
        while self.world.now < self.drained_at:
            yield 0.05
        return self.state == "standby"

    def to_stopped(self, desired: Desired) -> Operation:
        if self.state == "starting":
            self.die(self.incarnation)
        if self.state in ("standby", "primary"):
            if desired.clean and self.state == "primary":
                self.stop_accepting()
                yield self.world.rng.uniform(0.1, 0.6)
                for _ in range(10):
                    if self.followers() and all(self.acks.get(f, 0) >= len(self.log) for f in self.followers()):
                        break
                    yield 0.2
                self.die(self.incarnation)
            else:
                self.kill()
        while self.dying:
            yield 0.05
        yield 0.01
        return self.state in ("stopped", "absent")
