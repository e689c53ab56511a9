"""What happens to a site, told step by step: the stories that the crash matrix interrupts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.fakes.kube import Json
from tests.scenarios.universe import Universe, site_spec

Act = Callable[[Universe], Awaitable[None]]
LONG = 600.0
"""Simulated seconds within which each step of a story must be done, crashes included."""


@dataclass(frozen=True)
class Story:
    """``act`` returns when the world is where it should be. ``prepared``: it begins with a site that is Ready."""

    act: Act
    spec: Json = field(default_factory=site_spec)
    prepared: bool = True
    slow: Mapping[tuple[str, str], float] = field(default_factory=dict)


def is_ready(universe: Universe) -> bool:
    """What is there of a site and a pool is Ready, at its latest generation."""
    there = [each for each in (universe.site(), universe.pool()) if each is not None]
    return bool(there) and all(
        each.status.observed_generation == each.generation
        and any(c.type == "Ready" and c.status == "True" for c in each.status.conditions)
        for each in there
    )


def is_gone(universe: Universe) -> bool:
    """Both objects and everything at the provider are gone."""
    state = universe.cloud.state
    return universe.site() is None and universe.pool() is None and not state.droplets and not state.firewalls


async def ready(universe: Universe) -> None:
    await universe.until(lambda: is_ready(universe), LONG, "Ready")


async def create(universe: Universe) -> None:
    universe.create_site()
    await ready(universe)


async def roll(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["app"].update(userData="#!/bin/sh\n# v2\n"))
    await ready(universe)


async def roll_load_balancers(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["loadBalancers"].update(size="s-2vcpu-2gb"))
    await ready(universe)


async def fail_over(universe: Universe) -> None:
    """A region goes dark, and comes back."""
    universe.witness.trouble = True
    universe.ground.dark.add("nyc3")
    lost = {s.public_ipv4 for s in universe.ground.specs.values() if s.region == "nyc3"}
    await universe.until(lambda: not lost & universe.names.addresses("shop.example.com"), 60.0, "withdrawal")
    universe.ground.dark.clear()
    await universe.until(lambda: lost & universe.names.addresses("shop.example.com"), LONG, "publication")
    await ready(universe)


async def scale_up(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=2))
    await ready(universe)


async def scale_down(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=1))
    universe.edit_site(lambda spec: spec["loadBalancers"].update(replicasPerLocation=1))
    await ready(universe)


async def add_location(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["locations"].append({"name": "frankfurt", "region": "fra1"}))
    await ready(universe)


async def remove_location(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["locations"].pop(0))
    await ready(universe)


async def delete(universe: Universe) -> None:
    universe.delete_site()
    await universe.until(lambda: is_gone(universe), LONG, "the end")


def _two_each() -> Json:
    spec = site_spec(loadBalancers={"replicasPerLocation": 2})
    spec["app"]["replicasPerLocation"] = 2
    return spec


STORIES: Mapping[str, Story] = {
    "creating": Story(create, prepared=False),
    "creating at a slow provider": Story(create, prepared=False, slow={("POST", "/v2/droplets"): 20.0}),
    "rolling apps": Story(roll),
    "rolling load balancers": Story(roll_load_balancers),
    "failing over and back": Story(fail_over),
    "scaling up": Story(scale_up),
    "scaling down": Story(scale_down, spec=_two_each()),
    "adding a location": Story(add_location),
    "taking a location away": Story(remove_location),
    "deleting": Story(delete),
}
