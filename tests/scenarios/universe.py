"""A whole universe in one process and on one simulated clock.

The real reconcilers, loop, watch and DigitalOcean client, on an API server in memory, the simulated DigitalOcean API
and machines in memory. Everything that the operator changes outside itself passes through ``effect``: there a test
counts, kills the operator, or forks the universe.
"""

import asyncio
import copy
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Resource
from hasite.machines.base import Session
from hasite.metrics import Metrics
from hasite.reconcilers import watch

from e2e.world.cloud import DEFAULT_PLAN, UNLIMITED, Cloud, MachineSpec
from e2e.world.cloud.addresses import RegionAddresses
from e2e.world.cloud.journal import WRITES
from tests.fakes.kube import FakeKube, Json, Key
from tests.fakes.machines import FakeSession
from tests.scenarios import clockwork
from tests.scenarios.clockwork import monotonic, now
from tests.scenarios.ground import Ground, Names
from tests.scenarios.guards import GuardGround
from tests.scenarios.operators import Killed, Life, Operator
from tests.scenarios.witness import Witness

NAMESPACE, NAME, DOMAIN, ZONE = "default", "shop", "shop.example.com", "example.com"
TOKEN, OTHER_TOKEN = "local-token", "other-token"
RESTART_SECONDS = 2.0
"""From the death of an operator to the start of the next one."""


def site_spec(**changes: Any) -> Json:
    """A small site at two locations, with short waits."""
    return {
        "domain": DOMAIN,
        "credentialsRef": {"name": "digitalocean"},
        "locations": [{"name": "new-york", "region": "nyc3"}, {"name": "amsterdam", "region": "ams3"}],
        "app": {"port": 8080, "userData": "#!/bin/sh\n# v1\n", "drain": "2s"},
        "dns": {"ttlSeconds": 30, "degradedTtlSeconds": 30},
        "failureDetection": {"holdDown": "5s"},
        **changes,
    }


class SimulatedKube(FakeKube):
    """With UIDs that count up and times of the simulated clock."""

    def _insert(self, wanted: Json) -> Json:
        created = super()._insert(wanted)
        number = int(created["metadata"]["resourceVersion"])
        created["metadata"]["uid"] = str(uuid.UUID(int=number * 2**96 + 0x4000_8000_0000_0000_0000))
        created["metadata"]["creationTimestamp"] = _text(now())
        return created

    def _mark_deleted(self, key: Key) -> None:
        fresh = "deletionTimestamp" not in self.objects[key]["metadata"]
        metadata = self.objects[key]["metadata"]
        super()._mark_deleted(key)
        if fresh:
            metadata["deletionTimestamp"] = _text(now())


