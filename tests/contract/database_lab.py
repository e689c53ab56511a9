"""An app server's HAProxy before two members of a database, on loopback. A member says its name to whoever connects."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest
from hasite.plan.connection import Environment
from hasite.plan.proxies import DatabaseMember, DatabaseProxyModel
from hasite.plan.world import ProxyView
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy_database import Files, HaproxyDatabaseProxy
from hasite.proxies.haproxy_render import Layout

from tests.contract.local_machine import LocalSession, install_systemctl
from tests.contract.sshd import free_port

ENVIRONMENT = Environment(b'DATABASE_URL="postgresql://"\n', b"-----BEGIN CERTIFICATE-----\n")


@dataclass
class Member:
    """``role``: what its guard says; "" answers 503 everywhere, None doesn't answer at all."""

    name: str
    host: str
    role: str | None = ""
    echoes: int = 0
    _servers: list[asyncio.Server] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, port: int) -> None:
        """Its server."""
        self._servers.append(await asyncio.start_server(self._serve, self.host, port))

    async def guard(self, port: int) -> None:
        """Its guard, as far as proxies see it."""
        self._servers.append(await asyncio.start_server(self._answer, self.host, port))

    async def __aenter__(self) -> "Member":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        writer.write(f"{self.name}\n".encode())
        while await reader.read(100):
            self.echoes += 1
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        line = (await reader.readuntil(b"\r\n\r\n")).decode().split()
        if self.role is not None:
            status = 200 if line[1] == f"/{self.role}" else 503
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            writer.close()


@dataclass
class Client:
    """One connection through the proxy. ``leads_to``: the member that greeted it; "" when none did."""

    leads_to: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def cut(self, seconds: float = 5.0) -> float:
        """Seconds until the connection is gone. Nothing is sent meanwhile."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.timeout(seconds):
            try:
                while await self.reader.read(100):
                    pass
            except ConnectionError:
                pass
        return loop.time() - start


@dataclass
class DatabaseLab:
    """The proxy with its members ``a`` and ``b``."""

    proxy: HaproxyDatabaseProxy
    local: LocalSession
    layout: Layout
    files: Files
    port: int
    health_port: int
    a: Member
    b: Member
    clients: list[Client] = field(default_factory=list)

    def model(self, *members: Member, environment: Environment = ENVIRONMENT) -> DatabaseProxyModel:
        given = tuple(DatabaseMember(m.name, m.host) for m in members or (self.a, self.b))
        return DatabaseProxyModel("app-1", "new-york", given, self.port, self.health_port, environment.sha256)

    async def deliver(self, *members: Member, environment: Environment = ENVIRONMENT) -> Delivered | Rejected:
        await self.proxy.equip(self.local, environment)
        return await self.proxy.deliver(
            self.local, self.proxy.render(self.model(*members, environment=environment)), ("lease", 1)
        )

    async def observe(self) -> ProxyView:
        return await self.proxy.observe(self.local)

    async def connect(self, offset: int = 0) -> Client:
        """To the primary, or with ``offset`` 1 to a replica."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port + offset)
        try:
            greeting = (await asyncio.wait_for(reader.readline(), 3)).decode().strip()
        except ConnectionError:
            greeting = ""
        client = Client(greeting, reader, writer)
        self.clients.append(client)
        return client

    async def leads(self, name: str, offset: int = 0) -> bool:
        return (await self.connect(offset)).leads_to == name


def _free_pair() -> int:
    """A port of 127.0.0.1 that is free, and so is the next one."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port


@asynccontextmanager
async def database_lab(root: Path) -> AsyncIterator[DatabaseLab]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    layout = Layout(f"{root}/haproxy.cfg", f"{root}/admin.sock", f"{root}/states")
    files = Files(f"{root}/hasite/database.env", f"{root}/hasite/database-ca.crt")
    install_systemctl(root / "tools", root / "state", layout.config)
    session = LocalSession(root / "tools")
    port, health_port = _free_pair(), free_port()
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(Member("a", "127.0.1.1"))
        b = await stack.enter_async_context(Member("b", "127.0.1.2"))
        for member in (a, b):
            await member.serve(port)
            await member.guard(health_port)
        proxy = HaproxyDatabaseProxy(layout, files)
        lab = DatabaseLab(proxy, session, layout, files, port, health_port, a, b)
        try:
            yield lab
        finally:
            for client in lab.clients:
                client.writer.close()
            await session.systemctl("kill", "haproxy")
