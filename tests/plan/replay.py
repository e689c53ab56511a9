"""A small pure world: provider, zone, machines, the API server's two objects. It applies steps and lets time pass.

Every external write (of a status, of one step) goes through ``World.wrote``, which notes the state after it. A replay
starts from such a state with a new operator that remembers nothing.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from hasite.api.common import DropletRecord
from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.plan import steps as do
from hasite.plan.droplets import Sight, missing_from_listing
from hasite.plan.failover import Publication
from hasite.plan.names import Owner, droplet_tags
from hasite.plan.pool import PoolPlan, members_of, plan_pool, proxy_models
from hasite.plan.poolworld import PoolWorld
from hasite.plan.proxies import ProxyModel
from hasite.plan.removal import plan_pool_removal
from hasite.plan.site import SitePlan, SiteWorld, plan_site, plan_site_removal
from hasite.plan.site import members_of as site_members
from hasite.plan.status import merge, pool_report, site_report
from hasite.plan.world import (
    Answer,
    DnsRecord,
    Droplet,
    Firewall,
    MachineView,
    Probe,
    ProxyView,
    ServerView,
    Unknown,
    ZoneView,
)

from tests.plan.build import NOW, POOL, SITE, ZONE, metadata

ACTIVE_AFTER, BOOT = 1.0, 3.0
"""Seconds from a droplet's creation until it is active, and until cloud-init is done."""

TAKEOVER = 16.0
"""Seconds until another operator has the Lease of one that died."""


@dataclass(frozen=True)
class Machine:
    """What is on a droplet."""

    template: str
    keys: tuple[str, ...]
    staged: str | None = None
    model: ProxyModel | None = None


