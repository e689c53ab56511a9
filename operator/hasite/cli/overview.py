"""What a person wants to know of a resource and what is below it: frozen values, no layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Condition, DropletRecord
from hasite.api.databasestatus import TurnoverRecord
from hasite.api.loadbalancerpool import AddressStatus, ServerStatus

GOOD_WHEN_FALSE = frozenset(
    {
        "Reconciling",
        "Stalled",
        "DegradedLocation",
        "Blind",
        "DegradedWrites",
        "FailoverRefused",
        "DataSaved",
        "ReplicationConflict",
    }
)
"""Conditions that report trouble, or work in progress, when they are True."""


@dataclass(frozen=True)
class Machine:
    """One droplet. ``state`` is a few words; ``healthy`` is None while nobody can say."""

    name: str
    droplet_id: int | None
    template: str
    state: str
    healthy: bool | None
    addresses: tuple[AddressStatus, ...] = ()


@dataclass(frozen=True)
class Place:
    """One location. ``leaving``: it is not in the spec any more."""

    name: str
    region: str
    load_balancers: tuple[Machine, ...]
    app_servers: tuple[Machine, ...]
    leaving: bool = False
    members: tuple[Machine, ...] = ()


@dataclass(frozen=True)
class Part:
    """One resource: its conditions, and its latest plan. ``stale``: the spec changed since the operator looked."""

    kind: str
    name: str
    namespace: str
    stale: bool
    deleting: bool
    policy: str
    conditions: tuple[Condition, ...]
    steps: tuple[str, ...]
    left_behind: str

    @property
    def waiting_for(self) -> str | None:
        """What has to happen before the next step, in the operator's words."""
        if self.stale:
            return "the operator has not looked at the latest change of the spec yet"
        return next((c.message for c in self.conditions if c.type == "Reconciling" and c.status == "True"), None)

    @property
    def refusal(self) -> Condition | None:
        """Why it cannot go on by itself."""
        return next((c for c in self.conditions if c.type == "Stalled" and c.status == "True"), None)

    @property
    def ready(self) -> Condition | None:
        """The condition to wait for."""
        return next((c for c in self.conditions if c.type == "Ready"), None)


@dataclass(frozen=True)
class Overview:
    """``parts``: the resource that was asked for first, then its pool."""

    domain: str
    parts: tuple[Part, ...]
    places: tuple[Place, ...]
    zone: str
    published: tuple[str, ...]
    given_servers: tuple[ServerStatus, ...] = ()
    """App servers of a pool that has no HASite: somebody else's machines."""
    reign: str = ""
    """Of a database: who takes writes, in which epoch, and what is known of its lease."""
    turnover: TurnoverRecord | None = None
    """Of a database: the latest change of its primary."""


def good(condition: Condition) -> bool:
    """Whether it is as one wishes it."""
    return (condition.status == "True") is (condition.type not in GOOD_WHEN_FALSE)


def overview(site: HASite | None, pool: LoadBalancerPool | None) -> Overview:
    """Of a site with its pool, a site alone, or a pool alone; ValueError for neither."""
    first = site or pool
    if first is None:
        raise ValueError("neither a site nor a pool")
    servers = {s.name: s for s in pool.status.servers} if pool else {}
    zone = pool.status.zone if pool else None
    return Overview(
        domain=first.spec.domain,
        parts=tuple(_part(resource) for resource in (site, pool) if resource is not None),
        places=_places(site, pool, servers),
        zone=f"{zone.name}{' (created by HASite)' if zone.created_by_us else ''}" if zone else "",
        published=tuple(a for a in first.status.published.split(",") if a),
        given_servers=tuple(pool.status.servers) if site is None and pool else (),
    )


