"""A load balancer's HAProxy with three app servers, on loopback."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hasite.machines.base import Session
from hasite.plan.proxies import ALIVE_PATH, Check, ProxyModel, Upstream
from hasite.plan.world import ProxyView
from hasite.proxies.base import Delivered, Proxy, Rejected
from hasite.proxies.haproxy import HaproxyProxy
from hasite.proxies.haproxy_render import Layout

from tests.contract.local_machine import LocalSession, install_systemctl
from tests.contract.sshd import free_port
from tests.contract.web import App, eventually, fetch

UNSEEN = ProxyView(installed=True, config_sha256=None, active=False, enabled=False)
HOSTS = {"a": "127.0.1.1", "b": "127.0.1.2", "c": "127.0.1.3"}


@dataclass
class Bench:
    """One engine on one machine."""

    proxy: Proxy
    session: Session
    app_port: int = 8080
    unhealthy: set[str] = field(default_factory=set)
    term: tuple[str, int] = ("", 0)
    """Of whoever delivers."""

    def model(self, peers: tuple[str, ...] = (), **states: str) -> ProxyModel:
        """Upstreams by state, for example ``a="Active"``; a state that ends with "+" is of a backup."""
        upstreams = tuple(
            Upstream(name, HOSTS[name], state.rstrip("+"), state.endswith("+"))  # type: ignore[arg-type]
            for name, state in states.items()
        )
        check = Check("/healthz", 0.25, 0.2, 2, 2)
        return ProxyModel("lb", "ams", "shop.example.com", self.app_port, upstreams, check, peers, 0.25, 0.2, 5.0)

    async def deliver(self, peers: tuple[str, ...] = (), **states: str) -> Delivered | Rejected:
        return await self.proxy.deliver(self.session, self.proxy.render(self.model(peers, **states)), self.term)

    async def serving(self, peers: tuple[str, ...] = (), **states: str) -> ProxyView:
        """Delivered, and every server that is healthy is up."""
        assert await self.deliver(peers, **states) == Delivered()
        await eventually(lambda: self.sees(*(set(states) - self.unhealthy)))
        return await self.observe()

    async def observe(self) -> ProxyView:
        return await self.proxy.observe(self.session)

    async def health(self) -> ProxyView:
        """What is waited for is asked for so: it costs the machine no process."""
        return await self.proxy.health(self.session, UNSEEN)

    async def sees(self, *names: str) -> bool:
        return {name for name, server in (await self.health()).servers.items() if server.up} == set(names)

    async def sees_peers(self, expected: dict[str, bool]) -> bool:
        return (await self.health()).peers == expected

    async def break_health(self, name: str) -> None:
        """The app server fails its checks from now on."""
        self.unhealthy.add(name)

    async def systemctl(self, verb: str) -> None:
        """``stop``, ``disable`` or ``kill``."""
        raise NotImplementedError

    async def edit_file(self, extra: bytes) -> None:
        """Somebody appends to the configuration on the disk."""
        raise NotImplementedError

    async def spoil(self) -> Rejected | Delivered:
        """Delivers what the engine's check refuses, with the word "nonsense"."""
        raise NotImplementedError


@dataclass
class Lab(Bench):
    """With HAProxy itself, and visitors."""

    apps: dict[str, App] = field(default_factory=dict)
    local: LocalSession = field(default_factory=lambda: LocalSession(Path()))
    layout: Layout = field(default_factory=Layout)

    @property
    def port(self) -> int:
        return self.layout.port

    async def break_health(self, name: str) -> None:
        await super().break_health(name)
        self.apps[name].healthy = False

    async def systemctl(self, verb: str) -> None:
        await self.local.systemctl(verb, "haproxy")

    async def edit_file(self, extra: bytes) -> None:
        config = await self.local.read(self.layout.config)
        await self.local.write(self.layout.config, (config or b"") + extra)

    async def spoil(self) -> Rejected | Delivered:
        bad = self.proxy.render(self.model(a="Active")).replace(b"balance roundrobin", b"nonsense here")
        return await self.proxy.deliver(self.session, bad)

    async def observe_sessions(self, name: str, count: int) -> bool:
        return (await self.health()).servers[name].sessions == count

    async def has_old_processes(self, count: int) -> bool:
        return (await self.observe()).old_processes == count

    async def answers(self) -> bool:
        return (await self.observe()).active

    async def who(self, times: int = 20) -> set[str]:
        """The bodies of ``times`` requests, every one of which must be answered."""
        answers = [await fetch(self.port) for _ in range(times)]
        assert {status for status, _ in answers} == {200}
        return {body for _, body in answers}

    async def alive(self) -> int:
        return (await fetch(self.port, ALIVE_PATH))[0]


@asynccontextmanager
async def haproxy_lab(root: Path) -> AsyncIterator[Lab]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    layout = Layout(f"{root}/haproxy.cfg", f"{root}/admin.sock", f"{root}/states", "127.0.0.1", free_port())
    install_systemctl(root / "tools", root / "state", layout.config)
    session = LocalSession(root / "tools")
    async with AsyncExitStack() as stack:
        port = free_port()
        apps = {name: await stack.enter_async_context(App(name, host, port)) for name, host in HOSTS.items()}
        try:
            yield Lab(HaproxyProxy(layout), session, port, apps=apps, local=session, layout=layout)
        finally:
            await session.systemctl("kill", "haproxy")
