"""The machines' side for hundreds of droplets at once, in one process: SSH, HAProxy's stats socket, the alive path.

What the operator sends is answered as a healthy machine answers it; a command that is not known here fails like one
that is not installed, and is kept in ``Crowd.unknown``. Each machine shows the host key that its user data gave it,
until the operator makes it take another one.
"""

import asyncio
import hashlib
import json
import re
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import asyncssh
import yaml
from hasite.plan.proxies import ALIVE_PATH
from hasite.proxies.haproxy_render import DEBIAN, PEERS

from e2e.world.cloud import MachineSpec, NullHypervisor
from e2e.world.network import listen_in, run

_STATUS = json.dumps({"v1": {"datasource": "DataSourceNoCloud", "modules-final": {"errors": [], "finished": 9.0}}})
_RESULT = json.dumps({"v1": {"datasource": "DataSourceNoCloud", "errors": []}})
_MARK = "==hasite=="
_CLOUD_INIT = f"{_STATUS}\n{_MARK}\n{_RESULT}\n{_MARK}\n{_MARK}\n"
_DELIVERED = re.compile(r'^head -c (\d+) >"\$new"$', re.MULTILINE)
_SERVER = re.compile(r"\s+server (\S+) (\S+)")
_COLUMNS = ("pxname", "svname", "qcur", "scur", "status", "addr", "check_status", *(f"c{n}" for n in range(93)))
"""As many columns as HAProxy 3.0 has."""
_INFO_LINES = "".join(f"Measure{number}: 0\n" for number in range(70))
_ALIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nalive\n"
_DEAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class _Machine:
    """One droplet's inside."""

    name: str
    host_key: asyncssh.SSHKey
    born: float
    staged: asyncssh.SSHKey | None = None
    config: bytes = b""
    delivered_at: float = 0.0
    deliveries: int = 0
    servers: tuple[tuple[str, str, str], ...] = ()
    """Backend, name, address of every server of the configuration."""

    @property
    def worker(self) -> int:
        """The process that serves: another one after each reload."""
        return 1000 + self.deliveries

    def take(self, config: bytes) -> None:
        """HAProxy is reloaded with this."""
        self.config, self.delivered_at, self.deliveries = config, time.time(), self.deliveries + 1
        backend, servers = "", []
        for line in config.decode().splitlines():
            if line.startswith("backend "):
                backend = line.split()[1]
            elif found := _SERVER.match(line):
                servers.append((backend, found[1], found[2]))
        self.servers = tuple(servers)

    @property
    def mark(self) -> str:
        """The running configuration's description."""
        found = re.search(rb"^ *description (\S+)$", self.config, re.MULTILINE)
        return found[1].decode() if found else ""


