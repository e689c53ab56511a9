"""One life of the operator: the real reconcilers, loop and watch, on ports that fall silent when it is killed."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hasite.api.common import Resource
from hasite.clouds.digitalocean import DigitalOcean
from hasite.dns.digitalocean import DigitalOceanDns
from hasite.kube.base import Kube
from hasite.machines.base import Session, Target
from hasite.machines.bootstrap import HostKey
from hasite.metrics import Metrics
from hasite.plan.connection import Environment
from hasite.plan.world import Answer, ProxyView, Unknown
from hasite.proxies.base import Delivered, Rejected
from hasite.reconcilers import KINDS
from hasite.reconcilers.database import DatabaseReconciler
from hasite.reconcilers.loop import Loop, Reconciler
from hasite.reconcilers.pool import PoolReconciler
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.site import SiteReconciler
from hasite.reconcilers.watch import Owner, Watcher

from tests.fakes.machines import OPERATOR, FakeDatabaseProxy, FakeMachines, FakeOps, FakeProxy, FakeSession
from tests.scenarios.clockwork import monotonic, now
from tests.scenarios.guards import GuardsPort, MembersPort
from tests.scenarios.wire import InProcess, connect

if TYPE_CHECKING:
    from tests.scenarios.universe import Universe

CLIENT_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0r1eOcOHTrSbzb1sBL2WRDPGuHfJZRDCUIhKb9gKQF operator"


class Killed(BaseException):
    """The process ended here. Nothing may catch it."""


@dataclass
class Life:
    """Whether a process lives, and what it is called. Every port asks it before it does anything."""

    identity: str
    term: tuple[str, int] = ("", 0)
    dead: bool = False
    leads: bool = True
    frozen_until: float = 0.0
    """It stands still until then (simulated seconds of the loop)."""

    def is_leader(self) -> bool:
        """See ``Leadership``."""
        return self.leads

    async def gate(self) -> None:
        """Where a process goes on after it stood still. Raises ``Killed``."""
        self.check()
        if (left := self.frozen_until - monotonic()) > 0:
            await asyncio.sleep(left)
        self.check()

    def check(self) -> None:
        """Raises ``Killed``."""
        if self.dead:
            raise Killed


class KubePort:
    """The API server over a network: each call takes its time. Every method of ``Kube``, by its name."""

    def __init__(self, universe: "Universe", life: Life) -> None:
        self._universe = universe
        self._life = life

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        universe, life = self._universe, self._life

        async def call(*args: Any) -> Any:
            await life.gate()
            await asyncio.sleep(universe.pause())
            await life.gate()
            universe.acting = life
            result = await getattr(universe.kube, name)(*args)
            await asyncio.sleep(universe.pause())
            await life.gate()
            return result

        return call


class MachinesPort(FakeMachines):
    """SSH connections of one process. An unreachable machine takes the whole time-out."""

    def __init__(self, universe: "Universe", life: Life) -> None:
        super().__init__(universe.ground)
        self._universe = universe
        self._life = life

    async def session(self, target: Target, *, timeout: float = 5.0) -> FakeSession:  # noqa: ASYNC109
        await self._life.gate()
        if not self.world.reaches(OPERATOR, target.address):
            await asyncio.sleep(timeout)
        await self._life.gate()
        return await super().session(target, timeout=timeout)


class OpsPort(FakeOps):
    """What is done to machines over SSH."""

    def __init__(self, universe: "Universe", life: Life) -> None:
        super().__init__()
        self._universe = universe
        self._life = life

    async def stage_host_key(self, session: Session) -> str:
        async with self._universe.ssh(self._life, "stage_host_key", session):
            return await super().stage_host_key(session)

    async def activate_host_key(self, session: Session) -> None:
        async with self._universe.ssh(self._life, "activate_host_key", session):
            await super().activate_host_key(session)


class ProxyPort(FakeProxy):
    """The proxy engine over SSH."""

    def __init__(self, universe: "Universe", life: Life) -> None:
        self._universe = universe
        self._life = life

    async def observe(self, session: Session) -> ProxyView:
        self._life.check()
        await asyncio.sleep(self._universe.pause())
        return await super().observe(session)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        async with self._universe.ssh(self._life, "deliver", session):
            return await super().deliver(session, config, term)


class DatabaseProxyPort(FakeDatabaseProxy):
    """The proxy on app servers over SSH."""

    def __init__(self, universe: "Universe", life: Life) -> None:
        self._universe = universe
        self._life = life

    async def observe(self, session: Session) -> ProxyView:
        self._life.check()
        await asyncio.sleep(self._universe.pause())
        return await super().observe(session)

    async def equip(self, session: Session, environment: Environment) -> None:
        async with self._universe.ssh(self._life, "equip", session):
            await super().equip(session, environment)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        async with self._universe.ssh(self._life, "deliver", session):
            return await super().deliver(session, config, term)


class AuthoritiesPort:
    """The name servers over a network."""

    def __init__(self, universe: "Universe") -> None:
        self._universe = universe

    async def ask(self, zone: str, name: str, owner_name: str) -> Any:
        await asyncio.sleep(self._universe.pause())
        answers: dict[str, Answer | Unknown] = dict(await self._universe.names.ask(zone, name, owner_name))
        return answers


class Probing(Watcher):
    """The real watch, but for the HTTP request of a probe."""

    def __init__(self, universe: "Universe", life: Life, *args: Any) -> None:
        super().__init__(*args, clock=now)
        self._ground = universe.ground
        self._life = life

    async def _probe_once(self, address: str, limit: float) -> tuple[bool, str]:
        self._life.check()
        if not self._ground.reaches(OPERATOR, address) or address not in self._ground.machines:
            await asyncio.sleep(limit)
            return False, "no answer in time"
        await asyncio.sleep(0.01)
        return (True, "answered 200") if self._ground.serves(address) else (False, "answered 503")


@dataclass
class Operator:
    """One process from its start to its end."""

    universe: "Universe"
    life: Life
    metrics: Metrics
    loop: Loop = field(init=False)
    watch: Probing = field(init=False)
    _clients: dict[str, DigitalOcean] = field(default_factory=dict)
    _dns: dict[str, DigitalOceanDns] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        reconcilers: dict[type[Resource], Reconciler] = {}
        self.loop = Loop(reconcilers, self.life, self.metrics)
        services = self._services()
        guards = self.universe.guards
        databases = DatabaseReconciler(services, GuardsPort(guards, self.life), MembersPort(guards, self.life))
        reconcilers.update(
            {each.kind: each for each in (SiteReconciler(services), PoolReconciler(services), databases)}
        )

    def _services(self) -> Services:
        universe, life = self.universe, self.life
        machines, ops, proxy = MachinesPort(universe, life), OpsPort(universe, life), ProxyPort(universe, life)
        self.watch = Probing(universe, life, machines, ops.observe, self._wake_owner)
        return Services(
            kube=cast(Kube, KubePort(universe, life)),
            leadership=life,
            account=self._account,
            authorities=AuthoritiesPort(universe),
            machines=machines,
            ops=ops,
            engines={"haproxy": proxy},
            database_proxy=DatabaseProxyPort(universe, life),
            watch=self.watch,
            wakes=self.loop,
            metrics=self.metrics,
            client_key=CLIENT_KEY,
            new_host_key=_host_keys(life.identity),
            operator_cidrs=("203.0.113.7/32",),
            clock=now,
        )

    def _account(self, token: str) -> Account:
        client = self._clients.get(token)
        if client is None:
            client = self._clients[token] = DigitalOcean(token, "http://cloud", clock=monotonic)
            universe = self.universe
            wire = InProcess(universe.cloud, universe.way, universe.pause, life=self.life, sent=universe.on_sent)
            connect(client, wire)
            self._dns[token] = DigitalOceanDns(client.api, clock=monotonic)
        return Account(client, self._dns[token])

    def _wake_owner(self, owner: Owner, urgent: bool) -> None:
        kind, namespace, name = owner
        self.loop.wake(KINDS[kind], namespace, name, urgent=urgent)

    def start(self, objects: Sequence[Resource]) -> None:
        """``objects``: what its first list showed."""
        for each in objects:
            self.loop.wake(type(each), each.namespace, each.name)
        self._task = asyncio.create_task(self.loop.run())

    def kill(self) -> None:
        """SIGKILL: in this instant, whatever runs."""
        self.life.dead = True
        self.loop._stopping = True
        asyncio.get_running_loop().call_soon(self._bury)

    def _bury(self) -> None:
        """What is left of a dead process; its tasks would find every port closed."""
        tasks = [*self.loop._tasks, *self.watch._tasks.values(), *([self._task] if self._task else [])]
        for entry in self.loop._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
        for task in tasks:
            task.cancel()


def _host_keys(identity: str) -> Callable[[], HostKey]:
    count = itertools.count(1)

    def new() -> HostKey:
        public = f"ssh-ed25519 AAAA{identity}x{next(count)}"
        return HostKey(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{public}\n-----END OPENSSH PRIVATE KEY-----\n", public)

    return new
