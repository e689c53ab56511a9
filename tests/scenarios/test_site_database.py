"""Stories of a site with a database: its app servers are led to it, whatever changes or is damaged."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.connection import AUTHORITY_PATH, ENVIRONMENT_PATH

from tests.fakes.kube import Json
from tests.fakes.machines import FakeMachine
from tests.scenarios.extent import FULL
from tests.scenarios.stories import LONG, is_ready
from tests.scenarios.test_databases import database_spec
from tests.scenarios.test_databases import is_ready as database_is_ready
from tests.scenarios.universe import NAME, NAMESPACE, Universe, manifest, play, site_spec

USE = {"name": NAME, "database": "shop", "user": "shop"}


def apps(universe: Universe) -> list[FakeMachine]:
    """The app servers that stand."""
    named = {id(m): m for m in universe.ground.machines.values() if "-app-" in m.name}
    return sorted(named.values(), key=lambda m: m.name)


def told(universe: Universe, what: str) -> list[str]:
    """The lines of every app server's environment file that begin so."""
    files = [m.files.get(ENVIRONMENT_PATH, b"").decode() for m in apps(universe)]
    return [line for text in files for line in text.splitlines() if line.startswith(f"{what}=")]


def condition(universe: Universe) -> tuple[str, str]:
    site = universe.site()
    found = site.status.conditions if site else ()
    return next(((c.status, c.reason) for c in found if c.type == "DatabaseConnected"), ("", ""))


def all_is_well(universe: Universe) -> bool:
    members = [m.address for m in universe.ground.machines.values() if "-db-" in m.name]
    led = all(m.leads_to and all(a.encode() in m.leads_to for a in members) for m in apps(universe))
    return is_ready(universe) and database_is_ready(universe) and led and condition(universe) == ("True", "Connected")


async def well(universe: Universe) -> None:
    await universe.until(lambda: all_is_well(universe), LONG, "all is well")


def begin(universe: Universe, **spec: Any) -> None:
    universe.start()
    universe.kube.create(manifest("HASite", site_spec(**spec)))
    universe.kube.create(manifest("ReplicatedDatabase", database_spec()))


async def both(universe: Universe) -> None:
    begin(universe, database=USE)
    await well(universe)


def test_a_site_and_its_database_that_are_made_at_once_end_up_connected() -> None:
    async def story(universe: Universe) -> None:
        await both(universe)
        held = universe.kube.objects["Secret", NAMESPACE, f"{NAME}-users"]
        assert len(told(universe, "DATABASE_PASSWORD")) == 2
        assert len(set(told(universe, "DATABASE_PASSWORD"))) == 1
        assert held["data"]["shop"]
        assert all(b"BEGIN CERTIFICATE" in m.files[AUTHORITY_PATH] for m in apps(universe))
        assert not universe.witness.breaches

    play(story)


def test_nothing_is_told_before_a_machine_shows_a_key_of_its_own() -> None:
    async def story(universe: Universe) -> None:
        await both(universe)
        for name in {m.name for m in apps(universe)}:
            mine = [line.split(maxsplit=2)[2] for line in universe.journal if line.endswith(f" {name}")]
            assert mine.index(f"after ssh activate_host_key {name}") < mine.index(f"before ssh equip {name}")

    play(story)


def test_a_database_that_is_set_later_rolls_the_app_servers_and_no_request_fails() -> None:
    async def story(universe: Universe) -> None:
        begin(universe)
        await universe.until(lambda: is_ready(universe) and database_is_ready(universe), LONG, "Ready")
        before = {m.name for m in apps(universe)}
        universe.edit_site(lambda spec: spec.update(database=USE))
        await asyncio.sleep(1.0)
        await well(universe)
        assert not before & {m.name for m in apps(universe)}
        assert not universe.witness.breaches

    play(story)


def another_user(universe: Universe) -> None:
    users = {"users": [{"name": "shop"}, {"name": "reader"}]}
    universe.kube.edit(ReplicatedDatabase, NAMESPACE, NAME, lambda each: each["spec"].update(users))
    universe.edit_site(lambda spec: spec["database"].update(user="reader"))


async def use_another_user(universe: Universe) -> None:
    another_user(universe)
    await universe.until(lambda: told(universe, "DATABASE_USER") == ['DATABASE_USER="reader"'] * 2, 60.0, "told")


async def another_password(universe: Universe) -> None:
    universe.kube.put_secret(NAMESPACE, "mine", {"password": "mine"})
    users = {"users": [{"name": "shop", "passwordRef": {"name": "mine"}}]}
    universe.kube.edit(ReplicatedDatabase, NAMESPACE, NAME, lambda each: each["spec"].update(users))
    await universe.until(lambda: told(universe, "DATABASE_PASSWORD") == ['DATABASE_PASSWORD="mine"'] * 2, 60.0, "told")


