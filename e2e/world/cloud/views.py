"""The state as the API shows it."""

from __future__ import annotations

import ipaddress

from .catalogue import DISTRIBUTIONS, REGION_FEATURES, REGIONS, SIZES, Size
from .core import Core
from .rest import Json, timestamp
from .state import Action, Domain, Droplet, Firewall, Image, Record, ReservedIp, Rule, SshKey, Target, Vpc


def region(slug: str) -> Json:
    """A region."""
    return {
        "name": REGIONS[slug],
        "slug": slug,
        "features": list(REGION_FEATURES),
        "available": True,
        "sizes": list(SIZES),
    }


def size(value: Size) -> Json:
    """A droplet size."""
    return {
        "slug": value.slug,
        "memory": value.memory,
        "vcpus": value.vcpus,
        "disk": value.disk,
        "transfer": value.transfer,
        "price_monthly": value.price_monthly,
        "price_hourly": round(value.price_monthly / 672, 5),
        "regions": list(REGIONS),
        "available": True,
        "description": value.description,
        "disk_info": [{"type": "local", "size": {"amount": value.disk, "unit": "gib"}}],
    }


def image(value: Image) -> Json:
    """A base image or a snapshot."""
    return {
        "id": value.id,
        "name": value.name,
        "distribution": value.distribution,
        "slug": value.slug,
        "public": value.slug is not None,
        "regions": list(value.regions),
        "created_at": timestamp(value.created_at),
        "min_disk_size": value.min_disk_size,
        "type": "base" if value.slug else "snapshot",
        "size_gigabytes": 2.34,
        "description": "" if value.slug is None else f"{value.distribution} {value.name}",
        "tags": list(value.tags),
        "status": "available",
        "error_message": "",
    }


def snapshot(value: Image) -> Json:
    """A snapshot in the listing of its droplet."""
    return {
        "id": value.id,
        "name": value.name,
        "created_at": timestamp(value.created_at),
        "regions": list(value.regions),
        "min_disk_size": value.min_disk_size,
        "size_gigabytes": 2.34,
        "type": "snapshot",
    }


def action(core: Core, value: Action) -> Json:
    """An action as it stands now."""
    now = core.now()
    completed = value.completed_at(now)
    return {
        "id": value.id,
        "status": value.status(now),
        "type": value.type,
        "started_at": timestamp(value.started_at),
        "completed_at": None if completed is None else timestamp(completed),
        "resource_id": value.resource_id,
        "resource_type": value.resource_type,
        "region": region(value.region),
        "region_slug": value.region,
    }


def droplet(core: Core, value: Droplet, *, just_created: bool = False) -> Json:
    """A droplet as it stands now; the answer to its creation shows its tags and nothing of its networks."""
    now, ordered = core.now(), SIZES[value.size]
    status = "new" if just_created else value.status(now)
    return {
        "id": value.id,
        "name": value.name,
        "memory": ordered.memory,
        "vcpus": ordered.vcpus,
        "disk": ordered.disk,
        "disk_info": [{"type": "local", "size": {"amount": ordered.disk, "unit": "gib"}}],
        "locked": False if just_created else value.locked(now),
        "status": status,
        "kernel": None,
        "created_at": timestamp(value.created_at),
        "features": list(value.features),
        "backup_ids": [],
        "next_backup_window": None,
        "snapshot_ids": [snap.id for snap in core.state.images.values() if snap.droplet == value.id],
        "image": image(value.image),
        "volume_ids": [],
        "size": size(ordered),
        "size_slug": value.size,
        "networks": {"v4": [], "v6": []} if status == "new" else _networks(core, value),
        "region": region(value.region),
        "tags": list(value.tags if just_created else value.visible_tags(now)),
        "vpc_uuid": value.vpc,
    }


def _networks(core: Core, value: Droplet) -> Json:
    plan = core.addresses.plan[value.region]
    reserved = [ip.ip for ip in core.state.reserved_ips_of(value.id)]
    v4 = [
        _network_v4(value.public_ipv4, plan.public),
        _network_v4(value.private_ipv4, core.state.vpcs[value.vpc].ip_range, private=True),
        *(_network_v4(address, plan.public) for address in reserved),
    ]
    v6 = []
    if value.public_ipv6 is not None:
        gateway = str(ipaddress.ip_network(plan.ipv6)[1])
        v6 = [{"ip_address": value.public_ipv6, "netmask": 64, "gateway": gateway, "type": "public"}]
    return {"v4": v4, "v6": v6}


