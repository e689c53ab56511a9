"""Each tier opens only what it serves."""

from dataclasses import replace

import pytest
from hasite.api.replicateddatabase import Access
from hasite.plan.firewalls import (
    ANYWHERE,
    app_firewall,
    database_firewall,
    first_difference,
    load_balancer_firewall,
    plan_firewall,
    remove_firewall,
)
from hasite.plan.names import role_tag
from hasite.plan.steps import CreateFirewall, DestroyFirewall, UpdateFirewall
from hasite.plan.world import Firewall, FirewallRule, Unknown

from tests.plan.build import OTHER, POOL, SITE

DESIRED = load_balancer_firewall(POOL, ("203.0.113.7/32",))
THERE = replace(DESIRED, id="fw-1")
OPEN = FirewallRule("tcp", "all", ANYWHERE)


def test_load_balancers_serve_the_world_on_80_and_the_operator_on_22() -> None:
    assert DESIRED.inbound == {
        FirewallRule("tcp", "80", ANYWHERE),
        FirewallRule("tcp", "22", frozenset({"203.0.113.7/32"})),
    }
    assert DESIRED.tags == {role_tag(POOL, "lb")}


def test_apps_serve_the_load_balancers_of_their_pool_only() -> None:
    firewall = app_firewall(SITE, POOL, 8080, ("203.0.113.7/32",))
    assert FirewallRule("tcp", "8080", tags=frozenset({role_tag(POOL, "lb")})) in firewall.inbound
    assert not [r for r in firewall.inbound if r.cidrs == ANYWHERE]


DIFFERENCES: dict[str, tuple[Firewall, str | None]] = {
    "none": (THERE, None),
    "opened by hand": (replace(THERE, inbound=THERE.inbound | {OPEN}), "it lets in tcp all from 0.0.0.0/0, ::/0"),
    "closed by hand": (
        replace(THERE, inbound=frozenset(r for r in THERE.inbound if r.ports != "22")),
        "it keeps out tcp 22 from 203.0.113.7/32",
    ),
    "bound to another tag": (
        replace(THERE, tags=frozenset({"web"})),
        f"it applies to ['web'], not to ['{role_tag(POOL, 'lb')}']",
    ),
    "bound to a droplet": (
        replace(THERE, droplet_ids=frozenset({7})),
        f"it applies to ['{role_tag(POOL, 'lb')}', '7'], not to ['{role_tag(POOL, 'lb')}']",
    ),
}


@pytest.mark.parametrize(("actual", "says"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_says_which_field_and_what_is_there(actual: Firewall, says: str | None) -> None:
    assert first_difference(DESIRED, actual) == says
    steps, _, stands = plan_firewall(DESIRED, [actual])
    assert stands
    assert [type(s) for s in steps] == ([UpdateFirewall] if says else [])
    if steps:
        assert isinstance(steps[0], UpdateFirewall)
        assert steps[0].firewall == replace(DESIRED, id="fw-1")


def test_an_absent_firewall_is_created_before_any_droplet() -> None:
    steps, _, stands = plan_firewall(DESIRED, [replace(THERE, name="other")])
    assert [type(s) for s in steps] == [CreateFirewall]
    assert not stands


def test_firewalls_that_cannot_be_seen_hold_droplets_back() -> None:
    steps, waits, stands = plan_firewall(DESIRED, Unknown("500"))
    assert not steps
    assert waits
    assert not stands


def test_only_our_own_firewall_is_destroyed() -> None:
    others = [load_balancer_firewall(OTHER, ()), app_firewall(SITE, POOL, 80, ()), replace(THERE, id="x", name="web")]
    steps, gone = remove_firewall(POOL, "lb", [THERE, *others])
    assert [s.firewall_id for s in steps if isinstance(s, DestroyFirewall)] == ["fw-1"]
    assert not gone
    assert remove_firewall(POOL, "lb", others) == ((), True)


def test_firewalls_that_cannot_be_seen_are_not_gone() -> None:
    assert remove_firewall(POOL, "lb", Unknown("500")) == ((), False)


@pytest.mark.parametrize(("networks", "health"), [((), frozenset()), (("192.0.2.0/24",), frozenset({"192.0.2.0/24"}))])
def test_what_is_plain_or_between_members_is_never_open_to_anywhere(networks: tuple[str, ...], health: object) -> None:
    rules = {rule.ports: rule for rule in database_firewall(SITE, 5432, Access(), networks).inbound}
    assert rules["7432"].cidrs == health
    assert rules["7433"].cidrs == frozenset()
    assert rules["7432"].tags == rules["7433"].tags == {role_tag(SITE, "db"), role_tag(SITE, "witness")}
    assert rules["7431"].cidrs == (frozenset(networks) or ANYWHERE)
