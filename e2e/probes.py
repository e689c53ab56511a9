"""How the e2e tests look at the local world from inside its namespaces, and wait for what they expect."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.message

from e2e.world.machines.cgroups import CGROUP_ROOT
from e2e.world.network import socket_in


async def connect(namespace: str, address: str, port: int = 22, seconds: float = 1.0) -> socket.socket:
    """Open a TCP connection from a namespace. OSError or TimeoutError when that fails."""
    opened = socket_in(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(opened, (address, port)), seconds)
    except BaseException:
        opened.close()
        raise
    return opened


async def reaches(namespace: str, address: str, port: int = 22, seconds: float = 1.0) -> bool:
    """Whether a TCP connection can be opened from a namespace."""
    with contextlib.suppress(OSError, TimeoutError):
        (await connect(namespace, address, port, seconds)).close()
        return True
    return False


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)


async def silent(connection: socket.socket, seconds: float = 0.5) -> bool:
    """Whether nothing arrives on an open connection, not even its end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1000), seconds)
        return False
    return True


def traces(prefix: str, directory: Path) -> list[str]:
    """What is left of a world or a machine: namespaces, control groups, links, mounts, processes, files."""
    links = subprocess.check_output(["ip", "-o", "link"], text=True).splitlines()
    processes = subprocess.check_output(["ps", "axww", "-o", "args"], text=True).splitlines()
    mounts = Path("/proc/mounts").read_text().splitlines()
    return [
        *(str(path) for path in (*Path("/run/netns").glob(f"{prefix}*"), *CGROUP_ROOT.rglob(f"{prefix}*"))),
        *(line for line in links if prefix in line),
        *(line for line in (*mounts, *processes) if f"{directory}/" in line),
        *([str(directory)] if directory.exists() else []),
    ]


async def ask(namespace: str, server: str, name: str, kind: str) -> dns.message.Message:
    """A name server's answer to one question over UDP. TimeoutError when none comes."""
    udp = socket_in(namespace, kind=socket.SOCK_DGRAM)
    with udp:
        await asyncio.get_running_loop().sock_sendto(udp, dns.message.make_query(name, kind).to_wire(), (server, 53))
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(udp, 4096), 2)
    return dns.message.from_wire(answer)
