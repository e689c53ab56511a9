"""Machines in memory: what ``SshMachines``, ``MachineOps`` and a proxy engine do, on a world that the test moves.

``tests/contract/test_machines_contract.py`` and ``test_proxies_contract.py`` hold them to the real ones.
"""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from hasite.errors import HostKeyMismatch, Permanent, Transient, Unreachable
from hasite.machines.base import Result, Session, Target
from hasite.plan.connection import AUTHORITY_PATH, ENVIRONMENT_PATH, Environment
from hasite.plan.proxies import Check, DatabaseProxyModel, ProxyModel, Upstream
from hasite.plan.world import MachineView, ProxyView, ServerView
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy_database import render_database
from hasite.proxies.haproxy_render import render

OPERATOR = "operator"
"""Where the operator stands, for ``FakeWorld.cut``."""


@dataclass
class FakeMachine:
    """One machine. Everything that may go wrong with it is a field."""

    name: str
    address: str
    host_key: str = "ssh-ed25519 AAAAbootstrap"
    on: bool = True
    cloud_init: Literal["running", "done", "error"] = "done"
    cloud_init_error: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    disk_full: bool = False
    staged_key: str | None = None
    installed: bool = True
    term: tuple[str, int] = ("", 0)
    """Of the latest delivery."""
    config: bytes | None = None
    in_force: bytes | None = None
    active: bool = False
    enabled: bool = False
    refuses: str | None = None
    """What the engine's own check says to any configuration."""
    old_processes: int = 0
    sessions: int = 0
    leads_to: bytes | None = None
    """Of an app server: the configuration of the proxy that leads to its database, in force."""
    boots: int = 0

    def restart(self) -> None:
        """Every connection breaks; what is enabled comes up with the configuration on disk."""
        self.boots += 1
        self.active = self.enabled and self.config is not None
        self.in_force = self.config if self.active else None


