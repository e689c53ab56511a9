"""What was observed for one LoadBalancerPool, and the first things to be read off it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hasite.api.common import DropletRecord
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.plan.dns import Answers
from hasite.plan.droplets import Sight
from hasite.plan.names import Owner, template_hash
from hasite.plan.world import Firewall, Impostor, MachineView, Probe, Unknown, ZoneView

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
    deleted_at: float | None = None
    """Unix time of the pool's deletion."""


def owner_of(pool: LoadBalancerPool) -> Owner:
    """Whose the pool's things are."""
    return Owner(pool.uid, pool.namespace, pool.name)


def pool_template(pool: LoadBalancerPool) -> str:
    """Hash of what a load balancer droplet is made from."""
    return template_hash(BOOTSTRAP_VERSION, pool.spec.engine, pool.spec.image, pool.spec.size)


def addresses_of(record: DropletRecord) -> tuple[str, ...]:
    """The public addresses of a machine."""
    return tuple(a for a in (record.public_ipv4, record.public_ipv6) if a)


def in_force(record: DropletRecord, view: MachineView, world: PoolWorld) -> bool:
    """The proxy runs, at boot too, with the configuration that it should have."""
    proxy = view.proxy
    if isinstance(proxy, Unknown | None):
        return False
    return proxy.active and proxy.enabled and proxy.config_sha256 == world.rendered.get(record.name, "none")