def _network_v4(address: str, cidr: str, *, private: bool = False) -> Json:
    network = ipaddress.ip_network(cidr)
    return {
        "ip_address": address,
        "netmask": str(network.netmask),
        "gateway": "nil" if private else str(network[1]),
        "type": "private" if private else "public",
    }


def key(value: SshKey) -> Json:
    """An SSH key."""
    return {"id": value.id, "fingerprint": value.fingerprint, "public_key": value.public_key, "name": value.name}


def tag(core: Core, name: str) -> Json:
    """A tag with the number of its resources."""
    droplets = core.state.tagged(name)
    images = [image for image in core.state.images.values() if name in image.tags]
    uris = [f"https://api.digitalocean.com/v2/droplets/{droplet.id}" for droplet in droplets[-1:]]
    resources: Json = {"count": len(droplets) + len(images), "droplets": {"count": len(droplets)}}
    if uris:
        resources["last_tagged_uri"] = resources["droplets"]["last_tagged_uri"] = uris[-1]
    for kind in ("images", "volumes", "volume_snapshots", "databases"):
        resources[kind] = {"count": len(images) if kind == "images" else 0}
    return {"name": name, "resources": resources}


def firewall(core: Core, value: Firewall) -> Json:
    """A firewall; it is waiting until its rules are in force on every droplet."""
    members = set(value.droplet_ids) | {d.id for tag_name in value.tags for d in core.state.tagged(tag_name)}
    pending = [] if value.in_force else sorted(members)
    return {
        "id": value.id,
        "name": value.name,
        "status": "succeeded" if value.in_force else "waiting",
        "created_at": timestamp(value.created_at),
        "pending_changes": [{"droplet_id": id_, "removing": False, "status": "waiting"} for id_ in pending],
        "inbound_rules": [_rule(rule, "sources") for rule in value.inbound],
        "outbound_rules": [_rule(rule, "destinations") for rule in value.outbound],
        "droplet_ids": list(value.droplet_ids),
        "tags": list(value.tags),
    }


def _rule(rule: Rule, side: str) -> Json:
    return {"protocol": rule.protocol, "ports": rule.ports, side: _target(rule.target)}


def _target(target: Target) -> Json:
    fields: Json = {
        "addresses": list(target.addresses),
        "droplet_ids": list(target.droplet_ids),
        "tags": list(target.tags),
        "load_balancer_uids": list(target.load_balancer_uids),
        "kubernetes_ids": list(target.kubernetes_ids),
    }
    return {name: values for name, values in fields.items() if values}


def domain(value: Domain, zone_file: str | None) -> Json:
    """A domain."""
    return {"name": value.name, "ttl": value.ttl, "zone_file": zone_file}


def record(value: Record) -> Json:
    """A DNS record."""
    return {
        "id": value.id,
        "type": value.type,
        "name": value.name,
        "data": value.data,
        "priority": value.priority,
        "port": value.port,
        "ttl": value.ttl,
        "weight": value.weight,
        "flags": value.flags,
        "tag": value.tag,
    }


def reserved_ip(core: Core, value: ReservedIp) -> Json:
    """A reserved IP with the whole droplet that it leads to."""
    holder = core.state.droplets.get(value.droplet) if value.droplet is not None else None
    return {
        "ip": value.ip,
        "droplet": None if holder is None else droplet(core, holder),
        "region": region(value.region),
        "locked": value.locked(core.now()),
        "project_id": value.project_id,
    }


def vpc(value: Vpc) -> Json:
    """A private network."""
    return {
        "id": value.id,
        "urn": f"do:vpc:{value.id}",
        "name": value.name,
        "description": value.description,
        "region": value.region,
        "ip_range": value.ip_range,
        "created_at": timestamp(value.created_at),
        "default": value.default,
    }


def hypervisor_image(value: Image) -> str:
    """The slug of the base image that a machine is made from."""
    return value.slug or value.base or next(iter(DISTRIBUTIONS))
