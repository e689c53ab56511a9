"""One LoadBalancerPool: from what was seen to what is remembered and done next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hasite.api.common import Claim, DropletRecord, seconds
from hasite.api.loadbalancerpool import AddressStatus, LoadBalancerPool, LoadBalancerPoolStatus, ZoneStatus
from hasite.plan.dns import Answers, DnsPlan, DnsWish, choose_zone, gone_everywhere, plan_dns
from hasite.plan.droplets import Settled, Sight, settle
from hasite.plan.failover import Candidate, Publication, is_down, judge, publish
from hasite.plan.firewalls import load_balancer_firewall, plan_firewall, remove_firewall
from hasite.plan.names import Owner, droplet_name, template_hash
from hasite.plan.proxies import Check, ProxyModel, Upstream
from hasite.plan.rollout import Member, Rollout, plan_rollout
from hasite.plan.servers import servers_status
from hasite.plan.steps import (
    ActivateHostKey,
    ConfigureProxy,
    CreateDroplet,
    DestroyDroplet,
    Refusal,
    StageHostKey,
    Step,
    Wait,
)
from hasite.plan.world import Answer, Firewall, Impostor, MachineView, Probe, Unknown, ZoneView

BOOTSTRAP_VERSION = "1"
"""Part of every template: raising it rolls all machines."""

STEADY_SECONDS = 15.0
"""How often a pool at rest is looked at."""


@dataclass(frozen=True)
class PoolWorld:
    """What was observed for one pool. ``zone`` is None when reading it was not needed.

    ``rendered``: load balancer → SHA-256 of the configuration that it should run.
    ``rejected``: load balancer → the words with which exactly that configuration was refused lately.
    """

    now: float
    identity: str
    sight: Sight
    machines: Mapping[str, MachineView | Impostor | Unknown]
    probes: Mapping[str, Probe]
    rendered: Mapping[str, str]
    firewalls: Sequence[Firewall] | Unknown
    zones: Mapping[str, str] | Unknown
    answers: Answers
    zone: ZoneView | Unknown | None = None
    rejected: Mapping[str, str] = field(default_factory=dict)
    operator_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoolPlan:
    """``status`` is written before the first step. ``finished``: nothing of a deleted pool is left."""

    status: LoadBalancerPoolStatus
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    waits: tuple[Wait, ...]
    dns_settled: bool = False
    finished: bool = False

    @property
    def again_in(self) -> float:
        """Seconds until the next look."""
        if self.steps:
            return 0.2
        return min((wait.again_in for wait in self.waits), default=STEADY_SECONDS)


def owner_of(pool: LoadBalancerPool) -> Owner:
    """Whose the pool's things are."""
    return Owner(pool.uid, pool.namespace, pool.name)


def pool_template(pool: LoadBalancerPool) -> str:
    """Hash of what a load balancer droplet is made from."""
    return template_hash(BOOTSTRAP_VERSION, pool.spec.engine, pool.spec.image, pool.spec.size)


def addresses_of(record: DropletRecord) -> tuple[str, ...]:
    """The public addresses of a machine."""
    return tuple(a for a in (record.public_ipv4, record.public_ipv6) if a)


def proxy_models(pool: LoadBalancerPool) -> Mapping[str, ProxyModel]:
    """What each load balancer is to do, by its name."""
    spec, records = pool.spec, pool.status.droplets
    check = spec.backends.health_check
    models: dict[str, ProxyModel] = {}
    for record in records:
        peers = [r for r in records if r.name != record.name and r.leaving_since is None]
        elsewhere = [r for r in peers if r.location != record.location]
        models[record.name] = ProxyModel(
            name=record.name,
            location=record.location,
            domain=spec.domain,
            upstreams=_upstreams(pool, record.location),
            check=Check(check.path, seconds(check.interval), seconds(check.timeout), check.rise, check.fall),
            port=spec.backends.port,
            peers=tuple(sorted(a for r in (elsewhere or peers) for a in addresses_of(r))),
            probe_interval=seconds(spec.failure_detection.interval),
            probe_timeout=seconds(spec.failure_detection.timeout),
            drain_seconds=seconds(spec.backends.drain),
        )
    return models


