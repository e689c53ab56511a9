"""Reaching into a network namespace from the host's process: sockets, processes, forwarders."""

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def inside(namespace: str, call: Callable[[], T]) -> T:
    """Run `call` in a thread of its own that has entered the namespace; what it opens stays in there."""

    def enter_and_call() -> T:
        with (NAMESPACES / namespace).open() as handle:
            if _libc.setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {namespace}: {os.strerror(ctypes.get_errno())}")
        return call()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(enter_and_call).result()


def listen_in(namespace: str, host: str, port: int) -> socket.socket:
    """A listening TCP socket inside the namespace, owned by this process. OSError when the address is not free."""

    def listen() -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
        listener.setblocking(False)
        return listener

    return inside(namespace, listen)


def socket_in(namespace: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """An unconnected socket inside the namespace, non-blocking: a way out for the host's own probes."""

    def create() -> socket.socket:
        created = socket.socket(family, kind)
        created.setblocking(False)
        return created

    return inside(namespace, create)


def command_in(namespace: str, argv: Sequence[str], resolv_conf: Path | None = None) -> list[str]:
    """The command line that runs `argv` in the namespace, with `resolv_conf` in place of the host's if given.

    Only the network is the namespace's: a process that keeps a copy of the host's mounts would keep machines' disks
    alive, so with `resolv_conf` its mounts follow the host's.
    """
    enter = ["nsenter", f"--net={NAMESPACES / namespace}"]
    if resolv_conf is None:
        return [*enter, "--", *argv]
    script = f'mount --bind "{resolv_conf}" /etc/resolv.conf && exec "$@"'
    return [*enter, "--", "unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", *argv]


def run_in(
    namespace: str, argv: Sequence[str], *, resolv_conf: Path | None = None, **popen: Any
) -> subprocess.Popen[Any]:
    """Start a process in the namespace; `popen` as for subprocess.Popen. Its loopback is the namespace's own."""
    return subprocess.Popen(command_in(namespace, argv, resolv_conf), **popen)


async def forward(listener: socket.socket, target_host: str, target_port: int) -> asyncio.Server:
    """Pass each connection on `listener` to a TCP server of the host's own network, until the result is closed."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                target_reader, target_writer = await asyncio.open_connection(target_host, target_port)
            except OSError:
                return
            with contextlib.closing(target_writer):
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(_pump(reader, target_writer))
                    directions.create_task(_pump(target_reader, writer))

    return await asyncio.start_server(relay, sock=listener)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction; an end of stream is passed on as a half-close, a broken connection ends both."""
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()