async def another_member(universe: Universe) -> None:
    third = {"name": "frankfurt", "region": "fra1"}
    universe.kube.edit(ReplicatedDatabase, NAMESPACE, NAME, lambda each: each["spec"]["locations"].append(third))
    await asyncio.sleep(1.0)


async def lose_the_file(universe: Universe) -> None:
    deliveries = [call for call in universe.ground.calls if call[0] == "deliver"]
    lost = apps(universe)[0]
    del lost.files[ENVIRONMENT_PATH]
    await universe.until(lambda: ENVIRONMENT_PATH in lost.files, 30.0, "healed")
    assert [call for call in universe.ground.calls if call[0] == "deliver"] == deliveries, "the proxy was not reloaded"


async def stop_the_proxy(universe: Universe) -> None:
    apps(universe)[0].leads_to = None
    await universe.until(lambda: apps(universe)[0].leads_to, 30.0, "healed")


async def edit_the_configuration(universe: Universe) -> None:
    machine = apps(universe)[0]
    good = machine.leads_to
    machine.leads_to = b"somebody's own"
    await universe.until(lambda: machine.leads_to == good, 30.0, "healed")


CHANGES: Mapping[str, Callable[[Universe], Awaitable[None]]] = {
    "another user": use_another_user,
    "another password": another_password,
    "another member": another_member,
    "the file is lost": lose_the_file,
    "the proxy is stopped": stop_the_proxy,
    "the configuration is edited": edit_the_configuration,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_app_servers_are_told_anew_and_none_is_replaced(change: Callable[[Universe], Awaitable[None]]) -> None:
    async def story(universe: Universe) -> None:
        await both(universe)
        before = {m.name for m in apps(universe)}
        await change(universe)
        await well(universe)
        assert {m.name for m in apps(universe)} == before
        assert not universe.witness.breaches

    play(story)


TELLING = ("before ssh equip", "after ssh equip", "before ssh deliver", "after ssh deliver")
"""Effects that this file is about."""


@pytest.mark.parametrize("effect", TELLING)
def test_an_operator_that_dies_while_it_tells_an_app_server_is_made_up_for(effect: str) -> None:
    async def story(universe: Universe) -> None:
        died: list[int] = []

        def strike(number: int) -> None:
            if not died and universe.effects[number].startswith(effect) and "-app-" in universe.effects[number]:
                died.append(number)
                universe.crash()

        universe.on_effect = strike
        begin(universe, database=USE)
        await well(universe)
        assert died
        assert not universe.witness.breaches

    play(story)


@pytest.mark.skipif(not FULL, reason="HASITE_MATRIX=1")
@pytest.mark.parametrize("point", range(1, 280, 7))
def test_an_operator_that_dies_at_any_effect_is_made_up_for(point: int) -> None:
    async def story(universe: Universe) -> None:
        universe.on_effect = lambda number: universe.crash() if number == point else None
        begin(universe, database=USE)
        await well(universe)
        assert len(universe.effects) > point
        assert not universe.witness.breaches

    play(story)


REFUSED: Mapping[str, tuple[Json, str]] = {
    "no such database": ({**USE, "database": "other"}, "DatabaseNotDeclared"),
    "no such user": ({**USE, "user": "other"}, "DatabaseUserNotDeclared"),
    "no such resource": ({**USE, "name": "other"}, "NotYet"),
}


@pytest.mark.parametrize(("use", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_said_and_the_site_serves_on(use: Json, reason: str) -> None:
    async def story(universe: Universe) -> None:
        await both(universe)
        before = [m.leads_to for m in apps(universe)]
        universe.edit_site(lambda spec: spec.update(database=use))
        await asyncio.sleep(60.0)
        assert condition(universe) == ("False", reason)
        assert [m.leads_to for m in apps(universe)] == before
        assert not universe.witness.breaches

    play(story)


def test_a_site_without_a_database_costs_what_it_did() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await universe.until(lambda: is_ready(universe), LONG, "Ready")
        await asyncio.sleep(30.0)
        watched = universe.operators[-1].watch._targets
        assert (HASite.KIND, NAMESPACE, NAME) not in watched
        assert (LoadBalancerPool.KIND, NAMESPACE, NAME) in watched

    play(story)


def test_a_site_with_a_database_can_be_deleted() -> None:
    async def story(universe: Universe) -> None:
        await both(universe)
        universe.delete_site()
        await universe.until(lambda: universe.site() is None, LONG, "the end")
        assert apps(universe) == []
        assert database_is_ready(universe)

    play(story)