def _upstreams(pool: LoadBalancerPool, location: str) -> tuple[Upstream, ...]:
    return tuple(
        Upstream(
            name=server.name,
            address=(server.private_address if server.location == location else None) or server.address,
            state=server.state,
            backup=pool.spec.routing == "PreferLocal" and server.location != location,
        )
        for server in sorted(pool.spec.backends.servers, key=lambda s: s.name)
    )


def settle_pool(pool: LoadBalancerPool, world: PoolWorld) -> Settled:
    """The pool's droplets."""
    return settle(pool.status.droplets, world.sight, owner_of(pool), "lb", world.identity, world.now)


def candidates_of(pool: LoadBalancerPool, world: PoolWorld, settled: Settled) -> tuple[Candidate, ...]:
    """Every address of every load balancer, with what the vantage points say of it."""
    found: list[Candidate] = []
    for record in settled.records:
        view = world.machines.get(record.name)
        for address in addresses_of(record):
            found.append(
                Candidate(
                    address=address,
                    family="AAAA" if ":" in address else "A",
                    load_balancer=record.name,
                    location=record.location,
                    verdict=judge(world.probes.get(address), _opinions(pool, world, settled.records, record, address)),
                    proven=_proven(record, view, world),
                    leaving=record.leaving_since is not None,
                    disowned="it shows a foreign host key" if record.pinned and isinstance(view, Impostor) else "",
                )
            )
    return tuple(found)


def _opinions(
    pool: LoadBalancerPool, world: PoolWorld, records: Sequence[DropletRecord], subject: DropletRecord, address: str
) -> Mapping[str, bool]:
    """What the load balancers of the other locations say (of the same one, where there is no other), while fresh."""
    others = [r for r in records if r.name != subject.name]
    elsewhere = [r for r in others if r.location != subject.location]
    patience = max(3.0, 3 * seconds(pool.spec.failure_detection.interval))
    opinions: dict[str, bool] = {}
    for record in elsewhere or others:
        view = world.machines.get(record.name)
        if not isinstance(view, MachineView) or world.now - view.seen_at > patience:
            continue
        if not isinstance(view.proxy, Unknown | None) and address in view.proxy.peers:
            opinions[record.name] = view.proxy.peers[address]
    return opinions


def _proven(record: DropletRecord, view: MachineView | Impostor | Unknown | None, world: PoolWorld) -> bool:
    return record.pinned and isinstance(view, MachineView) and in_force(record, view, world)


def in_force(record: DropletRecord, view: MachineView, world: PoolWorld) -> bool:
    """The proxy runs, at boot too, with the configuration that it should have."""
    proxy = view.proxy
    if isinstance(proxy, Unknown | None):
        return False
    return proxy.active and proxy.enabled and proxy.config_sha256 == world.rendered.get(record.name, "none")


def publication_of(pool: LoadBalancerPool, world: PoolWorld, settled: Settled) -> Publication:
    """Which addresses belong into DNS now."""
    hold_down = seconds(pool.spec.failure_detection.hold_down)
    return publish(pool.status.addresses, candidates_of(pool, world, settled), hold_down, world.now)


