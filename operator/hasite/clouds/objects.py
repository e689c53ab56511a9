"""DigitalOcean's JSON and our values, in both directions.

Every reader raises KeyError, TypeError, ValueError or AttributeError on what it can't read.
"""

import base64
import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

from hasite.clouds.base import DropletSpec
from hasite.plan.world import Droplet, Firewall, FirewallRule

Json = Mapping[str, Any]
Status = Literal["new", "active", "off", "archive"]

EVERYWHERE = ("0.0.0.0/0", "::/0")
_STATUSES = ("new", "active", "off", "archive")
# Sources that our rules have no field for; shown as pseudo-CIDRs, so that a rule opened to them is seen as different.
_OTHER_SOURCES = {"droplet_ids": "droplet", "load_balancer_uids": "load-balancer", "kubernetes_ids": "kubernetes"}


def droplet_from(item: Json) -> Droplet:
    """A droplet as listed."""
    if item["status"] not in _STATUSES:
        raise ValueError(f"unknown droplet status {item['status']!r}")
    networks = item.get("networks") or {}
    v4, v6 = networks.get("v4") or (), networks.get("v6") or ()
    return Droplet(
        id=int(item["id"]),
        name=str(item["name"]),
        region=str(item["region"]["slug"]),
        status=cast(Status, item["status"]),
        tags=frozenset(item["tags"]),
        public_ipv4=_first(v4, "public"),
        private_ipv4=_first(v4, "private"),
        public_ipv6=_first(v6, "public"),
        created_at=datetime.fromisoformat(item["created_at"]).timestamp(),
    )


def _first(networks: Sequence[Json], kind: str) -> str | None:
    """The droplet's own address: a reserved one that is assigned to it follows as another of the same kind."""
    return next((str(network["ip_address"]) for network in networks if network["type"] == kind), None)


def droplet_body(spec: DropletSpec) -> dict[str, Any]:
    """The body of a create. An image of digits only is a snapshot's ID."""
    return {
        "name": spec.name,
        "region": spec.region,
        "size": spec.size,
        "image": int(spec.image) if spec.image.isdecimal() else spec.image,
        "ssh_keys": list(spec.ssh_key_fingerprints),
        "tags": list(spec.tags),
        "user_data": spec.user_data,
        "ipv6": spec.ipv6,
        "monitoring": False,
        "with_droplet_agent": False,
    }


def firewall_from(item: Json) -> Firewall:
    """A firewall as listed; its outbound rules are not looked at."""
    return Firewall(
        id=str(item["id"]),
        name=str(item["name"]),
        inbound=frozenset(_rule_from(rule) for rule in item.get("inbound_rules") or ()),
        tags=frozenset(item.get("tags") or ()),
        droplet_ids=frozenset(item.get("droplet_ids") or ()),
    )


def firewall_body(firewall: Firewall) -> dict[str, Any]:
    """The body of a create or an update: the whole firewall, outbound open."""
    outbound: list[dict[str, Any]] = [
        {"protocol": protocol, "destinations": {"addresses": list(EVERYWHERE)}} | _ports_body(protocol, "all")
        for protocol in ("tcp", "udp", "icmp")
    ]
    return {
        "name": firewall.name,
        "inbound_rules": [_rule_body(rule) for rule in sorted(firewall.inbound, key=repr)],
        "outbound_rules": outbound,
        "tags": sorted(firewall.tags),
        "droplet_ids": sorted(firewall.droplet_ids),
    }


def firewall_tags(firewall: Firewall) -> Sequence[str]:
    """All tags that a firewall names; the API wants them to exist."""
    return sorted(firewall.tags.union(*(rule.tags for rule in firewall.inbound)))


def fingerprint(public_key: str) -> str:
    """MD5 of an OpenSSH public key's blob in colon notation, as the API names keys. ValueError for what is none."""
    parts = public_key.split()
    if len(parts) < 2:
        raise ValueError("not an OpenSSH public key")
    digest = hashlib.md5(base64.b64decode(parts[1], validate=True), usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _rule_from(rule: Json) -> FirewallRule:
    protocol = rule["protocol"]
    if protocol not in ("tcp", "udp", "icmp"):
        raise ValueError(f"unknown protocol {protocol!r}")
    sources = rule.get("sources") or {}
    others = {f"{word}:{value}" for key, word in _OTHER_SOURCES.items() for value in sources.get(key) or ()}
    return FirewallRule(
        protocol=protocol,
        ports=_ports_from(protocol, str(rule.get("ports") or "0")),
        cidrs=frozenset(_cidr(address) for address in sources.get("addresses") or ()) | others,
        tags=frozenset(sources.get("tags") or ()),
    )


def _ports_from(protocol: str, ports: str) -> str:
    """All ports: "0" in answers, "all" or "1-65535" in requests. ICMP has no ports: always "all"."""
    return "all" if protocol == "icmp" or ports in ("0", "all", "1-65535") else ports


def _rule_body(rule: FirewallRule) -> dict[str, Any]:
    sources: dict[str, Any] = {"addresses": sorted(rule.cidrs)} if rule.cidrs else {}
    if rule.tags:
        sources["tags"] = sorted(rule.tags)
    return {"protocol": rule.protocol, "sources": sources} | _ports_body(rule.protocol, rule.ports)


def _ports_body(protocol: str, ports: str) -> dict[str, str]:
    """None for ICMP, as DigitalOcean's own Kubernetes controller sends it."""
    return {} if protocol == "icmp" else {"ports": _ports_from(protocol, ports)}


def _cidr(address: str) -> str:
    """The canonical form: the API takes and gives single addresses without their prefix length too."""
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        return address
