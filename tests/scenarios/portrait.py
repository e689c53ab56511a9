"""The state of a universe without what may differ between two ways to it: IDs, UIDs, addresses, keys and times."""

import json
from typing import Any

from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import DropletRecord

from tests.fakes.machines import decode
from tests.scenarios.universe import Universe

Portrait = dict[str, Any]


def portrait(universe: Universe) -> Portrait:
    """Everything that a person would look at to tell whether two worlds are alike."""
    state = universe.cloud.state
    picture = {
        "droplets": sorted(
            f"{d.name} {d.region} {d.size} {d.image.slug} {d.status(universe.cloud.core.now())} {sorted(d.tags)}"
            for d in state.droplets.values()
            if not d.deleting
        ),
        "records": sorted(
            f"{r.name} {r.type} {r.data} {r.ttl}"
            for zone in state.domains.values()
            for r in zone.records.values()
            if r.type != "SOA"
        ),
        "zones": sorted(universe.names.zones),
        "firewalls": sorted(f"{f.name} {sorted(f.tags)} {f.inbound}" for f in state.firewalls.values()),
        "proxies": _proxies(universe),
        "site": _resource(universe.site()),
        "pool": _resource(universe.pool()),
    }
    return _anonymous(universe, picture)


def difference(one: Portrait, other: Portrait) -> list[str]:
    """The parts that differ, with both values."""
    return [f"{part}:\n    {one[part]}\n    {other[part]}" for part in one if one[part] != other[part]]


def _proxies(universe: Universe) -> dict[str, Any]:
    found = {}
    for machine in universe.ground.machines.values():
        if machine.in_force is not None:
            model = decode(machine.in_force)
            upstreams = sorted(f"{u.name} {u.address} {u.state}" for u in model.upstreams)
            found[machine.name] = [upstreams, sorted(model.peers), model.port, machine.active, machine.enabled]
    return found


def _resource(resource: HASite | LoadBalancerPool | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    return {
        "spec": resource.spec.wire(),
        "finalizers": resource.finalizers,
        "up to date": resource.status.observed_generation == resource.generation,
        "conditions": sorted(f"{c.type} {c.status} {c.reason}" for c in resource.status.conditions),
        "records": sorted(_record(r) for r in resource.status.droplets),
        "columns": [resource.status.locations_ready, resource.status.load_balancers_ready],
        "addresses": sorted(f"{a.address} {a.state}" for a in getattr(resource.status, "addresses", ())),
        "servers": sorted(f"{s.name} {s.state} {s.healthy}" for s in getattr(resource.status, "servers", ())),
    }


def _record(record: DropletRecord) -> str:
    return f"{record.name} {record.template} {record.pinned} {record.served} {record.leaving_since}"


def _anonymous(universe: Universe, picture: Portrait) -> Portrait:
    """Addresses become the names of their machines, UIDs those of their owners."""
    text = json.dumps(picture, default=str, sort_keys=True)
    names = {}
    for spec in universe.ground.specs.values():
        named = {"v4": spec.public_ipv4, "private": spec.private_ipv4, "v6": spec.public_ipv6}
        names.update({address: f"{spec.name}/{kind}" for kind, address in named.items() if address})
    for address in sorted(names, key=len, reverse=True):
        text = text.replace(address, names[address])
    for kind, resource in (("site", universe.site()), ("pool", universe.pool())):
        if resource is not None:
            text = text.replace(resource.uid, f"<{kind}>").replace(resource.uid[:8], f"<{kind}>")
    parsed: Portrait = json.loads(text)
    return {part: sorted(value) if isinstance(value, list) else value for part, value in parsed.items()}
