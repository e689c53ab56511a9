"""The operator's own troubles: what it can't see, other operators, a restart at any moment, an API that goes away."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from hasite.api.common import seconds

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually

DOMAIN = "shop.example.com"


async def stays(stage: Stage, seconds: float, *addresses: str) -> None:
    """AssertionError when the name servers give anything but these addresses meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert stage.watcher.holds(DOMAIN, *addresses), stage.watcher.answers(DOMAIN)
        await asyncio.sleep(0.1)


async def test_an_operator_that_is_cut_off_from_one_location_withdraws_nothing(shop: Stage) -> None:
    addresses = await shop.addresses(SHOP)
    async with shop.visitors(DOMAIN):
        await shop.world.network.cut_between("ops", "nyc3")
        await stays(shop, 10, *addresses)
        await shop.world.network.restore()
    await shop.until_ready(SHOP)


async def test_an_operator_that_reaches_nothing_is_blind_says_so_and_changes_nothing(shop: Stage) -> None:
    addresses = await shop.addresses(SHOP)
    async with shop.visitors(DOMAIN):
        for region in ("nyc3", "ams3"):
            await shop.world.network.cut_between("ops", region)
        await shop.until_condition(SHOP, "Blind", "NothingReachable", within=30)
        await stays(shop, 5, *addresses)
        await shop.world.network.restore()
    await shop.until_condition(SHOP, "Blind", status="False")
    await shop.until_ready(SHOP)


async def test_when_every_location_is_down_at_once_the_name_stays_as_it_was(shop: Stage) -> None:
    addresses = await shop.addresses(SHOP)
    for location in ("new-york", "amsterdam"):
        await shop.world.drop(location, "cut")
    await stays(shop, 10, *addresses)
    await shop.world.restore()
    figures.record("every location was cut off, and all are back: until Ready", await shop.until_ready(SHOP), 120)
    await eventually(lambda: shop.watcher.holds(DOMAIN, *addresses), 10, "both are published")


async def held_down(stage: Stage, address: str) -> tuple[float, int]:
    """Seconds for which an address that is published again was out, and how often it was withdrawn lately."""

    async def back() -> Mapping[str, Any] | None:
        pool = await stage.get("pool", SHOP)
        assert pool is not None
        found: Mapping[str, Any] = next(a for a in pool["status"]["addresses"] if a["address"] == address)
        return found if found["state"] == "Published" else None

    found = (await eventually(back, 15, "status says that it is published again"))[0]
    return found["since"] - found["withdrawals"][-1], len(found["withdrawals"])


async def test_a_location_that_flaps_is_held_down_longer_each_time(shop: Stage) -> None:
    (flapping,) = await shop.addresses(SHOP, "amsterdam")
    (kept,) = await shop.addresses(SHOP, "new-york")
    site = await shop.get("hasite", SHOP)
    assert site is not None
    base = seconds(site["spec"]["failureDetection"]["holdDown"])
    out: list[float] = []
    for _ in range(3):  # the first hold-down may be over before the location has recovered
        await shop.world.drop("amsterdam", "cut")
        await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 15, "it is withdrawn", 0.05)
        started = time.monotonic()
        await shop.world.restore("amsterdam")
        await eventually(lambda: shop.watcher.holds(DOMAIN, kept, flapping), 320, "it is published again", 0.05)
        out.append(time.monotonic() - started)
        held, times = await held_down(shop, flapping)
        assert held >= base * 2 ** (times - 1)
    assert out[2] >= out[1] * 1.5, out
    await shop.until_ready(SHOP, 200)


async def test_a_standby_takes_over_from_a_killed_leader_and_fails_over(shop: Stage) -> None:
    (kept,) = await shop.addresses(SHOP, "amsterdam")
    async with shop.another_operator("standby"):
        await eventually(lambda: shop.is_warm("standby"), 20, "the standby is warm")
        async with shop.visitors(DOMAIN), shop.without_operator():
            await shop.world.drop("new-york", "cut")
            _, took = await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 30, "the address is gone", 0.05)
            figures.record("leader killed and datacentre lost at once, lease 5 s: address gone from DNS", took, 20)
            await shop.world.restore("new-york")
            await shop.until_ready(SHOP, 340)


async def test_a_second_leader_started_by_mistake_does_no_harm(shop: Stage) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mistake"}}
    subject = {"kind": "ServiceAccount", "name": "hasite-operator", "namespace": "hasite-system"}
    admin = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "mistake", "namespace": "mistake"},
        "roleRef": admin,
        "subjects": [subject],
    }
    for each in (namespace, binding):
        await shop.world.kubectl("apply", "-f", "-", stdin=json.dumps(each))
    shop.namespaces += 1
    async with shop.another_operator("mistake", HASITE_NAMESPACE="mistake"):
        await eventually(lambda: shop.leads("mistake"), 20, "it leads, in its own namespace")
        async with shop.visitors(DOMAIN):
            await shop.patch(SHOP, {"app": {"replicasPerLocation": 3}})
            await shop.until_ready(SHOP)
            assert len(await shop.droplets(SHOP, "app")) == 6
            await shop.patch(SHOP, {"app": {"replicasPerLocation": 2}})
            await shop.until_ready(SHOP)
            await eventually(lambda: _apps(shop, 4), 60, "4 apps are left")
    await shop.until_ready(SHOP)


async def _apps(stage: Stage, count: int) -> bool:
    return len(await stage.droplets(SHOP, "app")) == count


async def test_an_api_server_that_restarts_costs_no_request_and_no_failover(shop: Stage) -> None:
    (kept,) = await shop.addresses(SHOP, "new-york")
    async with shop.visitors(DOMAIN):
        await shop.world.cluster.restart_apiserver(down_for=8)
        await shop.world.drop("amsterdam", "cut")
        _, took = await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 60, "the address is gone", 0.05)
        figures.record("datacentre lost right after the API server came back: address gone from DNS", took, 45)
        await shop.world.restore("amsterdam")
        await shop.until_ready(SHOP, 340)
