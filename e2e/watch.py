"""The watch over names through every scenario: what no visitor may ever be told, and what no operator may ever do."""

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass, field

import dns.exception
import dns.message
import dns.rdatatype

from e2e.world.network import SITES, socket_in
from e2e.world.world import World

INTERVAL = 0.2
SERVERS = {name: SITES[name].ipv4 for name in ("dns1", "dns2")}


@dataclass
class Name:
    """One name under watch. ``gone``: it may be empty, because it is being given up."""

    domain: str
    published: set[tuple[str, str]] = field(default_factory=set)
    """Server and family, A or AAAA, with which an address was seen."""
    gone: bool = False
    answers: dict[str, frozenset[str]] = field(default_factory=dict)
    """Server → the IPv4 addresses that it gave last; those of IPv6 are judged alike, but not kept."""


class Watcher:
    """Asks every name server for every name all the time, and compares with what the cloud holds.

    ``problems`` is empty unless: a name led to an address that none of our load balancers had; a resolver could still
    remember an address when its machine was destroyed; a published name was empty; two droplets had one name.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.names: dict[str, Name] = {}
        self.problems: list[str] = []
        self.excused: set[str] = set()
        """Addresses whose machines a test destroyed itself."""
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._remembered: dict[tuple[str, str], float] = {}
        """(domain, address) → until when a resolver may remember it, in monotonic seconds."""

    def watch(self, domain: str) -> Name:
        """From now on this name too."""
        return self.names.setdefault(domain, Name(domain))

    async def start(self) -> None:
        """Begins."""
        for server in SERVERS.values():
            self._tasks.append(asyncio.create_task(self._ask_for_ever(server)))
        self._tasks.append(asyncio.create_task(self._look_for_ever()))

    async def close(self) -> None:
        """Ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    def answers(self, domain: str) -> dict[str, frozenset[str]]:
        """Each server's latest answer."""
        return dict(self.names[domain].answers)

    def holds(self, domain: str, *addresses: str) -> bool:
        """Whether every server gives exactly these addresses."""
        answers = self.names[domain].answers
        return len(answers) == len(SERVERS) and all(given == set(addresses) for given in answers.values())

    # -- names ------------------------------------------------------------------------------------------------------

    async def _ask_for_ever(self, server: str) -> None:
        udp = socket_in(self.world.network.namespace("client"), kind=socket.SOCK_DGRAM)
        self._sockets.append(udp)
        udp.connect((server, 53))
        while True:
            for name in list(self.names.values()):
                with contextlib.suppress(OSError, TimeoutError, dns.exception.DNSException):
                    await self._ask(udp, server, name, "A")
                    await self._ask(udp, server, name, "AAAA")
            await asyncio.sleep(INTERVAL)

    async def _ask(self, udp: socket.socket, server: str, name: Name, family: str) -> None:
        loop = asyncio.get_running_loop()
        query = dns.message.make_query(name.domain, family)
        await loop.sock_sendall(udp, query.to_wire())
        async with asyncio.timeout(1):
            while True:
                answer = dns.message.from_wire(await loop.sock_recv(udp, 4096))
                if query.is_response(answer):
                    break
        sets = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.from_text(family)]
        given = frozenset(str(item) for rrset in sets for item in rrset)
        if family == "A":
            name.answers[server] = given
        for address in given:
            until = time.monotonic() + sets[0].ttl
            self._remembered[name.domain, address] = until
        self._judge_answer(name, server, given, family)

    def _judge_answer(self, name: Name, server: str, given: frozenset[str], family: str) -> None:
        if given:
            name.published.add((server, family))
        elif (server, family) in name.published and not name.gone:
            self._report(f"{server} gives no {family} record of {name.domain}")
        for address in given - self._load_balancers() - self.excused:
            self._report(f"{server} leads {name.domain} to {address}, which no load balancer has")

    def _load_balancers(self) -> set[str]:
        return {
            address
            for droplet in self.world.cloud.state.droplets.values()
            if not droplet.deleting and any(tag.startswith("hasite:lb:") for tag in droplet.tags)
            for address in droplet.addresses()
        }

    # -- the cloud --------------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(INTERVAL)

    def _look(self) -> None:
        held = self._load_balancers()
        now = time.monotonic()
        for (domain, address), until in list(self._remembered.items()):
            if until <= now:
                del self._remembered[domain, address]
            elif address not in held | self.excused:
                self._report(f"a resolver may remember {domain} at {address}, which no load balancer has any more")
        names = [d.name for d in self.world.cloud.state.droplets.values() if not d.deleting]
        for twice in {name for name in names if names.count(name) > 1}:
            self._report(f"there are two droplets called {twice}")

    def _report(self, problem: str) -> None:
        if problem not in (seen.partition(" ")[2] for seen in self.problems):
            self.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")