def dns_wish(pool: LoadBalancerPool, world: PoolWorld, settled: Settled, publication: Publication) -> DnsWish | Unknown:
    """What the zone should say."""
    if pool.status.zone is not None:
        zone = pool.status.zone.name
    elif isinstance(world.zones, Unknown):
        return world.zones
    else:
        zone = choose_zone(pool.spec.domain, pool.spec.dns.zone, tuple(world.zones))
    kept = {a for r in settled.records for a in addresses_of(r)}
    impostors = {
        a for r in settled.records if isinstance(world.machines.get(r.name), Impostor) for a in addresses_of(r)
    }
    disowned = {a.address for a in publication.addresses if a.address not in kept or a.address in impostors}
    return DnsWish(
        domain=pool.spec.domain,
        zone=zone,
        owner=owner_of(pool),
        addresses=publication.wanted,
        ttl=pool.spec.dns.degraded_ttl_seconds if is_degraded(publication.addresses) else pool.spec.dns.ttl_seconds,
        disowned=frozenset(disowned - set(publication.wanted)),
        zone_is_ours=pool.status.zone is not None and pool.status.zone.created_by_us,
    )


def is_degraded(addresses: Sequence[AddressStatus]) -> bool:
    """An address is withdrawn for being down."""
    return any(is_down(a) for a in addresses)


def plan_pool(pool: LoadBalancerPool, world: PoolWorld) -> PoolPlan:
    """The whole plan of a pool that is not being deleted."""
    settled = settle_pool(pool, world)
    publication = publication_of(pool, world, settled)
    dns, zone = _dns(pool, world, settled, publication)
    members = members_of(pool, world, settled.records, publication)
    rollout = plan_rollout(
        {loc.name: pool.spec.replicas_per_location for loc in pool.spec.locations}, pool_template(pool), members
    )
    firewall_steps, firewall_waits, stands = plan_firewall(
        load_balancer_firewall(owner_of(pool), world.operator_cidrs), world.firewalls
    )
    records = _remember(settled.records, rollout, publication, world)
    created, creations = _creations(pool, rollout, world) if stands else ((), ())
    records, destructions, release_waits = _release(pool, records, world)
    machine_steps, machine_waits = machine_work(records, world)
    status = pool.status.model_copy(
        update={
            "droplets": (*records, *created),
            "addresses": _forget(publication.addresses, records, world),
            "zone": zone,
            "servers": servers_status(pool, world, records, publication),
        }
    )
    waits = [*dns.waits, *settled.waits, *firewall_waits, *release_waits, *machine_waits]
    waits += [Wait(f"{name} does not serve yet", 1.0) for name in rollout.waiting_for]
    if publication.again_in is not None:
        waits.append(Wait("a hold-down has to end", max(publication.again_in, 0.1)))
    steps = (*dns.steps, *firewall_steps, *machine_steps, *settled.steps, *creations, *destructions)
    return PoolPlan(status, steps, dns.refusals, tuple(waits), dns.settled)


def _dns(
    pool: LoadBalancerPool, world: PoolWorld, settled: Settled, publication: Publication
) -> tuple[DnsPlan, ZoneStatus | None]:
    wish = dns_wish(pool, world, settled, publication)
    if isinstance(wish, Unknown):
        return DnsPlan(waits=(Wait(f"the account's domains cannot be seen: {wish.why}", 5.0),)), pool.status.zone
    absent = not isinstance(world.zones, Unknown) and wish.zone not in world.zones
    zone = pool.status.zone or ZoneStatus(name=wish.zone, created_by_us=absent)
    if world.zone is None:
        return DnsPlan(settled=True), zone
    return plan_dns(wish, world.zone, world.answers), zone


def members_of(
    pool: LoadBalancerPool, world: PoolWorld, records: Sequence[DropletRecord], publication: Publication
) -> tuple[Member, ...]:
    """The load balancers, each with whether visitors are led to it and it answers."""
    published = {a.load_balancer for a in publication.addresses if a.state == "Published" and _answered(a, world)}
    reached = {r.name for r in records if any((p := world.probes.get(a)) and p.up for a in addresses_of(r))}
    return tuple(
        Member(r.name, r.location, r.template, r.name in published and r.name in reached, r.leaving_since is not None)
        for r in records
    )


def _answered(address: AddressStatus, world: PoolWorld) -> bool:
    """A name server that gives no answer doesn't count against an address."""
    known = [a for a in world.answers.values() if isinstance(a, Answer)]
    return bool(known) and all(address.address in a.addresses for a in known)


