"""A site that is deleted goes in an order that leads nobody astray, leaves nothing, and never hangs for ever."""

import time
from collections.abc import AsyncIterator

import pytest_asyncio

from e2e import figures
from e2e.site import Stage, eventually, manifest

TTL = 30


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def sites(stage: Stage) -> AsyncIterator[Stage]:
    """Three small ones, Ready."""
    await stage.secret("passing")
    await stage.apply(
        manifest("gone", locations=["new-york"]),
        manifest("kept", locations=["amsterdam"], deletionPolicy="Retain"),
        manifest("secretless", locations=["amsterdam"], secret="passing"),
    )
    for name in ("gone", "kept", "secretless"):
        await stage.until_ready(name)
    yield stage


async def test_a_deletion_goes_in_order_and_leaves_nothing(sites: Stage) -> None:
    state, uids = sites.world.cloud.state, await sites.uids("gone")
    load_balancers = {d.id for d in await sites.droplets("gone", "lb")}
    apps = {d.id for d in await sites.droplets("gone", "app")}
    sites.watcher.watch("gone.example.com").gone = True
    await sites.kubectl("delete", "hasites", "gone", "--wait=false")
    at: dict[str, float] = {}

    async def over() -> bool:
        firewalls = [f for f in state.firewalls.values() if f.name.endswith(uids[0])]
        there = {
            "record": not sites.watcher.holds("gone.example.com"),
            "load balancer": bool(load_balancers & {d.id for d in state.droplets.values() if not d.deleting}),
            "app": bool(apps & {d.id for d in state.droplets.values() if not d.deleting}),
            "firewall": bool(firewalls),
            "object": await sites.get("hasite", "gone") is not None,
        }
        for thing, is_there in there.items():
            if not is_there:
                at.setdefault(thing, time.monotonic())
        return not there["object"]

    _, took = await eventually(over, 180, "the site is gone", 0.1)
    figures.record("deletion of a site, TTL 30 s", took)
    assert sorted(at, key=lambda thing: at[thing]) == ["record", "load balancer", "app", "firewall", "object"]
    assert at["load balancer"] - at["record"] >= TTL - 1
    assert not [thing for uid in uids for thing in sites.owned_by(uid)]
    assert "gone.example.com" not in state.domains


async def test_retain_leaves_everything_serving(sites: Stage) -> None:
    before = {d.id for d in await sites.droplets("kept")}
    address, *_ = await sites.addresses("kept")
    uids = await sites.uids("kept")
    await sites.delete("kept", 20)

    async def forgotten() -> bool:
        return await sites.get("pool", "kept") is None

    await eventually(forgotten, 20, "its pool is gone too")
    sites.watcher.watch("kept.example.com").gone = False
    _, answer = await sites.fetch("client", f"http://{address}/")
    assert answer.startswith("HTTP/1.1 200")
    assert before <= set(sites.world.cloud.state.droplets)
    assert sites.watcher.holds("kept.example.com", address)
    assert [event for event in await sites.events("Retained") if "left as it is: droplet" in event["message"]]
    await clear_away(sites, *uids)


async def clear_away(stage: Stage, *uids: str) -> None:
    """As a person does it afterwards."""
    state = stage.world.cloud.state
    for domain in [d for d in state.domains.values() if any(uid in r.data for r in d.records.values() for uid in uids)]:
        stage.watcher.watch(domain.name).gone = True
        await stage.cloud("DELETE", f"domains/{domain.name}")
    await stage.destroy(*(d for d in state.droplets.values() if any(f"hasite:owner:{uid}" in d.tags for uid in uids)))
    for firewall in [f for f in state.firewalls.values() if f.name.endswith(uids)]:
        await stage.cloud("DELETE", f"firewalls/{firewall.id}")
    await eventually(lambda: not [thing for uid in uids for thing in stage.owned_by(uid)], 30, "nothing of it is left")


async def test_a_site_whose_secret_was_deleted_first_is_cleaned_up_all_the_same(sites: Stage) -> None:
    uids = await sites.uids("secretless")
    await sites.kubectl("delete", "secret", "passing")
    await sites.delete("secretless", 150)
    assert not [thing for uid in uids for thing in sites.owned_by(uid)]


async def test_a_deletion_whose_token_was_withdrawn_ends_and_says_what_was_left(
    sites: Stage, abandoned: tuple[float, list[str]]
) -> None:
    since, uids = abandoned

    async def gone() -> bool:
        return await sites.get("hasite", "abandoned") is None and await sites.get("pool", "abandoned") is None

    await eventually(gone, 400, "it is let go", 1)
    figures.note("a deletion without credentials is given up after, seconds", round(time.monotonic() - since))
    left = [thing for uid in uids for thing in sites.owned_by(uid)]
    assert len(left) == 5, "two droplets, two firewalls and the records of the name are there still"
    told = " ".join(event["message"] for event in await sites.events("LeftBehind"))
    assert all(thing in told for thing in left if " in " not in thing), told
    assert "the records of abandoned.example.com in zone abandoned.example.com" in told
    await clear_away(sites, *uids)
