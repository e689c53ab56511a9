"""A database server and its driver, modelled: a log of entries, streams of it, and a server that takes its time.

Operations of the driver are generators that yield seconds; they end when what is desired changes, as ``reach`` does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasite.guard.model import Database, Desired, Position, State, SyncRecord

if TYPE_CHECKING:
    from tests.sim.world import Node, World

DETECT = 1.2
"""Seconds after which a follower and its upstream notice that their stream is broken."""
Entry = tuple[int, int]
Operation = Generator[float, None, bool]


@dataclass(slots=True)
class Stream:
    """What a follower receives, from which server in which life of it. ``bad_since``: the network has been broken."""

    upstream: str
    incarnation: int
    bad_since: float | None = None
    sent: int = 0


@dataclass(slots=True)
class Pending:
    """A write that its client waits for."""

    index: int
    value: int


class Server:
    """``log``: on disk. ``acks``: by follower, how much it has on disk. ``op``: number of the operation under way."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.state: State = "absent"
        self.log: list[Entry] = []
        self.saved: list[Entry] = []
        self.incarnation = 0
        self.epoch = 0
        self.stream: Stream | None = None
        self.sync: SyncRecord | None = None
        self.accepting = False
        self.acks: dict[str, int] = {}
        self.pending: list[Pending] = []
        self.desired: Desired | None = None
        self.reached: Desired | None = None
        self.op = 0
        self.running: Operation | None = None
        self.drained_at = 0.0
        self.last_live = -1.0
        self.dying = False

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
        if self.stream is not None and self.stream.upstream == upstream.name and self.is_live():
            return True
        self.stream = None
        yield rng.uniform(0.01, 0.2)
        return (yield from self.connect(upstream))

    def connect(self, upstream: Node) -> Operation:
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
            if self.state != "stopped" or source.state != "primary" or not self.world.linked(upstream, self.node, "db"):
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
        self.stream = Stream(upstream.name, source.incarnation)
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

    # --- the server itself

    def promote(self, desired: Desired) -> None:
        self.state = "primary"
        self.acks = {}
        self.sync = desired.sync
        self.begin_epoch(desired.epoch)
        self.accepting = True
        self.world.promoted(self.node)

    def begin_epoch(self, epoch: int) -> None:
        """The row in hasite.epoch, which waits for nobody."""
        self.epoch = epoch
        self.append(self.world.value())

    def append(self, value: int) -> None:
        self.log.append((self.epoch, value))
        self.world.appended[value] = self.world.now
        self.world.flow_from(self.node)

    def write(self, value: int) -> None:
        """A client's."""
        if not self.accepting:
            return
        self.append(value)
        self.pending.append(Pending(len(self.log), value))
        self.settle()

    def settle(self) -> None:
        """Acknowledges what may be."""
        if not self.pending or not self.accepting:
            return
        sync = self.sync
        reached = len(self.log)
        if sync is not None and sync.required:
            others = sorted((self.acks.get(n, 0) for n in sync.eligible if n != self.node.name), reverse=True)
            reached = others[sync.required - 1] if len(others) >= sync.required else 0
        done = [p for p in self.pending if p.index <= reached]
        if done:
            self.pending = self.pending[len(done) :]
            self.world.acknowledged(self.node, done[-1].index, len(done))

    def kill(self) -> None:
        """SIGKILL to everything; the server takes writes until it is gone."""
        if self.state in ("absent", "stopped") or self.dying:
            return
        self.dying = True
        self.world.after(self.world.rng.uniform(0.01, self.world.kill_time), self.die, self.incarnation)

    def die(self, incarnation: int) -> None:
        """It is gone."""
        if incarnation != self.incarnation:
            return
        self.dying = False
        self.incarnation += 1
        self.stop_accepting()
        self.pending = []
        self.stream = None
        self.acks = {}
        if self.state != "absent":
            self.state = "stopped"

    def stop_accepting(self) -> None:
        self.accepting = False

    # --- streams

    def flow(self) -> None:
        """Sends this follower what it lacks."""
        stream = self.stream
        if stream is None:
            return
        source = self.world.nodes[stream.upstream]
        upto = len(source.server.log)
        if upto > max(stream.sent, len(self.log)):
            stream.sent = upto
            delay = self.world.db_delay(source, self.node)
            self.world.after(delay, self.deliver, stream, upto)

    def deliver(self, stream: Stream, upto: int) -> None:
        world = self.world
        source = world.nodes[stream.upstream]
        if stream is not self.stream or source.server.incarnation != stream.incarnation:
            return
        wake = max(self.node.paused_until, source.paused_until)
        if wake > world.now:
            world.at(wake, self.deliver, stream, upto)
            return
        if not world.linked(source, self.node, "db"):
            world.after(0.3, self.deliver, stream, upto)
            return
        have = len(self.log)
        if upto <= have:
            return
        if have and source.server.log[have - 1] != self.log[-1]:
            world.fail(f"{self.node.name} follows a history of {source.name} that is not its own")
        self.log += source.server.log[have:upto]
        self.drained_at = world.now + world.rng.uniform(0.0, 0.1)
        self.acknowledge()
        world.flow_from(self.node)
        self.flow()

    def acknowledge(self) -> None:
        assert self.stream is not None
        world, stream = self.world, self.stream
        source = world.nodes[stream.upstream]
        if world.linked(self.node, source, "db"):
            world.after(world.db_delay(self.node, source), self.take_ack, source, stream, len(self.log))
        else:
            world.after(0.3, self.acknowledge_again, stream)

    def acknowledge_again(self, stream: Stream) -> None:
        if stream is self.stream:
            self.acknowledge()

    def take_ack(self, source: Node, stream: Stream, have: int) -> None:
        server = source.server
        if server.incarnation != stream.incarnation:
            return
        if source.paused_until > self.world.now:
            self.world.at(source.paused_until, self.take_ack, source, stream, have)
            return
        server.acks[self.node.name] = max(have, server.acks.get(self.node.name, 0))
        server.settle()

    def is_live(self) -> bool:
        """Whether the stream counts as live: the upstream's life goes on, and the network was not long broken."""
        stream, world = self.stream, self.world
        if stream is None:
            return False
        source = world.nodes[stream.upstream]
        same = source.up and source.server.incarnation == stream.incarnation
        whole = world.linked(source, self.node, "db") and world.linked(self.node, source, "db")
        if same and whole and source.paused_until <= world.now:
            stream.bad_since = None
            return True
        if not source.up or not whole or source.paused_until > world.now:
            if stream.bad_since is None:
                stream.bad_since = world.now
            if world.now < stream.bad_since + DETECT:
                return True
        self.stream = None
        return False

    def followers(self) -> frozenset[str]:
        """Who streams from here and has all but a moment's worth."""
        close = len(self.log) - 5
        return frozenset(
            node.name
            for node in self.world.nodes.values()
            if node.server.stream is not None
            and node.server.stream.upstream == self.node.name
            and node.server.stream.incarnation == self.incarnation
            and node.server.is_live()
            and self.acks.get(node.name, 0) >= close
        )

    def position(self) -> Position:
        return Position(self.log[-1][0], len(self.log)) if self.log else Position(0, 0)

    def look(self) -> Database:
        """What the driver's ``observe`` says."""
        state = self.state
        if state == "absent":
            return Database("absent")
        world = self.world
        live = state == "standby" and self.is_live()
        lag: float | None = None
        if live and self.stream is not None:
            self.last_live = world.now
            source = world.nodes[self.stream.upstream].server.log
            lag = world.now - world.appended[source[len(self.log)][1]] if len(source) > len(self.log) else 0.0
        return Database(
            state,
            None if state == "starting" else self.position(),
            world.now >= self.drained_at,
            self.stream.upstream if self.stream else None,
            live,
            self.followers() if state == "primary" else frozenset(),
            not self.accepting,
            None,
            lag,
        )

    def astray(self) -> bool:
        """Whether the server is no longer what it had been brought to be."""
        desired = self.reached
        if desired is None:
            return False
        if desired.role == "primary":
            return self.state != "primary"
        if desired.role == "standby":
            return self.state != "standby" or self.stream is None or not self.is_live()
        if desired.role == "frozen":
            return self.state not in ("standby", "absent")
        return self.state not in ("stopped", "absent")
