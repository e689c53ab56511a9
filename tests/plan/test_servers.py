"""What a pool says of its app servers."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hasite.api.loadbalancerpool import LoadBalancerPool, ServerStatus
from hasite.plan.failover import Publication
from hasite.plan.servers import servers_status
from hasite.plan.world import MachineView, ServerView, Unknown

from tests.plan.build import AMSTERDAM, BOTH, machine, pool_world, record, server, server_status, serving_pool

ONE, TWO = (record(where, role="app") for where in BOTH)
NY, AMS = (record(where).name for where in BOTH)


def look(pool: LoadBalancerPool, **machines: Any) -> dict[str, ServerStatus]:
    world = pool_world(pool)
    world = replace(world, machines={**world.machines, **{{"ny": NY, "ams": AMS}[k]: v for k, v in machines.items()}})
    publication = Publication(pool.status.addresses, None)
    return {s.name: s for s in servers_status(pool, world, pool.status.droplets, publication)}


def at(pool: LoadBalancerPool, name: str, **proxy_more: Any) -> MachineView:
    return machine(pool, name, proxy_more=proxy_more)


UP, DOWN, BUSY = ServerView(True), ServerView(False), ServerView(True, 3)


@dataclass(frozen=True)
class Case:
    """``ny`` and ``ams``: what differs in the view of a load balancer; None: it can't be asked."""

    healthy: bool
    ny: dict[str, Any] | None = field(default_factory=dict)
    ams: dict[str, Any] | None = field(default_factory=dict)
    before: bool = True


HEALTH = {
    "it is up at every load balancer": Case(True),
    "it is down at one of them": Case(False, ams={"servers": {ONE.name: DOWN}}),
    "one of them does not know it": Case(False, ams={"servers": {}}),
    "it is up at the only one that can be asked": Case(True, ams=None),
    "it is down at the only one that can be asked": Case(False, ny={"servers": {ONE.name: DOWN}}, ams=None),
    "no load balancer can be asked, and it was healthy": Case(True, ny=None, ams=None),
    "no load balancer can be asked, and it was not": Case(False, ny=None, ams=None, before=False),
}


@pytest.mark.parametrize("case", HEALTH.values(), ids=HEALTH)
def test_healthy_when(case: Case) -> None:
    pool = serving_pool(said=[server_status(ONE, healthy=case.before)])
    views = {
        key: Unknown("silent") if more is None else at(pool, name, **more)
        for key, name, more in (("ny", NY, case.ny), ("ams", AMS, case.ams))
    }
    assert look(pool, **views)[ONE.name].healthy is case.healthy


DRAINED: dict[str, tuple[dict[str, Any], bool]] = {
    "no request is in flight anywhere": ({}, True),
    "a request is in flight at one load balancer": ({"servers": {ONE.name: BUSY, TWO.name: UP}}, False),
    "a process from before the reload still serves": ({"old_processes": 1}, False),
    "a load balancer does not run the configuration yet": ({"config_sha256": "old"}, False),
}


@pytest.mark.parametrize(("more", "drained"), DRAINED.values(), ids=DRAINED)
def test_drained_when(more: dict[str, Any], drained: bool) -> None:
    pool = serving_pool(servers=[server(ONE, "Draining"), server(TWO)])
    assert look(pool, ams=at(pool, AMS, **more))[ONE.name].drained is drained


def test_only_a_draining_server_is_ever_drained() -> None:
    """Of an active one it would change with every request, and so would the status."""
    assert not any(s.drained for s in look(serving_pool()).values())


def changed() -> LoadBalancerPool:
    """One server became Draining, the other left the spec, and a third came."""
    third = record(AMSTERDAM, 1, role="app")
    return serving_pool(servers=[server(ONE, "Draining"), server(third, "Candidate")])


def test_states_change_once_every_load_balancer_runs_them() -> None:
    assert {s.state for s in look(changed()).values()} == {"Draining", "Candidate"}


@pytest.mark.parametrize("lagging", [{"config_sha256": "old"}, None], ids=["behind", "silent but published"])
def test_states_stay_while_a_load_balancer_that_visitors_reach_may_run_the_old_ones(
    lagging: dict[str, Any] | None,
) -> None:
    pool = changed()
    view = Unknown("silent") if lagging is None else at(pool, AMS, **lagging)
    said = look(pool, ams=view)
    assert set(said) == {ONE.name, TWO.name}
    assert {s.state for s in said.values()} == {"Active"}


def test_a_load_balancer_that_is_withdrawn_and_silent_does_not_hold_states_up() -> None:
    pool = changed()
    out = [a.model_copy(update={"state": "Withdrawn"}) if a.location == AMSTERDAM else a for a in pool.status.addresses]
    pool = pool.model_copy(update={"status": pool.status.model_copy(update={"addresses": tuple(out)})})
    assert look(pool, ams=Unknown("silent"))[ONE.name].state == "Draining"
