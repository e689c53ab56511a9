"""PostgreSQL servers of a test's own: real ones, on addresses of loopback, each with a guard's driver that holds it."""

import asyncio
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hasite.guard import cgroup
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.postgresql import PostgreSQL
from hasite.guard.engines.postgresql_settings import Place, conninfo
from hasite.guard.model import Database, Desired, Member, Membership, Settings, SyncRecord

from tests.guard import groups

INSTALLED = [
    found.name for found in Path("/usr/lib/postgresql").glob("[0-9]*") if (found / "bin" / "postgres").exists()
]
VERSION = max(INSTALLED, key=int, default="15")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
BINARIES = Path(f"/usr/lib/postgresql/{VERSION}/bin")


def missing() -> str:
    """What this machine lacks for these tests; empty: nothing."""
    if os.geteuid() != 0:
        return "root is needed to run servers as another user"
    if not (BINARIES / "postgres").exists():
        return f"postgresql-{VERSION} is not installed"
    return "" if groups.possible() else "no control groups of its own"


class Authority:
    """Issues certificates for members: common name and DNS name are the member's."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, ())

    def issue(self, folder: Path, name: str, address: str, trust: "Authority | None" = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._sign(name, key, (x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))))
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes((trust or self).certificate.public_bytes(pem))
        (folder / "cert.pem").write_bytes(own.public_bytes(pem))
        plain = serialization.NoEncryption()
        (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        (folder / "key.pem").chmod(0o600)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, names: tuple[x509.GeneralName, ...]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(days=1),
        ).add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class ProcessService:
    """In place of systemd's unit: the server's processes in a control group of their own."""

    def __init__(self, group: str, command: list[str], user: str, log: Path) -> None:
        self._group = group
        self._command = command
        self._user = user
        self._log = log
        self._main: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if self.pids():
            return
        switch = f"--reuid={self._user} --regid={self._user} --init-groups"
        script = f'echo $$ > {self._group}/cgroup.procs; exec setpriv {switch} "$@"'
        with self._log.open("ab") as log:
            self._main = await asyncio.create_subprocess_exec(
                "sh", "-c", script, "sh", *self._command, stdout=log, stderr=log
            )
        main = self._main
        await until(lambda: bool(self.pids()) or main.returncode is not None, "the server's process")

    async def stop(self) -> None:
        if self._main is not None and self._main.returncode is None:
            self._main.send_signal(signal.SIGINT)
            await self._main.wait()

    def pids(self) -> tuple[int, ...]:
        return cgroup.pids((self._group,))

    def kill(self) -> None:
        if not cgroup.kill((self._group,)):
            raise EngineError("the server does not die")


@dataclass
class Node:
    """A member with its server and its driver."""

    member: Member
    place: Place
    layout: Layout
    service: ProcessService
    engine: PostgreSQL
    settings: Settings

    @property
    def name(self) -> str:
        return self.member.name

    async def be(self, role: str, upstream: "Node | None" = None, within: float = 30.0, **values: Any) -> None:
        """One push, or more until it no longer raises."""
        desired = Desired(role, upstream=upstream.name if upstream else None, **values)  # type: ignore[arg-type]
        async with asyncio.timeout(within):
            await self.engine.reach(desired, upstream.member if upstream else None)

    async def seen(self, condition: Callable[[Database], bool], within: float = 10.0) -> Database:
        """The first look that satisfies ``condition``."""
        end = asyncio.get_running_loop().time() + within
        while True:
            database = await self.engine.observe()
            if condition(database):
                return database
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"{self.name} stays {database}")
            await asyncio.sleep(0.02)

    def sql(self, statement: str, values: tuple[object, ...] = (), **options: str) -> list[tuple[Any, ...]]:
        """As the superuser on the machine, committed."""
        where = {"host": str(self.place.sockets), "port": str(self.place.port), "user": self.place.user}
        connection = psycopg2.connect(conninfo({**where, "dbname": "postgres", "connect_timeout": "2", **options}))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def free(self) -> None:
        """The shared memory segment that a killed server leaves behind until it is started again."""
        with suppress(FileNotFoundError):
            lines = (self.layout.data / "postmaster.pid").read_text().splitlines()
            if len(lines) > 6:
                subprocess.run(["ipcrm", "-m", lines[6].split()[1]], check=False, stderr=subprocess.DEVNULL)

    def log(self) -> str:
        return (self.layout.run / "log").read_text()


@dataclass
class Lab:
    """Members ``a``, ``b``, ``c`` … on 127.0.0.x, one port."""

    folder: Path
    stack: ExitStack
    authority: Authority = field(default_factory=Authority)
    nodes: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def open(cls, names: str, template: Path | None = None, **settings: Any) -> "Lab":
        folder = Path(tempfile.mkdtemp(prefix="hasite-postgresql-", dir=MEMORY))
        folder.chmod(0o711)
        lab = cls(folder, ExitStack())
        lab.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = _free_port(len(names))
        members = tuple(Member(name, f"site-{name}", f"127.0.0.{n}") for n, name in enumerate(names, 1))
        membership = Membership(1, members, tuple(names))
        for member in members:
            lab.nodes[member.name] = lab.node(member, membership, port, settings)
        if template is not None:
            for node in lab.nodes.values():
                subprocess.run(["cp", "-a", str(template), str(node.layout.data)], check=True)
        return lab

    async def reign(self, holder: str = "a", epoch: int = 2, record: SyncRecord | None = None) -> tuple[Node, ...]:
        """``holder`` is primary, all others stream from it; by default it waits for nobody."""
        primary = self.nodes[holder]
        await primary.be("primary", epoch=epoch, sync=record or sync(epoch, holder, 0))
        others = [node for node in self.nodes.values() if node is not primary]
        for other in others:
            await other.be("standby", primary, epoch=epoch)
            await other.seen(lambda database: database.streaming)
        await primary.seen(lambda database: len(database.followers) == len(others))
        return tuple(self.nodes.values())

    def node(self, member: Member, membership: Membership, port: int, settings: dict[str, Any]) -> Node:
        home = self.folder / member.name
        sockets = home / "sockets"
        sockets.mkdir(parents=True)
        shutil.chown(sockets, "postgres", "postgres")
        layout = Layout(home / "data", home / "saved", home / "vote.json", home / "guard.json", home / "tls", home)
        self.authority.issue(layout.tls, member.name, member.address)
        place = Place(home / "postgresql", BINARIES, sockets, member.address, port)
        command = [str(BINARIES / "postgres"), "-D", str(layout.data), "-c", f"config_file={place.file}"]
        group = self.stack.enter_context(groups.group())
        service = ProcessService(group, command, place.user, home / "log")
        own = Settings(
            cluster="lab",
            name=member.name,
            engine="postgresql",
            version=VERSION,
            topology="PrimaryReplica",
            durability="synchronous",
            degraded_writes=False,
            maximum_lag=5.0,
            membership=membership,
            engine_settings={"shared_buffers": "32MB", "dynamic_shared_memory_type": "mmap", **settings},
        )
        return Node(member, place, layout, service, PostgreSQL(own, layout, service, place), own)

    async def close(self) -> None:
        for node in self.nodes.values():
            node.service.kill()
            await node.service.stop()
            await node.engine.close()
            node.free()
        self.stack.close()


def sync(epoch: int, eligible: str, required: int = 1) -> SyncRecord:
    """A record with these one-letter members."""
    return SyncRecord(epoch, 1, frozenset(eligible), required, holder=eligible[0])


async def until(condition: Callable[[], bool], what: str, within: float = 10.0) -> None:
    """Returns as soon as ``condition`` holds."""
    end = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"never came: {what}")
        await asyncio.sleep(0.02)


def _free_port(addresses: int) -> int:
    """Free on all of the addresses."""
    while True:
        with ExitStack() as stack, suppress(OSError):
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            for n in range(2, addresses + 1):
                stack.enter_context(socket.create_server((f"127.0.0.{n}", port)))
            return port
