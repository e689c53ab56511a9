"""Stories of databases, with the real reconciler and simulated guards: made, changed, hurt, and the operator killed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hasite.api.replicateddatabase import ReplicatedDatabase

from tests.fakes.kube import Json
from tests.scenarios.extent import FULL
from tests.scenarios.universe import NAME, NAMESPACE, Universe, play

LONG = 300.0


def database_spec(**changes: Any) -> Json:
    """One member at each of two locations."""
    return {
        "engine": "postgresql",
        "version": "17",
        "credentialsRef": {"name": "digitalocean"},
        "deletionPolicy": "Delete",
        "locations": [{"name": "new-york", "region": "nyc3"}, {"name": "amsterdam", "region": "ams3"}],
        "databases": [{"name": "shop", "owner": "shop"}],
        "users": [{"name": "shop"}],
        **changes,
    }


def live(universe: Universe) -> ReplicatedDatabase | None:
    raw = universe.kube.raw(ReplicatedDatabase, NAMESPACE, NAME)
    return None if raw is None else ReplicatedDatabase.model_validate(raw)


def is_ready(universe: Universe) -> bool:
    found = live(universe)
    if found is None or found.status.observed_generation != found.generation:
        return False
    return any(c.type == "Ready" and c.status == "True" for c in found.status.conditions)


def reason(universe: Universe) -> str:
    found = live(universe)
    return next((c.reason for c in found.status.conditions if c.type == "Ready"), "") if found else ""


def alive(universe: Universe) -> list[str]:
    return sorted(d.name for d in universe.cloud.state.droplets.values() if not d.deleting)


def edit(universe: Universe, **spec: Any) -> None:
    universe.kube.edit(ReplicatedDatabase, NAMESPACE, NAME, lambda each: each["spec"].update(spec))


async def ready(universe: Universe) -> None:
    await universe.until(lambda: is_ready(universe), LONG, "Ready")


async def create(universe: Universe) -> None:
    universe.create("ReplicatedDatabase")
    await ready(universe)


def holder(universe: Universe) -> str:
    return universe.guards.holder


# The stories, each from a database that is Ready.


async def resize(universe: Universe) -> None:
    before = set(alive(universe))
    edit(universe, size="s-2vcpu-4gb")
    await ready(universe)
    assert not before & set(alive(universe))


async def wish(universe: Universe) -> None:
    edit(universe, primaryLocation="amsterdam")
    await universe.until(lambda: "-amsterdam-" in holder(universe), 60.0, "the switchover")
    await ready(universe)


async def grow(universe: Universe) -> None:
    found = live(universe)
    assert found is not None
    edit(universe, locations=[location.wire() | {"members": 2} for location in found.spec.locations])
    await ready(universe)
    assert len(alive(universe)) == 4


async def move(universe: Universe) -> None:
    """The location of the primary is given up for a third one."""
    edit(universe, locations=[{"name": n, "region": r} for n, r in (("amsterdam", "ams3"), ("frankfurt", "fra1"))])
    await ready(universe)
    assert [name.split("-db-")[1].split("-")[0] for name in alive(universe)] == ["amsterdam", "frankfurt"]


async def add_witness(universe: Universe) -> None:
    edit(universe, witness={"location": "frankfurt", "region": "fra1"})
    await ready(universe)
    found = live(universe)
    assert found is not None
    assert found.status.membership is not None
    assert len(found.status.membership.voters) == 3
    assert "operator" not in found.status.membership.voters


async def lose_a_member(universe: Universe) -> None:
    """A standby's droplet is destroyed by somebody else."""
    standby = next(d for d in universe.cloud.state.droplets.values() if d.name != holder(universe))
    await universe.ground.destroy(standby.id)
    del universe.cloud.state.droplets[standby.id]
    await universe.until(lambda: not is_ready(universe), 120.0, "the loss to be seen")
    await ready(universe)
    assert standby.name not in alive(universe)


async def lose_a_datacentre(universe: Universe) -> None:
    before = holder(universe)
    region = "nyc3" if "-new-york-" in before else "ams3"
    universe.ground.dark.add(region)
    await universe.until(lambda: holder(universe) != before, 60.0, "the failover")
    await universe.until(lambda: (d := live(universe)) is not None and d.status.primary == holder(universe), 30.0)
    assert len(alive(universe)) == 2
    universe.ground.dark.clear()
    await ready(universe)


