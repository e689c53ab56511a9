"""HASite: observe → plan → apply → report."""

from collections.abc import Sequence
from dataclasses import replace

from hasite.api.common import DropletRecord, seconds
from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.errors import LeadershipLost
from hasite.machines.bootstrap import validate_user_data
from hasite.plan.site import SitePlan, SiteWorld, hand_down_policies, members_of, owns, plan_site, plan_site_removal
from hasite.plan.sitedatabase import packages_of
from hasite.plan.status import Problem, site_report
from hasite.plan.steps import describe
from hasite.reconcilers.base import (
    BUSY_AGE,
    RESTING_AGE,
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
from hasite.reconcilers.sitedatabase import SiteApplication, Way, way_of
from hasite.reconcilers.values import Machine, Refused, target_of
from hasite.reconcilers.watch import FULL_LOOK_SECONDS, WatchTarget


class SiteReconciler(OwningReconciler[HASite]):
    """Keeps in memory besides: configurations that app servers refused, by the site's UID."""

    kind = HASite

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._refused: dict[str, dict[str, Refused]] = {}

    def _drop(self, uid: str) -> None:
        super()._drop(uid)
        self._refused.pop(uid, None)

    async def _leave_all(self, site: HASite) -> None:
        """The pool first: it goes with its site, and must know by then that it is to leave all as it is."""
        pool = await self._services.kube.get(LoadBalancerPool, site.namespace, site.name)
        for step in hand_down_policies(site, pool):
            if not self._services.leadership.is_leader():
                raise LeadershipLost("another operator leads")
            await self._services.kube.apply(step.manifest)
        await super()._leave_all(site)

    async def _stuck(self, site: HASite, problem: Problem) -> Outcome:
        if site.deleting:
            await self._delete_pool(site)
        return await super()._stuck(site, problem)

    async def _delete_pool(self, site: HASite) -> None:
        """Needs no credentials: the pool gives up at the same time as its site, not one after the other."""
        kube = self._services.kube
        pool = await kube.get(LoadBalancerPool, site.namespace, site.name)
        ours = pool is not None and owns(site, pool)
        if pool is not None and ours and not pool.deleting and self._services.leadership.is_leader():
            await kube.delete(LoadBalancerPool, pool.namespace, pool.name, pool.uid)

    async def _reconcile(self, site: HASite, account: Account, observing: bool) -> Outcome:
        services, app = self._services, site.spec.app
        self._follow(site)
        way = await self._way(site)
        world = await self._observe(site, account, way)
        plan = plan_site_removal(site, world) if site.deleting else plan_site(site, world)
        machine = Machine(app.size, app.image, packages_of(site), app.user_data)
        application = SiteApplication(services, account, site, machine)
        if way is not None:
            application.engine, application.configs = services.database_proxy, way.configs
            application.environment, application.refused = way.environment, self._refused.setdefault(site.uid, {})
        if observing:
            plan = replace(plan, status=planned(site.status, plan.steps), steps=(), waits=observed_waits(plan.steps))
            await application.run(hand_down_policies(site, world.pool))
        else:
            armed = application.arm(plan.status.droplets, plan.steps)
            await application.remember(planned(plan.status, plan.steps).model_copy(update={"droplets": armed}))
            await application.run(plan.steps)
        if plan.finished and self._endings.confirmed(site.uid, world.now):
            await services.kube.set_finalizer(application.resource, False)
            return Outcome(1.0)
        if plan.finished:
            return Outcome(BUSY_AGE + 0.5)
        self._endings.not_yet(site.uid)
        turned_away = await self._turned_away(application.resource, application.problems)
        return turned_away or await self._report(application, world, plan)

    async def _way(self, site: HASite) -> Way | None:
        """None for a site without a database, and for one that is being deleted."""
        use = site.spec.database
        if use is None or site.deleting:
            return None
        return await way_of(self._services, site, use, self._refused.get(site.uid, {}))

    def _follow(self, site: HASite) -> None:
        """App servers are looked at until they serve: what cloud-init says, and their own host key. Those with a proxy
        that leads to a database are looked at for as long as they stay."""
        engine = self._services.database_proxy if site.spec.database is not None and not site.deleting else None
        targets = [
            WatchTarget(target_of(r), engine, (), FULL_LOOK_SECONDS if r.pinned and r.served else 1.0)
            for r in site.status.droplets
            if r.droplet_id is not None and r.public_ipv4 and r.known_keys
            if (engine or not (r.pinned and r.served)) and r.leaving_since is None
        ]
        self._services.watch.follow((self.kind.KIND, site.namespace, site.name), targets)

    async def _observe(self, site: HASite, account: Account, way: Way | None) -> SiteWorld:
        services = self._services
        records: Sequence[DropletRecord] = site.status.droplets
        busy = is_busy(records, site)
        age = BUSY_AGE if busy else RESTING_AGE
        pool = await services.kube.get(LoadBalancerPool, site.namespace, site.name)
        sick = frozenset(s.name for s in pool.status.servers if not s.healthy) if pool else frozenset()
        now = services.clock()
        droplets_age = self._troubles.droplets_age(site.uid, sick, now)
        sight, firewalls = await look_at_account(services, account, records, BUSY_AGE if busy else droplets_age, age)
        followed = [r.name for r in records if way is not None or not (r.pinned and r.served)]
        return SiteWorld(
            now=now,
            identity=services.leadership.identity,
            sight=sight,
            machines={name: services.watch.machine(name) for name in followed},
            firewalls=firewalls,
            pool=pool,
            operator_cidrs=services.operator_cidrs,
            user_data_error=validate_user_data(site.spec.app.user_data) if site.spec.app.user_data else None,
            database=way.seen if way is not None else None,
        )

    async def _report(self, application: SiteApplication, world: SiteWorld, plan: SitePlan) -> Outcome:
        services, site = self._services, application.resource
        for step in application.done:
            await services.kube.event(site, "Normal", type(step).__name__, describe(step).split(" ", 1)[1])
        deadline = seconds(site.spec.app.progress_deadline)
        late = overdue(site.status.droplets, world.sight, world.now, deadline)
        problems = [*application.problems, *late]
        observing = site.spec.management_policy == "Observe"
        shown = plan if observing else replace(plan, status=site.status)
        status = site_report(site, world, shown, problems, members_of(site, world))
        await report(services, site, status)
        of = (self.kind.KIND, site.namespace, site.name)
        up, wanted = status.locations_ready.split("/")
        services.metrics.locations(of, int(up), int(wanted))
        return application.outcome(plan.again_in)
