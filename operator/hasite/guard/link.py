"""One connection between two guards, or a guard and the operator: lines of JSON over TLS with both ends known."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hasite.guard.messages import Beat, Message, Renew
from hasite.guard.model import OPERATOR
from hasite.guard.wire import LARGEST, WireError, decode, encode

OPERATOR_CERTIFICATE = "hasite-operator"
"""The common name of the operator's certificate; as a voter and a peer it is ``OPERATOR``."""

PING = b"\n"
"""An empty line keeps a connection that has nothing to say alive."""

_MOST_WAITING = 64
"""Messages of each peer that wait while its connection takes no more; the oldest are dropped."""

log = logging.getLogger("hasite.transport")


@dataclass(frozen=True)
class Tls:
    """Files in PEM. The certificate's common name is who this end is."""

    ca: Path
    certificate: Path
    key: Path

    def stamp(self) -> tuple[int, ...]:
        """Differs when one of the files was replaced. Raises OSError."""
        return tuple(
            number
            for file in (self.ca, self.certificate, self.key)
            for number in (file.stat().st_mtime_ns, file.stat().st_ino)
        )

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError.

        The other end's name is compared by ``Link``, with the common name: an address is no identity here.
        """
        server = purpose is ssl.Purpose.CLIENT_AUTH
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=str(self.ca))
        context.load_cert_chain(str(self.certificate), str(self.key))
        return context


def identity(certificate: dict[str, Any] | None) -> str:
    """Who the verified certificate names; empty: nobody."""
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1:
        return ""
    return OPERATOR if names[0] == OPERATOR_CERTIFICATE else str(names[0])


class Line:
    """A message with its text."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.text = encode(message)


class Link(asyncio.Protocol):
    """Lives as long as its connection. ``up``: whether the peer, which TLS has proved, is let in."""

    def __init__(
        self,
        up: Callable[["Link"], bool],
        down: Callable[["Link"], None],
        received: Callable[[Message], None],
        *,
        dialled: bool = False,
    ) -> None:
        self._up, self._down, self._received = up, down, received
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: deque[Line] = deque(maxlen=_MOST_WAITING)
        self._full = False
        self.dialled = dialled
        self._clock = asyncio.get_running_loop().time
        self.peer = ""
        self.heard = self.spoke = self._clock()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called after the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self.peer = identity(transport.get_extra_info("peercert"))
        self.heard = self.spoke = self._clock()
        if not self.peer or not self._up(self):
            log.warning("refused a connection of %r", self.peer)
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more is sent or received."""
        if not self.closed.done():
            self.closed.set_result(None)
        self._down(self)

    def data_received(self, data: bytes) -> None:
        """A line that can't be read, or that speaks for somebody else, ends the connection."""
        self.heard = self._clock()
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        try:
            if len(rest) > LARGEST:
                raise WireError("the line does not end")
            for line in lines:
                if line:
                    self._read(bytes(line))
        except WireError as error:
            log.warning("%s: %s", self.peer, error)
            self.abort()

    def pause_writing(self) -> None:
        """The peer, or the network, takes no more for now."""
        self._full = True

    def resume_writing(self) -> None:
        """What waited goes out, as far as there is room."""
        self._full = False
        while self._waiting and not self._full:
            self._write(self._waiting.popleft().text)

    def send(self, line: Line) -> None:
        """At once, or when there is room again; a newer Renew or Beat takes the place of one that still waits."""
        if not self._full:
            self._write(line.text)
            return
        if isinstance(line.message, Renew | Beat):
            kept = [waiting for waiting in self._waiting if type(waiting.message) is not type(line.message)]
            self._waiting = deque(kept, maxlen=_MOST_WAITING)
        self._waiting.append(line)

    def ping(self) -> None:
        """So that the peer hears something."""
        if not self._full:
            self._write(PING)

    def abort(self) -> None:
        """Ends the connection without a farewell."""
        if self._transport is not None:
            self._transport.abort()

    def option(self, level: int, option: int, value: int) -> None:
        """Of the socket below."""
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(level, option, value)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.spoke = self._clock()
            self._transport.write(data)

    def _read(self, line: bytes) -> None:
        message = decode(line)
        if message.sender != self.peer:
            raise WireError(f"speaks for {message.sender!r}")
        self._received(message)
