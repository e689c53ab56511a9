"""A listening socket for TLS where strangers can only knock.

Connections whose handshake has not ended are few, in all and of each address: whoever connects and says nothing takes
neither the descriptors that a fence needs nor the places of others.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

MOST = 256
EACH = 16
"""Handshakes under way: in all, of one address."""

_HANDSHAKE = 3.0
_SHUTDOWN = 1.0
_PAUSE = 0.5
_AT_ONCE = 100

log = logging.getLogger("hasite.transport")
Address = tuple[str, int]


class Door:
    """``protocol``: makes what a connection is given to, after its handshake."""

    def __init__(self, bound: socket.socket, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._bound, self._context, self._protocol = bound, context, protocol
        self._knocking: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        bound.setblocking(False)

    def open(self) -> None:
        """Lets in from now on."""
        asyncio.get_running_loop().add_reader(self._bound, self._ready)

    def close(self) -> None:
        """Nobody else comes in; who is in stays."""
        if self._bound.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._bound)
        if self._timer is not None:
            self._timer.cancel()
        self._bound.close()
        for task in self._tasks:
            task.cancel()

    def _ready(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left
                log.error("nobody can be let in: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._bound)
                self._timer = loop.call_later(_PAUSE, self.open)
                return
            self._greet(connection, str(address[0]))

    def _greet(self, connection: socket.socket, who: str) -> None:
        if self._knocking[who] >= EACH or self._knocking.total() >= MOST:
            connection.close()
            return
        self._knocking[who] += 1
        task = asyncio.create_task(self._admit(connection), name=f"handshake with {who}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._left(done, who))

    async def _admit(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE,
                ssl_shutdown_timeout=_SHUTDOWN,
            )

    def _left(self, task: asyncio.Task[None], who: str) -> None:
        self._tasks.discard(task)
        self._knocking[who] -= 1
        if not self._knocking[who]:
            del self._knocking[who]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a handshake with %s: %r", who, error)


def bind(address: Address) -> socket.socket:
    """A listening socket. Host "" is every address, of both families where the machine has both. Raises OSError."""
    host, port = address
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