def _remember(
    records: Sequence[DropletRecord], rollout: Rollout, publication: Publication, world: PoolWorld
) -> tuple[DropletRecord, ...]:
    leaving = {leave.name for leave in rollout.leave}
    published = {a.load_balancer for a in publication.addresses if a.state == "Published"}
    return tuple(
        r.model_copy(
            update={
                "leaving_since": world.now if r.name in leaving else r.leaving_since,
                "served": r.served or r.name in published,
            }
        )
        for r in records
    )


def _creations(
    pool: LoadBalancerPool, rollout: Rollout, world: PoolWorld
) -> tuple[tuple[DropletRecord, ...], tuple[Step, ...]]:
    owner, template = owner_of(pool), pool_template(pool)
    regions = {loc.name: loc.region for loc in pool.spec.locations}
    records: list[DropletRecord] = []
    steps: list[Step] = []
    for create in rollout.create:
        name = droplet_name(owner, "lb", create.location, template, create.ordinal)
        region = regions[create.location]
        claim = Claim(by=world.identity, at=world.now)
        records.append(
            DropletRecord(name=name, location=create.location, region=region, template=template, claim=claim)
        )
        steps.append(CreateDroplet(name, create.location, region, "lb", create.reason))
    return tuple(records), tuple(steps)


def _release(
    pool: LoadBalancerPool, records: Sequence[DropletRecord], world: PoolWorld
) -> tuple[tuple[DropletRecord, ...], tuple[Step, ...], tuple[Wait, ...]]:
    """Leaving machines: record gone everywhere → TTL waited out → connections drained → destroyed."""
    kept: list[DropletRecord] = []
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        released, step, wait = release(pool, record, world)
        kept.append(released)
        steps += [step] if step else []
        waits += [wait] if wait else []
    return tuple(kept), tuple(steps), tuple(waits)


def release(
    pool: LoadBalancerPool, record: DropletRecord, world: PoolWorld
) -> tuple[DropletRecord, Step | None, Wait | None]:
    """The next stage of one machine that leaves; one that doesn't is returned as it is."""
    droplet_id = record.droplet_id
    if record.leaving_since is None or droplet_id is None:
        return record, None, None
    if record.released_since is None:
        if _may_be_led_to(pool, record, world):
            return record, None, Wait(f"name servers may still answer with {record.name}", 0.5)
        record = record.model_copy(update={"released_since": world.now})
    released = record.released_since or world.now
    ttl = max(pool.spec.dns.ttl_seconds, pool.spec.dns.degraded_ttl_seconds) if record.served else 0
    drain = seconds(pool.spec.backends.drain)
    waited = world.now - released
    if waited < ttl:
        return record, None, Wait(f"resolvers may still remember {record.name}", ttl - waited)
    view = world.machines.get(record.name)
    sessions = (
        view.proxy.sessions if isinstance(view, MachineView) and not isinstance(view.proxy, Unknown | None) else 0
    )
    if sessions and waited < ttl + drain:
        return record, None, Wait(f"{record.name} still has connections", 1.0)
    return record, DestroyDroplet(record.name, droplet_id, "nothing leads to it any more"), None


def _may_be_led_to(pool: LoadBalancerPool, record: DropletRecord, world: PoolWorld) -> bool:
    """What was never published only has to be absent from the answers that there are: a domain that is not delegated
    must not keep its machines for ever."""
    addresses = addresses_of(record)
    if any(a.state == "Published" and a.address in addresses for a in pool.status.addresses):
        return True
    if record.served:
        return not all(gone_everywhere(address, world.answers) for address in addresses)
    known = [a for a in world.answers.values() if isinstance(a, Answer)]
    return any(address in a.addresses for a in known for address in addresses)


