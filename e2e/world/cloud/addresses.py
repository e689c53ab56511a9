"""Which addresses a droplet or a reserved IP may get, and when an address that was given back is given out again."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class PoolExhausted(Exception):
    """No address is left in the pool."""


@dataclass(frozen=True)
class RegionAddresses:
    """The networks of one region. The last `reserved` hosts of `public` are its reserved IPs."""

    public: str
    private: str
    ipv6: str
    reserved: int = 27


# Documentation ranges (RFC 5737, RFC 3849) and the benchmark range (RFC 2544): never anybody's real addresses.
DEFAULT_PLAN: Mapping[str, RegionAddresses] = {
    "nyc3": RegionAddresses("192.0.2.0/25", "198.18.1.0/24", "2001:db8:1::/64"),
    "sfo3": RegionAddresses("192.0.2.128/25", "198.18.2.0/24", "2001:db8:2::/64"),
    "ams3": RegionAddresses("198.51.100.0/25", "198.18.3.0/24", "2001:db8:3::/64"),
    "fra1": RegionAddresses("198.51.100.128/25", "198.18.4.0/24", "2001:db8:4::/64"),
}

# For thousands of droplets without machines: the upper half of the benchmark range stands in for public addresses.
LARGE_PLAN: Mapping[str, RegionAddresses] = {
    "nyc3": RegionAddresses("198.19.0.0/18", "198.18.0.0/18", "2001:db8:1::/64", reserved=4000),
    "sfo3": RegionAddresses("198.19.64.0/18", "198.18.64.0/18", "2001:db8:2::/64", reserved=4000),
    "ams3": RegionAddresses("198.19.128.0/18", "198.18.128.0/18", "2001:db8:3::/64", reserved=4000),
    "fra1": RegionAddresses("198.19.192.0/18", "198.18.192.0/18", "2001:db8:4::/64", reserved=4000),
}

FIRST_HOST = 10  # the hosts below it are the region's routers


class Pool:
    """Hands out addresses. One that comes back waits behind all the others, unless `reuse_at_once`."""

    def __init__(self, addresses: Iterable[str], *, reuse_at_once: bool) -> None:
        self._fresh = iter(addresses)
        self._used: deque[str] = deque()
        self._reuse_at_once = reuse_at_once

    def take(self) -> str:
        """The next free address. Raises PoolExhausted."""
        if self._reuse_at_once and self._used:
            return self._used.pop()
        fresh = next(self._fresh, None)
        if fresh is not None:
            return fresh
        if self._used:
            return self._used.popleft()
        raise PoolExhausted

    def give_back(self, address: str) -> None:
        """Make the address available again."""
        self._used.append(address)


class Addresses:
    """The pools of every region."""

    def __init__(self, plan: Mapping[str, RegionAddresses], *, reuse_at_once: bool) -> None:
        self.plan = plan
        self._reuse_at_once = reuse_at_once
        self.public: dict[str, Pool] = {}
        self.reserved: dict[str, Pool] = {}
        self.private: dict[str, Pool] = {}
        self.ipv6: dict[str, Pool] = {}
        for region, networks in plan.items():
            last = ipaddress.ip_network(networks.public).num_addresses - 2
            split = last - networks.reserved
            self.public[region] = self._pool(networks.public, range(FIRST_HOST, split + 1))
            self.reserved[region] = self._pool(networks.public, range(last, split, -1))
            self.ipv6[region] = self._pool(networks.ipv6, range(FIRST_HOST, 2**32))
        cidrs = [cidr for networks in plan.values() for cidr in (networks.public, networks.ipv6)]
        self._public_networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
        self._known: dict[str, bool] = {}

    def add_private(self, key: str, cidr: str) -> None:
        """Open the pool of a private network."""
        size = ipaddress.ip_network(cidr).num_addresses
        self.private[key] = self._pool(cidr, range(FIRST_HOST if size >= 32 else 1, size - 1))

    def is_public(self, address: str) -> bool:
        """Whether the address is one that this cloud gives out to droplets or as a reserved IP."""
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._in_public_network(address)
        return known

    def _in_public_network(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._public_networks)

    def _pool(self, cidr: str, hosts: range) -> Pool:
        network = ipaddress.ip_network(cidr)
        return Pool((str(network[host]) for host in hosts), reuse_at_once=self._reuse_at_once)
