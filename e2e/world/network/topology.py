"""The local world's geography: which namespaces there are, their addresses, and how they are joined.

```
 ops 203.0.113.10   client .20   dns1 .53   dns2 .54   archive .80
        └───────────────┴────┬─────┴──────────┴───────────┘
                           core                      the internet: routes, and drops what a fault says
             ┌───────────────┼───────────────┐
           r-nyc3          r-ams3          r-…       a region's router: routes to its droplets, their firewalls
          ┌──┴──┐             │
        d-101  d-102        d-103                    eth0 public, eth1 private
```
Every link is a veth with one address at each end and no subnet, so that each packet between any two machines is
routed, and can be dropped, by the namespace between them. No namespace has a route that leaves the world.
"""

from dataclasses import dataclass
from ipaddress import ip_network

DEFAULT_PREFIX = "hs-"
"""What the name of every network namespace and cgroup of a world begins with."""

CORE_ADDRESS = "203.0.113.1"
GATEWAY_V6 = "fe80::1"
PRIVATE_RANGE = "198.18.0.0/15"


@dataclass(frozen=True)
class Region:
    """A datacentre and its public ranges. `router` is the first address of `public`."""

    slug: str
    public: str
    router: str
    public_v6: str

    @property
    def place(self) -> str:
        """The namespace's name without the world's prefix."""
        return f"r-{self.slug}"


@dataclass(frozen=True)
class Site:
    """A place on the internet that is no region: one namespace with one machine's worth of addresses."""

    name: str
    ipv4: str
    ipv6: str


REGIONS = {
    region.slug: region
    for region in (
        Region("nyc3", "192.0.2.0/25", "192.0.2.1", "2001:db8:1::/64"),
        Region("sfo3", "192.0.2.128/25", "192.0.2.129", "2001:db8:2::/64"),
        Region("ams3", "198.51.100.0/25", "198.51.100.1", "2001:db8:3::/64"),
        Region("fra1", "198.51.100.128/25", "198.51.100.129", "2001:db8:4::/64"),
    )
}

SITES = {
    site.name: site
    for site in (
        Site("ops", "203.0.113.10", "2001:db8:ff::10"),
        Site("client", "203.0.113.20", "2001:db8:ff::20"),
        Site("dns1", "203.0.113.53", "2001:db8:ff::53"),
        Site("dns2", "203.0.113.54", "2001:db8:ff::54"),
        Site("archive", "203.0.113.80", "2001:db8:ff::80"),
    )
}


@dataclass(frozen=True)
class Port:
    """Where a droplet is plugged in: its region and its addresses."""

    machine: int
    region: str
    public_ipv4: str
    private_ipv4: str
    public_ipv6: str | None = None

    @property
    def place(self) -> str:
        """The namespace's name without the world's prefix."""
        return f"d-{self.machine}"

    @property
    def private_network(self) -> str:
        """The droplet's VPC: the /24 of its private address, whose first address is the region's router."""
        return str(ip_network(f"{self.private_ipv4}/24", strict=False))

    @property
    def private_router(self) -> str:
        """The router's address in the droplet's VPC."""
        return str(ip_network(self.private_network)[1])

    @property
    def public_link(self) -> str:
        """The interface in the region's namespace that leads to the droplet's eth0."""
        return f"e0-{self.machine}"

    @property
    def private_link(self) -> str:
        """The interface in the region's namespace that leads to the droplet's eth1."""
        return f"e1-{self.machine}"
