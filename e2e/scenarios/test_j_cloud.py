"""Trouble with the provider's API: it is waited out, said, and never the cause of a purchase or a deletion."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import pytest
from hasite.clouds.transport import PER_PAGE

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually, manifest
from e2e.world.cloud.state import Droplet
from e2e.world.world import TOKEN

DOMAIN = "shop.example.com"
CONFIG = "/etc/haproxy/haproxy.cfg"
AWAY = 600.0 if os.environ.get("HASITE_E2E_LONG") == "1" else 120.0
"""Seconds for which the provider's API is away."""


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


@contextlib.contextmanager
def many_neighbours(stage: Stage) -> Iterator[None]:
    """A page of other sites' droplets in the account, listed before ours, which so are all on page 2."""
    droplets = stage.world.cloud.state.droplets
    ours, some = dict(droplets), next(iter(droplets.values()))
    others = {
        number: replace(some, id=number, name=f"neighbour-{number}", tags=["hasite"], machine=False, user_data="")
        for number in range(1, PER_PAGE + 1)
    }
    droplets.clear()
    droplets.update(others | ours)
    try:
        yield
    finally:
        for number in others:
            del droplets[number]


async def look_afresh(stage: Stage) -> str:
    """Changes the spec, so that the operator looks at everything; returns the words in HAProxy's configuration."""
    site = await stage.get("hasite", SHOP)
    assert site
    rise = 4 if site["spec"]["app"]["healthCheck"]["rise"] == 5 else 5  # no peer has that
    await stage.patch(SHOP, {"app": {"healthCheck": {"rise": rise}}})
    return f"rise {rise} "


def writes(stage: Stage, since: float) -> list[str]:
    return [f"{c.method} {c.path}" for c in stage.world.cloud.journal if c.method != "GET" and c.at >= since]


@pytest.mark.parametrize(
    ("kind", "page"), [("error-before", 2), ("reset-before", 2), ("short-list", 2), ("last-page", 1)], ids=str
)
async def test_a_list_of_droplets_that_fails_or_is_short_on_page_2_changes_nothing(
    shop: Stage, kind: str, page: int
) -> None:
    since, addresses = time.time(), await shop.addresses(SHOP)
    with many_neighbours(shop):
        fault = shop.world.cloud.faults.fail(kind, method="GET", path="/v2/droplets", page=page, count=None)
        try:
            await look_afresh(shop)
            await eventually(lambda: fault.hits, 20, "the list was asked for")
            await asyncio.sleep(3)
        finally:
            shop.world.cloud.faults.clear()
        await shop.until_ready(SHOP)
        assert not writes(shop, since)
        assert shop.watcher.holds(DOMAIN, *addresses)


SILENCE = {"reset-before": 30.0, "hang-before": 150.0}
"""How an API may be away, and within how many seconds load balancers are put right meanwhile. Of a silent one each
listing is waited for, for 10 to 15 s, one after the other: two in a site's reconcile, three in each of its pool's."""


@pytest.mark.timeout(AWAY + 600)
async def test_an_api_that_is_away_for_minutes_is_missed_by_nobody_who_does_not_need_it(shop: Stage) -> None:
    """First it refuses connections, then it takes requests and says nothing. HAProxy is looked after all the while."""
    since, balancers, said = time.time(), await shop.droplets(SHOP, "lb"), set[str]()
    faults = shop.world.cloud.faults
    async with shop.visitors(DOMAIN), listening(shop, said):
        for kind, bound in SILENCE.items():
            until = time.monotonic() + AWAY / 2
            away = faults.fail(kind, count=None)
            try:
                await put_right(shop, balancers, kind, bound)
                assert away.hits
                await asyncio.sleep(max(0.0, until - time.monotonic()))
            finally:
                faults.clear()
        figures.record(f"the API was away for {AWAY:g} s: until Ready", await shop.until_ready(SHOP))
    print("\n".join(f"  said: {each}" for each in sorted(said)))
    assert any(each.startswith("hasite False") and "cannot be seen: droplets.list" in each for each in said), said
    assert not writes(shop, since)


async def put_right(stage: Stage, balancers: Sequence[Droplet], kind: str, bound: float) -> None:
    """A change of the spec reaches every load balancer, and what is edited by hand on one is put back."""
    wanted = await look_afresh(stage)
    _, took = await eventually(lambda: in_force(stage, balancers, wanted), bound, "the change is on every machine")
    figures.record(f"HAProxy's configuration changed while the API is away, {kind}", took, bound)
    await stage.on(balancers[0], "sed", "-i", f"s/{wanted}/rise 9 /", CONFIG)
    _, took = await eventually(lambda: in_force(stage, balancers, wanted), bound, "haproxy.cfg is put back")
    figures.record(f"haproxy.cfg edited while the API is away, {kind}", took, bound)


async def in_force(stage: Stage, balancers: Sequence[Droplet], words: str) -> bool:
    """Whether the words are in what each load balancer holds."""
    return all([words in await stage.on(each, "cat", CONFIG) for each in balancers])


@contextlib.asynccontextmanager
async def listening(stage: Stage, said: set[str]) -> AsyncIterator[None]:
    """Collects what the Ready conditions of a site and its pool say."""

    async def listen() -> None:
        while True:
            for kind in ("hasite", "pool"):
                found = await stage.condition(SHOP, "Ready", kind)
                said.add(f"{kind} {found.get('status')} {found.get('reason')}: {found.get('message')}")
            await asyncio.sleep(0.5)

    listener = asyncio.create_task(listen())
    try:
        yield
    finally:
        listener.cancel()


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


async def test_nothing_is_bought_while_page_2_of_the_droplets_fails(shop: Stage) -> None:
    with many_neighbours(shop):
        shop.world.cloud.faults.fail("error-before", method="GET", path="/v2/droplets", page=2, count=None)
        try:
            # What was listed two seconds before it was asked for would do.
            await asyncio.sleep(3)
            since = time.time()
            await shop.patch(SHOP, {"app": {"replicasPerLocation": 3}})
            await shop.until_condition(SHOP, "Ready", "Unexpected server-side error", status="False")
            await asyncio.sleep(3)
            assert not writes(shop, since)
        finally:
            shop.world.cloud.faults.clear()
        await shop.until_ready(SHOP)
        assert len(await shop.droplets(SHOP, "app")) == 6
        await shop.patch(SHOP, {"app": {"replicasPerLocation": 2}})
        await shop.until_ready(SHOP)