def database_overview(database: ReplicatedDatabase) -> Overview:
    """Of a database and its members."""
    spec, status = database.spec, database.status
    wanted = {location.name: location.region for location in spec.locations}
    wanted |= {spec.witness.location: spec.witness.region} if spec.witness else {}
    places = tuple(
        Place(
            name=name,
            region=region,
            load_balancers=(),
            app_servers=(),
            leaving=name not in wanted,
            members=tuple(_member(r, database) for r in _at(status.droplets, name)),
        )
        for name, region in ({r.location: r.region for r in status.droplets} | wanted).items()
    )
    writes = f"writes go to {status.primary}" if status.primary else "nobody takes writes"
    return Overview(
        domain=f"{spec.engine} {spec.version}, {spec.durability}",
        parts=(_part(database),),
        places=places,
        zone="",
        published=(),
        reign=f"{writes}, epoch {status.epoch}{_lease(database)}",
        turnover=status.last_turnover,
    )


def _lease(database: ReplicatedDatabase) -> str:
    """Without the seconds that are left, which only the metrics can say: a primary is shown while it has a lease."""
    status = database.status
    if not status.primary:
        return ", no lease"
    said = next((m.role for m in status.members if m.name == status.primary), "unknown")
    return ", lease valid" if said == "primary" else ", its lease is not heard of"


def _member(record: DropletRecord, database: ReplicatedDatabase) -> Machine:
    said = next((m for m in database.status.members if m.name == record.name), None)
    told: str = "takes no part yet" if said is None else said.role
    if said is not None and said.role == "standby":
        told = f"standby, lag {said.lag}"
    if said is not None and said.conflict:
        told = f"{told}, stopped at a conflict: {said.conflict}"
    if said is not None and said.saved:
        told = f"{told}, keeps {', '.join(said.saved)}"
    healthy = None if said is None or said.role == "unknown" else said.role in ("primary", "standby", "witness")
    return Machine(record.name, record.droplet_id, record.template, _life(record) or told, healthy)


def _part(resource: HASite | LoadBalancerPool | ReplicatedDatabase) -> Part:
    status = resource.status
    return Part(
        kind=resource.KIND,
        name=resource.name,
        namespace=resource.namespace,
        stale=status.observed_generation < resource.generation,
        deleting=resource.deleting,
        policy=resource.spec.management_policy,
        conditions=status.conditions,
        steps=status.plan,
        left_behind=status.left_behind,
    )


def _places(
    site: HASite | None, pool: LoadBalancerPool | None, servers: Mapping[str, ServerStatus]
) -> tuple[Place, ...]:
    apps: Sequence[DropletRecord] = site.status.droplets if site else ()
    balancers: Sequence[DropletRecord] = pool.status.droplets if pool else ()
    addresses = pool.status.addresses if pool else ()
    regions = {r.location: r.region for r in (*apps, *balancers)}
    resource = site or pool
    wanted = {location.name: location.region for location in resource.spec.locations} if resource else {}
    return tuple(
        Place(
            name=name,
            region=region,
            load_balancers=tuple(_load_balancer(r, addresses) for r in _at(balancers, name)),
            app_servers=tuple(_app_server(r, servers.get(r.name)) for r in _at(apps, name)),
            leaving=name not in wanted,
        )
        for name, region in (regions | wanted).items()
    )


def _at(records: Sequence[DropletRecord], location: str) -> list[DropletRecord]:
    return sorted((r for r in records if r.location == location), key=lambda r: r.name)


def _load_balancer(record: DropletRecord, addresses: Sequence[AddressStatus]) -> Machine:
    mine = tuple(a for a in addresses if a.load_balancer == record.name)
    state = _life(record) or ", ".join(sorted({a.state.lower() for a in mine})) or "not published"
    healthy = None if not record.served else all(a.state == "Published" for a in mine)
    return Machine(record.name, record.droplet_id, record.template, state, healthy, mine)


def _app_server(record: DropletRecord, said: ServerStatus | None) -> Machine:
    told = "unknown to the load balancers" if said is None else said.state.lower()
    state = _life(record) or told
    return Machine(record.name, record.droplet_id, record.template, state, None if said is None else said.healthy)


def _life(record: DropletRecord) -> str | None:
    """Where a machine is on its way in or out; None for one that is in service."""
    if record.droplet_id is None:
        return f"being created by {record.claim.by}" if record.claim else "to be created"
    if record.released_since is not None:
        return "out of service, to be destroyed"
    if record.leaving_since is not None:
        return "leaving: taken out of service"
    if not record.public_ipv4:
        return "created, waiting for its address"
    return None if record.pinned else "setting up"
