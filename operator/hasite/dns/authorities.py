"""The authoritative servers of a zone, asked themselves."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import dns.exception
import dns.name
from dns.rdatatype import RdataType

from hasite.dns.base import Authorities
from hasite.dns.delegations import Delegations
from hasite.dns.queries import Silent, question
from hasite.plan.world import Answer, Unknown


class DnsAuthorities(Authorities):
    """Learns who they are through a resolver, and asks each of them at its address.

    ``nameservers``: the resolvers, "ip" or "ip:port"; none: the system's. ``port``: of the authoritative servers.
    """

    def __init__(
        self, nameservers: Sequence[str] = (), *, port: int = 53, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._delegations = Delegations(nameservers, clock)
        self._port = port

    async def ask(self, zone: str, name: str, owner_name: str) -> Mapping[str, Answer | Unknown]:
        """Server address → what it says. All names are absolute, with or without their final dot.

        A server whose address can't be learnt stands there with its name, and why none was asked with the zone's: its
        servers can't be learnt, or a name is none that DNS can carry.
        """
        zone = zone.rstrip(".").lower()
        try:
            names = dns.name.from_text(name), dns.name.from_text(owner_name)
        except dns.exception.DNSException as error:
            return {zone: Unknown(f"{name} can't be asked for: {error}")}
        servers = await self._delegations.servers(zone)
        if isinstance(servers, Unknown):
            return {zone: servers}
        by_name = {server: found for server, found in servers.items() if not isinstance(found, Unknown)}
        addresses = sorted({address for found in by_name.values() for address in found})
        answers = await asyncio.gather(*(self._ask_one(address, *names) for address in addresses))
        said = without_dead_family(by_name, dict(zip(addresses, answers, strict=True)))
        return said | {server: found for server, found in servers.items() if isinstance(found, Unknown)}

    async def _ask_one(self, address: str, name: dns.name.Name, owner: dns.name.Name) -> Answer | Unknown:
        a, aaaa, txt = await asyncio.gather(
            question(address, self._port, name, RdataType.A),
            question(address, self._port, name, RdataType.AAAA),
            question(address, self._port, owner, RdataType.TXT),
        )
        if isinstance(a, Unknown):
            return a
        if isinstance(aaaa, Unknown):
            return aaaa
        return txt if isinstance(txt, Unknown) else Answer(a | aaaa, txt)


def without_dead_family(
    servers: Mapping[str, Sequence[str]], said: Mapping[str, Answer | Unknown]
) -> dict[str, Answer | Unknown]:
    """Leaves out the addresses of a family in which nobody answers, if each of their servers has one in the other.

    A host without IPv6 would otherwise never see a publication everywhere.
    """
    silent = {address for address, answer in said.items() if isinstance(answer, Silent)}
    kept = dict(said)
    for six in (True, False):
        family = {address for address in said if (":" in address) == six}
        others = [[address for address in found if address not in family] for found in servers.values()]
        if family and family <= silent and set(said) - family and all(others) and not set(said) - family <= silent:
            kept = {address: answer for address, answer in kept.items() if address not in family}
    return kept
