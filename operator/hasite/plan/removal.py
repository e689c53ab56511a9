"""A LoadBalancerPool that is deleted."""

from collections.abc import Sequence
from dataclasses import replace

from hasite.api.common import DropletRecord
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.plan.dns import DnsPlan, plan_dns
from hasite.plan.droplets import Settled
from hasite.plan.failover import Publication
from hasite.plan.firewalls import remove_firewall
from hasite.plan.pool import PoolPlan, dns_wish, settle_pool
from hasite.plan.poolworld import PoolWorld, owner_of
from hasite.plan.release import out_of_patience, release_all
from hasite.plan.steps import Step, Wait
from hasite.plan.world import Unknown


def plan_pool_removal(pool: LoadBalancerPool, world: PoolWorld) -> PoolPlan:
    """The pool is deleted: name given up → seen gone everywhere → TTL waited out → drained → machines → firewall."""
    leaving = tuple(r.model_copy(update={"leaving_since": r.leaving_since or world.now}) for r in pool.status.droplets)
    pool = pool.model_copy(update={"status": pool.status.model_copy(update={"droplets": leaving})})
    settled = settle_pool(pool, world)
    dns = _removal_of_name(pool, world, settled)
    records, destructions, waits = release_all(pool, settled.records, world)
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
    patient = not out_of_patience(world.deleted_at, world)
    return plan_dns(replace(wish, delete_all=True, patient=patient), world.zone, world.answers)


def _removal_of_firewall(
    pool: LoadBalancerPool, records: Sequence[DropletRecord], world: PoolWorld
) -> tuple[tuple[Step, ...], bool]:
    if records:
        return (), False
    return remove_firewall(owner_of(pool), "lb", world.firewalls)
