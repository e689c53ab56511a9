"""Names that belong to somebody else are left alone."""

from collections.abc import AsyncIterator

import pytest_asyncio

from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, manifest

DOMAIN = "shop.example.com"
FOREIGN = "foreign.example.com"
ELSEWHERE = "203.0.113.77"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def sites(stage: Stage) -> AsyncIterator[Stage]:
    """Two sites whose names are taken: one by records of somebody's, one by another site."""
    await stage.cloud("POST", "domains", name=FOREIGN)
    await stage.cloud("POST", f"domains/{FOREIGN}/records", type="A", name="@", data=ELSEWHERE, ttl=300)
    stage.watcher.excused.add(ELSEWHERE)
    stage.watcher.watch(FOREIGN).gone = True
    await stage.apply(
        manifest("foreign", locations=["new-york"]), manifest("second", locations=["amsterdam"], domain=DOMAIN)
    )
    yield stage
    await stage.delete("foreign")
    await stage.cloud("DELETE", f"domains/{FOREIGN}")


async def test_records_that_are_not_ours_are_left_as_they_are_and_named(shop: Stage, sites: Stage) -> None:
    await sites.until_condition("foreign", "Stalled", "ForeignRecords", ELSEWHERE, within=120)
    records = sites.world.cloud.state.domains[FOREIGN].records.values()
    assert {r.data for r in records if r.type == "A"} == {ELSEWHERE}
    assert not [r for r in records if r.type == "TXT"]


async def test_a_second_site_of_one_name_is_refused_and_the_first_is_unharmed(shop: Stage, sites: Stage) -> None:
    pool = await shop.get("pool", SHOP)
    assert pool
    await sites.until_condition("second", "Stalled", "DomainOwnedByOther", pool["metadata"]["uid"], within=120)
    assert await shop.is_ready(SHOP)
    assert shop.watcher.holds(DOMAIN, *await shop.addresses(SHOP))
    await sites.kubectl("delete", "hasites", "second", "--timeout=120s")
    assert shop.watcher.holds(DOMAIN, *await shop.addresses(SHOP))
    assert await shop.is_ready(SHOP)


async def test_once_the_foreign_record_is_deleted_the_name_is_ours(sites: Stage) -> None:
    records = sites.world.cloud.state.domains[FOREIGN].records.values()
    (foreign,) = [r for r in records if r.type == "A"]
    await sites.cloud("DELETE", f"domains/{FOREIGN}/records/{foreign.id}")
    await sites.until_ready("foreign")
    assert sites.watcher.holds(FOREIGN, *await sites.addresses("foreign"))
