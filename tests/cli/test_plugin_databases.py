"""`kubectl hasite` and databases: what a person reads of one, and what a person orders."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hasite import cli
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.cli.tree import plain
from hasite.errors import Permanent

from tests.cli import scene
from tests.fakes.kube import FakeKube
from tests.golden import assert_golden

PRIMARY, STANDBY = "shop-db-new-york-0-abc123-00000000", "shop-db-amsterdam-1-abc123-00000000"


def droplet(name: str, location: str, number: int) -> dict[str, Any]:
    return {
        "name": name,
        "location": location,
        "region": scene.REGIONS[location],
        "template": "abc12345",
        "dropletId": number,
        "publicIPv4": f"192.0.2.{number}",
        "hostKey": "key",
        "served": True,
    }


def member(name: str, location: str, role: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "location": location, "role": role, "lag": "ok", **more}


def database(**status: Any) -> FakeKube:
    """``status`` replaces fields of one at rest."""
    conditions = status.pop("conditions", [scene.condition("Ready", "True", "Ready", "all is well")])
    resource = {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": "ReplicatedDatabase",
        "metadata": {"name": "shop", "namespace": scene.NAMESPACE, "uid": "uid", "generation": 1},
        "spec": {
            "engine": "postgresql",
            "version": "17",
            "credentialsRef": {"name": "digitalocean"},
            "locations": [{"name": name, "region": region} for name, region in scene.REGIONS.items()],
        },
        "status": {
            "observedGeneration": 1,
            "conditions": conditions,
            "primary": PRIMARY,
            "epoch": 3,
            "droplets": [droplet(PRIMARY, "new-york", 1), droplet(STANDBY, "amsterdam", 2)],
            "members": [member(PRIMARY, "new-york", "primary"), member(STANDBY, "amsterdam", "standby")],
            **status,
        },
    }
    kube = FakeKube()
    kube.objects["ReplicatedDatabase", scene.NAMESPACE, "shop"] = resource
    kube._touch(resource)
    return kube


def minutes_ago(count: int) -> str:
    return datetime.fromtimestamp(scene.NOW - 60 * count, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def shown(kube: FakeKube, command: str = "status") -> str:
    seen = await cli.look(kube, "rdb/shop", scene.NAMESPACE)
    return cli.show(seen, command, "tree", plain, scene.NOW) + "\n"


async def order(kube: FakeKube, *arguments: str) -> str:
    options = cli._parser().parse_args(arguments)
    return await cli.give_order(kube, options, scene.NAMESPACE)


def promote_of(kube: FakeKube) -> Any:
    raw = kube.raw(ReplicatedDatabase, scene.NAMESPACE, "shop")
    return raw["spec"].get("promote") if raw else None


async def test_status_shows_each_member_with_its_part_and_its_lag() -> None:
    assert_golden("cli-status-database.txt", await shown(database()))


async def test_status_says_where_data_are_kept_that_an_old_primary_alone_had() -> None:
    saved = ["/var/lib/hasite/saved/2-20261124"]
    members = [member(PRIMARY, "new-york", "standby", saved=saved), member(STANDBY, "amsterdam", "primary")]
    assert f"keeps {saved[0]}" in await shown(database(members=members, primary=STANDBY))


async def test_status_says_that_nobody_takes_writes() -> None:
    assert "nobody takes writes, epoch 3, no lease" in await shown(database(primary=""))


async def test_status_says_that_nothing_is_heard_of_the_primary() -> None:
    members = [member(PRIMARY, "new-york", "unknown"), member(STANDBY, "amsterdam", "standby")]
    assert f"{PRIMARY}, epoch 3, its lease is not heard of" in await shown(database(members=members))


async def test_status_says_since_when_and_after_how_long_another_member_is_the_primary() -> None:
    last = {
        "kind": "failover",
        "at": minutes_ago(12),
        "former": STANDBY,
        "primary": PRIMARY,
        "epoch": 3,
        "took": "3.4s",
    }
    line = f"last failover 12m ago: from {STANDBY} to {PRIMARY}, epoch 3, 3.4s without a primary"
    assert line in await shown(database(lastTurnover=last))


async def test_plan_of_a_database_at_rest_has_nothing_to_do() -> None:
    assert "nothing to do" in await shown(database(), "plan")


async def test_a_switchover_is_a_field_that_holds_for_one_epoch() -> None:
    kube = database()
    assert "ordered a switchover to amsterdam, for epoch 3" in await order(
        kube, "switchover", "shop", "--location", "amsterdam"
    )
    assert promote_of(kube) == {"location": "amsterdam", "epoch": 3, "acceptDataLoss": False}


async def test_a_person_can_accept_that_data_are_lost() -> None:
    kube = database(primary="")
    await order(kube, "promote", "rdb/shop", "--location", "amsterdam", "--accept-data-loss")
    assert promote_of(kube) == {"location": "amsterdam", "epoch": 3, "acceptDataLoss": True}


@pytest.mark.parametrize(
    ("status", "arguments", "words"),
    [
        ({}, ("switchover", "shop", "--location", "tokyo"), "tokyo is none of the locations"),
        ({}, ("switchover", "shop", "--location", "new-york"), "at new-york already"),
        ({"primary": ""}, ("switchover", "shop", "--location", "amsterdam"), "no primary that could hand over"),
        ({"epoch": 0, "primary": ""}, ("promote", "shop", "--location", "amsterdam"), "never had one"),
        ({}, ("promote", "shop", "--location", "amsterdam", "--accept-data-loss"), "takes writes"),
        ({}, ("promote", "lbp/shop", "--location", "amsterdam"), "is no database"),
        ({}, ("promote", "other", "--location", "amsterdam"), "not found"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_words(
    status: dict[str, Any], arguments: tuple[str, ...], words: str
) -> None:
    kube = database(**status)
    with pytest.raises(Permanent, match=words):
        await order(kube, *arguments)
    assert promote_of(kube) is None
