"""One HASite: its app droplets, its LoadBalancerPool, and the roll-out between the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hasite.api.common import API_VERSION, DropletRecord, seconds
from hasite.api.hasite import HASite, HASiteStatus
from hasite.api.loadbalancerpool import LoadBalancerPool, ServerStatus
from hasite.plan.claims import Claims
from hasite.plan.droplets import Sight, settle, unlisted
from hasite.plan.firewalls import app_firewall, plan_firewall, remove_firewall
from hasite.plan.machinework import host_key_steps
from hasite.plan.names import Owner, template_hash
from hasite.plan.poolworld import BOOTSTRAP_VERSION, STEADY_SECONDS
from hasite.plan.rollout import Member, Rollout, plan_rollout
from hasite.plan.sitedatabase import SiteDatabase, database_work, packages_of
from hasite.plan.steps import ApplyPool, DeletePool, DestroyDroplet, Refusal, Step, Wait
from hasite.plan.world import Firewall, Impostor, MachineView, Unknown


@dataclass(frozen=True)
class SiteWorld:
    """What was observed for one site. ``pool`` is None only when the API server says that it isn't there.

    ``database``: what the app servers are to be told of theirs; None for a site without one.
    """

    now: float
    identity: str
    sight: Sight
    machines: Mapping[str, MachineView | Impostor | Unknown]
    firewalls: Sequence[Firewall] | Unknown
    pool: LoadBalancerPool | None
    operator_cidrs: tuple[str, ...] = ()
    user_data_error: str | None = None
    database: SiteDatabase | None = None


@dataclass(frozen=True)
class SitePlan:
    """``status`` is written before the first step. ``finished``: nothing of a deleted site is left."""

    status: HASiteStatus
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...] = ()
    waits: tuple[Wait, ...] = ()
    rollout: Rollout = field(default_factory=Rollout)
    finished: bool = False

    @property
    def again_in(self) -> float:
        """Seconds until the next look."""
        if self.steps:
            return 0.2
        return min((wait.again_in for wait in self.waits), default=STEADY_SECONDS)


def owner_of(site: HASite) -> Owner:
    """Whose the site's things are."""
    return Owner(site.uid, site.namespace, site.name)


def site_template(site: HASite) -> str:
    """Hash of what an app droplet is made from."""
    app = site.spec.app
    return template_hash(BOOTSTRAP_VERSION, app.image, app.size, app.user_data, *packages_of(site))


def plan_site(site: HASite, world: SiteWorld) -> SitePlan:
    """The whole plan of a site that is not being deleted. With bad user data all is kept, and nothing is made."""
    refusal = _refusal(site, world)
    if refusal and (world.pool is None or not owns(site, world.pool)):
        return SitePlan(site.status, (), (refusal,))
    owner = owner_of(site)
    settled = settle(site.status.droplets, world.sight, owner, "app", world.identity, world.now)
    members = tuple(_member(r, world) for r in settled.records)
    want = {loc.name: site.spec.app.replicas_per_location for loc in site.spec.locations}
    rollout = Rollout() if refusal else plan_rollout(want, site_template(site), members)
    records = _remember(settled.records, rollout, members, world)
    records, destructions, release_waits = _release(site, records, world)
    firewall_steps, firewall_waits, stands = _firewall(site, world)
    regions = {loc.name: loc.region for loc in site.spec.locations}
    claims = Claims(owner, "app", site_template(site), regions, world.identity, world.now)
    blind = unlisted(world.sight, rollout.create)
    created, creations = claims.of(rollout.create) if stands and not blind else ((), ())
    status = site.status.model_copy(update={"droplets": (*records, *created)})
    pool_steps = _pool_steps(site.model_copy(update={"status": status}), world)
    machine_steps, machine_waits = _machine_work(records, world)
    led, led_waits = database_work(site, site_template(site), records, world.machines, world.database)
    waits = [*settled.waits, *firewall_waits, *release_waits, *machine_waits, *led_waits, *blind]
    waits += [Wait(f"{name} does not serve yet", 1.0) for name in rollout.waiting_for]
    steps = (*pool_steps, *firewall_steps, *settled.steps, *machine_steps, *led, *creations, *destructions)
    refusals = tuple(each for each in (refusal, _obstacle(world)) if each is not None)
    return SitePlan(status, steps, refusals, tuple(waits), rollout)


def _obstacle(world: SiteWorld) -> Refusal | None:
    """A database that can't be used as the spec says stops nothing else: the site stands, and is repaired."""
    obstacle = world.database.obstacle if world.database else None
    return obstacle if isinstance(obstacle, Refusal) else None