@dataclass
class World:
    """Values are immutable, so that a copy of the containers is a copy of the world."""

    site: HASite | None
    pool: LoadBalancerPool | None = None
    now: float = NOW
    droplets: dict[int, Droplet] = field(default_factory=dict)
    machines: dict[int, Machine] = field(default_factory=dict)
    firewalls: dict[str, Firewall] = field(default_factory=dict)
    records: dict[int, DnsRecord] = field(default_factory=dict)
    down: frozenset[str] = frozenset()
    """Regions that nothing reaches."""
    bad: frozenset[str] = frozenset()
    """App templates (of user data) that never become healthy."""
    number: int = 0
    operator: int = 0
    led_at: dict[str, float] = field(default_factory=dict)
    """Address → when it was last in DNS."""
    created: list[str] = field(default_factory=list)
    watch: Callable[["World", object], None] | None = None

    def copy(self) -> "World":
        twin = copy.copy(self)
        for name in ("droplets", "machines", "firewalls", "records", "led_at"):
            setattr(twin, name, dict(getattr(self, name)))
        twin.created = list(self.created)
        return twin

    def wrote(self, what: object) -> None:
        """One external write was done."""
        for data in self.published():
            self.led_at[data] = self.now
        if self.watch is not None:
            self.watch(self, what)

    def fresh(self) -> int:
        self.number += 1
        return self.number

    # What can be seen.

    def published(self) -> list[str]:
        return sorted(r.data for r in self.records.values() if r.type == "A" and r.name == "shop")

    def answer(self) -> Answer:
        texts = frozenset(r.data for r in self.records.values() if r.type == "TXT")
        return Answer(frozenset(self.published()), texts)

    def shown(self) -> list[Droplet]:
        return [self.show(d) for d in self.droplets.values()]

    def show(self, droplet: Droplet) -> Droplet:
        if self.now - droplet.created_at < ACTIVE_AFTER:
            return replace(droplet, status="new", public_ipv4=None, private_ipv4=None)
        return droplet

    def booted(self, droplet: Droplet) -> bool:
        return self.now - droplet.created_at >= BOOT and droplet.status == "active"

    def reached(self, droplet: Droplet) -> bool:
        return droplet.region not in self.down and droplet.status == "active"

    def at(self, address: str) -> Droplet | None:
        found = [d for d in self.droplets.values() if address in (d.public_ipv4, d.private_ipv4)]
        return found[0] if found else None

    def app_up(self, address: str, from_region: str) -> bool:
        app = self.at(address)
        if app is None or not self.reached(app) or from_region in self.down:
            return False
        return self.booted(app) and self.machines[app.id].template not in self.bad

    def alive(self, address: str) -> bool:
        """A load balancer that answers and has an active app server that is up."""
        balancer = self.at(address)
        if balancer is None or not self.reached(balancer) or not self.booted(balancer):
            return False
        model = self.machines[balancer.id].model
        ups = model.upstreams if model else ()
        return any(u.state == "Active" and self.app_up(u.address, balancer.region) for u in ups)

    def views(self, records: tuple[DropletRecord, ...]) -> Mapping[str, MachineView | Unknown]:
        return {r.name: self.view(r) for r in records}

    def view(self, record: DropletRecord) -> MachineView | Unknown:
        droplet = self.droplets.get(record.droplet_id or 0)
        if droplet is None or not self.reached(droplet) or record.public_ipv4 != droplet.public_ipv4:
            return Unknown("no answer")
        if self.now - droplet.created_at < ACTIVE_AFTER:
            return Unknown("not active")
        machine = self.machines[droplet.id]
        assert set(record.known_keys) & set(machine.keys), "the operator forgot the key by which it knows a machine"
        if not self.booted(droplet):
            return MachineView(machine.keys[0], "running", self.now, proxy=Unknown("cloud-init still runs"))
        return MachineView(machine.keys[0], "done", self.now, proxy=self.proxy(droplet, machine))

    def proxy(self, droplet: Droplet, machine: Machine) -> ProxyView:
        model = machine.model
        if model is None:
            return ProxyView(True, "the distribution's", True, True)
        servers = {u.name: ServerView(self.app_up(u.address, droplet.region)) for u in model.upstreams}
        peers = {peer: self.alive(peer) for peer in model.peers}
        return ProxyView(True, repr(model), True, True, servers, peers)

    def sight(self, records: tuple[DropletRecord, ...]) -> Sight:
        listed = self.shown()
        ids = missing_from_listing(records, listed)
        names = [r.name for r in records if r.droplet_id is None]
        return Sight(listed, dict.fromkeys(ids), {n: [d for d in listed if d.name == n] for n in names})

    # What the operator does.

    def reconcile_site(self) -> SitePlan | None:
        site = self.site
        if site is None:
            return None
        records = site.status.droplets
        world = SiteWorld(
            now=self.now,
            identity=f"operator-{self.operator}",
            sight=self.sight(records),
            machines=self.views(records),
            firewalls=tuple(self.firewalls.values()),
            pool=self.pool,
        )
        plan = plan_site_removal(site, world) if site.deleting else plan_site(site, world)
        self.remember_site(plan.status.model_copy(update={"droplets": armed(plan.status.droplets, plan.steps)}))
        for step in ordered(plan.steps):
            self.apply(step, SITE)
        if plan.finished:
            self.site = None
            return plan
        shown = replace(plan, status=cast(HASite, self.site).status)
        now_site = cast(HASite, self.site)
        report = site_report(now_site, world, shown, (), site_members(now_site, world))
        self.remember_site(settled(report, now_site))
        return plan

    def remember_site(self, status: Any) -> None:
        assert self.site is not None
        if status != self.site.status:
            self.site = self.site.model_copy(update={"status": status})
            self.wrote("the site's status")

    def pool_world(self, pool: LoadBalancerPool) -> PoolWorld:
        records = pool.status.droplets
        probes = {
            r.public_ipv4: Probe(self.alive(r.public_ipv4), self.now, ok_at=self.now) for r in records if r.public_ipv4
        }
        return PoolWorld(
            now=self.now,
            identity=f"operator-{self.operator}",
            sight=self.sight(records),
            machines=self.views(records),
            probes=probes,
            rendered={name: repr(model) for name, model in proxy_models(pool).items()},
            firewalls=tuple(self.firewalls.values()),
            zones={ZONE: ""},
            answers={"ns1": self.answer(), "ns2": self.answer()},
            zone=ZoneView(ZONE, tuple(self.records.values())),
        )

    def reconcile_pool(self) -> PoolPlan | None:
        pool = self.pool
        if pool is None:
            return None
        world = self.pool_world(pool)
        plan = plan_pool_removal(pool, world) if pool.deleting else plan_pool(pool, world)
        self.remember_pool(plan.status.model_copy(update={"droplets": armed(plan.status.droplets, plan.steps)}))
        for step in ordered(plan.steps):
            self.apply(step, POOL)
        if plan.finished:
            self.pool = None
            self.wrote("the pool's finalizer")
            return plan
        now_pool = cast(LoadBalancerPool, self.pool)
        shown = replace(plan, status=now_pool.status if plan.status.droplets else plan.status)
        members = members_of(now_pool, world, now_pool.status.droplets, Publication(now_pool.status.addresses, None))
        self.remember_pool(settled(pool_report(now_pool, world, shown, (), members), now_pool))
        return plan

    def remember_pool(self, status: Any) -> None:
        assert self.pool is not None
        if status != self.pool.status:
            self.pool = self.pool.model_copy(update={"status": status})
            self.wrote("the pool's status")

    def apply(self, step: do.Step, owner: Owner) -> None:
        match step:
            case do.CreateDroplet():
                self.create_droplet(step, owner)
                return
            case do.DestroyDroplet():
                self.droplets.pop(step.droplet_id, None)
                self.machines.pop(step.droplet_id, None)
            case do.PowerOnDroplet():
                self.droplets[step.droplet_id] = replace(self.droplets[step.droplet_id], status="active")
            case do.CreateFirewall():
                assert step.firewall.name not in self.firewalls, "a second firewall of one name"
                self.firewalls[step.firewall.name] = replace(step.firewall, id=f"fw-{self.fresh()}")
            case do.UpdateFirewall():
                self.firewalls[step.firewall.name] = step.firewall
            case do.DestroyFirewall():
                self.firewalls.pop(step.name)
            case do.ApplyPool():
                self.apply_pool(step.manifest)
            case do.DeletePool():
                assert self.pool is not None
                marked = {**self.pool.metadata, "deletionTimestamp": "2024-01-01T00:00:00Z"}
                self.pool = self.pool.model_copy(update={"metadata": marked})
            case _:
                self.apply_small(step, owner)
                return
        self.wrote(step)

    def apply_small(self, step: do.Step, owner: Owner) -> None:
        match step:
            case do.CreateRecord():
                number = self.fresh()
                self.records[number] = replace(step.record, id=number)
            case do.UpdateRecord():
                self.records[step.record.id] = step.record
            case do.DeleteRecord():
                self.records.pop(step.record.id)
            case do.ConfigureProxy():
                droplet_id = self.record(step.name, owner).droplet_id or 0
                assert self.pool is not None
                model = proxy_models(self.pool)[step.name]
                self.machines[droplet_id] = replace(self.machines[droplet_id], model=model)
            case do.StageHostKey():
                droplet_id = self.record(step.name, owner).droplet_id or 0
                key = f"own-{self.fresh()}"
                self.machines[droplet_id] = replace(self.machines[droplet_id], staged=key)
                self.wrote(step)
                self.change(step.name, owner, host_key=key)
                return
            case do.ActivateHostKey():
                record = self.record(step.name, owner)
                machine = self.machines[record.droplet_id or 0]
                assert machine.staged == record.host_key or machine.keys == (record.host_key,)
                self.machines[record.droplet_id or 0] = replace(machine, keys=(record.host_key or "",))
                self.wrote(step)
                self.change(step.name, owner, bootstrap_keys=())
                return
            case _:
                raise AssertionError(f"not expected here: {do.describe(step)}")
        self.wrote(step)

    def create_droplet(self, step: do.CreateDroplet, owner: Owner) -> None:
        number = self.fresh()
        record = self.record(step.name, owner)
        tags = frozenset(droplet_tags(owner, step.role))
        address, private = f"198.51.100.{number}", f"198.18.0.{number}"
        self.droplets[number] = Droplet(
            number, step.name, step.region, "active", tags, address, private, created_at=self.now
        )
        self.machines[number] = Machine(record.template, record.bootstrap_keys[-1:])
        self.created.append(step.name)
        self.wrote(step)
        self.change(step.name, owner, droplet_id=number, claim=None)

    def apply_pool(self, manifest: dict[str, Any]) -> None:
        old = self.pool
        generation = old.generation + 1 if old is not None else 1
        meta = {**metadata(POOL), **manifest["metadata"], "generation": generation}
        made = LoadBalancerPool.model_validate({**manifest, "metadata": meta})
        self.pool = made if old is None else made.model_copy(update={"status": old.status})

    def record(self, name: str, owner: Owner) -> DropletRecord:
        status = cast(Any, self.site if owner is SITE else self.pool).status
        return cast(DropletRecord, next(r for r in status.droplets if r.name == name))

    def change(self, name: str, owner: Owner, **changes: object) -> None:
        resource = cast(Any, self.site if owner is SITE else self.pool)
        droplets = tuple(r.model_copy(update=changes) if r.name == name else r for r in resource.status.droplets)
        status = resource.status.model_copy(update={"droplets": droplets})
        (self.remember_site if owner is SITE else self.remember_pool)(status)

    # What happens around it.

    def run(self, limit: float = 900.0) -> "World":
        """Until nothing is waited for, or nothing was done for half a minute.

        Raises AssertionError when that never comes.
        """
        quiet_since = end = self.now
        calm = 0.2
        while self.now < end + limit:
            before = (self.site, self.pool)
            plans = [p for p in (self.reconcile_site(), self.reconcile_pool()) if p is not None]
            acted = any(p.steps for p in plans) or before != (self.site, self.pool)
            if acted:
                quiet_since, calm = self.now, 0.2
            elif self.now - quiet_since > (30.0 if any(p.waits for p in plans) else 1.0):
                return self
            soonest = min((p.again_in for p in plans), default=15.0)
            self.now += max(min(soonest, 5.0), calm)
            calm = min(calm * 2, 5.0)
        raise AssertionError(f"it never comes to rest: {[do.describe(s) for p in plans for s in p.steps]}")

    def change_site(self, **spec: Any) -> None:
        """A person changes the site's spec, in wire form; ``app`` is merged."""
        assert self.site is not None
        wire = self.site.spec.wire()
        app = {**wire["app"], **spec.pop("app", {})}
        made = HASite.model_validate({"kind": "HASite", "metadata": {}, "spec": {**wire, **spec, "app": app}})
        meta = {**self.site.metadata, "generation": self.site.generation + 1}
        self.site = self.site.model_copy(update={"spec": made.spec, "metadata": meta})

    def delete_site(self) -> None:
        assert self.site is not None
        meta = {**self.site.metadata, "deletionTimestamp": "2024-01-01T00:00:00Z"}
        self.site = self.site.model_copy(update={"metadata": meta})

    def lose(self, role: Literal["lb", "app"], region: str) -> None:
        """Somebody deletes a droplet by hand."""
        number = next(n for n, d in self.droplets.items() if f"-{role}-" in d.name and d.region == region)
        del self.droplets[number], self.machines[number]


def armed(records: tuple[DropletRecord, ...], steps: tuple[do.Step, ...]) -> tuple[DropletRecord, ...]:
    """As the applier does: a host key for every droplet that is about to be created, beside those given before."""
    new = {s.name for s in steps if isinstance(s, do.CreateDroplet)}
    return tuple(
        r.model_copy(update={"bootstrap_keys": (*r.bootstrap_keys, f"boot-{r.name}-{len(r.bootstrap_keys)}")})
        if r.name in new
        else r
        for r in records
    )


def ordered(steps: tuple[do.Step, ...]) -> list[do.Step]:
    """As the applier does: DNS first."""
    dns = (do.CreateZone, do.DestroyZone, do.CreateRecord, do.UpdateRecord, do.DeleteRecord)
    return sorted(steps, key=lambda s: not isinstance(s, dns))


def settled(status: Any, resource: Any) -> Any:
    """The report with its conditions' times, as it is written."""
    conditions = merge(resource.status.conditions, status.conditions, resource.generation, "2024-01-01T00:00:00Z")
    return status.model_copy(update={"conditions": conditions})
