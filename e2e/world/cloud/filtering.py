"""Firewalls as the machines see them: tags and droplets resolved into addresses, applied where something changed."""

from __future__ import annotations

import ipaddress
import logging
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from .backend import FirewallRule
from .core import Core
from .state import Firewall, Rule, State, Target

logger = logging.getLogger(__name__)

Filters = dict[int, tuple[FirewallRule, ...] | None]


def changed(core: Core) -> None:
    """Note that firewalls, tags or droplets changed."""
    core.filters_wanted += 1


def apply_soon(core: Core, *firewalls: Firewall) -> None:
    """Note a change of these firewalls and bring the machines up to date after the answer was sent."""
    for firewall in firewalls:
        firewall.in_force = False
    changed(core)
    core.spawn(bring_up_to_date(core))


async def bring_up_to_date(core: Core) -> None:
    """Return once every change noted so far is in force; changes that come together cost one pass."""
    wanted = core.filters_wanted
    async with core.filter_lock:
        if core.filters_applied < wanted or _unfiltered(core):
            generation = core.filters_wanted
            await _apply(core, generation)
            core.filters_applied = generation


def resolve(state: State) -> Filters:
    """The inbound rules of every droplet: the union over its firewalls, None where none applies."""
    by_tag: defaultdict[str, set[int]] = defaultdict(set)
    for droplet in state.droplets.values():
        for tag in droplet.tags:
            by_tag[tag].add(droplet.id)
    permitted: defaultdict[int, dict[FirewallRule, None]] = defaultdict(dict)
    for firewall in state.firewalls.values():
        rules = [resolved for rule in firewall.inbound if (resolved := _resolve_rule(state, rule, by_tag)) is not None]
        for member in {*firewall.droplet_ids, *(id_ for tag in firewall.tags for id_ in by_tag[tag])}:
            permitted[member].update(dict.fromkeys(rules))
    return {id_: tuple(permitted[id_]) if id_ in permitted else None for id_ in state.droplets}


def _resolve_rule(state: State, rule: Rule, by_tag: defaultdict[str, set[int]]) -> FirewallRule | None:
    sources = tuple(sorted(set(_sources(state, rule.target, by_tag))))
    if not sources:
        return None  # nobody is meant, which must not be read as everybody
    ports = "" if rule.protocol == "icmp" else "all" if rule.ports == "0" else rule.ports
    return FirewallRule(rule.protocol, ports, sources)


def _sources(state: State, target: Target, by_tag: defaultdict[str, set[int]]) -> Iterable[str]:
    for address in target.addresses:
        yield _cidr(address)
    for id_ in {*target.droplet_ids, *(id_ for tag in target.tags for id_ in by_tag[tag])}:
        if (droplet := state.droplets.get(id_)) is not None:
            yield from map(_cidr, droplet.addresses())


@lru_cache(maxsize=20_000)
def _cidr(address: str) -> str:
    return str(ipaddress.ip_network(address, strict=False))


def _unfiltered(core: Core) -> bool:
    return any(droplet.machine and droplet.id not in core.filters for droplet in core.state.droplets.values())


async def _apply(core: Core, generation: int) -> None:
    desired = resolve(core.state)
    for id_, rules in desired.items():
        droplet = core.state.droplets.get(id_)
        if droplet is None or not droplet.machine or droplet.deleting:
            continue
        try:
            if core.filters.get(id_) != rules:
                await core.hypervisor.set_firewall(id_, rules)
        except Exception:
            logger.exception("the firewall of droplet %s was not set", id_)  # the next pass tries again
            core.filters.pop(id_, None)
        else:
            core.filters[id_] = rules
    if core.filters_wanted == generation:
        for firewall in core.state.firewalls.values():
            firewall.in_force = True
