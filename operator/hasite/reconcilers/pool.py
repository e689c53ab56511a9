"""LoadBalancerPool: observe → plan → apply → report."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hasite.api.common import seconds
from hasite.api.loadbalancerpool import AddressStatus, LoadBalancerPool
from hasite.errors import HasiteError, Permanent, Unauthorized
from hasite.plan.dns import agrees, owner_domain
from hasite.plan.failover import Publication
from hasite.plan.pool import PoolPlan, dns_wish, members_of, plan_pool, proxy_models, publication_of, settle_pool
from hasite.plan.poolworld import PoolWorld, addresses_of
from hasite.plan.release import out_of_patience
from hasite.plan.removal import plan_pool_removal
from hasite.plan.status import Problem, pool_report
from hasite.plan.steps import describe
from hasite.plan.world import Answer, MachineView, Probe, Unknown
from hasite.reconcilers.apply import Application
from hasite.reconcilers.base import (
    BUSY_AGE,
    RESTING_AGE,
    deleted_at,
    is_busy,
    look_at_account,
    observed_waits,
    overdue,
    planned,
    report,
)
from hasite.reconcilers.loop import Outcome
from hasite.reconcilers.owning import OwningReconciler
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.values import Machine, Refused, sha256, target_of
from hasite.reconcilers.watch import WatchTarget
from hasite.reconcilers.zones import Doubt, ZoneSight

_log = logging.getLogger(__name__)

SERVING_DEADLINE_SECONDS = 600.0
"""A load balancer that does not serve so long after its creation is reported."""

REFUSED_SECONDS = 30.0
"""A configuration that a machine refused is tried again after this."""


class PoolReconciler(OwningReconciler[LoadBalancerPool]):
    """Keeps in memory besides: refused configurations, when a failover began, doubts about zones."""

    kind = LoadBalancerPool

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._refused: dict[str, dict[str, Refused]] = {}
        self._failing: dict[str, float] = {}
        self._zones = ZoneSight(services)

    def _drop(self, uid: str) -> None:
        super()._drop(uid)
        self._zones.forget(uid)
        self._refused.pop(uid, None)

    async def _reconcile(self, pool: LoadBalancerPool, account: Account, observing: bool) -> Outcome:
        services = self._services
        self._follow(pool)
        configs, unsafe = self._render(pool)
        world = await self._observe(pool, account, configs)
        plan = plan_pool_removal(pool, world) if pool.deleting else plan_pool(pool, world)
        application = Application(
            services,
            account,
            pool,
            Machine(pool.spec.size, pool.spec.image, services.engines[pool.spec.engine].packages, ""),
            services.engines[pool.spec.engine],
            configs,
            refused=self._refused.setdefault(pool.uid, {}),
        )
        if observing:
            plan = replace(plan, status=planned(pool.status, plan.steps), steps=(), waits=observed_waits(plan.steps))
        else:
            armed = application.arm(plan.status.droplets, plan.steps)
            await application.remember(planned(plan.status, plan.steps).model_copy(update={"droplets": armed}))
            await self._tell(pool, application.resource)
            await application.run(plan.steps)
        if plan.finished and self._endings.confirmed(pool.uid, world.now):
            await services.kube.set_finalizer(application.resource, False)
            return Outcome(1.0)
        if plan.finished:
            return Outcome(BUSY_AGE + 0.5)
        self._endings.not_yet(pool.uid)
        turned_away = await self._turned_away(application.resource, application.problems)
        return turned_away or await self._report(application, world, plan, unsafe)

    def _follow(self, pool: LoadBalancerPool) -> None:
        detection = pool.spec.failure_detection
        engine = self._services.engines[pool.spec.engine]
        targets = [
            WatchTarget(
                target_of(record),
                engine,
                addresses_of(record),
                seconds(detection.interval),
                seconds(detection.timeout),
                detection.failure_threshold,
                detection.recovery_threshold,
            )
            for record in pool.status.droplets
            if record.droplet_id is not None and record.public_ipv4 and record.known_keys
        ]
        self._services.watch.follow((self.kind.KIND, pool.namespace, pool.name), targets)

    def _render(self, pool: LoadBalancerPool) -> tuple[Mapping[str, bytes], list[Problem]]:
        configs: dict[str, bytes] = {}
        problems: list[Problem] = []
        for name, model in proxy_models(pool).items():
            try:
                configs[name] = self._services.engines[pool.spec.engine].render(model)
            except Permanent as error:
                problems.append(Problem(error.reason, str(error), True))
        return configs, problems

    async def _observe(self, pool: LoadBalancerPool, account: Account, configs: Mapping[str, bytes]) -> PoolWorld:
        services, records = self._services, pool.status.droplets
        busy = is_busy(records, pool)
        age = BUSY_AGE if busy else RESTING_AGE
        machines = {r.name: services.watch.machine(r.name) for r in records}
        probes = self._probes(pool)
        rendered = {name: sha256(config) for name, config in configs.items()}
        now = services.clock()
        refused = self._refused.get(pool.uid, {})
        silent = {name for name, view in machines.items() if not isinstance(view, MachineView)}
        down = {address for address, probe in probes.items() if probe.up is False}
        droplets_age = self._troubles.droplets_age(pool.uid, frozenset(silent | down), now)
        (sight, firewalls), zones = await asyncio.gather(
            look_at_account(services, account, records, BUSY_AGE if busy else droplets_age, age),
            _zones(account, age),
        )
        world = PoolWorld(
            now=now,
            identity=services.leadership.identity,
            sight=sight,
            machines=machines,
            probes=probes,
            rendered=rendered,
            firewalls=firewalls,
            zones=zones,
            answers={},
            rejected={
                name: r.words
                for name, r in refused.items()
                if r.config_sha256 == rendered.get(name) and now - r.at < REFUSED_SECONDS
            },
            operator_cidrs=services.operator_cidrs,
            deleted_at=deleted_at(pool),
        )
        return await self._observe_dns(pool, account, world)

    def _probes(self, pool: LoadBalancerPool) -> dict[str, Probe]:
        found: dict[str, Probe] = {}
        for record in pool.status.droplets:
            for address in addresses_of(record):
                probe = self._services.watch.probe(address)
                if probe is not None:
                    found[address] = probe
        return found

    async def _observe_dns(self, pool: LoadBalancerPool, account: Account, world: PoolWorld) -> PoolWorld:
        """Asks the authoritative servers; reads the zone only when their answers are not the ones wanted."""
        settled = settle_pool(pool, world)
        publication = publication_of(pool, world, settled) if not pool.deleting else Publication((), None)
        wish = dns_wish(pool, world, settled, publication)
        if isinstance(wish, Unknown) or (pool.deleting and pool.status.zone is None):
            return world
        answers: Mapping[str, Answer | Unknown]
        try:
            answers = await self._services.authorities.ask(wish.zone, wish.domain, owner_domain(wish.domain))
        except HasiteError as error:
            answers = {"?": Unknown(str(error))}
        world = replace(world, answers=answers)
        zone_file = None if isinstance(world.zones, Unknown) else world.zones.get(wish.zone, "")
        if not pool.deleting and agrees(wish, answers, zone_file):
            self._zones.forget(pool.uid)
            return world
        if pool.deleting:
            wish = replace(wish, delete_all=True, patient=not out_of_patience(world.deleted_at, world))
        doubt = Doubt(pool.uid, wish, answers, zone_file or "", ending=pool.deleting and not settled.records)
        return replace(world, zone=await self._zones.look(account, doubt))

    async def _tell(self, before: LoadBalancerPool, after: LoadBalancerPool) -> None:
        """Events and metrics for addresses that came or went."""
        old = {a.address: a for a in before.status.addresses}
        of = (self.kind.KIND, after.namespace, after.name)
        for address in after.status.addresses:
            previous = old.get(address.address)
            if previous is not None and previous.state == address.state:
                continue
            text = f"{address.address} ({address.location}): {address.reason}"
            if address.state == "Published":
                await self._services.kube.event(after, "Normal", "AddressPublished", text)
            elif address.state == "Withdrawn" and previous is not None and previous.state == "Published":
                await self._services.kube.event(after, "Warning", "AddressWithdrawn", text)
                if address.withdrawals != previous.withdrawals:
                    self._services.metrics.withdrawn(of)
                    probe = self._services.watch.probe(address.address)
                    if probe is not None and probe.failing_since is not None:
                        self._failing[address.address] = probe.failing_since

    async def _report(
        self, application: Application[LoadBalancerPool], world: PoolWorld, plan: PoolPlan, unsafe: Sequence[Problem]
    ) -> Outcome:
        services, pool = self._services, application.resource
        for step in application.done:
            await services.kube.event(pool, "Normal", type(step).__name__, describe(step).split(" ", 1)[1])
        self._measure(pool, world)
        observing = pool.spec.management_policy == "Observe"
        shown = plan if observing else replace(plan, status=pool.status)
        members = members_of(pool, world, pool.status.droplets, Publication(pool.status.addresses, None))
        late = overdue(pool.status.droplets, world.sight, world.now, SERVING_DEADLINE_SECONDS)
        status = pool_report(pool, world, shown, [*unsafe, *application.problems, *late], members)
        await report(services, pool, status)
        of = (self.kind.KIND, pool.namespace, pool.name)
        up, wanted = status.locations_ready.split("/")
        services.metrics.locations(of, int(up), int(wanted))
        services.metrics.dns_published(of, [a.address for a in status.addresses if a.state == "Published"])
        return application.outcome(plan.again_in)

    def _measure(self, pool: LoadBalancerPool, world: PoolWorld) -> None:
        """A failover ends when no authoritative server gives the address any more."""
        addresses: Sequence[AddressStatus] = pool.status.addresses
        withdrawn = {a.address for a in addresses if a.state == "Withdrawn"}
        for address in withdrawn & self._failing.keys():
            if all(isinstance(a, Answer) and address not in a.addresses for a in world.answers.values()):
                self._services.metrics.failed_over(world.now - self._failing.pop(address))


async def _zones(account: Account, age: float) -> Mapping[str, str] | Unknown:
    try:
        return await account.dns.zones(age)
    except Unauthorized:
        raise
    except HasiteError as error:
        return Unknown(str(error))
