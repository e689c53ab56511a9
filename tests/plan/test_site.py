"""One HASite: single plans. Whole runs are in test_replay.py."""

from dataclasses import replace
from typing import Any

import pytest
from hasite.api.common import DropletRecord
from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import ServerStatus
from hasite.plan.droplets import Sight
from hasite.plan.names import firewall_name
from hasite.plan.site import SiteWorld, first_difference, plan_site, plan_site_removal, pool_manifest, release
from hasite.plan.steps import (
    ApplyPool,
    CreateDroplet,
    CreateFirewall,
    DeletePool,
    DestroyDroplet,
    DestroyFirewall,
    Step,
)
from hasite.plan.world import Unknown

from tests.plan.build import (
    AMSTERDAM,
    BOTH,
    NEW_YORK,
    NOW,
    SITE,
    claimed,
    droplet,
    firewalls,
    machine,
    record,
    server_status,
    serving_site,
    site,
    site_world,
)

NY, AMS = (record(where, role="app") for where in BOTH)


def kinds(steps: tuple[Step, ...]) -> list[type[Step]]:
    return [type(s) for s in steps]


def test_a_site_at_rest_plans_nothing_and_waits_for_nothing() -> None:
    at_rest = serving_site()
    plan = plan_site(at_rest, site_world(at_rest))
    assert (plan.steps, plan.waits, plan.refusals) == ((), (), ())
    assert plan.status == at_rest.status


def test_a_new_site_makes_its_pool_then_its_firewall_then_its_droplets() -> None:
    new = site()
    assert kinds(plan_site(new, site_world(new, pool=None, firewalls=())).steps) == [ApplyPool]
    assert kinds(plan_site(new, site_world(new, firewalls=())).steps) == [CreateFirewall]
    assert kinds(plan_site(new, site_world(new)).steps) == [CreateDroplet, CreateDroplet]


def test_nothing_is_bought_while_user_data_is_invalid() -> None:
    new = site()
    plan = plan_site(new, site_world(new, pool=None, user_data_error="line 2: not YAML"))
    assert plan.steps == ()
    assert [(r.reason, r.message) for r in plan.refusals] == [
        ("InvalidUserData", "spec.app.userData: line 2: not YAML")
    ]


def test_with_invalid_user_data_a_site_that_stands_keeps_its_machines_and_makes_none() -> None:
    standing = site(droplets=(NY,))
    plan = plan_site(standing, site_world(standing, user_data_error="not YAML"))
    assert not [step for step in plan.steps if isinstance(step, CreateDroplet | DestroyDroplet)]
    assert [r.leaving_since for r in plan.status.droplets] == [None]
    assert [r.reason for r in plan.refusals] == ["InvalidUserData"]


def test_a_pool_that_is_not_ours_is_left_alone() -> None:
    new = site()
    world = site_world(new)
    assert world.pool is not None
    foreign = world.pool.model_copy(update={"metadata": {**world.pool.metadata, "ownerReferences": []}})
    plan = plan_site(new, replace(world, pool=foreign))
    assert plan.steps == ()
    assert [r.reason for r in plan.refusals] == ["PoolNotOurs"]


def said(of: HASite, *servers: ServerStatus, **more: Any) -> SiteWorld:
    """The pool's status speaks of these servers."""
    world = site_world(of, **more)
    assert world.pool is not None
    status = world.pool.status.model_copy(update={"servers": servers})
    return replace(world, pool=world.pool.model_copy(update={"status": status}))


def states(of: HASite, world: SiteWorld) -> dict[str, str]:
    plan = plan_site(of, world)
    after = pool_manifest(of.model_copy(update={"status": plan.status}))
    return {s["name"]: s["state"] for s in after["spec"]["backends"]["servers"]}


def test_a_new_server_gets_no_requests_before_every_load_balancer_finds_it_healthy() -> None:
    old = record(role="app", ordinal=1, template="0ldone00")
    new = record(role="app", served=False)
    of = site((NEW_YORK,), droplets=[new, old])
    here = server_status(old)
    assert states(of, said(of, here, server_status(new, "Candidate", healthy=False)))[new.name] == "Candidate"
    assert states(of, said(of, here, server_status(new, "Candidate")))[new.name] == "Active"


def test_without_an_old_version_beside_it_a_new_server_is_for_the_proxies_to_judge() -> None:
    new = record(role="app", served=False)
    of = site((NEW_YORK,), droplets=[new])
    assert states(of, said(of)) == {new.name: "Active"}


def test_a_server_that_falls_ill_stays_active_for_the_proxies_to_judge() -> None:
    of = site((NEW_YORK,), droplets=[NY])
    assert states(of, said(of, server_status(NY, healthy=False))) == {NY.name: "Active"}


def test_a_server_without_an_address_yet_is_in_no_configuration() -> None:
    of = site((NEW_YORK,), droplets=[claimed(role="app")])
    assert states(of, said(of)) == {}


def test_the_pool_is_changed_when_a_field_differs_and_the_step_says_which() -> None:
    of = serving_site()
    longer = serving_site(dns={"ttlSeconds": 120})
    (step,) = plan_site(longer, site_world(of)).steps
    assert isinstance(step, ApplyPool)
    assert step.reason == "spec.dns.ttlSeconds is 60, not 120"


def gone(**more: Any) -> DropletRecord:
    return record(role="app", **{"leaving_since": NOW - 1, **more})