def _forget(
    addresses: Sequence[AddressStatus], records: Sequence[DropletRecord], world: PoolWorld
) -> tuple[AddressStatus, ...]:
    """Addresses whose machine is gone are remembered until no server gives them any more."""
    kept = {a for r in records for a in addresses_of(r)}
    return tuple(a for a in addresses if a.address in kept or not gone_everywhere(a.address, world.answers))


def machine_work(records: Sequence[DropletRecord], world: PoolWorld) -> tuple[tuple[Step, ...], tuple[Wait, ...]]:
    """Host keys and proxy configurations of the machines that can be reached."""
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        view = world.machines.get(record.name)
        if record.droplet_id is None or not isinstance(view, MachineView):
            continue
        if view.cloud_init == "running":
            waits.append(Wait(f"{record.name} is being set up by cloud-init", 1.0))
            continue
        steps += host_key_steps(record)
        work = _proxy_work(record, view, world)
        steps += [work] if isinstance(work, ConfigureProxy) else []
        waits += [work] if isinstance(work, Wait) else []
    return tuple(steps), tuple(waits)


def host_key_steps(record: DropletRecord) -> tuple[Step, ...]:
    """The key that came with user data is replaced: any process on the machine may have read it."""
    if record.pinned:
        return ()
    activate = ActivateHostKey(record.name, "the bootstrap's key was in the user data")
    if record.host_key:
        return (activate,)
    return (StageHostKey(record.name, "the bootstrap's key was in the user data"), activate)


def _proxy_work(record: DropletRecord, view: MachineView, world: PoolWorld) -> ConfigureProxy | Wait | None:
    proxy = view.proxy
    if isinstance(proxy, Unknown | None) or not proxy.installed or in_force(record, view, world):
        return None
    if record.name in world.rejected:
        return Wait(f"{record.name} refused its configuration: {world.rejected[record.name]}", 10.0)
    if proxy.config_sha256 != world.rendered.get(record.name):
        return ConfigureProxy(record.name, "its configuration differs from the one it should have")
    return ConfigureProxy(
        record.name, "the proxy does not run" if not proxy.active else "the proxy would not start at boot"
    )


def plan_pool_removal(pool: LoadBalancerPool, world: PoolWorld) -> PoolPlan:
    """The pool is deleted: name given up → seen gone everywhere → TTL waited out → drained → machines → firewall."""
    leaving = tuple(r.model_copy(update={"leaving_since": r.leaving_since or world.now}) for r in pool.status.droplets)
    pool = pool.model_copy(update={"status": pool.status.model_copy(update={"droplets": leaving})})
    settled = settle_pool(pool, world)
    dns = _removal_of_name(pool, world, settled)
    records, destructions, waits = _release(pool, settled.records, world)
    more, firewall_gone = _removal_of_firewall(pool, records, world)
    status = pool.status.model_copy(update={"droplets": records, "addresses": (), "servers": ()})
    steps = (*dns.steps, *settled.steps, *destructions, *more)
    finished = not steps and not records and dns.settled and firewall_gone
    return PoolPlan(status, steps, dns.refusals, (*dns.waits, *settled.waits, *waits), dns.settled, finished)


def _removal_of_name(pool: LoadBalancerPool, world: PoolWorld, settled: Settled) -> DnsPlan:
    if pool.status.zone is None:
        return DnsPlan(settled=True)
    if world.zone is None:
        return DnsPlan(waits=(Wait("the zone was not read yet", 0.5),))
    wish = dns_wish(pool, world, settled, Publication((), None))
    if isinstance(wish, Unknown):
        return DnsPlan(waits=(Wait(wish.why, 5.0),))
    return plan_dns(replace(wish, delete_all=True), world.zone, world.answers)


def _removal_of_firewall(
    pool: LoadBalancerPool, records: Sequence[DropletRecord], world: PoolWorld
) -> tuple[tuple[Step, ...], bool]:
    if records:
        return (), False
    return remove_firewall(owner_of(pool), "lb", world.firewalls)