@dataclass
class Crowd(NullHypervisor):
    """A hypervisor whose machines answer, at all of the given networks, inside one network namespace."""

    namespace: str = ""
    networks: tuple[str, ...] = ()
    unknown: set[str] = field(default_factory=set)
    at: dict[str, _Machine] = field(default_factory=dict)
    """By public IPv4 and IPv6 address."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def start(self) -> None:
        """Every address of the networks is this namespace's own from now on, and SSH and HTTP listen there."""
        for network in self.networks:
            family = "-6" if ":" in network else "-4"
            await run(["ip", family, "-n", self.namespace, "route", "add", "local", network, "dev", "lo"])
        ssh = listen_in(self.namespace, "0.0.0.0", 22)
        self._keep(self._accept(ssh))
        for host in ("0.0.0.0", "::"):
            self._servers.append(await asyncio.start_server(self._web, sock=listen_in(self.namespace, host, 80)))

    async def close(self) -> None:
        """Nothing listens any more."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def create(self, spec: MachineSpec) -> None:
        """With the host key of its user data."""
        await super().create(spec)
        machine = _Machine(spec.name, _host_key(spec.user_data), time.time())
        self.at |= {address: machine for address in (spec.public_ipv4, spec.public_ipv6) if address}

    async def destroy(self, machine: int) -> None:
        """It answers no more."""
        spec = self.machines[machine]
        for address in (spec.public_ipv4, spec.public_ipv6):
            self.at.pop(address or "", None)
        await super().destroy(machine)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                self._keep(self._greet(connection))

    async def _greet(self, connection: socket.socket) -> None:
        machine = self.at.get(connection.getsockname()[0])
        if machine is None:
            connection.close()
            return
        try:
            await asyncssh.run_server(
                connection,
                server_factory=lambda: _Server(machine),
                server_host_keys=[machine.host_key],
                process_factory=self._run_for(machine),
                encoding=None,
            )
        except (OSError, asyncssh.Error):
            connection.close()

    def _run_for(self, machine: _Machine) -> Any:
        async def run_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
            command = process.command or ""
            if delivered := _DELIVERED.search(command):
                machine.take((await process.stdin.read())[: int(delivered[1])])
            output = _answer(machine, command)
            if output is None:
                self.unknown.add(command[:200])
            process.stdout.write((output or "").encode())
            process.exit(127 if output is None else 0)

        return run_command

    async def _web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            machine = self.at.get(writer.get_extra_info("sockname")[0])
            alive = machine is not None and machine.servers and head.startswith(f"GET {ALIVE_PATH} ".encode())
            writer.write(_ALIVE if alive else _DEAD)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


class _Server(asyncssh.SSHServer):
    """Any key is let in; the only socket is HAProxy's."""

    def __init__(self, machine: _Machine) -> None:
        self._machine = machine

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> object:  # type: ignore[override]
        return self._stats if dest_path == DEBIAN.socket and self._machine.config else False

    async def _stats(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        asked = (await reader.read()).decode()
        writer.write(_statistics(self._machine, asked).encode())
        writer.close()


def _host_key(user_data: str) -> asyncssh.SSHKey:
    """The private key in a bootstrap's cloud-config."""
    for part in re.split(r"^#cloud-config\n", user_data, flags=re.MULTILINE)[1:]:
        content = yaml.safe_load(part.partition("\n--")[0])
        if isinstance(content, dict) and "ssh_keys" in content:
            return asyncssh.import_private_key(content["ssh_keys"]["ed25519_private"])
    raise ValueError("the user data gives no host key")


def _answer(machine: _Machine, command: str) -> str | None:
    """What a command prints when it succeeds; None for one that is not known."""
    answer: str | None = None
    if "/run/cloud-init/status.json" in command:
        answer = _CLOUD_INIT
    elif "process=$stat" in command:
        answer = _observed(machine)
    elif _DELIVERED.search(command):
        answer = "write\ncheck\nreload\n"
    elif command.startswith(f"cat -- {DEBIAN.states} "):
        answer = ""
    elif 'ssh-keygen -y -f "$key"' in command:
        machine.staged = machine.staged or asyncssh.generate_private_key("ssh-ed25519")
        answer = machine.staged.export_public_key("openssh").decode()
    elif "systemctl reload ssh" in command and machine.staged:
        machine.host_key = machine.staged
        answer = ""
    return answer


def _observed(machine: _Machine) -> str:
    """Answers ``haproxy.observe_script``."""
    now = time.time()
    running = machine.deliveries > 0
    lines = ["installed=yes", f"sha256={hashlib.sha256(machine.config).hexdigest()}", f"mark={machine.mark}"]
    lines += [f"changed={machine.delivered_at:.9f}", f"active={'active' if running else 'inactive'}"]
    lines += [f"enabled={'enabled' if running else 'disabled'}", f"now={now:.9f}", f"uptime={now - machine.born:.2f}"]
    ticks = int((machine.delivered_at - machine.born) * 100) + 1
    for pid, parent in ((900, 1), (machine.worker, 900)) if running else ():
        lines.append(f"process={pid} (haproxy) S {parent} {' '.join('0' for _ in range(17))} {ticks} 0")
    return "\n".join([*lines, ""])


def _statistics(machine: _Machine, asked: str) -> str:
    """Answers the commands ``show info`` and ``show stat``."""
    said = ""
    if "show info" in asked:
        said += f"Name: HAProxy\nPid: {machine.worker}\ndescription: {machine.mark}\n{_INFO_LINES}\n"
    if "show stat" in asked:
        rows = [("web", "FRONTEND", "", "0", "OPEN", "", "")]
        for backend, name, address in machine.servers:
            where = address if backend == PEERS else address.rpartition(":")[0]
            rows.append((backend, name, "0", "0", "UP", where, "L7OK"))
        filler = "," * (len(_COLUMNS) - len(rows[0]))
        said += "\n".join(["# " + ",".join(_COLUMNS), *(",".join(row) + filler for row in rows), "", ""])
    return said
