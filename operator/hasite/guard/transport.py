"""Messages between guards and the operator. Nothing here is relied on to arrive: the protocol asks again.

Each guard dials every other one unless the other's own connection is there already, and the operator dials every guard;
messages to a peer take the live connection, whoever dialled it.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Mapping

from hasite.guard.door import Address, Door, bind
from hasite.guard.link import Line, Link, Tls
from hasite.guard.messages import Message
from hasite.guard.model import OPERATOR

PORT = 7431

SILENCE = 2.0
"""Seconds without a word after which a connection is taken for dead."""

_PING = 0.8
_KEEP = 0.4
_DIAL = 1.0
_BACKOFF = (0.05, 0.5)
_HANDSHAKE = 3.0
_LOOK = 5.0

log = logging.getLogger("hasite.transport")


class Transport:
    """``name``: this end, which its certificate must name. ``received`` is called in the event loop, one at a time."""

    def __init__(self, name: str, tls: Tls, received: Callable[[Message], None]) -> None:
        self._name = name
        self._tls = tls
        self._received = received
        self._peers: dict[str, Address] = {}
        self._links: dict[str, list[Link]] = {}
        self._diallers: dict[str, asyncio.Task[None]] = {}
        self._door: Door | None = None
        self._address: Address | None = None
        self._client: ssl.SSLContext | None = None
        self._last: Line | None = None
        self._stamp: tuple[int, ...] = ()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, listen: Address | None = None) -> int:
        """Returns the port: 0 takes a free one; without ``listen`` it only dials. Host "" is every address.

        Raises OSError (a port that is taken, a file that is not there) or ssl.SSLError.
        """
        self._stamp = self._tls.stamp()
        self._client = self._tls.context(ssl.Purpose.SERVER_AUTH)
        port = self._listen(listen) if listen is not None else 0
        self._keeper = asyncio.create_task(self._keep(), name="transport")
        return port

    def peers(self, peers: Mapping[str, Address]) -> None:
        """Whom to talk to, and where they listen. Those who are not named any more are hung up on."""
        wanted = {name: address for name, address in peers.items() if name != self._name}
        for name, address in list(self._peers.items()):
            if wanted.get(name) != address:
                self._diallers.pop(name).cancel()
                for link in self._links.get(name, ())[:]:
                    link.abort()
        fresh = {name for name, address in wanted.items() if self._peers.get(name) != address}
        self._peers = wanted
        for name in fresh:
            self._diallers[name] = asyncio.create_task(self._dial(name, wanted[name]), name=f"dial {name}")

    def send(self, to: str, message: Message) -> None:
        """Nothing happens when ``to`` is not connected."""
        links = self._links.get(to)
        if links:
            self._preferred(links).send(self._encoded(message))

    def _preferred(self, links: list[Link]) -> Link:
        """While there are two, both ends take the one that will stay; else the newest."""
        staying = [link for link in links if link.dialled == (self._name < link.peer)]
        return (staying or links)[-1]

    def _encoded(self, message: Message) -> Line:
        """What goes to several peers is encoded once."""
        if self._last is None or self._last.message is not message:
            self._last = Line(message)
        return self._last

    def connected(self, name: str) -> bool:
        """Whether a live connection to it is there; what it is worth, the next two seconds show."""
        return bool(self._links.get(name))

    async def close(self) -> None:
        """Ends every connection."""
        tasks = [*self._diallers.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._diallers.clear()
        self._peers = {}
        if self._door is not None:
            self._door.close()
        for link in [link for links in self._links.values() for link in links]:
            link.abort()

    def _listen(self, address: Address) -> int:
        context = self._tls.context(ssl.Purpose.CLIENT_AUTH)
        bound = bind(address)
        self._door = Door(bound, context, lambda: Link(self._accept, self._forget, self._received))
        self._door.open()
        self._address = (address[0], bound.getsockname()[1])
        return self._address[1]

    def _accept(self, link: Link) -> bool:
        if link.peer not in self._peers and link.peer != OPERATOR:
            return False
        return self._remember(link)

    def _remember(self, link: Link) -> bool:
        """When both ends have dialled at once, the one with the greater name hangs up."""
        _tune(link)
        links = self._links.setdefault(link.peer, [])
        links.append(link)
        if self._name > link.peer and len({one.dialled for one in links}) == 2:
            for surplus in [one for one in links if one.dialled]:
                surplus.abort()
        return True

    def _forget(self, link: Link) -> None:
        links = self._links.get(link.peer, [])
        if link in links:
            links.remove(link)

    async def _dial(self, name: str, address: Address) -> None:
        """Keeps a connection to the peer, until cancelled. One that is ended soon after it stood was refused."""
        time = asyncio.get_running_loop().time
        pause = _BACKOFF[0]
        while True:
            began = time()
            if not self._links.get(name):
                try:
                    async with asyncio.timeout(_DIAL):
                        await self._connect(name, address)
                except (OSError, TimeoutError) as error:
                    log.debug("%s: %s", name, error)
            while links := self._links.get(name):
                await asyncio.wait([link.closed for link in links])
            pause = _BACKOFF[0] if time() - began > 2 * _DIAL else min(pause * 2, _BACKOFF[1])
            await asyncio.sleep(pause)

    async def _connect(self, name: str, address: Address) -> None:
        def judge(link: Link) -> bool:
            return link.peer == name and self._remember(link)

        await asyncio.get_running_loop().create_connection(
            lambda: Link(judge, self._forget, self._received, dialled=True),
            *address,
            ssl=self._client,
            server_hostname="",
            ssl_handshake_timeout=_HANDSHAKE,
        )

    async def _keep(self) -> None:
        """Pings, drops what is silent, and takes in certificates that were replaced."""
        time = asyncio.get_running_loop().time
        looked = time()
        while True:
            await asyncio.sleep(_KEEP)
            now = time()
            for link in [link for links in self._links.values() for link in links]:
                if now - link.heard > SILENCE:
                    link.abort()
                elif now - link.spoke > _PING:
                    link.ping()
            if now - looked > _LOOK:
                looked = now
                with contextlib.suppress(OSError):
                    if self._tls.stamp() != self._stamp:
                        self._reload()

    def _reload(self) -> None:
        """Connections that stand go on; new ones use the new files. Files that do not fit leave the old in force."""
        stamp = self._tls.stamp()
        try:
            self._client = self._tls.context(ssl.Purpose.SERVER_AUTH)
            if self._door is not None and self._address is not None:
                self._tls.context(ssl.Purpose.CLIENT_AUTH)
                self._door.close()
                self._listen(self._address)
        except OSError as error:
            log.error("the new certificate can't be used: %s", error)
        self._stamp = stamp


def _tune(link: Link) -> None:
    """A dead peer's segments are not sent again for minutes."""
    link.option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE * 1000))


__all__ = ["PORT", "SILENCE", "Address", "Tls", "Transport", "bind"]
