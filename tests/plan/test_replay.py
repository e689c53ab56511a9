"""Whole runs of site and pool, each replayed as if the operator had died after each of its writes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
from hasite.plan import steps as do
from hasite.plan.site import site_template

from tests.plan.build import AMSTERDAM, FRANKFURT, NEW_YORK, OTHER, REGIONS, a, locations, site, txt
from tests.plan.replay import TAKEOVER, World

TTL = 30


def born(apps: int = 2) -> World:
    return World(site(app={"replicasPerLocation": apps}, dns={"ttlSeconds": TTL, "degradedTtlSeconds": TTL}))


@cache
def _grown(apps: int) -> World:
    return born(apps).run()


def grown() -> World:
    """A site that serves: two load balancers, four apps."""
    return _grown(2).copy()


def small() -> World:
    """A site that serves: two load balancers, two apps."""
    return _grown(1).copy()


def at(*names: str) -> list[dict[str, str]]:
    return locations(names)


NEXT = "#cloud-config\n# next\n"


def roll(world: World) -> None:
    world.change_site(app={"userData": NEXT})


def roll_bad(world: World) -> None:
    roll(world)
    assert world.site is not None
    world.bad = frozenset({site_template(world.site)})


def twice(world: World) -> None:
    """A bad version, then a good one."""
    roll_bad(world)
    world.run()
    world.change_site(app={"userData": "#cloud-config\n# mended\n"})


def recovered(world: World) -> None:
    world.down = frozenset({"nyc3"})
    world.run()
    world.down = frozenset()


def drift(world: World) -> None:
    """A record removed, another doubled, a foreign one added, the firewall gone, a droplet off."""
    first, *rest = [r for r in world.records.values() if r.type == "A"]
    del world.records[first.id]
    for record in (a(rest[0].data, world.fresh()), a("203.0.113.99", world.fresh())):
        world.records[record.id] = record
    del world.firewalls[next(iter(world.firewalls))]


def interrupted(world: World) -> None:
    """Deleted when the first droplets were just asked for."""
    for _ in range(3):
        world.reconcile_site()
        world.reconcile_pool()
    assert world.droplets
    world.delete_site()


@dataclass(frozen=True)
class Scenario:
    """``empty``: the name may be left without an address. ``foreign``: it may point at an address that is not ours for
    a while, because somebody took it away by hand."""

    start: Callable[[], World]
    change: Callable[[World], None]
    apps: dict[str, int]
    balancers: dict[str, int]
    empty: bool = False
    foreign: bool = False
    every: int = 1
    """Replayed after every so many writes."""


NY2, AMS2, FRA2 = {NEW_YORK: 2}, {AMSTERDAM: 2}, {FRANKFURT: 2}
NY1, AMS1, FRA1 = {NEW_YORK: 1}, {AMSTERDAM: 1}, {FRANKFURT: 1}
BOTH_APPS, BOTH_LBS = NY2 | AMS2, NY1 | AMS1
SCENARIOS = {
    "create": Scenario(born, lambda w: None, BOTH_APPS, BOTH_LBS),
    "roll the apps": Scenario(small, roll, NY1 | AMS1, BOTH_LBS),
    "roll the apps to a version that never serves": Scenario(small, roll_bad, NY1 | AMS1 | {"extra": 1}, BOTH_LBS),
    "roll the apps from there to a good version": Scenario(small, twice, NY1 | AMS1, BOTH_LBS, every=4),
    "roll the load balancers": Scenario(
        small, lambda w: w.change_site(loadBalancers={"size": "s-2vcpu-2gb"}), NY1 | AMS1, BOTH_LBS
    ),
    "scale up": Scenario(
        small,
        lambda w: w.change_site(app={"replicasPerLocation": 2}, loadBalancers={"replicasPerLocation": 2}),
        BOTH_APPS,
        {NEW_YORK: 2, AMSTERDAM: 2},
    ),
    "scale down": Scenario(
        grown, lambda w: w.change_site(app={"replicasPerLocation": 1}), {NEW_YORK: 1, AMSTERDAM: 1}, BOTH_LBS
    ),
    "add a location": Scenario(
        small,
        lambda w: w.change_site(locations=at(NEW_YORK, AMSTERDAM, FRANKFURT)),
        NY1 | AMS1 | FRA1,
        BOTH_LBS | FRA1,
    ),
    "take a location away": Scenario(grown, lambda w: w.change_site(locations=at(AMSTERDAM)), AMS2, AMS1),
    "move to another location": Scenario(
        small, lambda w: w.change_site(locations=at(AMSTERDAM, FRANKFURT)), AMS1 | FRA1, AMS1 | FRA1
    ),
    "an app is deleted by hand": Scenario(grown, lambda w: w.lose("app", "nyc3"), BOTH_APPS, BOTH_LBS),
    "a load balancer is deleted by hand": Scenario(
        grown, lambda w: w.lose("lb", "nyc3"), BOTH_APPS, BOTH_LBS, foreign=True
    ),
    "a location goes down": Scenario(grown, lambda w: setattr(w, "down", frozenset({"nyc3"})), BOTH_APPS, BOTH_LBS),
    "a location comes back": Scenario(grown, recovered, BOTH_APPS, BOTH_LBS),
    "drift": Scenario(grown, drift, BOTH_APPS, BOTH_LBS, foreign=True),
    "remove": Scenario(grown, World.delete_site, {}, {}, empty=True),
    "remove while it is being created": Scenario(born, interrupted, {}, {}, empty=True),
}


class Watch:
    """What must hold after each write. ``taken``: a copy of the world after each."""

    def __init__(self, scenario: Scenario, start: World, keep: bool = False) -> None:
        self.scenario, self.keep = scenario, keep
        self.taken: list[World] = []
        self.writes = 0
        self.had_address = bool(start.published())
        self.served = available(start)
        self.balanced = {d.id: d.public_ipv4 or "" for d in start.droplets.values() if "-lb-" in d.name}

    def __call__(self, world: World, what: object) -> None:
        self.writes += 1
        if self.keep:
            twin = world.copy()
            twin.watch = None
            self.taken.append(twin)
        names = Counter(d.name for d in world.droplets.values())
        assert not [n for n, count in names.items() if count > 1], "two droplets of one name"
        records = Counter((r.type, r.name, r.data) for r in world.records.values())
        assert self.scenario.foreign or max(records.values(), default=0) <= 1, "a doubled record"
        if isinstance(what, do.DestroyDroplet):
            self.destroyed(world, what)
        if not self.scenario.foreign:
            for address in world.published():
                assert world.at(address) is not None, f"DNS leads to {address}, which is not ours"
        if not self.scenario.empty:
            self.had_address |= bool(world.published())
            assert bool(world.published()) is self.had_address, "the name is empty"
            self.served |= available(world)
            assert available(world) is self.served, f"nobody can be served after {what}"
        for droplet in world.droplets.values():
            if "-lb-" in droplet.name:
                self.balanced[droplet.id] = droplet.public_ipv4 or ""

    def destroyed(self, world: World, step: do.DestroyDroplet) -> None:
        address = self.balanced.get(step.droplet_id, "")
        assert address not in world.published()
        assert world.now - world.led_at.get(address, 0) >= TTL, "the TTL was not waited out"
        for number, machine in world.machines.items():
            if machine.model is not None and world.droplets[number].region not in world.down:
                active = {u.name for u in machine.model.upstreams if u.state == "Active"}
                assert step.name not in active, "a load balancer still leads to it"


def available(world: World) -> bool:
    """At least one published address leads to a load balancer that leads to an app that is up."""
    return any(world.alive(address) for address in world.published())


def count(world: World, role: str) -> dict[str, int]:
    names = {region: name for name, region in REGIONS.items()}
    return dict(Counter(names[d.region] for d in world.droplets.values() if f"-{role}-" in d.name))


def check_end(world: World, scenario: Scenario) -> None:
    apps = dict(scenario.apps)
    extra = apps.pop("extra", 0)
    found = count(world, "app")
    assert sum(found.values()) == sum(apps.values()) + extra
    assert {k: v for k, v in found.items() if v < apps.get(k, 0)} == {}
    assert count(world, "lb") == scenario.balancers
    if not scenario.balancers:
        assert (world.site, world.pool, world.firewalls, world.records) == (None, None, {}, {})
        return
    balancers = [d for d in world.droplets.values() if "-lb-" in d.name and d.region not in world.down]
    assert world.published() == sorted(d.public_ipv4 or "" for d in balancers)
    assert len(world.records) == len(balancers) + 1
    assert len(world.firewalls) == 2
    assert world.site is not None
    assert world.pool is not None
    remembered = {r.droplet_id for r in (*world.site.status.droplets, *world.pool.status.droplets)}
    assert remembered == set(world.droplets), "nothing is forgotten, nothing is remembered that is not there"


@cache
def reference(name: str) -> tuple[World, tuple[World, ...]]:
    """The end of an undisturbed run, and the world after each of its writes."""
    scenario = SCENARIOS[name]
    world = scenario.start()
    scenario.change(world)
    watch = Watch(scenario, world, keep=True)
    world.watch = watch
    world.run()
    return world, tuple(watch.taken)


@pytest.mark.parametrize("name", SCENARIOS)
def test_undisturbed(name: str) -> None:
    world, _ = reference(name)
    check_end(world, SCENARIOS[name])


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_write_the_operator_dies_after_it_comes_to_the_same_end(name: str) -> None:
    scenario = SCENARIOS[name]
    end, states = reference(name)
    for n, state in list(enumerate(states))[:: scenario.every]:
        world = state.copy()
        world.operator, world.now = 1, world.now + TAKEOVER
        watch = Watch(scenario, state)
        world.watch = watch
        try:
            world.run()
            check_end(world, scenario)
            assert Counter(world.created) == Counter(end.created), "nothing is bought twice"
        except AssertionError as error:
            raise AssertionError(f"died after write {n + 1} of {len(states)}: {error}") from error


def test_the_condition_is_ready_at_the_end_of_a_creation() -> None:
    world = grown()
    for resource in (world.site, world.pool):
        assert resource is not None
        assert {c.type: c.status for c in resource.status.conditions}["Ready"] == "True"


def test_a_world_at_rest_stays_at_rest_and_its_status_does_not_change() -> None:
    world = grown()
    watch = Watch(SCENARIOS["create"], world)
    world.watch = watch
    for _ in range(20):
        world.now += 30
        world.reconcile_site()
        world.reconcile_pool()
    assert watch.writes == 0


def test_a_name_that_belongs_to_another_owner_is_left_alone() -> None:
    world = born()
    for record in (txt(OTHER, world.fresh()), a("203.0.113.99", world.fresh())):
        world.records[record.id] = record
    before = dict(world.records)
    world.run()
    assert world.records == before
    assert world.pool is not None
    stalled = next(c for c in world.pool.status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "DomainOwnedByOther")
