"""One LoadBalancerPool: single plans. Whole runs are in test_replay.py."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hasite.api.loadbalancerpool import LoadBalancerPool, ZoneStatus
from hasite.plan.droplets import Sight
from hasite.plan.pool import plan_pool, proxy_models
from hasite.plan.poolworld import PoolWorld
from hasite.plan.release import release
from hasite.plan.removal import plan_pool_removal
from hasite.plan.steps import (
    ActivateHostKey,
    ConfigureProxy,
    CreateDroplet,
    CreateFirewall,
    CreateRecord,
    DeleteRecord,
    DestroyDroplet,
    PowerOnDroplet,
    StageHostKey,
    Step,
    UpdateRecord,
)
from hasite.plan.world import Impostor, Probe, Unknown, ZoneView

from tests.plan.build import (
    AMSTERDAM,
    BOTH,
    FRANKFURT,
    NEW_YORK,
    NOW,
    SITE,
    A,
    B,
    C,
    a,
    address,
    answer,
    claimed,
    droplet,
    machine,
    metadata,
    pool,
    pool_world,
    record,
    server,
    serving_pool,
    txt,
)

NY, AMS = record(NEW_YORK), record(AMSTERDAM)


def steps(of: LoadBalancerPool, **more: Any) -> list[type[Step]]:
    return [type(s) for s in plan_pool(of, pool_world(of, **more)).steps]


def test_a_pool_at_rest_plans_nothing_and_waits_for_nothing() -> None:
    at_rest = serving_pool()
    plan = plan_pool(at_rest, pool_world(at_rest))
    assert (plan.steps, plan.waits, plan.refusals) == ((), (), ())
    assert plan.status == at_rest.status
    assert plan.dns_settled


def test_a_new_pool_makes_its_firewall_before_any_droplet() -> None:
    new = pool()
    assert steps(new, firewalls=()) == [CreateFirewall]
    assert steps(new) == [CreateDroplet, CreateDroplet]


def test_every_droplet_is_claimed_in_the_status_before_it_is_created() -> None:
    new = pool()
    plan = plan_pool(new, pool_world(new))
    created = [s.name for s in plan.steps if isinstance(s, CreateDroplet)]
    claims = {r.name: r.claim for r in plan.status.droplets if r.droplet_id is None}
    assert sorted(claims) == sorted(created)
    assert all(c is not None and (c.by, c.at) == ("operator", NOW) for c in claims.values())


def test_the_zone_is_remembered_as_not_ours_until_we_certainly_made_it() -> None:
    new = pool(zone=None)
    assert plan_pool(new, pool_world(new)).status.zone == ZoneStatus(name="example.com", created_by_us=False)
    absent = plan_pool(new, pool_world(new, zones={})).status.zone
    assert absent == ZoneStatus(name="shop.example.com", created_by_us=False)


def test_a_lowered_ttl_is_waited_out_from_when_every_server_had_the_new_one() -> None:
    status = {"ttl_seconds": 3600, "longer_ttl_until": 0}
    of = serving_pool()
    of = of.model_copy(update={"status": of.status.model_copy(update=status)})
    settled = plan_pool(of, pool_world(of)).status
    assert (settled.ttl_seconds, settled.longer_ttl_until) == (60, NOW + 3600)
    unsettled = plan_pool(of, pool_world(of, zone=Unknown("500"))).status
    assert (unsettled.ttl_seconds, unsettled.longer_ttl_until) == (3600, 0)


@pytest.mark.parametrize(("until", "destroyed"), [(NOW + 1, False), (NOW - 1, True)])
def test_a_machine_outlives_the_longer_ttl_of_earlier_records(until: float, destroyed: bool) -> None:
    of = leaving(NOW - 61)
    of = of.model_copy(update={"status": of.status.model_copy(update={"longer_ttl_until": until})})
    step = release(of, of.status.droplets[0], pool_world(of))[1]
    assert (step is not None) is destroyed


def test_host_keys_that_are_foreign_everywhere_mean_that_somebody_stands_between() -> None:
    of = serving_pool()
    everywhere = {NY.name: Impostor("SHA256:x"), AMS.name: Impostor("SHA256:x")}
    assert {a.state for a in plan_pool(of, pool_world(of, machines=everywhere)).status.addresses} == {"Published"}
    one = {NY.name: Impostor("SHA256:x"), AMS.name: machine(of, AMS.name)}
    states = {a.address: a.state for a in plan_pool(of, pool_world(of, machines=one)).status.addresses}
    assert states == {A: "Withdrawn", B: "Published"}


def test_a_load_balancer_that_cannot_be_reached_over_ssh_is_waited_for() -> None:
    of = serving_pool()
    views = {NY.name: Unknown("no answer"), AMS.name: machine(of, AMS.name)}
    assert [w.message for w in plan_pool(of, pool_world(of, machines=views)).waits] == [
        f"{NY.name} cannot be reached over SSH"
    ]


def test_a_doubled_droplet_that_the_name_leads_to_is_not_destroyed() -> None:
    of = serving_pool()
    double = droplet(NY, id=99, public_ipv4="192.0.2.99")
    seen = Sight([droplet(NY), droplet(AMS), double])
    led = plan_pool(of, pool_world(of, sight=seen, answers={"1": answer(A, B, "192.0.2.99")}))
    assert not [s for s in led.steps if isinstance(s, DestroyDroplet)]
    unled = plan_pool(of, pool_world(of, sight=seen))
    assert [s.droplet_id for s in unled.steps if isinstance(s, DestroyDroplet)] == [99]


def test_a_zone_once_chosen_stays() -> None:
    chosen = serving_pool()
    assert plan_pool(chosen, pool_world(chosen, zones={"shop.example.com": ""})).status.zone == chosen.status.zone


def silent(of: LoadBalancerPool, location: str, **more: Any) -> PoolWorld:
    """A location that neither the operator nor the other location reaches."""
    gone, there = record(location), next(r for r in of.status.droplets if r.location != location)
    world = pool_world(of)
    down = Probe(False, NOW - 1, "no answer in time", NOW - 4)
    peers = {str(gone.public_ipv4): False}
    seen = machine(of, there.name, proxy_more={"peers": peers})
    values: dict[str, Any] = {
        "probes": {**world.probes, str(gone.public_ipv4): down},
        "machines": {**world.machines, gone.name: Unknown("no answer"), there.name: seen},
    }
    return replace(world, **values | more)


def wanted(of: LoadBalancerPool, world: PoolWorld) -> set[str]:
    return {x.address for x in plan_pool(of, world).status.addresses if x.state == "Published"}


def test_a_lost_location_leaves_dns_in_the_first_plan_that_knows_it_with_a_low_ttl() -> None:
    both = serving_pool()
    plan = plan_pool(both, silent(both, NEW_YORK))
    assert [type(s) for s in plan.steps] == [DeleteRecord, UpdateRecord]
    assert isinstance(plan.steps[0], DeleteRecord)
    assert plan.steps[0].record.data == A
    assert isinstance(plan.steps[1], UpdateRecord)
    assert plan.steps[1].record.ttl == 30


def test_a_lost_location_leaves_dns_although_the_other_one_refused_a_new_configuration() -> None:
    both = serving_pool()
    world = silent(both, NEW_YORK, rendered={r.name: "refused" for r in both.status.droplets})
    assert wanted(both, world) == {B}


def test_a_lost_location_stays_in_dns_when_what_the_others_say_is_old() -> None:
    both = serving_pool()
    world = silent(both, NEW_YORK)
    old = machine(both, AMS.name, seen_at=NOW - 60, proxy_more={"peers": {A: False}})
    views = {**world.machines, AMS.name: old}
    assert wanted(both, replace(world, machines=views)) == {A, B}


def test_a_lost_location_keeps_its_machines() -> None:
    both = serving_pool()
    plan = plan_pool(both, silent(both, NEW_YORK))
    assert not [s for s in plan.steps if isinstance(s, CreateDroplet | DestroyDroplet)]
    assert all(r.leaving_since is None for r in plan.status.droplets)


def test_a_blind_operator_plans_nothing() -> None:
    both = serving_pool()
    blind = pool_world(
        both,
        sight=Sight(Unknown("no answer")),
        machines=dict.fromkeys((NY.name, AMS.name), Unknown("no answer")),
        probes=dict.fromkeys((A, B), Probe(False, NOW, "no answer in time", NOW)),
        firewalls=Unknown("no answer"),
        zones=Unknown("no answer"),
        answers={"ns1": Unknown("no answer")},
        zone=Unknown("no answer"),
    )
    plan = plan_pool(both, blind)
    assert plan.steps == ()
    assert plan.status.droplets == both.status.droplets
    assert plan.status.addresses == both.status.addresses
    assert plan.waits


def test_an_empty_inventory_deletes_nothing_and_creates_nothing() -> None:
    both = serving_pool()
    plan = plan_pool(both, pool_world(both, sight=Sight([])))
    assert plan.steps == ()
    assert plan.status.droplets == both.status.droplets


def test_a_droplet_deleted_by_hand_is_withdrawn_at_once_and_replaced() -> None:
    both = serving_pool()
    sight = Sight([droplet(AMS)], by_id={NY.droplet_id or 0: None})
    plan = plan_pool(both, pool_world(both, sight=sight))
    assert [type(s) for s in plan.steps] == [DeleteRecord, CreateDroplet]
    assert [r.droplet_id for r in plan.status.droplets] == [AMS.droplet_id, None]


def test_a_machine_with_a_foreign_host_key_is_withdrawn_at_once() -> None:
    both = serving_pool()
    world = pool_world(both)
    views = {**world.machines, NY.name: Impostor("another key")}
    assert wanted(both, replace(world, machines=views)) == {B}


MACHINES: dict[str, tuple[dict[str, Any], dict[str, Any], list[type[Step]]]] = {
    "one that is set up and in force is left alone": ({}, {}, []),
    "one that is being set up is left alone": (
        {"host_key": None, "bootstrap_keys": ("k",)},
        {"cloud_init": "running"},
        [],
    ),
    "the bootstrap's host key is replaced": (
        {"host_key": None, "bootstrap_keys": ("k",)},
        {},
        [StageHostKey, ActivateHostKey],
    ),
    "a staged host key is activated": ({"bootstrap_keys": ("k",)}, {}, [ActivateHostKey]),
    "a configuration edited by hand is delivered again": (
        {},
        {"proxy_more": {"config_sha256": "edited"}},
        [ConfigureProxy],
    ),
    "a stopped proxy is started": ({}, {"proxy_more": {"active": False}}, [ConfigureProxy]),
    "a disabled proxy is enabled": ({}, {"proxy_more": {"enabled": False}}, [ConfigureProxy]),
    "a proxy that is not installed yet is waited for": ({}, {"proxy_more": {"installed": False}}, []),
    "a proxy that could not be asked is left alone": ({}, {"proxy": Unknown("500")}, []),
}


@pytest.mark.parametrize(("more", "view", "then"), MACHINES.values(), ids=MACHINES)
def test_machine(more: dict[str, Any], view: dict[str, Any], then: list[type[Step]]) -> None:
    one = serving_pool((NEW_YORK,), droplets=[record(**more)])
    seen = machine(one, NY.name, **{k: v for k, v in view.items() if k != "proxy"})
    seen = replace(seen, proxy=view["proxy"]) if "proxy" in view else seen
    assert steps(one, machines={NY.name: seen}) == then


def test_a_configuration_that_was_refused_lately_is_not_delivered_again() -> None:
    one = serving_pool((NEW_YORK,))
    seen = machine(one, NY.name, proxy_more={"config_sha256": "old"})
    plan = plan_pool(one, pool_world(one, machines={NY.name: seen}, rejected={NY.name: "unknown keyword"}))
    assert plan.steps == ()
    assert any("unknown keyword" in w.message for w in plan.waits)


def test_a_droplet_that_is_off_is_switched_on_even_when_it_leads_nowhere() -> None:
    both = serving_pool()
    assert steps(both, sight=Sight([droplet(NY, status="off"), droplet(AMS)])) == [PowerOnDroplet]


def test_a_load_balancer_that_proved_itself_is_published_only_then() -> None:
    fresh = serving_pool(droplets=[NY, AMS], addresses=[address(A)])
    answers = {"ns1": answer(A)}
    zone = ZoneView("example.com", (txt(), a(A)))
    plan = plan_pool(fresh, pool_world(fresh, answers=answers, zone=zone))
    assert [s.record.data for s in plan.steps if isinstance(s, CreateRecord)] == [B]
    views = {NY.name: machine(fresh, NY.name), AMS.name: machine(fresh, AMS.name, proxy_more={"config_sha256": "no"})}
    plan = plan_pool(fresh, pool_world(fresh, answers=answers, zone=zone, machines=views))
    assert not [s for s in plan.steps if isinstance(s, CreateRecord)]


LEFT = NOW - 100


def leaving(released: float | None, **more: Any) -> LoadBalancerPool:
    gone = record(leaving_since=LEFT, released_since=released, **more)
    return serving_pool(droplets=[gone, AMS], addresses=[address(A, "Withdrawn"), address(B)])


def busy(of: LoadBalancerPool, sessions: int = 1) -> dict[str, Any]:
    return {"machines": {NY.name: machine(of, NY.name, proxy_more={"sessions": sessions})}}


Look = Callable[[LoadBalancerPool], dict[str, Any]]
RELEASES: dict[str, tuple[LoadBalancerPool, Look, bool]] = {
    "not while a name server answers with it": (leaving(None), lambda p: {"answers": {"1": answer(A, B)}}, False),
    "not while a name server gives no answer": (
        leaving(None),
        lambda p: {"answers": {"1": answer(B), "2": Unknown("x")}},
        False,
    ),
    "not while nobody was asked": (leaving(None), lambda p: {"answers": {}}, False),
    "not before the TTL is over": (leaving(NOW - 59), lambda p: {}, False),
    "after the TTL": (leaving(NOW - 61), lambda p: {}, True),
    "not while it has connections": (leaving(NOW - 61), busy, False),
    "when its connections outlast the drain": (leaving(NOW - 63), busy, True),
    "at once when it was never published": (leaving(None, served=False), lambda p: {}, True),
    "when it was never published and the domain is not delegated": (
        leaving(None, served=False),
        lambda p: {"answers": {"example.com": Unknown("no name servers")}},
        True,
    ),
    "not while the status has it published": (
        serving_pool(droplets=[record(leaving_since=LEFT), AMS]),
        lambda p: {"answers": {"1": answer(B)}},
        False,
    ),
}


@pytest.mark.parametrize(("of", "more", "destroyed"), RELEASES.values(), ids=RELEASES)
def test_a_load_balancer_that_leaves_is_destroyed(of: LoadBalancerPool, more: Look, destroyed: bool) -> None:
    _, step, wait = release(of, of.status.droplets[0], pool_world(of, **more(of)))
    assert (step is not None) is destroyed
    assert (wait is None) is destroyed


def test_the_ttl_counts_from_when_every_name_server_had_let_go_of_it() -> None:
    of = leaving(None)
    for answers, since in (
        ({"1": answer(A, B)}, None),
        ({"1": answer(B), "2": Unknown("x")}, None),
        ({"1": answer(B)}, NOW),
    ):
        assert release(of, of.status.droplets[0], pool_world(of, answers=answers))[0].released_since == since


def test_a_silent_name_server_holds_a_release_up_for_ten_minutes_at_most() -> None:
    silent = {"1": answer(B), "2": Unknown("no answer")}
    without, with_it = ZoneView("example.com", (txt(), a(B))), ZoneView("example.com", (txt(), a(A), a(B, 2)))
    for since, zone, released in (
        (NOW - 599, without, None),
        (NOW - 601, without, NOW),
        (NOW - 601, with_it, None),
        (NOW - 601, Unknown("not read"), None),
    ):
        gone = record(leaving_since=since)
        of = serving_pool(droplets=[gone, AMS], addresses=[address(A, "Withdrawn"), address(B)])
        assert release(of, gone, pool_world(of, answers=silent, zone=zone))[0].released_since == released


def test_what_it_waits_for_does_not_change_with_the_number_of_connections() -> None:
    """It reaches a condition, and a status that changes at every look wakes everybody who watches it."""
    of = leaving(NOW - 61)
    said = {release(of, of.status.droplets[0], pool_world(of, **busy(of, n)))[2] for n in (1, 2)}
    assert len(said) == 1


def test_peers_are_the_load_balancers_of_the_other_locations() -> None:
    three = serving_pool((*BOTH, FRANKFURT))
    assert proxy_models(three)[NY.name].peers == (B, C)
    alone = serving_pool((NEW_YORK,), droplets=[NY, record(ordinal=1, public_ipv4="192.0.2.11")])
    assert proxy_models(alone)[NY.name].peers == ("192.0.2.11",)


def test_apps_are_reached_inside_their_own_location_and_across_by_their_public_address() -> None:
    app = record(role="app")
    of = serving_pool(servers=[server(app, privateAddress="198.18.0.9")])
    models = proxy_models(of)
    assert models[NY.name].upstreams[0].address == "198.18.0.9"
    assert models[AMS.name].upstreams[0].address == app.public_ipv4


def test_with_local_preference_the_other_locations_are_the_backup() -> None:
    models = proxy_models(serving_pool(routing="PreferLocal"))
    for name, location in ((NY.name, NEW_YORK), (AMS.name, AMSTERDAM)):
        assert [u.backup for u in models[name].upstreams] == [location not in u.name for u in models[name].upstreams]


def removed(**more: Any) -> LoadBalancerPool:
    of = serving_pool(**more)
    marked = metadata(SITE) | of.metadata | {"deletionTimestamp": "2024-01-01T00:00:00Z"}
    return of.model_copy(update={"metadata": marked})


def test_a_removal_gives_up_the_name_first() -> None:
    of = removed()
    plan = plan_pool_removal(of, pool_world(of))
    assert {type(s) for s in plan.steps} == {DeleteRecord}
    assert not plan.finished
    assert all(r.leaving_since == NOW for r in plan.status.droplets)


def test_a_removal_ends_when_nothing_is_left() -> None:
    of = removed(droplets=[], addresses=[])
    gone = pool_world(of, firewalls=(), zone=ZoneView("example.com", ()), answers={"1": answer(owner=None)})
    assert plan_pool_removal(of, gone).finished
    assert not plan_pool_removal(of, replace(gone, zone=Unknown("500"))).finished
    assert not plan_pool_removal(of, replace(gone, firewalls=Unknown("500"))).finished


def test_a_removal_destroys_what_was_made_before_a_zone_was_ever_seen() -> None:
    of = removed(zone=None, droplets=[record(served=False)], addresses=[])
    plan = plan_pool_removal(of, pool_world(of, zones=Unknown("403"), zone=None, answers={}))
    assert [type(s) for s in plan.steps] == [DestroyDroplet]


def test_a_removal_waits_for_a_droplet_that_may_be_on_its_way() -> None:
    asked = claimed(at=NOW)
    of = removed(droplets=[asked], addresses=[])
    world = pool_world(of, sight=Sight([], by_name={asked.name: ()}), zone=ZoneView("example.com", ()))
    plan = plan_pool_removal(of, replace(world, answers={"1": answer(owner=None)}))
    assert not plan.finished
    assert not plan.steps
    assert plan.status.droplets
