"""What a pool says of its app servers: which are healthy, which drained, which out of every configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hasite.api.common import DropletRecord
from hasite.api.loadbalancerpool import LoadBalancerPool, ServerStatus
from hasite.plan.world import MachineView, ProxyView, Unknown

if TYPE_CHECKING:
    from hasite.plan.failover import Publication
    from hasite.plan.poolworld import PoolWorld


def servers_status(
    pool: LoadBalancerPool, world: PoolWorld, records: Sequence[DropletRecord], publication: Publication
) -> tuple[ServerStatus, ...]:
    """States change only once every load balancer that can be asked, and every published one, runs them.

    What no load balancer could be asked about stays as it was.
    """
    views = proxy_views(records, world)
    published = {a.load_balancer for a in publication.addresses if a.state == "Published"}
    matter = {r.name for r in records if r.name in published or (r.name in views and r.leaving_since is None)}
    everywhere = bool(matter) and all(
        name in views and views[name].config_sha256 == world.rendered.get(name) for name in matter
    )
    before = {s.name: s for s in pool.status.servers}
    asked = [views[name] for name in sorted(matter) if name in views]
    wanted = {server.name: server.state for server in pool.spec.backends.servers}
    states = wanted if everywhere else {name: s.state for name, s in before.items()}
    return tuple(
        ServerStatus(
            name=name,
            state=state,
            since=before[name].since if name in before and before[name].state == state else world.now,
            healthy=_healthy(name, asked) if asked else name in before and before[name].healthy,
            drained=state == "Draining" and everywhere and all(v.old_processes == 0 and _idle(v, name) for v in asked),
        )
        for name, state in sorted(states.items())
    )


def _healthy(name: str, asked: Sequence[ProxyView]) -> bool:
    return all(name in view.servers and view.servers[name].up for view in asked)


def _idle(view: ProxyView, name: str) -> bool:
    server = view.servers.get(name)
    return server is None or server.sessions == 0


def proxy_views(records: Sequence[DropletRecord], world: PoolWorld) -> dict[str, ProxyView]:
    """The proxies that were seen lately, by load balancer."""
    found: dict[str, ProxyView] = {}
    for record in records:
        view = world.machines.get(record.name)
        if isinstance(view, MachineView) and not isinstance(view.proxy, Unknown | None):
            found[record.name] = view.proxy
    return found
