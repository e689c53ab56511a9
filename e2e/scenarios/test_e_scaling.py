"""More and fewer machines, more and fewer locations, under load."""

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import LOCATIONS, Stage, eventually

DOMAIN = "shop.example.com"


def places(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "region": LOCATIONS[name]} for name in names]


async def test_apps_come_and_go_and_no_request_fails(shop: Stage) -> None:
    async with shop.visitors(DOMAIN):
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 3}})
        figures.record("2 more apps", await shop.until_ready(SHOP))
        assert len(await shop.droplets(SHOP, "app")) == 6
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 2}})
        figures.record("2 apps fewer", await shop.until_ready(SHOP))
        await eventually(lambda: _count(shop, "app", 4), 30, "4 apps are left")


async def _count(stage: Stage, role: str, count: int) -> bool:
    return len(await stage.droplets(SHOP, role)) == count


async def test_a_location_and_more_load_balancers_are_added_and_no_request_fails(shop: Stage) -> None:
    async with shop.visitors(DOMAIN):
        locations = places("new-york", "amsterdam", "frankfurt")
        await shop.patch(SHOP, {"locations": locations, "loadBalancers": {"replicasPerLocation": 2}})
        figures.record("a third location and 2 load balancers at each", await shop.until_ready(SHOP, 240))
    addresses = await shop.addresses(SHOP)
    assert len(addresses) == 6
    await eventually(lambda: shop.watcher.holds(DOMAIN, *addresses), 5, "all are published")
    assert "3/3" in await shop.kubectl("get", "hasites", SHOP)


async def test_a_location_and_load_balancers_are_taken_away_and_no_request_fails(shop: Stage) -> None:
    async with shop.visitors(DOMAIN):
        locations = places("new-york", "amsterdam")
        await shop.patch(SHOP, {"locations": locations, "loadBalancers": {"replicasPerLocation": 1}})
        figures.record("a location and 2 load balancers fewer, TTL 30 s", await shop.until_ready(SHOP, 240))
        await eventually(lambda: _count(shop, "lb", 2), 120, "2 load balancers are left")
        await eventually(lambda: _count(shop, "app", 4), 60, "4 apps are left")
    assert not await shop.droplets(SHOP, location="frankfurt")
    assert shop.watcher.holds(DOMAIN, *await shop.addresses(SHOP))
