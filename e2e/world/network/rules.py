"""nftables rulesets, rendered whole from what is wanted. Pure: every change replaces a table in one transaction."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Literal

from e2e.world.cloud.backend import FirewallRule
from e2e.world.network.topology import PRIVATE_RANGE, REGIONS, SITES, Port

Direction = Literal["both", "in", "out"]


@dataclass(frozen=True)
class Faults:
    """What the core drops. Names are regions and sites; a pair is (from, to)."""

    cut_in: frozenset[str] = frozenset()
    cut_out: frozenset[str] = frozenset()
    cut_pairs: frozenset[tuple[str, str]] = frozenset()
    loss: Mapping[tuple[str, str] | None, float] = field(default_factory=dict)
    """Percent of packets lost between two places, both ways; the key None is for all traffic."""


def render_core(faults: Faults) -> str:
    """The core's table: drops by interface, before and apart from any connection tracking."""
    rules = [f'oifname "{name}" counter drop' for name in sorted(faults.cut_in)]
    rules += [f'iifname "{name}" counter drop' for name in sorted(faults.cut_out)]
    rules += [f'iifname "{a}" oifname "{b}" counter drop' for a, b in sorted(faults.cut_pairs)]
    for pair, percent in sorted(faults.loss.items(), key=str):
        lost = f"numgen random mod 100000 < {round(percent * 1000)} counter drop"
        if pair is None:
            rules.append(lost)
        else:
            rules += [f'iifname "{a}" oifname "{b}" {lost}' for a, b in (pair, pair[::-1])]
    rules.append(f"ip daddr {PRIVATE_RANGE} drop")
    return _table("world", {"forward": ("type filter hook forward priority -10; policy accept;", *rules)})


def render_region(
    ports: Iterable[Port],
    firewalls: Mapping[int, tuple[FirewallRule, ...]],
    silent: frozenset[int] = frozenset(),
) -> str:
    """A region's table: the firewall of each droplet that has one, and nothing at all for those in `silent`.

    As a provider's firewall does, it holds for all traffic that reaches the droplet, on its public and its private
    interface, and lets answers through. A droplet in `silent` has lost its power: not even a reset leaves it.
    """
    dispatch = [f'ip saddr {PRIVATE_RANGE} oifname "core" drop']
    chains: dict[str, tuple[str, ...]] = {}
    for port in sorted(ports, key=lambda port: port.machine):
        links = f'{{ "{port.public_link}", "{port.private_link}" }}'
        if port.machine in silent:
            dispatch += [f"iifname {links} drop", f"oifname {links} drop"]
        elif port.machine in firewalls:
            chain = f"droplet-{port.machine}"
            dispatch.append(f"oifname {links} jump {chain}")
            chains[chain] = ("ct state established,related accept", *_accepts(firewalls[port.machine]), "drop")
    header = "type filter hook forward priority 0; policy accept;"
    return _table("firewall", {**chains, "forward": (header, *dispatch)})


TRACKING = """\
table inet tracking {
  chain forward {
    type filter hook forward priority -20; policy accept;
    ct state invalid counter
  }
}
"""
"""Keeps connection tracking on in a region while the firewall's table is replaced."""


def _accepts(rules: tuple[FirewallRule, ...]) -> Iterable[str]:
    for rule in rules:
        for version in (4, 6):
            sources = [source for source in rule.sources if ip_network(source, strict=False).version == version]
            if sources:
                yield f"{_sources(version, sources)}{_match(rule, version)} accept"


def _sources(version: int, sources: list[str]) -> str:
    if any(ip_network(source, strict=False).prefixlen == 0 for source in sources):
        return f"meta nfproto ipv{version} "
    return f"{'ip' if version == 4 else 'ip6'} saddr {{ {', '.join(sorted(set(sources)))} }} "


def _match(rule: FirewallRule, version: int) -> str:
    match rule.protocol:
        case "icmp":
            return f"meta l4proto {'icmp' if version == 4 else 'ipv6-icmp'}"
        case "tcp" | "udp" if rule.ports in {"all", "0", ""}:
            return f"meta l4proto {rule.protocol}"
        case "tcp" | "udp" if re.fullmatch(r"\d+(-\d+)?", rule.ports):
            return f"{rule.protocol} dport {rule.ports}"
    raise ValueError(f"not a firewall rule: {rule}")


def _table(name: str, chains: Mapping[str, tuple[str, ...]]) -> str:
    body = "".join(f"  chain {chain} {{\n    " + "\n    ".join(rules) + "\n  }\n" for chain, rules in chains.items())
    return f"table inet {name} {{}}\ndelete table inet {name}\ntable inet {name} {{\n{body}}}\n"


def known_place(name: str) -> str:
    """`name` itself when it is a region or a site (`region:` may be left out); ValueError otherwise."""
    if name not in REGIONS and name not in SITES:
        raise ValueError(f"no such place: {name}; there are {', '.join([*REGIONS, *SITES])}")
    return name
