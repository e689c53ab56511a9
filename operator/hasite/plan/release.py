"""Giving a load balancer up: record gone everywhere → TTL waited out → connections drained → destroyed."""

from collections.abc import Sequence

from hasite.api.common import DropletRecord, seconds
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.plan.dns import gone_everywhere
from hasite.plan.poolworld import PoolWorld, addresses_of
from hasite.plan.steps import DestroyDroplet, Step, Wait
from hasite.plan.world import Answer, MachineView, Unknown, ZoneView

SILENCE_SECONDS = 600.0
"""How long a name server that gives no answer can hold up the release of a machine."""


def release_all(
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
    ttl = max(pool.status.ttl_seconds, pool.spec.dns.degraded_ttl_seconds) if record.served else 0
    forgotten = max(released + ttl, pool.status.longer_ttl_until) if record.served else released
    drain = seconds(pool.spec.backends.drain)
    if world.now < forgotten:
        return record, None, Wait(f"resolvers may still remember {record.name}", forgotten - world.now)
    view = world.machines.get(record.name)
    sessions = (
        view.proxy.sessions if isinstance(view, MachineView) and not isinstance(view.proxy, Unknown | None) else 0
    )
    if sessions and world.now < forgotten + drain:
        return record, None, Wait(f"{record.name} still has connections", 1.0)
    return record, DestroyDroplet(record.name, droplet_id, "nothing leads to it any more"), None


def _may_be_led_to(pool: LoadBalancerPool, record: DropletRecord, world: PoolWorld) -> bool:
    """What was never published only has to be absent from the answers that there are: a domain that is not delegated
    must not keep its machines for ever."""
    addresses = addresses_of(record)
    if any(a.state == "Published" and a.address in addresses for a in pool.status.addresses):
        return True
    if record.served and not (out_of_patience(record.leaving_since, world) and not _provider_lists(record, world)):
        return not all(gone_everywhere(address, world.answers) for address in addresses)
    known = [a for a in world.answers.values() if isinstance(a, Answer)]
    return any(address in a.addresses for a in known for address in addresses)


def out_of_patience(since: float | None, world: PoolWorld) -> bool:
    """A server that has been silent for so long, or a domain that is not delegated any more, holds nothing up."""
    return since is not None and world.now - since > SILENCE_SECONDS


def _provider_lists(record: DropletRecord, world: PoolWorld) -> bool:
    """Whether the zone at the provider may still hold an address; unread, it may."""
    if not isinstance(world.zone, ZoneView):
        return True
    return any(r.data in addresses_of(record) for r in world.zone.records or ())
