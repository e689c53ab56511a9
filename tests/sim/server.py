"""A database server, modelled: a log of entries, and streams of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasite.guard.model import Database, Desired, Position, State, SyncRecord

from tests.sim import hush

if TYPE_CHECKING:
    from tests.sim.world import Node, World

DETECT = 1.2
"""Seconds after which a follower and its upstream notice that their stream is broken."""
Entry = tuple[int, int]


@dataclass(slots=True)
class Stream:
    """What a follower receives, from which server in which life of it. ``bad_since``: the network has been broken.
    ``answers``: it acknowledges; where that is semi-synchronous, it was told to when the stream began."""

    upstream: str
    incarnation: int
    bad_since: float | None = None
    sent: int = 0
    answers: bool = True


@dataclass(slots=True)
class Pending:
    """A write that its client waits for."""

    index: int
    value: int


class Server:
    """``log``: on disk. ``acks``: by follower, how much it has on disk. ``answered``: the most that any has answered
    for, whoever it is: a semi-synchronous primary asks no more."""

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
        self.answered = 0
        self.pending: list[Pending] = []
        self.desired: Desired | None = None
        self.reached: Desired | None = None
        self.drained_at = 0.0
        self.dying = False
        self.mute_until = 0.0
        self.last: Database | None = None

    # --- the server itself

    def promote(self, desired: Desired) -> None:
        self.state = "primary"
        self.acks, self.answered = {}, 0
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
            if self.world.semi_sync:
                reached = self.answered
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
        self.acks, self.answered = {}, 0
        if self.state != "absent":
            self.state = "stopped"

    def is_down(self) -> bool:
        """There is data, and nothing runs."""
        return self.state == "stopped"

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
        if stream.answers:
            server.answered = max(have, server.answered)
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

    def receivers(self) -> frozenset[str]:
        """Who streams from here, however much it lacks."""
        mine = (self.node.name, self.incarnation)
        streams = {name: node.server.stream for name, node in self.world.nodes.items()}
        return frozenset(name for name, s in streams.items() if s is not None and (s.upstream, s.incarnation) == mine)

    def position(self) -> Position:
        return Position(self.log[-1][0], len(self.log)) if self.log else Position(0, 0)

    def look(self) -> Database:
        """What the driver's ``observe`` says."""
        last, running = self.last, self.state in ("standby", "primary")
        if self.world.now < self.mute_until and running and last is not None and last.state in ("standby", "primary"):
            return hush.unseen(last)
        self.last = self.see()
        return self.last

    def see(self) -> Database:
        """How it is."""
        state = self.state
        if state == "absent":
            return Database("absent")
        world = self.world
        live = state == "standby" and self.is_live()
        lag: float | None = None
        if live and self.stream is not None:
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
            acknowledging=self.stream is not None and self.stream.answers,
            receivers=self.receivers() if state == "primary" else frozenset(),
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