def _refusal(site: HASite, world: SiteWorld) -> Refusal | None:
    """What must be mended before anything is bought."""
    if world.user_data_error:
        return Refusal("InvalidUserData", f"spec.app.userData: {world.user_data_error}")
    if world.pool is not None and not owns(site, world.pool):
        return Refusal("PoolNotOurs", f"a LoadBalancerPool called {world.pool.name} exists that this site does not own")
    return None


def owns(site: HASite, pool: LoadBalancerPool) -> bool:
    """By the pool's owner reference; its name proves nothing."""
    return site.uid in {ref.get("uid") for ref in pool.metadata.get("ownerReferences", ())}


def _server(record: DropletRecord, world: SiteWorld) -> ServerStatus | None:
    if world.pool is None:
        return None
    return next((s for s in world.pool.status.servers if s.name == record.name), None)


def _member(record: DropletRecord, world: SiteWorld) -> Member:
    server = _server(record, world)
    serving = server is not None and server.healthy and server.state == "Active"
    return Member(record.name, record.location, record.template, serving, record.leaving_since is not None)


def members_of(site: HASite, world: SiteWorld) -> tuple[Member, ...]:
    """The app servers, each with whether it gets requests and answers them."""
    return tuple(_member(record, world) for record in site.status.droplets)


def _remember(
    records: Sequence[DropletRecord], rollout: Rollout, members: Sequence[Member], world: SiteWorld
) -> tuple[DropletRecord, ...]:
    leaving = {leave.name for leave in rollout.leave}
    serving = {m.name for m in members if m.serving}
    return tuple(
        r.model_copy(
            update={
                "leaving_since": world.now if r.name in leaving else r.leaving_since,
                "served": r.served or r.name in serving or _admitted(r, world),
            }
        )
        for r in records
    )


def _admitted(record: DropletRecord, world: SiteWorld) -> bool:
    """A candidate that every load balancer finds healthy gets requests from now on."""
    server = _server(record, world)
    return server is not None and server.healthy


def _release(
    site: HASite, records: Sequence[DropletRecord], world: SiteWorld
) -> tuple[tuple[DropletRecord, ...], tuple[Step, ...], tuple[Wait, ...]]:
    kept: list[DropletRecord] = []
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        released, step, wait = release(site, record, world)
        kept.append(released)
        steps += [step] if step else []
        waits += [wait] if wait else []
    return tuple(kept), tuple(steps), tuple(waits)


def release(site: HASite, record: DropletRecord, world: SiteWorld) -> tuple[DropletRecord, Step | None, Wait | None]:
    """A leaving app server: draining in every configuration → drained → out of every configuration → destroyed."""
    droplet_id = record.droplet_id
    if record.leaving_since is None or droplet_id is None:
        return record, None, None
    server = _server(record, world)
    if record.released_since is None:
        if server is not None and not _is_drained(server, seconds(site.spec.app.drain), world.now):
            return record, None, Wait(f"{record.name} is being drained", 1.0)
        record = record.model_copy(update={"released_since": world.now})
    if world.pool is None or not _pool_is_current(world.pool) or server is not None or _in_spec(world.pool, record):
        return record, None, Wait(f"load balancers may still lead to {record.name}", 1.0)
    return record, DestroyDroplet(record.name, droplet_id, "no load balancer leads to it any more"), None


def _is_drained(server: ServerStatus, drain: float, now: float) -> bool:
    return server.state == "Draining" and (server.drained or now - server.since >= drain)


def _pool_is_current(pool: LoadBalancerPool) -> bool:
    return pool.status.observed_generation == pool.generation


def _in_spec(pool: LoadBalancerPool, record: DropletRecord) -> bool:
    return any(server.name == record.name for server in pool.spec.backends.servers)


def _firewall(site: HASite, world: SiteWorld) -> tuple[tuple[Step, ...], tuple[Wait, ...], bool]:
    if world.pool is None:
        return (), (Wait("the load balancer pool is being made", 0.5),), False
    pool = Owner(world.pool.uid, world.pool.namespace, world.pool.name)
    desired = app_firewall(owner_of(site), pool, site.spec.app.port, world.operator_cidrs)
    return plan_firewall(desired, world.firewalls)


