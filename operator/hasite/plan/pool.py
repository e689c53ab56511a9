"""One LoadBalancerPool: from what was seen to what is remembered and done next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hasite.api.common import DropletRecord, seconds
from hasite.api.loadbalancerpool import AddressStatus, LoadBalancerPool, LoadBalancerPoolStatus, ZoneStatus
from hasite.plan.claims import Claims
from hasite.plan.dns import DnsPlan, DnsWish, choose_zone, gone_everywhere, plan_dns
from hasite.plan.droplets import Settled, settle, unlisted
from hasite.plan.failover import Candidate, Publication, is_down, judge, publish
from hasite.plan.firewalls import load_balancer_firewall, plan_firewall
from hasite.plan.machinework import machine_work
from hasite.plan.poolworld import STEADY_SECONDS, PoolWorld, addresses_of, in_force, owner_of, pool_template
from hasite.plan.proxies import Check, ProxyModel, Upstream
from hasite.plan.release import release_all
from hasite.plan.rollout import Member, Rollout, plan_rollout
from hasite.plan.servers import servers_status
from hasite.plan.steps import DestroyDroplet, Refusal, Step, Wait
from hasite.plan.world import Answer, Impostor, MachineView, Unknown


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
    impostors = impostors_of(settled.records, world)
    for record in settled.records:
        view = world.machines.get(record.name)
        for address in addresses_of(record):
            probe = world.probes.get(address)
            found.append(
                Candidate(
                    address=address,
                    family="AAAA" if ":" in address else "A",
                    load_balancer=record.name,
                    location=record.location,
                    verdict=judge(probe, _opinions(pool, world, settled.records, record, address)),
                    proven=_proven(record, view, world),
                    leaving=record.leaving_since is not None,
                    failing_since=probe.failing_since if probe else None,
                    ok_at=probe.ok_at if probe else 0.0,
                    disowned="it shows a foreign host key" if record.name in impostors else "",
                )
            )
    return tuple(found)


def impostors_of(records: Sequence[DropletRecord], world: PoolWorld) -> frozenset[str]:
    """Machines that show a foreign host key while others show their own.

    Where every machine that can be reached does, somebody stands between us and all of them: then nothing is concluded.
    """
    pinned = [r.name for r in records if r.pinned]
    shown = frozenset(name for name in pinned if isinstance(world.machines.get(name), Impostor))
    genuine = any(isinstance(world.machines.get(name), MachineView) for name in pinned)
    return shown if genuine or len(pinned) == 1 else frozenset()


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
    shown = impostors_of(settled.records, world)
    impostors = {a for r in settled.records if r.name in shown for a in addresses_of(r)}
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
    regions = {loc.name: loc.region for loc in pool.spec.locations}
    claims = Claims(owner_of(pool), "lb", pool_template(pool), regions, world.identity, world.now)
    blind = unlisted(world.sight, rollout.create)
    created, creations = claims.of(rollout.create) if stands and not blind else ((), ())
    records, destructions, release_waits = release_all(pool, records, world)
    machine_steps, machine_waits = machine_work(records, world)
    status = pool.status.model_copy(
        update={
            "droplets": (*records, *created),
            "addresses": _forget(publication.addresses, records, world),
            "zone": zone,
            **_ttls(pool, dns, world),
            "servers": servers_status(pool, world, records, publication),
        }
    )
    waits = [*dns.waits, *settled.waits, *firewall_waits, *release_waits, *machine_waits, *blind]
    waits += [Wait(f"{name} does not serve yet", 1.0) for name in rollout.waiting_for]
    if publication.again_in is not None:
        waits.append(Wait("an address has to prove itself", max(publication.again_in, 0.1)))
    unled = [step for step in settled.steps if not _leads_there(step, world)]
    steps = (*dns.steps, *firewall_steps, *machine_steps, *unled, *creations, *destructions)
    return PoolPlan(status, steps, (*dns.refusals, *_zone_is_fixed(pool)), tuple(waits), dns.settled)


def _zone_is_fixed(pool: LoadBalancerPool) -> tuple[Refusal, ...]:
    """A name does not move from zone to zone: two zones would answer for it meanwhile."""
    chosen, wish = pool.status.zone, pool.spec.dns.zone
    if chosen is None or wish in (None, chosen.name):
        return ()
    return (Refusal("ZoneFixed", f"dns.zone is {wish}, but {pool.spec.domain} stands in {chosen.name} already"),)


def _ttls(pool: LoadBalancerPool, dns: DnsPlan, world: PoolWorld) -> dict[str, object]:
    """The TTL that is published, and until when resolvers may still hold a longer one from before (RFC 1034, 3.6)."""
    before, degraded = pool.status.ttl_seconds, is_degraded(pool.status.addresses)
    now = pool.spec.dns.degraded_ttl_seconds if degraded else pool.spec.dns.ttl_seconds
    if now >= before:
        return {"ttl_seconds": now}
    if not dns.settled:
        return {}
    return {"ttl_seconds": now, "longer_ttl_until": max(pool.status.longer_ttl_until, world.now + before)}


def _leads_there(step: Step, world: PoolWorld) -> bool:
    """A droplet that goes, doubled or not, while a name server still answers with its address."""
    if not isinstance(step, DestroyDroplet) or isinstance(world.sight.listed, Unknown):
        return False
    droplet = next((d for d in world.sight.listed if d.id == step.droplet_id), None)
    own = {droplet.public_ipv4, droplet.public_ipv6} - {None} if droplet else set()
    return any(isinstance(answer, Unknown) or own & answer.addresses for answer in world.answers.values())


def _dns(
    pool: LoadBalancerPool, world: PoolWorld, settled: Settled, publication: Publication
) -> tuple[DnsPlan, ZoneStatus | None]:
    wish = dns_wish(pool, world, settled, publication)
    if isinstance(wish, Unknown):
        return DnsPlan(waits=(Wait(f"the account's domains cannot be seen: {wish.why}", 5.0),)), pool.status.zone
    zone = pool.status.zone or ZoneStatus(name=wish.zone)
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
    """A name server that gives no answer doesn't count against an address, nor do all of them."""
    known = [a for a in world.answers.values() if isinstance(a, Answer)]
    return all(address.address in a.addresses for a in known)


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


def _forget(
    addresses: Sequence[AddressStatus], records: Sequence[DropletRecord], world: PoolWorld
) -> tuple[AddressStatus, ...]:
    """Addresses whose machine is gone are remembered until no server gives them any more."""
    kept = {a for r in records for a in addresses_of(r)}
    return tuple(a for a in addresses if a.address in kept or not gone_everywhere(a.address, world.answers))
