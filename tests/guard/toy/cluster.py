"""Guards, fuses and toy servers as real processes on loopback, with real certificates and votes on disk."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hasite.guard import cgroup, lease
from hasite.guard.model import Member, Membership, Settings, Timing
from hasite.guard.wire import dump

from tests.guard import groups
from tests.guard.pki import Authority
from tests.guard.ports import free_ports
from tests.guard.toy.guard import layout_of

SOURCE = Path(lease.__file__).parents[2]
TREE = Path(__file__).parents[3]
FUSE = "from hasite.guard import fuse; import sys; fuse.main(sys.argv[1], tuple(sys.argv[2:]), '')"


@dataclass
class Node:
    """A member: its folder, ports, group and processes."""

    name: str
    root: Path
    group: str
    ports: Mapping[str, int]
    guard: subprocess.Popen[bytes] | None = None
    fuse: subprocess.Popen[bytes] | None = None

    def processes(self) -> tuple[tuple[str, subprocess.Popen[bytes] | None], ...]:
        """The guard and the fuse, when they were started."""
        return (("guard", self.guard), ("fuse", self.fuse))

    def server(self) -> tuple[int, ...]:
        """The processes of its database server."""
        return cgroup.pids((self.group,))

    def status(self) -> dict[str, Any]:
        """As the guard tells it on its socket; {} when it does not answer."""
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.5)
            sock.connect(str(layout_of(self.root).socket))
            sock.sendall(b"status\n")
            text = b"".join(iter(lambda: sock.recv(65536), b""))
            told: dict[str, Any] = json.loads(text)
            return told
        return {}

    def page(self, path: str) -> int:
        """The status of a health page; 0: no answer."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["pages"]), 0.5) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return int(sock.recv(100).split(b" ")[1])
        return 0

    def write(self, value: str, seconds: float = 1.0) -> str:
        """What the server answers: ``OK epoch``, ``READONLY``, or "" for nothing (then it may have been written)."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["server"]), 0.3) as sock:
            sock.settimeout(seconds)
            sock.sendall(f"WRITE {value}\n".encode())
            return sock.recv(100).decode().strip()
        return ""

    def log(self) -> str:
        """What its guards and its fuse have said."""
        return (self.root / "guard.log").read_text()

    def history(self) -> list[str]:
        """The values on its disk, in their order."""
        with contextlib.suppress(FileNotFoundError):
            return [line.split(" ")[1] for line in (self.root / "data" / "log").read_text().splitlines()]
        return []


@dataclass
class Cluster:
    """``members``: names, in their order; each at a location of its own."""

    folder: Path
    members: tuple[str, ...]
    witnesses: frozenset[str] = frozenset()
    durability: str = "synchronous"
    timing: Timing = field(default_factory=Timing)
    nodes: dict[str, Node] = field(default_factory=dict)
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    python: str = sys.executable

    def __enter__(self) -> "Cluster":
        authority = Authority()
        ports = free_ports(3 * len(self.members))
        table = {
            name: dict(zip(("guard", "pages", "server"), ports[3 * i : 3 * i + 3], strict=True))
            for i, name in enumerate(self.members)
        }
        for name in self.members:
            root = self.folder / name
            layout = layout_of(root)
            group = self.open.enter_context(groups.group())
            authority.issue(layout.tls, name)
            layout.run.mkdir()
            layout.settings.write_text(json.dumps(dump(self.settings(name))))
            (root / "toy.json").write_text(json.dumps({"name": name, "ports": table, "group": group}))
            self.nodes[name] = Node(name, root, group, table[name])
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            for process in (node.guard, node.fuse):
                if process is not None:
                    process.kill()
                    process.wait()
        self.open.close()

    def settings(self, name: str) -> Settings:
        """Of one member."""
        members = tuple(Member(one, one, "127.0.0.1", one in self.witnesses) for one in self.members)
        return Settings(
            "toy",
            name,
            "postgresql",
            "0",
            "PrimaryReplica",
            "synchronous" if self.durability == "synchronous" else "asynchronous",
            degraded_writes=False,
            maximum_lag=5.0,
            membership=Membership(1, members, self.members),
            bootstrap=self.members[0],
            timing=self.timing,
        )

    def reconfigure(self, **changes: Any) -> None:
        """New settings for everybody, as the operator delivers them."""
        for node in self.nodes.values():
            settings = replace(self.settings(node.name), **changes)
            layout_of(node.root).settings.write_text(json.dumps(dump(settings)))
            if node.guard is not None:
                node.guard.send_signal(signal.SIGHUP)

    def start(self, name: str) -> None:
        """Its fuse and its guard, in the place of those that still run."""
        node = self.nodes[name]
        for _, process in node.processes():
            if process is not None:
                process.kill()
                process.wait()
        environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TREE}"}
        log = open(node.root / "guard.log", "ab")  # noqa: SIM115
        path = str(layout_of(node.root).lease)
        node.fuse = subprocess.Popen([self.python, "-S", "-c", FUSE, path, node.group], env=environment, stderr=log)
        command = [self.python, "-m", "tests.guard.toy.guard", str(node.root)]
        node.guard = subprocess.Popen(command, env=environment, stderr=log, cwd=TREE)
        log.close()

    def crash(self, name: str) -> None:
        """As when the machine loses its power: guard, fuse and server at once, and its tmpfs."""
        node = self.nodes[name]
        for process in (node.guard, node.fuse):
            if process is not None:
                process.kill()
                process.wait()
        cgroup.kill((node.group,))
        with contextlib.suppress(FileNotFoundError):
            layout_of(node.root).lease.unlink()

    def revive(self) -> None:
        """What was stopped goes on, and what is dead is started again."""
        for node in self.nodes.values():
            if all(process is not None and process.poll() is None for _, process in node.processes()):
                for _, process in node.processes():
                    if process is not None:
                        process.send_signal(signal.SIGCONT)
            else:
                self.crash(node.name)
                self.start(node.name)

    def primary(self, *but: str) -> Node | None:
        """Whoever says that it is one, with a lease."""
        for node in self.nodes.values():
            if node.name not in but and node.page("/primary") == 200:
                return node
        return None

    def settled(self) -> bool:
        """A primary is there, every other member with data streams, and all have stored who has every write."""
        others = [node for node in self.nodes.values() if node.name not in self.witnesses]
        roles = sorted(200 if node.page("/primary") == 200 else node.page("/replica") + 1 for node in others)
        if roles != [200, *[201] * (len(others) - 1)]:
            return False
        synchronous = {node.name for node in others} if self.durability == "synchronous" else set()
        votes = [node.status().get("vote", {}) for node in self.nodes.values()]
        return all(set((vote.get("sync") or {}).get("eligible", ())) == synchronous for vote in votes)

    def logs(self) -> str:
        """Of every guard, for a test that fails."""
        return "\n".join(f"--- {node.name}\n{node.log()}" for node in self.nodes.values())


def accepted(cluster: Cluster, value: str, but: str = "", seconds: float = 20.0) -> tuple[Node, float]:
    """Writes to whoever takes it, until somebody does: who, and after how many seconds."""
    began = time.monotonic()
    attempt = 0
    while time.monotonic() - began < seconds:
        for node in cluster.nodes.values():
            attempt += 1
            if node.name != but and node.write(f"{value}.{attempt}", 0.3).startswith("OK"):
                return node, time.monotonic() - began
        time.sleep(0.02)
    raise TimeoutError(cluster.logs())
