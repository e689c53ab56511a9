"""Conditions and summary columns, after kstatus: Ready, Reconciling, Stalled, and the domain's own.

Messages hold nothing that changes on every look: those are metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hasite.api.common import Condition, DropletRecord
from hasite.api.hasite import HASite, HASiteStatus
from hasite.api.loadbalancerpool import LoadBalancerPool, LoadBalancerPoolStatus
from hasite.plan.failover import is_down
from hasite.plan.pool import PoolPlan
from hasite.plan.poolworld import PoolWorld
from hasite.plan.rollout import Member
from hasite.plan.site import SitePlan, SiteWorld
from hasite.plan.sitedatabase import connected
from hasite.plan.world import Answer, Impostor, MachineView, Unknown

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Problem:
    """Something that keeps the resource from being ready. ``stalled``: no waiting will mend it."""

    reason: str
    message: str
    stalled: bool = False


def condition(kind: str, status: bool | Truth, reason: str, message: str = "") -> Condition:
    """A condition without its times, which ``merge`` adds."""
    truth: Truth = status if isinstance(status, str) else ("True" if status else "False")
    return Condition(type=kind, status=truth, reason=reason, message=message[:1024])


def merge(before: Sequence[Condition], after: Sequence[Condition], generation: int, now: str) -> tuple[Condition, ...]:
    """Keeps lastTransitionTime where the status did not change. ``now`` is RFC 3339."""
    old = {c.type: c for c in before}
    merged = []
    for new in after:
        previous = old.get(new.type)
        changed = previous is None or previous.status != new.status or previous.last_transition_time is None
        time = now if changed or previous is None else previous.last_transition_time
        merged.append(new.model_copy(update={"observed_generation": generation, "last_transition_time": time}))
    return tuple(merged)


def kstatus(problems: Sequence[Problem], progressing: str | None) -> tuple[Condition, ...]:
    """Ready, Reconciling and Stalled from the list of problems, the gravest first."""
    stalled = next((p for p in problems if p.stalled), None)
    first = stalled or (problems[0] if problems else None)
    if first is None and progressing is None:
        ready = condition("Ready", True, "Ready", "everything asked for is there and serves")
    elif first is not None:
        ready = condition("Ready", False, first.reason, first.message)
    else:
        ready = condition("Ready", False, "Progressing", progressing or "")
    return (
        ready,
        condition("Reconciling", progressing is not None, "Progressing" if progressing else "Idle", progressing or ""),
        condition(
            "Stalled",
            stalled is not None,
            stalled.reason if stalled else "NotStalled",
            stalled.message if stalled else "",
        ),
    )


def machine_problems(
    records: Sequence[DropletRecord], machines: Mapping[str, MachineView | Impostor | Unknown]
) -> list[Problem]:
    """What machines say of themselves. A machine may show a stray host key while its bootstrap runs."""
    found: list[Problem] = []
    for record in sorted(records, key=lambda r: r.name):
        name, view = record.name, machines.get(record.name)
        if isinstance(view, Impostor):
            if record.pinned:
                found.append(Problem("HostKeyMismatch", view.shown, True))
        elif isinstance(view, MachineView) and view.cloud_init == "error" and not record.served:
            found.append(Problem("BootstrapFailed", f"cloud-init of {name} failed: {view.cloud_init_error}", True))
    return found


def pool_report(
    pool: LoadBalancerPool, world: PoolWorld, plan: PoolPlan, failures: Sequence[Problem], members: Sequence[Member]
) -> LoadBalancerPoolStatus:
    """The plan's status with conditions (without times) and columns. ``members``: with whether each serves."""
    status, spec = plan.status, pool.spec
    wanted = [location.name for location in spec.locations]
    published = _answered(pool, status, world)
    serving = [m for m in members if m.serving and not m.leaving]
    up = [name for name in wanted if any(m.location == name for m in serving)]
    down = sorted({a.location for a in status.addresses if is_down(a)} - set(up))
    problems = [Problem(r.reason, r.message, True) for r in plan.refusals]
    problems += list(failures) + machine_problems(status.droplets, world.machines)
    problems += _rejections(world.rejected)
    if down:
        problems.append(Problem("LocationDown", f"{', '.join(down)} is withdrawn from DNS: {_why(status, down)}"))
    progressing = _progress(plan, len(serving), len(wanted) * spec.replicas_per_location, len(up) == len(wanted))
    conditions = (
        *kstatus(problems, progressing),
        condition(
            "DNSPublished",
            bool(published) and plan.dns_settled,
            "Published" if published and plan.dns_settled else "NotPublished",
            f"{spec.domain} leads to {published.replace(',', ', ') or 'nothing'}",
        ),
        condition(
            "DegradedLocation", bool(down), "LocationDown" if down else "AllUp", _why(status, down) if down else ""
        ),
        condition("Blind", *_blindness(status, world)),
    )
    return status.model_copy(
        update={
            "observed_generation": pool.generation,
            "conditions": conditions,
            "locations_ready": f"{len(up)}/{len(wanted)}",
            "load_balancers_ready": f"{len(serving)}/{len(wanted) * spec.replicas_per_location}",
            "published": published,
        }
    )