async def delete(universe: Universe) -> None:
    universe.guards.giving_up = True
    universe.kube.remove(ReplicatedDatabase, NAMESPACE, NAME)
    await universe.until(lambda: live(universe) is None, LONG, "the end")
    assert alive(universe) == []
    assert universe.cloud.state.firewalls == {}


Story = Callable[[Universe], Awaitable[None]]
STORIES: Mapping[str, Story] = {
    each.__name__: each for each in (resize, wish, grow, move, add_witness, lose_a_member, lose_a_datacentre, delete)
}


def tell(story: Story, prepared: bool = True, **options: Any) -> Universe:
    async def told(universe: Universe) -> Universe:
        universe.start()
        if prepared:
            await create(universe)
        await story(universe)
        return universe

    universe: Universe = play(told, spec=database_spec(), **options)
    trouble = [*universe.guards.breaches, *universe.witness.breaches]
    assert not trouble, "\n".join([*trouble, *universe.journal[-100:]])
    return universe


def test_a_database_is_made_once_and_its_users_are_declared() -> None:
    universe = tell(create, prepared=False)
    assert universe.guards.databases_made == 1
    assert universe.guards.declared is not None
    assert universe.guards.declared.owners == {"shop": "shop"}
    assert [e.reason for e in universe.kube.events if e.reason == "Ready"] == ["Ready"]


@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_well_and_nothing_is_done_on_the_way_that_must_never_be(name: str) -> None:
    universe = tell(STORIES[name])
    assert universe.guards.databases_made == 1


def _killed_at(point: int, story: Story, prepared: bool) -> Universe:
    async def told(universe: Universe) -> Universe:
        universe.on_effect = lambda number: universe.crash() if number == point else None
        universe.start()
        if prepared:
            await create(universe)
        await story(universe)
        return universe

    universe: Universe = play(told, spec=database_spec())
    return universe


@pytest.mark.parametrize("name", ["create", "resize", "lose_a_member", "move"])
@pytest.mark.timeout(1800)
def test_an_operator_that_is_killed_at_any_point_leaves_a_story_that_ends_the_same(name: str) -> None:
    story, prepared = (create, False) if name == "create" else (STORIES[name], True)
    first, last = _extent(story, prepared)
    for point in range(first, last, 1 if FULL else 17):
        universe = _killed_at(point, story, prepared)
        trouble = [*universe.guards.breaches, *universe.witness.breaches]
        assert not trouble, "\n".join([f"killed at {point}", *trouble, *universe.journal[-60:]])
        assert universe.guards.databases_made == 1


def _extent(story: Story, prepared: bool) -> tuple[int, int]:
    """The effects of a telling that belong to the story itself."""
    begun: list[int] = []

    async def told(universe: Universe) -> int:
        universe.start()
        if prepared:
            await create(universe)
        begun.append(len(universe.effects))
        await story(universe)
        return len(universe.effects)

    last: int = play(told, spec=database_spec())
    return begun[0], last


def test_a_status_that_was_lost_is_reported_and_nothing_is_touched() -> None:
    async def story(universe: Universe) -> None:
        before = alive(universe)
        raw = universe.kube.objects["ReplicatedDatabase", NAMESPACE, NAME]
        raw["status"] = {"observedGeneration": -1}
        universe.kube._touch(raw)
        await universe.until(lambda: reason(universe) == "VoteLost", 60.0, "the report")
        await asyncio.sleep(60.0)
        assert alive(universe) == before

    tell(story)


def test_a_deleted_database_that_is_retained_serves_on() -> None:
    async def story(universe: Universe) -> None:
        before = alive(universe)
        edit(universe, deletionPolicy="Retain")
        await ready(universe)
        universe.kube.remove(ReplicatedDatabase, NAMESPACE, NAME)
        await universe.until(lambda: live(universe) is None, 60.0, "the end")
        await asyncio.sleep(30.0)
        assert alive(universe) == before
        assert len(universe.cloud.state.firewalls) == 1

    tell(story)


def test_a_missing_password_is_reported() -> None:
    async def story(universe: Universe) -> None:
        edit(universe, users=[{"name": "shop"}, {"name": "reader", "passwordRef": {"name": "reader"}}])
        await universe.until(lambda: reason(universe) == "PasswordMissing", 60.0, "the report")
        universe.kube.put_secret(NAMESPACE, "reader", {"password": "secret"})
        await ready(universe)
        assert universe.guards.declared is not None
        assert universe.guards.declared.passwords["reader"] == "secret"

    tell(story)
