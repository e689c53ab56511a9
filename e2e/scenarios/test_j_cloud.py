"""Trouble with the provider's API: it is waited out, said, and never the cause of a purchase or a deletion."""

import asyncio
import time

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually, manifest
from e2e.world.world import TOKEN

DOMAIN = "shop.example.com"


def deletions(stage: Stage, since: float) -> list[str]:
    return [f"{c.method} {c.path}" for c in stage.world.cloud.journal if c.method == "DELETE" and c.at >= since]


async def test_creates_that_fail_after_the_work_or_hang_buy_nothing_twice(stage: Stage) -> None:
    faults = stage.world.cloud.faults
    failed = faults.fail("error-after", method="POST", path="/v2/droplets")
    hung = faults.fail("hang-after", method="POST", path="/v2/droplets")
    lost = faults.fail("reset-after", method="POST", path="/v2/firewalls")
    await stage.apply(manifest("unclear", locations=["new-york"]))
    took = await stage.until_ready("unclear", 240)
    figures.record("a site made while creates fail after the work, and hang", took)
    assert (failed.hits, hung.hits, lost.hits) == (1, 1, 1)
    assert len(await stage.droplets("unclear")) == 2
    await stage.delete("unclear")


async def test_lists_that_are_empty_by_mistake_delete_nothing(shop: Stage) -> None:
    since = time.time()
    before = {d.id for d in await shop.droplets(SHOP)}
    for path in ("/v2/droplets", "/v2/firewalls", "/v2/domains", "/v2/domains/.*/records"):
        shop.world.cloud.faults.fail("empty-list", method="GET", path=path)
    # Its spec changes, so that the operator looks at all of it afresh.
    await shop.patch(SHOP, {"app": {"healthCheck": {"rise": 3}}})
    await asyncio.sleep(5)
    await shop.until_ready(SHOP)
    shop.world.cloud.faults.clear()
    assert not deletions(shop, since)
    assert {d.id for d in await shop.droplets(SHOP)} == before


async def test_an_api_that_refuses_everything_for_a_minute_changes_nothing(shop: Stage) -> None:
    since = time.time()
    async with shop.visitors(DOMAIN):
        shop.world.cloud.faults.fail("rate-limited", duration=30)
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 3}})
        await asyncio.sleep(30)
        shop.world.cloud.faults.fail("unavailable", duration=30)
        await asyncio.sleep(30)
        figures.record("2 more apps after a minute of 429 and 503: until Ready", await shop.until_ready(SHOP, 180))
        assert len(await shop.droplets(SHOP, "app")) == 6
        assert not deletions(shop, since)
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 2}})
        await shop.until_ready(SHOP)


async def test_a_failover_goes_through_as_soon_as_the_api_answers_again(shop: Stage) -> None:
    (kept,) = await shop.addresses(SHOP, "amsterdam")
    async with shop.visitors(DOMAIN):
        shop.world.cloud.faults.fail("unavailable", duration=10)
        await shop.world.drop("new-york", "cut")
        await asyncio.sleep(10)
        _, took = await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 30, "the address is gone", 0.05)
        figures.record("datacentre lost while the API is away: address gone after the API is back", took, 15)
        await shop.world.restore("new-york")
        await shop.until_ready(SHOP, 340)


async def test_a_token_that_lost_its_rights_is_reported_and_nothing_is_lost(shop: Stage) -> None:
    since = time.time()
    faults = shop.world.cloud.faults
    async with shop.visitors(DOMAIN):
        try:
            faults.make_read_only(TOKEN)
            await shop.patch(SHOP, {"app": {"replicasPerLocation": 3}})
            await shop.until_condition(SHOP, "Stalled", "Unauthorized", "do not have access")
            faults.revoke(TOKEN)
            await shop.until_condition(SHOP, "Stalled", "Unauthorized", "Unable to authenticate", within=120)
        finally:
            faults.restore(TOKEN)
        await shop.until_ready(SHOP, 180)
        assert not deletions(shop, since)
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 2}})
        await shop.until_ready(SHOP)