DRAINING = server_status(NY, "Draining", drained=False)
RELEASES: dict[str, tuple[DropletRecord, tuple[ServerStatus, ...], bool, bool]] = {
    "not while it is active": (gone(), (server_status(NY),), False, False),
    "not while requests of it are in flight": (gone(), (DRAINING,), False, False),
    "out of every configuration once it is drained": (
        gone(),
        (server_status(NY, "Draining", drained=True),),
        True,
        False,
    ),
    "not while its time since it is drained everywhere runs": (gone(leaving_since=NOW - 99), (DRAINING,), False, False),
    "out of every configuration once that time is over": (
        gone(),
        (server_status(NY, "Draining", since=NOW - 99),),
        True,
        False,
    ),
    "destroyed once no load balancer knows it": (gone(released_since=NOW), (), True, True),
}


@pytest.mark.parametrize(("leaver", "servers", "released", "destroyed"), RELEASES.values(), ids=RELEASES)
def test_a_server_that_leaves_is(
    leaver: DropletRecord, servers: tuple[ServerStatus, ...], released: bool, destroyed: bool
) -> None:
    of = site(droplets=[leaver, AMS])
    after, step, _ = release(of, leaver, said(of, *servers))
    assert (after.released_since is not None) is released
    assert (step is not None) is destroyed


def test_a_server_that_leaves_is_not_destroyed_before_the_pool_was_looked_at_again() -> None:
    of = site(droplets=[gone(released_since=NOW), AMS])
    world = said(of)
    assert world.pool is not None
    stale = world.pool.model_copy(update={"metadata": {**world.pool.metadata, "generation": 2}})
    assert release(of, of.status.droplets[0], replace(world, pool=stale))[1] is None
    assert release(of, of.status.droplets[0], replace(world, pool=None))[1] is None


def test_a_droplet_deleted_by_hand_is_replaced_and_leaves_the_configuration() -> None:
    of = serving_site()
    sight = Sight([droplet(AMS, "app")], by_id={NY.droplet_id or 0: None})
    plan = plan_site(of, site_world(of, sight=sight))
    assert kinds(plan.steps) == [ApplyPool, CreateDroplet]


def test_an_empty_inventory_deletes_nothing_and_creates_nothing() -> None:
    of = serving_site()
    plan = plan_site(of, site_world(of, sight=Sight([])))
    assert plan.steps == ()
    assert plan.status == of.status


def test_the_bootstraps_host_key_is_replaced_on_app_servers_too() -> None:
    new = record(role="app", host_key=None, bootstrap_keys=("k",))
    of = site((NEW_YORK,), droplets=[new])
    names = [type(s).__name__ for s in plan_site(of, site_world(of, machines={new.name: machine()})).steps]
    assert names == ["StageHostKey", "ActivateHostKey"]


DIFFERENCES: dict[str, tuple[Any, Any, str | None]] = {
    "none": ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, None),
    "a value": ({"a": {"b": 1}}, {"a": {"b": 2}}, "spec.a.b is 2, not 1"),
    "an item of a list": ({"a": [1, 2]}, {"a": [1, 3]}, "spec.a[1] is 3, not 2"),
    "a list that is longer": ({"a": [1]}, {"a": [1, 2]}, "spec.a is [1, 2], not [1]"),
    "a field too few": ({"a": 1}, {}, "spec.a is None, not 1"),
    "a field too many": ({}, {"a": 1}, "spec.a is 1, not None"),
}


@pytest.mark.parametrize(("desired", "actual", "says"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_the_first_difference(desired: Any, actual: Any, says: str | None) -> None:
    assert first_difference(desired, actual) == says


def test_a_removal_takes_the_pool_down_first() -> None:
    of = serving_site()
    plan = plan_site_removal(of, site_world(of))
    assert kinds(plan.steps) == [DeletePool]
    assert not plan.finished


def test_a_removal_takes_the_pool_down_first_even_when_user_data_is_invalid() -> None:
    of = serving_site()
    assert kinds(plan_site_removal(of, site_world(of, user_data_error="not YAML")).steps) == [DeletePool]


def test_a_removal_deletes_the_pool_once() -> None:
    of = serving_site()
    world = site_world(of)
    assert world.pool is not None
    deleting = world.pool.model_copy(update={"metadata": {**world.pool.metadata, "deletionTimestamp": "now"}})
    plan = plan_site_removal(of, replace(world, pool=deleting))
    assert plan.steps == ()
    assert not plan.finished


def test_a_removal_leaves_a_pool_that_is_not_ours() -> None:
    of = serving_site()
    world = site_world(of)
    assert world.pool is not None
    foreign = world.pool.model_copy(update={"metadata": {**world.pool.metadata, "ownerReferences": []}})
    assert kinds(plan_site_removal(of, replace(world, pool=foreign)).steps) == [DestroyDroplet, DestroyDroplet]


def test_a_removal_destroys_a_doubled_droplet_too() -> None:
    of = serving_site()
    seen = [droplet(NY, "app"), droplet(AMS, "app"), droplet(NY, "app", id=77)]
    plan = plan_site_removal(of, site_world(of, pool=None, sight=Sight(seen)))
    assert {s.droplet_id for s in plan.steps if isinstance(s, DestroyDroplet)} == {NY.droplet_id, AMS.droplet_id, 77}


def test_a_removal_ends_with_the_firewall() -> None:
    of = site()
    plan = plan_site_removal(of, site_world(of, pool=None))
    assert kinds(plan.steps) == [DestroyFirewall]
    assert not plan.finished
    others = [f for f in firewalls() if f.name != firewall_name(SITE, "app")]
    assert plan_site_removal(of, site_world(of, pool=None, firewalls=others)).finished
    assert not plan_site_removal(of, site_world(of, pool=None, firewalls=Unknown("500"))).finished


def test_a_removal_waits_for_a_droplet_that_may_be_on_its_way() -> None:
    asked = claimed(role="app", location=AMSTERDAM)
    of = site(droplets=[asked])
    plan = plan_site_removal(of, site_world(of, pool=None, sight=Sight([], by_name={asked.name: ()})))
    assert plan.steps == ()
    assert not plan.finished
