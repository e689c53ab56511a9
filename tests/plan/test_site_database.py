"""A site with a database: when its app servers are told how to reach it, and what the site says of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hasite.api.common import DropletRecord
from hasite.api.hasite import HASite
from hasite.plan.connection import Connection, Environment
from hasite.plan.names import template_hash
from hasite.plan.poolworld import BOOTSTRAP_VERSION
from hasite.plan.proxies import DatabaseMember
from hasite.plan.site import SiteWorld, members_of, plan_site, site_template
from hasite.plan.sitedatabase import SiteDatabase, database_proxy_models, port_clash
from hasite.plan.status import site_report
from hasite.plan.steps import ConfigureProxy, CreateDroplet, Refusal, Wait
from hasite.plan.world import Impostor, MachineView, ProxyView, Unknown

from tests.plan.build import AMSTERDAM, BOTH, NEW_YORK, NOW, machine, record, site, site_world

USE = {"name": "orders", "database": "shop", "user": "shop"}
TEMPLATE = site_template(site(database=USE))
NY, AMS = (record(where, role="app", template=TEMPLATE) for where in BOTH)
WANTED = {NY.name: "config of new york", AMS.name: "config of amsterdam"}
REASON = "its configuration or its environment file differs from the one it should have"


def view(of: DropletRecord, **more: Any) -> MachineView:
    """Set up, its proxy as it should be, unless told otherwise."""
    values = {"installed": True, "config_sha256": WANTED.get(of.name), "active": True, "enabled": True}
    return replace(machine(), proxy=ProxyView(**values | more))


def using(droplets: tuple[DropletRecord, ...] = (NY, AMS), **more: Any) -> HASite:
    return site(database=USE, droplets=droplets, **more)


def world(of: HASite, **more: Any) -> SiteWorld:
    """Every app server is told what it should be, unless ``machines`` says otherwise."""
    machines: Mapping[str, Any] = more.pop("machines", {})
    views = {r.name: view(r) for r in of.status.droplets} | dict(machines)
    return site_world(of, machines=views, **{"database": SiteDatabase(WANTED), **more})


def configured(of: HASite, seen: SiteWorld) -> list[tuple[str, str]]:
    return [(s.name, s.reason) for s in plan_site(of, seen).steps if isinstance(s, ConfigureProxy)]


def condition(of: HASite, seen: SiteWorld) -> tuple[str, str, str] | None:
    status = site_report(of, seen, plan_site(of, seen), (), members_of(of, seen))
    return next(((c.status, c.reason, c.message) for c in status.conditions if c.type == "DatabaseConnected"), None)


def test_a_site_whose_app_servers_are_told_plans_nothing_and_says_so() -> None:
    of = using()
    plan = plan_site(of, world(of))
    assert (plan.steps, plan.waits, plan.refusals) == ((), (), ())
    assert condition(of, world(of)) == (
        "True",
        "Connected",
        "app servers are led to shop of ReplicatedDatabase orders",
    )


def test_the_template_of_a_site_without_a_database_is_what_it_always_was() -> None:
    assert site_template(site()) == template_hash(BOOTSTRAP_VERSION, "debian-12-x64", "s-1vcpu-1gb", "#cloud-config\n")


def test_to_set_a_database_first_rolls_the_app_servers_and_to_change_it_does_not() -> None:
    assert site_template(site()) != TEMPLATE
    assert {site_template(site(database={**USE, key: "other"})) for key in USE} == {TEMPLATE}


def test_a_site_without_a_database_says_nothing_of_one() -> None:
    of = site(droplets=(NY, AMS))
    assert condition(of, site_world(of)) is None


AMISS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "nothing": (view(NY), []),
    "another configuration": (view(NY, config_sha256="other"), [(NY.name, REASON)]),
    "no configuration of ours": (view(NY, config_sha256=None), [(NY.name, REASON)]),
    "it does not run": (view(NY, active=False), [(NY.name, "the proxy does not run")]),
    "it would not start": (view(NY, enabled=False), [(NY.name, "the proxy would not start at boot")]),
    "no proxy is installed": (view(NY, installed=False, config_sha256=None, active=False), []),
    "its proxy was not looked at": (replace(machine(), proxy=None), []),
    "its proxy can't be looked at": (replace(machine(), proxy=Unknown("no answer")), []),
    "it can't be reached": (Unknown("no answer"), []),
    "it shows a foreign host key": (Impostor("a key"), []),
}


@pytest.mark.parametrize(("seen", "steps"), AMISS.values(), ids=AMISS)
def test_an_app_server_is_told_when_what_is_amiss_is(seen: Any, steps: list[tuple[str, str]]) -> None:
    of = using()
    assert configured(of, world(of, machines={NY.name: seen})) == steps


NEVER: dict[str, DropletRecord] = {
    "before it shows a host key of its own": NY.model_copy(update={"host_key": None, "bootstrap_keys": ("k",)}),
    "while its bootstrap's key is still good": NY.model_copy(update={"bootstrap_keys": ("k",)}),
    "once it leaves": NY.model_copy(update={"leaving_since": NOW}),
}


@pytest.mark.parametrize("of", NEVER.values(), ids=NEVER)
def test_no_password_is_sent_to_an_app_server(of: DropletRecord) -> None:
    site_ = using((of, AMS))
    assert configured(site_, world(site_, machines={NY.name: view(NY, config_sha256=None)})) == []


def test_a_proxy_on_a_machine_of_an_older_template_is_left_alone_unless_it_is_ours() -> None:
    old = record(NEW_YORK, role="app", template="01d0ne00")
    of = using((old, AMS))
    way = SiteDatabase({**WANTED, old.name: "wanted"})
    theirs, ours = view(old, config_sha256=None), view(old, config_sha256="ours")
    assert configured(of, world(of, machines={old.name: theirs}, database=way)) == []
    assert configured(of, world(of, machines={old.name: ours}, database=way)) == [(old.name, REASON)]


def test_a_configuration_that_was_refused_is_not_delivered_again_at_once_and_is_reported() -> None:
    of = using()
    way = SiteDatabase(WANTED, rejected={NY.name: "check: unknown keyword"})
    seen = world(of, machines={NY.name: view(NY, config_sha256=None)}, database=way)
    plan = plan_site(of, seen)
    assert configured(of, seen) == []
    assert [w.message for w in plan.waits] == [f"{NY.name} refused its configuration: check: unknown keyword"]
    assert condition(of, seen) == ("False", "ConfigurationRejected", f"{NY.name}: check: unknown keyword")


def test_a_database_that_is_being_made_is_waited_for_while_app_servers_are_created() -> None:
    of = using(())
    seen = world(of, database=SiteDatabase(obstacle=Wait("ReplicatedDatabase orders is being made", 2.0)))
    plan = plan_site(of, seen)
    assert len([s for s in plan.steps if isinstance(s, CreateDroplet)]) == 2
    assert "ReplicatedDatabase orders is being made" in [w.message for w in plan.waits]
    assert condition(of, seen) == ("False", "NotYet", "ReplicatedDatabase orders is being made")


def test_a_database_that_cannot_be_used_is_refused_with_the_reason_and_app_servers_are_still_replaced() -> None:
    of = using((NY,))
    refusal = Refusal("DatabaseNotDeclared", "spec.database.database: there is none")
    seen = world(of, database=SiteDatabase(obstacle=refusal))
    plan = plan_site(of, seen)
    assert plan.refusals == (refusal,)
    assert [s.location for s in plan.steps if isinstance(s, CreateDroplet)] == [AMSTERDAM]
    assert condition(of, seen) == ("False", refusal.reason, refusal.message)


PORTS = [("postgresql", 5432, True), ("postgresql", 5433, True), ("postgresql", 3306, False), ("mariadb", 3307, True)]


@pytest.mark.parametrize(("engine", "port", "clashes"), PORTS)
def test_an_app_may_not_listen_where_its_proxy_does(engine: str, port: int, clashes: bool) -> None:
    refusal = port_clash(using(app={"port": port}), Connection(engine, (), "shop", "shop", "secret"))
    assert (refusal is not None and refusal.reason == "PortTaken") is clashes


def test_every_app_server_has_a_configuration_that_names_the_environment_file_beside_it() -> None:
    connection = Connection("postgresql", (DatabaseMember("a", "192.0.2.1"),), "shop", "shop", "secret")
    environment = Environment(b"file", b"authority")
    models = database_proxy_models(using(), connection, environment)
    assert {(m.name, m.location) for m in models.values()} == {(NY.name, NEW_YORK), (AMS.name, AMSTERDAM)}
    assert {(m.port, m.health_port, m.environment_sha256) for m in models.values()} == {
        (5432, 7432, environment.sha256)
    }
