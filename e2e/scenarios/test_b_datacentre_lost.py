"""A datacentre goes dark under load: nobody notices but the people who look at the status."""

import asyncio
import time

import pytest

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually

DOMAIN = "shop.example.com"
WITHDRAWN_WITHIN = 6.0
BACK_WITHIN = 120.0


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("power", "loses its power"),
        ("cut", "is cut off both ways"),
        ("in", "hears nothing any more"),
        ("out", "is not heard any more"),
    ],
    ids=str,
)
async def test_a_lost_datacentre_leaves_dns_and_no_request_fails(shop: Stage, how: str, words: str) -> None:
    (lost,) = await shop.addresses(SHOP, "new-york")
    (kept,) = await shop.addresses(SHOP, "amsterdam")
    async with shop.visitors(DOMAIN):
        await shop.world.drop("new-york", how)
        _, took = await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 30, "the address is gone", 0.05)
        await shop.until_condition(SHOP, "DegradedLocation", "LocationDown")
        await asyncio.sleep(1)
        back = time.monotonic()
        await shop.world.restore("new-york")
        await eventually(lambda: shop.watcher.holds(DOMAIN, kept, lost), BACK_WITHIN, "the address is back", 0.1)
        figures.record(f"a datacentre that {words} is back in DNS", time.monotonic() - back, BACK_WITHIN)
        await shop.until_ready(SHOP)
    figures.record(f"the address of a datacentre that {words} is gone from DNS", took, WITHDRAWN_WITHIN)


async def test_the_loss_is_told_in_status_events_and_metrics(shop: Stage) -> None:
    (lost,) = await shop.addresses(SHOP, "amsterdam")
    await shop.world.drop("amsterdam", "cut")
    try:
        await shop.until_condition(SHOP, "Ready", "LocationDown", "amsterdam", status="False")
        assert "1/2" in await shop.kubectl("get", "hasites", SHOP)
        told = [event["message"] for event in await shop.events("AddressWithdrawn")]
        assert [text for text in told if lost in text and "amsterdam" in text]
        metrics = await shop.world.metrics()
        assert 'hasite_locations_up{kind="LoadBalancerPool",name="shop",namespace="shop"} 1.0' in metrics
    finally:
        await shop.world.restore("amsterdam")
    await shop.until_ready(SHOP)