def pool_manifest(site: HASite) -> dict[str, Any]:
    """The LoadBalancerPool that the site should have, given its records."""
    spec = site.spec
    rolling = len({record.template for record in site.status.droplets}) > 1
    servers = [
        {
            "name": record.name,
            "location": record.location,
            "address": record.public_ipv4,
            **({"privateAddress": record.private_ipv4} if record.private_ipv4 else {}),
            "state": _state(record, rolling),
        }
        for record in sorted(site.status.droplets, key=lambda r: r.name)
        if record.public_ipv4 and record.released_since is None
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": LoadBalancerPool.KIND,
        "metadata": {
            "name": site.name,
            "namespace": site.namespace,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": HASite.KIND,
                    "name": site.name,
                    "uid": site.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "domain": spec.domain,
            "credentialsRef": spec.credentials_ref.wire(),
            "managementPolicy": spec.management_policy,
            "deletionPolicy": spec.deletion_policy,
            "locations": [location.wire() for location in spec.locations],
            **spec.load_balancers.wire(),
            "backends": {
                "port": spec.app.port,
                "healthCheck": spec.app.health_check.wire(),
                "drain": spec.app.drain,
                "servers": servers,
            },
            "dns": spec.dns.wire(),
            "failureDetection": spec.failure_detection.wire(),
        },
    }


def _state(record: DropletRecord, rolling: bool) -> Literal["Candidate", "Active", "Draining"]:
    """While two versions stand side by side, a new server has to prove itself before it may get a request."""
    if record.leaving_since is not None:
        return "Draining"
    return "Candidate" if rolling and not record.served else "Active"


def _pool_steps(site: HASite, world: SiteWorld) -> tuple[Step, ...]:
    manifest = pool_manifest(site)
    if world.pool is None:
        return (ApplyPool(manifest, "it is absent"),)
    difference = first_difference(manifest["spec"], world.pool.spec.wire())
    return (ApplyPool(manifest, difference),) if difference else ()


def hand_down_policies(site: HASite, pool: LoadBalancerPool | None) -> tuple[ApplyPool, ...]:
    """What a site that leaves all as it is still does: its pool, left as it is otherwise, is to leave all too."""
    if pool is None or not owns(site, pool):
        return ()
    policies = {"managementPolicy": site.spec.management_policy, "deletionPolicy": site.spec.deletion_policy}
    spec = {**pool.spec.wire(), **policies}
    if spec == pool.spec.wire():
        return ()
    return (ApplyPool({**pool_manifest(site), "spec": spec}, "its site leaves all as it is"),)


def first_difference(desired: Any, actual: Any, path: str = "spec") -> str | None:
    """Which field differs, with both values; None when none does. Lists are compared as wholes."""
    if isinstance(desired, dict) and isinstance(actual, dict):
        for key in sorted(desired.keys() | actual.keys()):
            difference = first_difference(desired.get(key), actual.get(key), f"{path}.{key}")
            if difference:
                return difference
        return None
    if isinstance(desired, list) and isinstance(actual, list) and len(desired) == len(actual):
        for index, (one, other) in enumerate(zip(desired, actual, strict=True)):
            difference = first_difference(one, other, f"{path}[{index}]")
            if difference:
                return difference
        return None
    return None if desired == actual else f"{path} is {actual!r}, not {desired!r}"[:300]


def _machine_work(records: Sequence[DropletRecord], world: SiteWorld) -> tuple[tuple[Step, ...], tuple[Wait, ...]]:
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        view = world.machines.get(record.name)
        if record.droplet_id is None or not isinstance(view, MachineView) or record.pinned:
            continue
        if view.cloud_init == "running":
            waits.append(Wait(f"{record.name} is being set up by cloud-init", 1.0))
        else:
            steps += host_key_steps(record)
    return tuple(steps), tuple(waits)


def plan_site_removal(site: HASite, world: SiteWorld) -> SitePlan:
    """The site is deleted: its pool first (name given up, load balancers gone), then the apps, then their firewall."""
    owner = owner_of(site)
    leaving = tuple(r.model_copy(update={"leaving_since": r.leaving_since or world.now}) for r in site.status.droplets)
    settled = settle(leaving, world.sight, owner, "app", world.identity, world.now)
    status = site.status.model_copy(update={"droplets": settled.records})
    pool = world.pool
    if pool is not None and owns(site, pool):
        deletion = DeletePool(pool.name, pool.uid, "its site is deleted")
        return SitePlan(
            status,
            () if pool.deleting else (deletion,),
            waits=(Wait("the load balancer pool is being taken down", 1.0),),
        )
    destructions = tuple(
        DestroyDroplet(r.name, r.droplet_id, "its site is deleted") for r in settled.records if r.droplet_id is not None
    )
    firewall_steps, firewall_gone = ((), False) if settled.records else remove_firewall(owner, "app", world.firewalls)
    steps = (*settled.steps, *destructions, *firewall_steps)
    return SitePlan(status, steps, (), settled.waits, finished=not steps and not settled.records and firewall_gone)
