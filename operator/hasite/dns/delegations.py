"""Which servers are authoritative for a zone, and at which addresses."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from hasite.plan.world import Unknown

MAX_AGE = 60.0  # seconds for which a delegation is believed
RETRY_AFTER = 10.0  # seconds for which one is that could not be learnt, or not wholly
LIFETIME = 2.0  # seconds for one question to the resolver

MAX_ZONES = 1000  # remembered, those that were asked for last

Servers = Mapping[str, Sequence[str] | Unknown]  # server name → its addresses


@dataclass
class _Zone:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    servers: Servers | None = None
    until: float = 0.0
    """When ``servers`` is to be learnt anew."""


class Delegations:
    """The name servers of zones, through a resolver.

    When the resolver fails, what it last said goes on to be used, for a zone as for a single server's addresses:
    a broken resolver must not hide the servers.
    """

    def __init__(self, nameservers: Sequence[str], clock: Callable[[], float]) -> None:
        self._resolver = _resolver(nameservers)
        self._clock = clock
        self._zones: dict[str, _Zone] = {}

    async def servers(self, zone: str) -> Servers | Unknown:
        """The servers of a zone, no older than a minute if the resolver answers. Never empty."""
        known = self._zone(zone)
        async with known.lock:
            if known.servers is not None and self._clock() < known.until:
                return known.servers
            fresh = await self._look_up(zone, known.servers or {})
            if isinstance(fresh, Unknown):
                known.until = self._clock() + RETRY_AFTER
                return fresh if known.servers is None else known.servers
            whole = not any(isinstance(addresses, Unknown) for addresses in fresh.values())
            known.servers, known.until = fresh, self._clock() + (MAX_AGE if whole else RETRY_AFTER)
            return fresh

    def _zone(self, zone: str) -> _Zone:
        """Who still waits for a zone that is forgotten here keeps it to the end."""
        known = self._zones[zone] = self._zones.pop(zone) if zone in self._zones else _Zone()
        if len(self._zones) > MAX_ZONES:
            del self._zones[next(iter(self._zones))]
        return known

    async def _look_up(self, zone: str, known: Servers) -> Servers | Unknown:
        try:
            answer = await self._resolver.resolve(zone, "NS", search=False)
        except (dns.exception.DNSException, OSError) as error:
            return Unknown(f"the name servers of {zone} can't be learnt: {error}")
        names = sorted({rdata.target.to_text(omit_final_dot=True).lower() for rdata in answer})
        found = await asyncio.gather(*(self._addresses(name) for name in names))
        return {
            name: known.get(name, addresses) if isinstance(addresses, Unknown) else addresses
            for name, addresses in zip(names, found, strict=True)
        }

    async def _addresses(self, name: str) -> Sequence[str] | Unknown:
        found = await asyncio.gather(self._family(name, "A"), self._family(name, "AAAA"))
        addresses = [address for family in found if not isinstance(family, Unknown) for address in family]
        if addresses:
            return tuple(addresses)
        whys = [family.why for family in found if isinstance(family, Unknown)]
        return Unknown(f"{name} has no address" + (f": {'; '.join(whys)}" if whys else ""))

    async def _family(self, name: str, rdtype: str) -> Sequence[str] | Unknown:
        try:
            answer = await self._resolver.resolve(name, rdtype, search=False)
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            return ()
        except (dns.exception.DNSException, OSError) as error:
            return Unknown(str(error))
        return sorted(rdata.to_text() for rdata in answer)


def _resolver(nameservers: Sequence[str]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    resolver.lifetime = LIFETIME
    resolver.timeout = LIFETIME / 2
    resolver.cache = None
    if nameservers:
        resolver.nameservers = [_nameserver(text) for text in nameservers]
    return resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    """From "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return dns.nameserver.Do53Nameserver(host, int(port))
