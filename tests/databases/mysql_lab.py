"""MariaDB and MySQL servers of a test's own: real processes on loopback addresses, each with a driver."""

import asyncio
import datetime
import ipaddress
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.mysqlcommon import Place
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.engines.mysqlcommon_sql import Connection, Row
from hasite.guard.model import Database, Desired, Member, Membership, Settings, SyncRecord

T = TypeVar("T")

SMALL = {
    "innodb_buffer_pool_size": "32M",
    "innodb_log_file_size": "16M",
    "performance_schema": "OFF",
    "table_open_cache": "200",
    "max_connections": "60",
}


async def until(condition: Callable[[], Awaitable[T | None]], seconds: float = 15.0) -> T:
    """What the condition says once it says something. Raises AssertionError when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (said := await condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.02)
    return said


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
        self.certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0), [])

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        basic: x509.BasicConstraints,
        names: list[x509.GeneralName],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(basic, critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, folder: Path, name: str, address: str) -> None:
        """ca.pem, cert.pem and key.pem."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
        certificate = self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), names)
        folder.mkdir(parents=True, exist_ok=True)
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
        plain = serialization.NoEncryption()
        (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


class ProcessService:
    """The server as a process of the test's, in place of a systemd unit."""

    def __init__(self, command: list[str], user: str, environment: Mapping[str, str] | None = None) -> None:
        self._command, self._user, self._environment = command, user, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        if not self.pids():
            self._process = subprocess.Popen(  # noqa: ASYNC220
                self._command,
                user=self._user,
                group=self._user,
                extra_groups=[],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/usr/sbin", **self._environment},
                cwd="/",
            )

    async def stop(self) -> None:
        if self._process is not None and self.pids():
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait, 30)

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process is not None and self._process.poll() is None else ()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@dataclass
class Node:
    """One member: its driver, and a way to ask its server things as root."""

    member: Member
    driver: Driver
    service: ProcessService
    layout: Layout
    place: Place

    def sql(self, statement: str, timeout: float = 5.0) -> list[Row]:
        """As root through the socket."""
        connection = Connection({"unix_socket": str(self.place.socket), "user": "root", "read_timeout": timeout})
        try:
            return connection.rows(statement)
        finally:
            connection.close()

    async def ask(self, statement: str, timeout: float = 5.0) -> list[Row]:  # noqa: ASYNC109
        """The same, without blocking the loop."""
        return await asyncio.to_thread(self.sql, statement, timeout)

    async def values(self, statement: str) -> list[Any]:
        """The first column."""
        return [next(iter(row.values())) for row in await self.ask(statement)]

    async def reach(self, desired: Desired, upstream: "Node | None" = None, seconds: float = 30.0) -> Database:
        """Pushes until a push succeeds, as the guard does."""

        async def pushed() -> Database | None:
            try:
                await self.driver.reach(desired, upstream.member if upstream else None)
            except EngineError as error:
                self.refused = str(error)
                return None
            return await self.driver.observe()

        return await until(pushed, seconds)

    refused: str = ""


@dataclass
class Lab:
    """Members of one cluster."""

    engine: str
    make: Callable[[Settings, Layout, Place], tuple[Driver, ProcessService]]
    template: Path | None = None
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="hasite-lab-")))
    nodes: dict[str, Node] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    small: Mapping[str, str] = field(default_factory=lambda: SMALL)
    topology: Literal["PrimaryReplica", "PrimaryPrimary"] = "PrimaryReplica"
    behind: dict[str, str] = field(default_factory=dict)
    """Where the server of a member listens in truth; at its address there is something else."""

    def __post_init__(self) -> None:
        self.root.chmod(0o755)
        self.authority = Authority()
        self._network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self._port = random.randint(20000, 30000)

    def settings(self, name: str, members: tuple[Member, ...]) -> Settings:
        return Settings(
            cluster="lab",
            name=name,
            engine="mariadb" if self.engine == "mariadb" else "mysql",
            version="",
            topology=self.topology,
            durability="synchronous" if self.topology == "PrimaryReplica" else "asynchronous",
            degraded_writes=False,
            maximum_lag=5.0,
            membership=Membership(1, members, tuple(member.name for member in members)),
            bootstrap=members[0].name,
            engine_settings=self.parameters,
        )

    async def add(self, *names: str) -> list[Node]:
        """Members without data, at the addresses .11, .12 and so on."""
        members = tuple(Member(name, name, f"{self._network}.{11 + index}") for index, name in enumerate(names))
        for member in members:
            base = self.root / member.name
            layout = Layout(
                data=base / "data",
                saved=base / "saved",
                vote=base / "vote.json",
                settings=base / "etc/guard.json",
                tls=base / "etc/tls",
                run=base / "run",
            )
            (base / "etc").mkdir(parents=True)
            self.authority.issue(layout.tls, member.name, member.address)
            extra = {**self.small, "log_error": str(base / "run/error.log")}
            place = Place(
                configuration=base / "etc/server.cnf",
                sockets=base / "run",
                listen=self.behind.get(member.name, member.address),
                port=self._port,
                copy_port=self._port + 1,
                extra=extra,
            )
            driver, service = self.make(self.settings(member.name, members), layout, place)
            await driver.open()
            self.nodes[member.name] = Node(member, driver, service, layout, place)
        return [self.nodes[name] for name in names]

    async def began(self, name: str) -> None:
        """The member has the template's empty database."""
        if self.template is not None:
            node = self.nodes[name]
            await asyncio.to_thread(
                subprocess.run, ["cp", "-a", "--reflink=auto", str(self.template), str(node.layout.data)], check=True
            )

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.driver.close()
            node.service.kill()
        await asyncio.to_thread(shutil.rmtree, self.root, True)


def primary(epoch: int, *eligible: str, required: int = 0, version: int = 1, create: bool = False) -> Desired:
    """Of a synchronous primary when anything is required."""
    return Desired("primary", epoch, sync=SyncRecord(epoch, version, frozenset(eligible), required), create=create)


def standby(epoch: int, upstream: str | None, *eligible: str) -> Desired:
    """``eligible``: who acknowledges, by the primary's word; without any, this member does not."""
    sync = SyncRecord(epoch, 1, frozenset(eligible), 1) if eligible else None
    return Desired("standby", epoch, upstream, sync)


def available(path: str) -> bool:
    """Whether the machine has the server."""
    return os.geteuid() == 0 and Path(path).exists()


def mysql_tree() -> Path:
    """Where MySQL's own server is looked for: Debian has it in its unstable suite only, so not on most machines.

    A root tree with the package mysql-server in it; ``mmdebstrap --variant=minbase --include=mysql-server sid TREE``.
    """
    named = os.environ.get("HASITE_MYSQL_TREE")
    return Path(named) if named else Path.home() / ".cache/hasite/image/mysql-sid"


def mysql_programs(tree: Path, folder: Path) -> Path:
    """Programs of another distribution's tree, with that one's loader and libraries, in a folder of scripts."""
    folder.mkdir(exist_ok=True)
    libraries = f"{tree}/usr/lib/x86_64-linux-gnu:{tree}/usr/lib/mysql/private"
    loader = f"{tree}/lib64/ld-linux-x86-64.so.2 --library-path {libraries}"
    for program in ("sbin/mysqld", "bin/mysqlbinlog"):
        script = folder / Path(program).name
        script.write_text(f'#!/bin/sh\nexec {loader} {tree}/usr/{program} "$@"\n')
        script.chmod(0o755)
    return folder
