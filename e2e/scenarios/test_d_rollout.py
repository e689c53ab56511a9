"""A new version rolls through the locations under load, and nobody notices."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually, user_data

DOMAIN = "shop.example.com"
BROKEN = "#cloud-config\nruncmd:\n  - [echo, this version starts no server]\n"


pytestmark = pytest.mark.usefixtures("abandoned")  # what becomes of it is looked at later


@contextlib.asynccontextmanager
async def rollout_watched(stage: Stage) -> AsyncIterator[None]:
    """AssertionError when two locations changed at once, or fewer apps than wanted served at one of them."""
    seen: list[str] = []

    async def look_for_ever() -> None:
        while True:
            site, pool = await stage.get("hasite", SHOP), await stage.get("pool", SHOP)
            if site and pool:
                seen.extend(_wrong(site, pool))
            await asyncio.sleep(0.3)

    task = asyncio.create_task(look_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not seen, seen[:5]


def _wrong(site: Mapping[str, Any], pool: Mapping[str, Any]) -> list[str]:
    records = site["status"].get("droplets", [])
    location = {record["name"]: record["location"] for record in records}
    moving = {r["location"] for r in records if r.get("leavingSince") or not r.get("served")}
    wrong = [f"{sorted(moving)} change at once"] if len(moving) > 1 else []
    for name in [each["name"] for each in site["spec"]["locations"]]:
        servers = [s for s in pool["status"]["servers"] if location.get(s["name"]) == name]
        serving = sum(s["healthy"] and s["state"] == "Active" for s in servers)
        if serving < site["spec"]["app"]["replicasPerLocation"]:
            wrong.append(f"{serving} serve at {name}: {servers}")
    return wrong


async def versions(stage: Stage, name: str = SHOP) -> set[str]:
    """The versions that visitors see."""
    found: set[str] = set()
    for address in await stage.addresses(name):
        for _ in range(8):
            _, answer = await stage.fetch("client", f"http://{address}/")
            found |= {line.split(".")[0] for line in answer.splitlines() if line.startswith("Welcome")}
    return found


async def test_a_new_version_rolls_through_and_no_request_fails(shop: Stage) -> None:
    before = {d.id for d in await shop.droplets(SHOP, "app")}
    async with shop.visitors(DOMAIN), rollout_watched(shop):
        await shop.patch(SHOP, {"app": {"userData": user_data("2")}})
        figures.record("a new version of the app on 4 droplets at 2 locations", await shop.until_ready(SHOP, 300))
    assert not before & {d.id for d in await shop.droplets(SHOP, "app")}
    assert await versions(shop) == {"Welcome to version 2"}


async def test_a_version_that_does_not_serve_stops_with_the_old_one_serving(shop: Stage) -> None:
    before = {d.id for d in await shop.droplets(SHOP, "app")}
    async with shop.visitors(DOMAIN):
        await shop.patch(SHOP, {"app": {"userData": BROKEN}})
        _, took = await shop.until_condition(SHOP, "Stalled", "RolloutStalled", "does not serve 60 s after", within=150)
        figures.record("a version that does not serve is reported", took)
        now = {d.id for d in await shop.droplets(SHOP, "app")}
        assert before < now and len(now - before) == 1
        await shop.patch(SHOP, {"app": {"userData": user_data("2")}})
        figures.record("taking that version back", await shop.until_ready(SHOP))
    await eventually(lambda: _are(shop, before), 30, "the new droplet is gone, the old ones are left")


async def _are(stage: Stage, ids: set[int]) -> bool:
    return {d.id for d in await stage.droplets(SHOP, "app")} == ids


async def test_load_balancers_of_another_size_take_over_and_no_request_fails(shop: Stage) -> None:
    before = {d.id for d in await shop.droplets(SHOP, "lb")}
    async with shop.visitors(DOMAIN):
        await shop.patch(SHOP, {"loadBalancers": {"size": "s-1vcpu-2gb"}})
        took = await shop.until_ready(SHOP, 400)
        figures.record("load balancers of another size at 2 locations, TTL 30 s", took)
    now = await shop.droplets(SHOP, "lb")
    assert not before & {d.id for d in now}
    assert [d.size for d in now] == ["s-1vcpu-2gb"] * 2
