"""Watches what must hold at every moment, whoever acts: it writes down each breach, and judges nothing else."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from e2e.world.cloud import MachineSpec
from tests.fakes.machines import decode
from tests.scenarios.clockwork import monotonic

if TYPE_CHECKING:
    from tests.scenarios.universe import Universe


@dataclass
class Witness:
    """``ttl``: the shortest TTL that resolvers were ever told. ``trouble``: machines are down on purpose."""

    universe: "Universe"
    domain: str
    ttl: float
    trouble: bool = False
    giving_up: bool = False
    """The name may be emptied: its owner is being deleted."""
    breaches: list[str] = field(default_factory=list)
    born: Counter[str] = field(default_factory=Counter)
    """Machines made, by name."""
    _published: set[str] = field(default_factory=set)

    def says(self, what: str) -> None:
        if what not in self.breaches:
            self.breaches.append(what)
            self.universe.note(f"BREACH {what}")

    def on_names(self) -> None:
        """After each publication by the name servers."""
        addresses = self.universe.names.addresses(self.domain)
        for version, mark in (("IPv4", "."), ("IPv6", ":")):
            there = any(mark in address for address in addresses)
            if version in self._published and not there and not self.giving_up:
                self.says(f"{self.domain} lost its last {version} address")
            self._published |= {version} if there else set()
        self._held(addresses)

    def on_birth(self, name: str) -> None:
        """When a machine is made."""
        self.born[name] += 1
        alive = [d for d in self.universe.cloud.state.droplets.values() if d.name == name and not d.deleting]
        if len(alive) > 1:
            self.says(f"{name} lives {len(alive)} times")

    def on_destruction(self, spec: MachineSpec) -> None:
        """Just before a machine is destroyed."""
        ground, names = self.universe.ground, self.universe.names
        for address in filter(None, (spec.public_ipv4, spec.public_ipv6)):
            if address in names.addresses(self.domain):
                self.says(f"{spec.name} was destroyed while {address} was published")
            elif monotonic() - names.seen_at.get(address, -1e9) < self.ttl - 0.001:
                self.says(f"{spec.name} was destroyed while resolvers still remembered {address}")
        if self.giving_up:
            return
        for machine in set(map(id, ground.machines.values())):
            proxy = next(m for m in ground.machines.values() if id(m) == machine)
            if proxy.name != spec.name and proxy.active and proxy.in_force is not None and proxy.on:
                upstreams = {u.address for u in decode(proxy.in_force).upstreams if u.state != "Draining"}
                if upstreams & {spec.public_ipv4, spec.private_ipv4} and not self.trouble:
                    self.says(f"{spec.name} was destroyed while {proxy.name} led to it")

    def on_tick(self) -> None:
        """Now and then: every address that visitors may know serves."""
        ground, names = self.universe.ground, self.universe.names
        self._held(names.addresses(self.domain))
        if self.trouble or self.giving_up:
            return
        now = monotonic()
        remembered = {a for a, at in names.seen_at.items() if now - at < self.ttl}
        for address in sorted(names.addresses(self.domain) | remembered):
            if not ground.serves(address):
                self.says(f"{address} does not serve, but visitors are led there")

    def _held(self, addresses: frozenset[str]) -> None:
        held = {a for d in self.universe.cloud.state.droplets.values() if not d.deleting for a in d.addresses()}
        for address in sorted(addresses - held):
            self.says(f"{self.domain} leads to {address}, which is not ours")
