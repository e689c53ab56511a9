"""What the simulated provider needs from the world below it: machines and name servers.

`Hypervisor` and `NameServers` are the two seams. With `NullHypervisor` and `NullNameServers` the cloud is an
API simulator without machines: it answers at full speed and remembers what it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class MachineSpec:
    """A droplet as its hypervisor sees it. `ssh_keys` are public keys in OpenSSH's one-line format."""

    id: int
    name: str
    region: str
    image: str
    size: str
    public_ipv4: str
    private_ipv4: str
    public_ipv6: str | None
    user_data: str
    ssh_keys: tuple[str, ...]


@dataclass(frozen=True)
class FirewallRule:
    """One permission for inbound traffic.

    `protocol` is tcp, udp or icmp; `ports` is "22", "8000-9000" or "all", and "" for icmp. `sources` are CIDRs,
    never empty, already resolved: a tag or a droplet stands for the public and private addresses of its droplets.
    """

    protocol: str
    ports: str
    sources: tuple[str, ...]


class Hypervisor(Protocol):
    """Runs the machines behind the droplets.

    `create`, `power` and `destroy` of one machine never overlap; the other calls may come in between.
    """

    async def create(self, spec: MachineSpec) -> None:
        """Return once the machine has begun to boot, with its network up."""

    async def power(self, machine: int, on: bool, *, hard: bool = True) -> None:
        """Switch on or off; `hard=False` asks the guest to shut down and waits for it."""

    async def destroy(self, machine: int) -> None:
        """Take the machine and its disk away; its addresses are free when this returns."""

    async def set_firewall(self, machine: int, inbound: tuple[FirewallRule, ...] | None) -> None:
        """Replace the inbound rules as one change. None: no firewall applies, everything is open."""

    async def assign_reserved_ip(self, address: str, machine: int | None) -> None:
        """Lead a reserved address to a machine, or to nobody."""


@dataclass(frozen=True)
class DnsRecord:
    """One record of a zone. `name` is relative or "@"; host names in `data` are absolute, with the final dot.

    TXT data is the bare text, without quotes. SRV data is "weight port target."; CAA data is 'flags tag "value"'.
    """

    name: str
    type: str
    data: str
    ttl: int
    priority: int | None = None


class NameServers(Protocol):
    """The authoritative servers. Each call carries the whole zone, without its SOA."""

    async def publish(self, zone: str, records: tuple[DnsRecord, ...]) -> None:
        """Serve exactly these records for the zone from now on."""

    async def remove(self, zone: str) -> None:
        """Stop serving the zone."""


@dataclass
class NullHypervisor:
    """Machines that exist on paper only; every call is remembered in `calls`."""

    machines: dict[int, MachineSpec] = field(default_factory=dict)
    running: dict[int, bool] = field(default_factory=dict)
    firewalls: dict[int, tuple[FirewallRule, ...] | None] = field(default_factory=dict)
    reserved_ips: dict[str, int | None] = field(default_factory=dict)
    calls: list[tuple[str, int | str]] = field(default_factory=list)

    async def create(self, spec: MachineSpec) -> None:
        self.calls.append(("create", spec.id))
        self.machines[spec.id] = spec
        self.running[spec.id] = True

    async def power(self, machine: int, on: bool, *, hard: bool = True) -> None:
        self.calls.append(("power-on" if on else "power-off" if hard else "shutdown", machine))
        self.running[machine] = on

    async def destroy(self, machine: int) -> None:
        self.calls.append(("destroy", machine))
        for table in (self.machines, self.running, self.firewalls):
            table.pop(machine, None)

    async def set_firewall(self, machine: int, inbound: tuple[FirewallRule, ...] | None) -> None:
        self.calls.append(("set-firewall", machine))
        self.firewalls[machine] = inbound

    async def assign_reserved_ip(self, address: str, machine: int | None) -> None:
        self.calls.append(("assign-reserved-ip", address))
        self.reserved_ips[address] = machine


@dataclass
class NullNameServers:
    """Zones kept in a mapping; `published` counts the publications of each zone."""

    zones: dict[str, tuple[DnsRecord, ...]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)

    async def publish(self, zone: str, records: tuple[DnsRecord, ...]) -> None:
        self.zones[zone] = records
        self.published[zone] = self.published.get(zone, 0) + 1

    async def remove(self, zone: str) -> None:
        self.zones.pop(zone, None)
