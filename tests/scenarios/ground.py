"""What stands on the ground in a simulated world: machines behind droplets, app servers, name servers, cut cables."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hasite.dns.base import Authorities
from hasite.plan.world import Answer, Unknown

from e2e.world.cloud import DnsRecord, MachineSpec
from tests.fakes.machines import OPERATOR, FakeMachine, FakeWorld
from tests.scenarios.clockwork import monotonic

SSHD_SECONDS = 6.0
"""From the start of a machine to its first SSH connection."""
CLOUD_INIT_SECONDS = 15.0
"""From the start of a machine to the end of cloud-init."""
SERVERS = ("192.0.2.53", "198.51.100.53")
"""The authoritative servers."""
SICK = "never-healthy"
"""An app whose user data holds this word never answers its checks."""

_HOST_KEY = re.compile(r"ed25519_public: (\S+ \S+)")


@dataclass
class Ground(FakeWorld):
    """Machines, and which regions are dark. A dark region reaches nothing outside, and is reached from nowhere."""

    specs: dict[int, MachineSpec] = field(default_factory=dict)
    region_of: dict[str, str] = field(default_factory=dict)
    """By address."""
    dark: set[str] = field(default_factory=set)
    operator_is_cut_off_from: set[str] = field(default_factory=set)
    before_destruction: Callable[[MachineSpec], None] = lambda spec: None

    def reaches(self, source: str, address: str) -> bool:
        here, there = self.region_of.get(source), self.region_of.get(address)
        if source == OPERATOR and there in self.operator_is_cut_off_from:
            return False
        if here != there and self.dark & {here, there}:
            return False
        return super().reaches(source, address)

    def answers(self, source: str, app: str) -> bool:
        machine = self.machines.get(app)
        return machine is not None and machine.on and super().answers(source, app)

    # The hypervisor's side.

    async def create(self, spec: MachineSpec) -> None:
        self.specs[spec.id] = spec
        key = _HOST_KEY.search(spec.user_data)
        machine = FakeMachine(spec.name, spec.public_ipv4, key[1] if key else "ssh-ed25519 AAAAown")
        machine.on, machine.installed, machine.cloud_init = False, False, "running"
        for address in (spec.public_ipv4, spec.private_ipv4, spec.public_ipv6):
            if address:
                self.machines[address] = machine
                self.region_of[address] = spec.region
        loop = asyncio.get_running_loop()
        loop.call_later(SSHD_SECONDS, self._sshd, machine)
        loop.call_later(CLOUD_INIT_SECONDS, self._cloud_init_ends, spec, machine)

    async def power(self, machine: int, on: bool, *, hard: bool = True) -> None:
        found = self.machines[self.specs[machine].public_ipv4]
        found.on = on
        if on:
            found.restart()

    async def destroy(self, machine: int) -> None:
        spec = self.specs.pop(machine)
        self.before_destruction(spec)
        for address in (spec.public_ipv4, spec.private_ipv4, spec.public_ipv6):
            if address:
                self.machines.pop(address, None)
                self.healthy.discard(address)

    async def set_firewall(self, machine: int, inbound: object) -> None:
        """Nothing is kept out: firewalls are looked at in the cloud's state."""

    async def assign_reserved_ip(self, address: str, machine: int | None) -> None:
        """Not used."""

    def _sshd(self, machine: FakeMachine) -> None:
        machine.on = True

    def _cloud_init_ends(self, spec: MachineSpec, machine: FakeMachine) -> None:
        machine.cloud_init = "done"
        machine.installed = "haproxy" in spec.user_data
        if "-lb-" not in spec.name and SICK not in spec.user_data:
            self.healthy |= {spec.public_ipv4, spec.private_ipv4}


@dataclass
class Names(Authorities):
    """The authoritative servers, and the resolver that asks them. ``heard`` is called after each publication."""

    zones: dict[str, tuple[DnsRecord, ...]] = field(default_factory=dict)
    heard: Callable[[], None] = lambda: None
    seen_at: dict[str, float] = field(default_factory=dict)
    """Address → when a server last gave it (monotonic)."""
    silent: set[str] = field(default_factory=set)

    async def publish(self, zone: str, records: tuple[DnsRecord, ...]) -> None:
        self._stamp()
        self.zones[zone] = records
        self._stamp()
        self.heard()

    async def remove(self, zone: str) -> None:
        self._stamp()
        self.zones.pop(zone, None)
        self.heard()

    def addresses(self, name: str) -> frozenset[str]:
        return frozenset(self._data(name, ("A", "AAAA")))

    async def ask(self, zone: str, name: str, owner_name: str) -> Mapping[str, Answer | Unknown]:
        answer = Answer(self.addresses(name), frozenset(self._data(owner_name, ("TXT",))))
        return {s: Unknown("no answer in time") if s in self.silent else answer for s in SERVERS}

    def _data(self, name: str, types: tuple[str, ...]) -> list[str]:
        return [
            record.data
            for zone, records in self.zones.items()
            for record in records
            if record.type in types and (zone if record.name == "@" else f"{record.name}.{zone}") == name
        ]

    def _stamp(self) -> None:
        """What is served at this moment was seen at this moment."""
        for records in self.zones.values():
            self.seen_at.update({r.data: monotonic() for r in records if r.type in ("A", "AAAA")})
