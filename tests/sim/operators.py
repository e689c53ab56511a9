"""Operators, one or two by mistake, with one shared object that can be slow, away, or unclear about what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasite.guard.model import OPERATOR
from hasite.guard.sharedvoter import (
    Begun,
    Fetch,
    Fetched,
    Passed,
    SharedEvent,
    SharedVoter,
    Stored,
    Write,
    Written,
    start_shared,
    step_shared,
)
from hasite.guard.state import Event, Received, Send

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(slots=True)
class Shared:
    """The object in the API server. ``mute``: it can be read, but most writes time out, done or not."""

    stored: Stored
    revision: int = 0
    away: bool = False
    slow: float = 0.0
    mute: bool = False


class Operator:
    """One process at a time; a restarted one is a new owner. ``name``: in the network; it speaks as OPERATOR.
    ``alone_until``: it alone can't reach the object."""

    def __init__(self, world: World, name: str, shared: Shared, rate: float) -> None:
        self.world, self.name, self.shared = world, name, shared
        self.rate, self.offset = rate, world.rng.uniform(0, 1000)
        self.up = False
        self.life = 0
        self.revision = -1
        self.paused_until = 0.0
        self.alone_until = 0.0
        self.inbox: list[SharedEvent] = []
        self.voter: SharedVoter | None = None
        self.identity = OPERATOR

    def boot(self) -> None:
        if self.up:
            return
        self.up = True
        self.life += 1
        timing = next(iter(self.world.nodes.values())).settings.timing
        self.voter = start_shared(f"{self.name}-{self.life}", timing)
        self.take(Begun())
        self.world.after(0.5, self.tick, self.life)

    def crash(self) -> None:
        self.up = False
        self.life += 1
        self.voter = None

    def tick(self, life: int) -> None:
        if life != self.life or self.voter is None:
            return
        if self.voter.phase == "lost":
            self.crash()
            self.world.after(self.world.rng.uniform(1.0, 10.0), self.boot)
            return
        self.take(Passed())
        self.world.after(0.5, self.tick, life)

    def deliver(self, event: Event) -> None:
        if isinstance(event, Received):
            self.take(event)

    def take(self, event: SharedEvent) -> None:
        world = self.world
        if self.voter is None or not self.up:
            return
        if self.paused_until > world.now:
            world.at(self.paused_until, self.later, event, self.life)
            return
        world.steps += 1
        self.voter, outputs = step_shared(self.voter, event, self.offset + self.rate * world.now)
        for output in outputs:
            if isinstance(output, Send):
                world.send(self, output.to, output.message)
            elif isinstance(output, Fetch):
                self.fetch()
            elif isinstance(output, Write):
                self.write(output.stored)

    def later(self, event: SharedEvent, life: int) -> None:
        if life == self.life:
            self.take(event)

    # --- the object

    def latency(self) -> float:
        return self.world.rng.uniform(0.002, 0.05) + self.shared.slow * self.world.rng.random()

    def fetch(self) -> None:
        if self.shared.away or self.world.now < self.alone_until:
            self.world.after(1.0, self.later, Fetched(None), self.life)
            return
        self.world.after(self.latency(), self.read, self.life)

    def read(self, life: int) -> None:
        if life == self.life:
            self.revision = self.shared.revision
            self.world.after(self.latency(), self.later, Fetched(self.shared.stored), life)

    def write(self, stored: Stored) -> None:
        rng, world = self.world.rng, self.world
        if self.shared.away or world.now < self.alone_until or rng.random() < (0.7 if self.shared.mute else 0.02):
            if rng.random() < 0.5:
                world.after(rng.uniform(0.0, 6.0), self.apply, stored, self.revision, -1)
            world.count["unclear writes"] += 1
            world.after(1.0, self.later, Written("unclear"), self.life)
            return
        world.after(self.latency(), self.apply, stored, self.revision, self.life)

    def apply(self, stored: Stored, revision: int, life: int) -> None:
        """Compare and swap, in the API server."""
        done = revision == self.shared.revision
        if done:
            self.shared.revision += 1
            self.shared.stored = stored
            if life == self.life:
                self.revision = self.shared.revision
        if life >= 0:
            self.world.after(self.latency(), self.later, Written("done" if done else "conflict"), life)