@dataclass
class Universe:
    """``on_effect`` is called with the number of the effect, before and after each; it may kill or fork."""

    seed: int = 0
    on_effect: Callable[[int], None] | None = None
    spec: Json = field(default_factory=site_spec)
    latency: tuple[float, float] = (0.002, 0.02)
    addresses: Mapping[str, RegionAddresses] = field(default_factory=lambda: DEFAULT_PLAN)
    slow: dict[tuple[str, str], float] = field(default_factory=dict)
    """Method and path of the cloud's API → seconds that such a request is on its way."""
    effects: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    lives: int = 0
    deaf: bool = False
    """The watch tells nothing."""
    acting: Life | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ground, self.names, self.metrics = Ground(), Names(), Metrics()
        self.cloud = Cloud(
            tokens={TOKEN: "read-write", OTHER_TOKEN: "read-write"},
            hypervisor=self.ground,
            name_servers=self.names,
            now=now,
            boot_delay=4.0,
            tag_delay=3.0,
            action_delay=1.0,
            limits=UNLIMITED,
            addresses=self.addresses,
        )
        self.cloud.app.freeze()
        self.kube = SimulatedKube(on_write=self._on_kube_write, on_change=self._on_change)
        self.witness = Witness(self, DOMAIN, 30.0)
        self.names.heard = self.witness.on_names
        self.guards = GuardGround(self)
        self.ground.before_destruction = self._before_destruction
        self.cloud.on_request = self._on_request
        self.kube.put_secret(NAMESPACE, "digitalocean", {"token": TOKEN})
        self._wishes: dict[Key, tuple[object, ...]] = {}
        self._ticking = asyncio.create_task(self._tick())

    # What the operator does outside itself.

    def pause(self) -> float:
        """Seconds that a message takes."""
        return self.random.uniform(*self.latency)

    def way(self, method: str, path: str) -> float:
        """Seconds that a request to the cloud takes on its way there."""
        return self.slow.get((method, path), 0.0) + self.pause()

    def note(self, what: str) -> None:
        """A line in the journal."""
        self.journal.append(f"{monotonic():9.3f} {what}")

    def effect(self, phase: str, what: str) -> None:
        """Before or after something outside the operator changes, or when the request for it is on its way."""
        self.effects.append(f"{phase} {what}")
        self.note(f"#{len(self.effects) - 1} {phase} {what}")
        if self.on_effect is not None:
            self.on_effect(len(self.effects) - 1)

    def _on_kube_write(self, what: str) -> None:
        actor = self.acting
        phase, effect = what.split(" ", 1)
        self.effect(phase, f"kube {effect}")
        if actor is not None:
            actor.check()

    def on_sent(self, method: str, path: str) -> None:
        """A request has left the operator: from now on it arrives whatever becomes of it."""
        if method in WRITES:
            self.effect("sent", f"cloud {method} {path}")

    def _on_request(self, phase: str, method: str, path: str) -> bool:
        if method not in WRITES:
            return True
        alive = {o.life.identity for o in self.operators if not o.life.dead}
        if phase == "after" and (method, path) == ("POST", "/v2/droplets"):
            self.witness.on_birth(max(self.cloud.state.droplets.values(), key=lambda d: d.id).name)
        self.effect(phase, f"cloud {method} {path}")
        return alive == {o.life.identity for o in self.operators if not o.life.dead}

    @asynccontextmanager
    async def ssh(self, life: Life, verb: str, session: Session) -> AsyncIterator[None]:
        """Around a command that changes a machine."""
        assert isinstance(session, FakeSession)
        await asyncio.sleep(self.pause())
        await life.gate()
        self.effect("before", f"ssh {verb} {session.machine.name}")
        life.check()
        yield
        self.effect("after", f"ssh {verb} {session.machine.name}")
        life.check()
        await asyncio.sleep(self.pause())
        await life.gate()

    # The operator's lives.

    def start(self, *, stale: bool = False) -> Operator:
        """A new process. ``stale``: its first list is what ``kube.freeze`` kept."""
        self.lives += 1
        operator = Operator(self, Life(f"operator-{self.lives}", ("lease", self.lives)), self.metrics)
        self.operators.append(operator)
        self.note(f"{operator.life.identity} starts")
        objects = self.kube._frozen if stale and self.kube._frozen is not None else self.kube.objects
        kinds: Mapping[str, type[Resource]] = {k.KIND: k for k in (HASite, LoadBalancerPool, ReplicatedDatabase)}
        operator.start([kinds[k[0]].model_validate(copy.deepcopy(o)) for k, o in objects.items() if k[0] in kinds])
        return operator

    def crash(self, restart: float | None = RESTART_SECONDS) -> None:
        """Every operator is killed in this instant; another starts after ``restart`` seconds."""
        for operator in self.operators:
            self.note(f"{operator.life.identity} is killed")
            operator.kill()
        self.operators.clear()
        if restart is not None:
            asyncio.get_running_loop().call_later(restart, self.start)

    def freeze(self, seconds: float) -> None:
        """The operator stands still from this instant on, loses its Lease, and another one leads."""
        for operator in self.operators:
            self.note(f"{operator.life.identity} stands still")
            operator.life.frozen_until, operator.life.leads = monotonic() + seconds, False
        asyncio.get_running_loop().call_later(15.0, self.start)

    def _on_change(self, kind: type[Resource], namespace: str, name: str) -> None:
        """The watch. As in ``handlers``."""
        live = self.kube.objects.get((kind.KIND, namespace, name))
        metadata: Json = live["metadata"] if live else {}
        rest = (tuple(metadata.get("finalizers", ())), tuple(o["uid"] for o in metadata.get("ownerReferences", ())))
        key = (kind.KIND, namespace, name)
        wish = (metadata.get("uid"), metadata.get("generation"), "deletionTimestamp" in metadata)
        before = self._wishes.get(key, (None, None))
        fresh = before[0] != wish
        self._wishes[key] = (wish, rest)
        for operator in () if self.deaf else self.operators:
            if before != (wish, rest) or live is None:
                operator.loop.wake(kind, namespace, name, fresh=fresh)
            if kind is LoadBalancerPool:
                operator.loop.wake(HASite, namespace, name)

    def _before_destruction(self, spec: MachineSpec) -> None:
        self.witness.on_destruction(spec)
        self.guards.on_destruction(spec.name)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.witness.on_tick()
            self.guards.tick()

    # The user, and the end.

    def create_site(self) -> None:
        """As ``kubectl apply``."""
        self.create("HASite")

    def create(self, kind: str) -> None:
        """An object of this kind with this universe's spec."""
        self.kube.create(manifest(kind, self.spec))

    def edit_site(self, change: Callable[[Json], None]) -> None:
        """As ``kubectl edit``: ``change`` gets the spec."""
        self.kube.edit(HASite, NAMESPACE, NAME, lambda each: change(each["spec"]))

    def delete_site(self) -> None:
        """As ``kubectl delete``."""
        self.witness.giving_up = True
        self.kube.remove(HASite, NAMESPACE, NAME)

    def site(self) -> HASite | None:
        """The live object."""
        raw = self.kube.raw(HASite, NAMESPACE, NAME)
        return None if raw is None else HASite.model_validate(raw)

    def pool(self) -> LoadBalancerPool | None:
        """The live object."""
        raw = self.kube.raw(LoadBalancerPool, NAMESPACE, NAME)
        return None if raw is None else LoadBalancerPool.model_validate(raw)

    async def until(self, condition: Callable[[], object], limit: float, what: str = "") -> None:
        """Waits until it holds. Raises ``AssertionError`` after ``limit`` simulated seconds."""
        deadline = monotonic() + limit
        while not condition():
            assert monotonic() < deadline, f"{what or condition.__name__} did not come within {limit:.0f} s"
            await asyncio.sleep(0.5)

    def close(self) -> None:
        """The end."""
        self._ticking.cancel()
        self.crash(restart=None)


def manifest(kind: str, spec: Json, name: str = NAME) -> Json:
    """A whole object."""
    return {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": copy.deepcopy(spec),
    }


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Time:
    """In place of the module ``time`` in the watch."""

    monotonic = staticmethod(monotonic)
    time = staticmethod(now)


@contextmanager
def simulated_time() -> Iterator[None]:
    """The watch's own clock becomes the simulated one."""
    with mock.patch.object(watch, "time", _Time):
        yield


def play(scenario: Callable[[Universe], Any], **options: Any) -> Any:
    """Runs a coroutine function in a universe of its own."""

    async def work() -> Any:
        universe = Universe(**options)
        try:
            return await scenario(universe)
        finally:
            universe.close()

    with simulated_time():
        return clockwork.run(work(), options.get("seed", 0))


__all__ = ["Killed", "Universe", "play"]