@dataclass
class FakeWorld:
    """Machines by address, app servers that answer their checks, and who cannot reach whom."""

    machines: dict[str, FakeMachine] = field(default_factory=dict)
    healthy: set[str] = field(default_factory=set)
    """Addresses of app servers that answer."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Requests in flight by the app server's address, as each load balancer sees them."""
    cut: set[tuple[str, str]] = field(default_factory=set)
    """(from, to) addresses between which nothing passes; the operator is ``OPERATOR``."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """(verb, machine's name) of everything that changed a machine, in order."""

    def add(self, machine: FakeMachine) -> FakeMachine:
        self.machines[machine.address] = machine
        return machine

    def reaches(self, source: str, address: str) -> bool:
        return (source, address) not in self.cut

    def serves(self, address: str) -> bool:
        """What the alive path of the load balancer at ``address`` says."""
        machine = self.machines.get(address)
        if machine is None or not machine.on or not machine.active or machine.in_force is None:
            return False
        model = decode(machine.in_force)
        active = [upstream for upstream in model.upstreams if upstream.state == "Active"]
        return any(self.answers(address, upstream.address) for upstream in active)

    def answers(self, source: str, app: str) -> bool:
        return app in self.healthy and self.reaches(source, app)


class FakeSession:
    """A connection that breaks with the machine's power, its restart or a cut."""

    def __init__(self, world: FakeWorld, machine: FakeMachine) -> None:
        self.world = world
        self.machine = machine
        self.host_key = machine.host_key
        self._boots = machine.boots

    @property
    def alive(self) -> bool:
        machine = self.world.machines.get(self.machine.address)
        connected = machine is self.machine and machine.on and machine.boots == self._boots
        return connected and self.world.reaches(OPERATOR, self.machine.address)

    def touch(self) -> FakeMachine:
        """The machine, if the connection holds. Raises ``Unreachable``."""
        if not self.alive:
            raise Unreachable(f"{self.machine.name}: the connection is gone")
        return self.machine

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        """``echo`` only: what is asked of a machine goes through ``FakeOps`` and ``FakeProxy``."""
        self.touch()
        if not command.startswith("echo "):
            return Result(127, "", f"sh: {command.split(maxsplit=1)[0]}: not found\n")
        return Result(0, command.removeprefix("echo ") + "\n", "")

    async def read(self, path: str) -> bytes | None:
        return self.touch().files.get(path)

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        machine = self.touch()
        if machine.disk_full:
            raise Permanent(f"{machine.name}: cannot write {path}: No space left on device", reason="WriteFailed")
        machine.files[path] = data
        self.world.calls.append(("write", machine.name))

    async def unix_request(self, path: str, request: bytes, *, timeout: float = 2.0) -> bytes:  # noqa: ASYNC109
        raise Transient(f"{self.touch().name}: {path}: nothing listens there")


class FakeMachines:
    """``Machines`` over a ``FakeWorld``."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self._sessions: dict[str, FakeSession] = {}

    async def session(self, target: Target, *, timeout: float = 5.0) -> FakeSession:  # noqa: ASYNC109
        kept = self._sessions.get(target.name)
        if kept and kept.alive and kept.machine.address == target.address and kept.host_key in target.host_keys:
            return kept
        self._sessions.pop(target.name, None)
        if not target.host_keys:
            raise Permanent(f"{target.name}: no host key is known", reason="NoHostKey")
        machine = self.world.machines.get(target.address)
        if machine is None or not machine.on or not self.world.reaches(OPERATOR, target.address):
            raise Unreachable(f"{target.name}: no SSH connection to {target.address}: no answer")
        if machine.host_key not in target.host_keys:
            raise HostKeyMismatch(
                f"{target.name}: {target.address} showed a host key that is not its own: {machine.host_key}"
            )
        self._sessions[target.name] = FakeSession(self.world, machine)
        return self._sessions[target.name]

    async def drop(self, name: str) -> None:
        self._sessions.pop(name, None)

    async def close(self) -> None:
        self._sessions.clear()


class FakeOps:
    """``MachineOps`` on fake machines."""

    def __init__(self) -> None:
        self._keys: Callable[[], int] = itertools.count(1).__next__

    async def observe(self, session: Session, now: float) -> MachineView:
        machine = touched(session)
        error = machine.cloud_init_error if machine.cloud_init == "error" else ""
        return MachineView(session.host_key, machine.cloud_init, now, error)

    async def stage_host_key(self, session: Session) -> str:
        machine = touched(session)
        if machine.staged_key is None:
            machine.staged_key = f"ssh-ed25519 AAAA{machine.name}{self._keys()}"
            world_of(session).calls.append(("stage_host_key", machine.name))
        return machine.staged_key

    async def activate_host_key(self, session: Session) -> None:
        machine = touched(session)
        if machine.staged_key is None:
            raise Permanent("the new host key could not be put into use: it is not there", reason="HostKeyFailed")
        if machine.host_key != machine.staged_key:
            machine.host_key = machine.staged_key
            world_of(session).calls.append(("activate_host_key", machine.name))


class FakeProxy:
    """An engine whose configuration is the model itself, as JSON, after the real renderer has accepted it."""

    packages: tuple[str, ...] = ("haproxy",)

    def render(self, model: ProxyModel) -> bytes:
        render(model)
        ordered = replace(
            model,
            upstreams=tuple(sorted(model.upstreams, key=lambda upstream: upstream.name)),
            peers=tuple(sorted(model.peers)),
        )
        return json.dumps(asdict(ordered), sort_keys=True).encode()

    async def observe(self, session: Session) -> ProxyView:
        machine = touched(session)
        in_force = machine.active and machine.config is not None and machine.config == machine.in_force
        view = ProxyView(
            installed=machine.installed,
            config_sha256=hashlib.sha256(machine.config or b"").hexdigest() if in_force else None,
            active=machine.active,
            enabled=machine.enabled,
            old_processes=machine.old_processes,
        )
        return await self.health(session, view)

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        machine, world = touched(session), world_of(session)
        if not machine.active or machine.in_force is None:
            return replace(last, active=False, servers={}, peers={}, sessions=0)
        model = decode(machine.in_force)
        servers = {
            upstream.name: ServerView(
                world.answers(machine.address, upstream.address), world.in_flight.get(upstream.address, 0)
            )
            for upstream in model.upstreams
        }
        peers = {peer: world.reaches(machine.address, peer) and world.serves(peer) for peer in model.peers}
        return replace(last, active=True, servers=servers, peers=peers, sessions=machine.sessions)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        machine = touched(session)
        if machine.term[0] == term[0] and machine.term[1] > term[1]:
            return Rejected("term", f"a later leader (its term {machine.term[1]}, ours {term[1]}) has delivered since")
        machine.term = term
        if machine.disk_full:
            return Rejected("write", "No space left on device")
        if not machine.installed:
            return Rejected("check", "haproxy: not found")
        if machine.refuses is not None:
            return Rejected("check", machine.refuses)
        machine.config = machine.in_force = config
        machine.active = machine.enabled = True
        world_of(session).calls.append(("deliver", machine.name))
        return Delivered()


class FakeDatabaseProxy:
    """``HaproxyDatabaseProxy`` on fake machines, with its real configurations."""

    packages: tuple[str, ...] = ("haproxy",)

    def render(self, model: DatabaseProxyModel) -> bytes:
        return render_database(model)

    async def observe(self, session: Session) -> ProxyView:
        machine = touched(session)
        files = [machine.files.get(path) for path in (ENVIRONMENT_PATH, AUTHORITY_PATH)]
        mark = hashlib.sha256(b"".join(each or b"" for each in files)).hexdigest().encode()
        config = machine.leads_to
        return ProxyView(
            installed=machine.installed,
            config_sha256=hashlib.sha256(config).hexdigest() if config and mark in config else None,
            active=config is not None,
            enabled=config is not None,
        )

    async def health(self, session: Session, last: ProxyView) -> ProxyView:
        return replace(last, active=touched(session).leads_to is not None)

    async def equip(self, session: Session, environment: Environment) -> None:
        await session.write(AUTHORITY_PATH, environment.authority, 0o644)
        await session.write(ENVIRONMENT_PATH, environment.file)

    async def deliver(self, session: Session, config: bytes, term: tuple[str, int] = ("", 0)) -> Delivered | Rejected:
        machine = touched(session)
        if not machine.installed:
            return Rejected("check", "haproxy: not found")
        if machine.refuses is not None:
            return Rejected("check", machine.refuses)
        machine.leads_to = config
        world_of(session).calls.append(("deliver", machine.name))
        return Delivered()


def touched(session: Session) -> FakeMachine:
    assert isinstance(session, FakeSession)
    return session.touch()


def world_of(session: Session) -> FakeWorld:
    assert isinstance(session, FakeSession)
    return session.world


def decode(config: bytes) -> ProxyModel:
    """The model in a configuration of ``FakeProxy``."""
    raw = json.loads(config)
    return ProxyModel(
        **{
            **raw,
            "upstreams": tuple(Upstream(**upstream) for upstream in raw["upstreams"]),
            "check": Check(**raw["check"]),
            "peers": tuple(raw["peers"]),
        }
    )