def _rejections(rejected: Mapping[str, str]) -> list[Problem]:
    return [Problem("ConfigurationRejected", f"{name}: {words}", True) for name, words in sorted(rejected.items())]


def _answered(pool: LoadBalancerPool, status: LoadBalancerPoolStatus, world: PoolWorld) -> str:
    """The published addresses that every name server gives which answers; as before while none does."""
    known = [a for a in world.answers.values() if isinstance(a, Answer)]
    if not known:
        return pool.status.published
    wanted = {a.address for a in status.addresses if a.state == "Published"}
    return ",".join(sorted(wanted.intersection(*(a.addresses for a in known))))


def _why(status: LoadBalancerPoolStatus, down: Sequence[str]) -> str:
    return next((a.reason for a in status.addresses if a.location in down and a.state == "Withdrawn"), "")


def _progress(plan: PoolPlan | SitePlan, serving: int, wanted: int, complete: bool) -> str | None:
    if plan.waits:
        return plan.waits[0].message
    if plan.steps:
        return f"{type(plan.steps[0]).__name__}: {plan.steps[0].reason}"
    return None if complete and serving >= wanted else f"{serving} of {wanted} serve"


def _blindness(status: LoadBalancerPoolStatus, world: PoolWorld) -> tuple[bool, str, str]:
    """The operator that reaches no load balancer in any way changes nothing."""
    addresses = [a.address for a in status.addresses if a.state == "Published"]
    probes = [world.probes[a] for a in addresses if a in world.probes]
    views = [v for v in world.machines.values() if isinstance(v, MachineView)]
    blind = bool(probes) and not views and all(p.up is False for p in probes)
    message = "the operator reaches no load balancer: what is published stays as it is" if blind else ""
    return blind, "NothingReachable" if blind else "Sighted", message


def site_report(
    site: HASite, world: SiteWorld, plan: SitePlan, failures: Sequence[Problem], members: Sequence[Member]
) -> HASiteStatus:
    """Rolls up everything below the site."""
    status, spec, pool = plan.status, site.spec, world.pool
    wanted = len(spec.locations) * spec.app.replicas_per_location
    serving = sum(m.serving and not m.leaving for m in members)
    problems = [Problem(r.reason, r.message, True) for r in plan.refusals]
    problems += list(failures) + machine_problems(status.droplets, world.machines)
    problems += _pool_problems(pool)
    problems += _rejections(world.database.rejected if world.database else {})
    progressing = _progress(plan, serving, wanted, serving >= wanted)
    if progressing is None and pool is not None and not _is(pool, "Ready", "True"):
        progressing = "the load balancer pool is not ready"
    conditions = (*kstatus(problems, progressing), *_copied(pool), _apps(serving, wanted), *_database(site, world))
    columns = pool.status if pool else LoadBalancerPoolStatus()
    return status.model_copy(
        update={
            "observed_generation": site.generation,
            "conditions": conditions,
            "locations_ready": columns.locations_ready or f"0/{len(spec.locations)}",
            "load_balancers_ready": columns.load_balancers_ready
            or f"0/{len(spec.locations) * spec.load_balancers.replicas_per_location}",
            "apps_ready": f"{min(serving, wanted)}/{wanted}",
            "published": columns.published,
        }
    )


def _apps(serving: int, wanted: int) -> Condition:
    message = f"{min(serving, wanted)} of {wanted} app servers serve"
    return condition("AppsAvailable", serving >= wanted, "Available" if serving >= wanted else "Missing", message)


def _database(site: HASite, world: SiteWorld) -> tuple[Condition, ...]:
    if world.database is None:
        return ()
    return (condition("DatabaseConnected", *connected(site, world.machines, world.database)),)


def _condition_of(pool: LoadBalancerPool, kind: str) -> Condition | None:
    return next((c for c in pool.status.conditions if c.type == kind), None)


def _is(pool: LoadBalancerPool, kind: str, status: Truth) -> bool:
    found = _condition_of(pool, kind)
    return found is not None and found.status == status and pool.status.observed_generation == pool.generation


def _pool_problems(pool: LoadBalancerPool | None) -> list[Problem]:
    if pool is None:
        return []
    ready = _condition_of(pool, "Ready")
    if ready is None or ready.status == "True" or ready.reason == "Progressing":
        return []
    return [Problem(ready.reason, ready.message, _is(pool, "Stalled", "True"))]


def _copied(pool: LoadBalancerPool | None) -> tuple[Condition, ...]:
    if pool is None:
        return ()
    found = (_condition_of(pool, kind) for kind in ("DNSPublished", "DegradedLocation", "Blind"))
    return tuple(c for c in found if c is not None)
