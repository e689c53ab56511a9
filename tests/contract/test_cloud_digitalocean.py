"""DigitalOcean's driver against the simulated API, over loopback."""

import asyncio
import socket
from dataclasses import replace

import pytest
from aiohttp import web
from hasite.clouds import digitalocean
from hasite.clouds.accounts import Accounts
from hasite.clouds.digitalocean import DigitalOcean
from hasite.clouds.objects import droplet_from
from hasite.clouds.transport import Operation
from hasite.errors import Conflict, HasiteError, Permanent, RateLimited, Transient, Unauthorized, Unclear, Unreachable
from hasite.plan.world import Droplet

from e2e.world.cloud import UNLIMITED, Cloud, Kind, RateLimits, serve
from tests.fakes.cloud import SPEC, TOKEN, Calls, answering, world


def impatient(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """Half a second for this operation in place of its 10 or 30."""
    current: Operation = getattr(digitalocean, operation)
    monkeypatch.setattr(digitalocean, operation, replace(current, timeout=0.5))


def posts(cloud: Cloud, path: str) -> int:
    return sum(call.method == "POST" and call.path == path for call in cloud.journal)


async def until_active(driver: DigitalOcean, droplet_id: int) -> Droplet:
    async with asyncio.timeout(10):
        while (droplet := await driver.droplet(droplet_id)) is None or droplet.status != "active":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return droplet


async def test_a_droplet_is_new_without_addresses_before_it_is_active() -> None:
    async with world(Cloud(limits=UNLIMITED, boot_delay=0.2)) as (_, driver):
        created = await driver.create_droplet(SPEC)
        assert (created.status, created.public_ipv4, created.name) == ("new", None, "lb-1")
        droplet = await until_active(driver, created.id)
        assert droplet.public_ipv4 is not None
        assert droplet.private_ipv4 is not None
        assert droplet.public_ipv6 is not None
        assert droplet.tags == {"hasite", "uid:1"}
        assert droplet.region == "nyc3"
        assert droplet.created_at > 1e9


async def test_a_create_that_failed_after_the_work_is_unclear_made_one_post_and_is_found_by_name() -> None:
    async with world() as (cloud, driver):
        cloud.faults.fail(Kind.ERROR_AFTER, method="POST", path="/v2/droplets")
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)
        assert posts(cloud, "/v2/droplets") == 1
        assert len(await driver.find_droplets("lb-1")) == 1


@pytest.mark.parametrize("kind", [Kind.ERROR_BEFORE, Kind.UNAVAILABLE, Kind.RESET_BEFORE, Kind.RESET_AFTER])
async def test_every_other_failure_of_a_create_is_unclear_too_and_made_one_post(kind: Kind) -> None:
    async with world() as (cloud, driver):
        await driver.find_droplets("lb-1")
        cloud.faults.fail(kind, method="POST", path="/v2/droplets", count=None)
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)
        assert posts(cloud, "/v2/droplets") == 1


@pytest.mark.parametrize("kind", [Kind.HANG_BEFORE, Kind.HANG_AFTER])
async def test_a_create_that_times_out_is_unclear(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "CREATE_DROPLET")
    async with world() as (cloud, driver):
        hanging = cloud.faults.fail(kind, method="POST", path="/v2/droplets", count=None)
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)
        assert len(await driver.find_droplets("lb-1")) == (1 if kind is Kind.HANG_AFTER else 0)
        assert hanging.hits == 1


async def test_a_create_that_found_nobody_to_talk_to_did_not_happen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    driver = DigitalOcean(TOKEN, f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable):
        await driver.create_droplet(SPEC)
    await driver.close()


async def test_a_read_that_times_out_or_is_reset_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "GET_DROPLET")
    async with world() as (cloud, driver):
        cloud.faults.fail(Kind.HANG_BEFORE, method="GET", path="/v2/droplets/1")
        with pytest.raises(Unreachable):
            await driver.droplet(1)
        cloud.faults.fail(Kind.RESET_BEFORE, method="GET", path="/v2/droplets/.*", count=None)
        with pytest.raises(Unreachable):
            await driver.droplet(1)


async def test_a_429_says_when_to_come_back_and_nothing_routine_is_sent_until_then() -> None:
    async with world() as (cloud, driver):
        cloud.faults.fail(Kind.RATE_LIMITED, method="GET", path="/v2/droplets/1")
        with pytest.raises(RateLimited) as caught:
            await driver.droplet(1)
        assert caught.value.retry_after == 1.0
        sent = len(cloud.journal)
        driver.api.limiter.budget.refused(asyncio.get_running_loop().time(), 60.0)
        with pytest.raises(RateLimited):
            await driver.droplet(1)
        assert len(cloud.journal) == sent


async def test_the_rate_headers_are_learnt() -> None:
    async with world(Cloud(limits=RateLimits(per_hour=1000, per_minute=100))) as (_, driver):
        await driver.droplet(1)
        assert driver.rate_limit_remaining == 999


async def test_a_token_that_is_unknown_or_may_not_write_is_unauthorized() -> None:
    async with world() as (cloud, driver):
        cloud.faults.make_read_only(TOKEN)
        with pytest.raises(Unauthorized):
            await driver.create_droplet(SPEC)
        cloud.faults.revoke(TOKEN)
        with pytest.raises(Unauthorized):
            await driver.droplets(0.0)


async def test_what_is_refused_is_permanent_with_the_words_of_the_api() -> None:
    async with world() as (_, driver):
        with pytest.raises(Permanent) as caught:
            await driver.create_droplet(replace(SPEC, size="s-1000vcpu"))
        assert caught.value.reason == "InvalidRequest"
        assert "size" in str(caught.value)


async def test_a_droplet_that_is_not_there_is_none_although_the_library_returns_its_404_like_a_success() -> None:
    async with world() as (_, driver):
        assert await driver.droplet(1) is None


async def test_a_404_that_is_not_the_apis_own_proves_nothing() -> None:
    async def proxy(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="<html>nothing here</html>", content_type="text/html")

    async with answering(proxy) as driver:
        with pytest.raises(Transient):
            await driver.droplet(1)
        with pytest.raises(Transient):
            await driver.destroy_droplet(1)


@pytest.mark.parametrize("body", ["{}", '{"droplets": null, "droplet": null}', "", "not json", "[]"])
async def test_an_answer_without_its_root_is_an_error_and_never_an_empty_list(body: str) -> None:
    async def empty(request: web.Request) -> web.StreamResponse:
        status = 202 if request.method == "POST" else 200
        return web.Response(status=status, text=body, content_type="application/json")

    async with answering(empty) as driver:
        with pytest.raises(Transient):
            await driver.droplets(0.0)
        with pytest.raises(Transient):
            await driver.droplet(1)
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)


async def test_a_droplet_that_cannot_be_read_fails_the_list_and_makes_a_create_unclear() -> None:
    async def strange(request: web.Request) -> web.StreamResponse:
        item = {"id": 1, "name": "x", "status": "sleeping"}
        if request.method == "POST":
            return web.json_response({"droplet": item}, status=202)
        return web.json_response({"droplets": [item], "meta": {"total": 1}})

    async with answering(strange) as driver:
        with pytest.raises(Transient):
            await driver.droplets(0.0)
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)


async def test_no_word_of_an_answer_reaches_a_person_with_a_control_character_or_at_any_length() -> None:
    async def rude(request: web.Request) -> web.StreamResponse:
        words = "\x1b]0;mine\x07\r\n\u202e" + "x" * 100_000
        if request.method == "POST":
            return web.json_response({"id": "unprocessable_entity", "message": words}, status=422)
        return web.json_response({"droplets": [{"id": 1, "status": words}], "meta": {"total": 1}})

    async with answering(rude) as driver:
        for call in (driver.create_droplet(SPEC), driver.droplets(0.0)):
            with pytest.raises(HasiteError) as caught:
                await call
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 600


async def test_a_redirect_is_not_followed() -> None:
    seen: list[str] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/v2/elsewhere")

    async with answering(redirect) as driver:
        with pytest.raises(Unclear):
            await driver.create_droplet(SPEC)
        assert seen == ["/v2/droplets"]


async def fill(driver: DigitalOcean, count: int) -> None:
    await asyncio.gather(*(driver.create_droplet(replace(SPEC, name=f"app-{n}")) for n in range(count)))


async def test_every_page_of_a_list_is_read_and_one_that_fails_fails_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasite.clouds.transport.PER_PAGE", 4)
    async with world() as (cloud, driver):
        await fill(driver, 10)
        cloud.journal.clear()
        assert len({droplet.id for droplet in await driver.droplets(0.0)}) == 10
        assert len(cloud.journal) == 3
        for kind in (Kind.ERROR_BEFORE, Kind.EMPTY_LIST):
            cloud.faults.fail(kind, method="GET", path="/v2/droplets", page=2, count=None)
            with pytest.raises(Transient):
                await driver.droplets(0.0)
            cloud.faults.clear()


async def test_a_list_that_changes_between_two_pages_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasite.clouds.transport.PER_PAGE", 4)
    async with world() as (cloud, driver):
        await fill(driver, 10)
        victims = sorted(cloud.state.droplets)[:1]

        def hook(phase: str, method: str, path: str) -> None:
            if phase == "after" and method == "GET" and victims:
                cloud.state.droplets.pop(victims.pop())

        cloud.on_request = hook
        assert len(await driver.droplets(0.0)) == 9


async def test_a_short_list_is_an_error() -> None:
    async def short(_: web.Request) -> web.StreamResponse:
        return web.json_response({"droplets": [], "links": {}, "meta": {"total": 3}})

    async with answering(short) as driver:
        with pytest.raises(Transient):
            await driver.droplets(0.0)


async def test_a_tag_may_be_seen_later_than_its_droplet_but_the_name_finds_it_at_once() -> None:
    async with world(Cloud(limits=UNLIMITED, tag_delay=3600.0)) as (_, driver):
        created = await driver.create_droplet(SPEC)
        assert await driver.droplets(0.0) == ()
        assert [droplet.id for droplet in await driver.find_droplets("lb-1")] == [created.id]


async def test_names_are_found_exactly() -> None:
    async with world() as (_, driver):
        for name in ("lb-1", "LB-1", "lb-10"):
            await driver.create_droplet(replace(SPEC, name=name))
        assert [droplet.name for droplet in await driver.find_droplets("lb-1")] == ["lb-1"]


async def test_a_write_is_seen_by_the_next_look_at_the_inventory() -> None:
    async with world() as (_, driver):
        assert len(await driver.droplets(3600.0)) == 0
        created = await driver.create_droplet(SPEC)
        assert len(await driver.droplets(3600.0)) == 1
        await until_active(driver, created.id)
        await driver.rename(created.id, "lb-2")
        assert [droplet.name for droplet in await driver.droplets(3600.0)] == ["lb-2"]


async def test_destroying_twice_is_a_success() -> None:
    async with world() as (cloud, driver):
        created = await driver.create_droplet(SPEC)
        await driver.destroy_droplet(created.id)
        await cloud.settle()
        assert await driver.droplet(created.id) is None
        await driver.destroy_droplet(created.id)
        assert cloud.violations == []


async def test_a_droplet_that_is_off_is_powered_on() -> None:
    async with world() as (cloud, driver):
        created = await driver.create_droplet(SPEC)
        await until_active(driver, created.id)
        cloud.machine_stopped(created.id)
        off = await driver.droplet(created.id)
        assert off is not None
        assert off.status == "off"
        await driver.power_on(created.id)
        await until_active(driver, created.id)


async def test_acting_on_a_droplet_that_is_gone_asks_for_another_look() -> None:
    async with world() as (_, driver):
        with pytest.raises(Conflict):
            await driver.power_on(1)
        with pytest.raises(Conflict):
            await driver.tag(1, ["hasite"])


async def test_tags_are_created_where_they_do_not_exist() -> None:
    async with world() as (_, driver):
        created = await driver.create_droplet(SPEC)
        await driver.tag(created.id, ["role:lb", "uid:1"])
        droplet = await driver.droplet(created.id)
        assert droplet is not None
        assert droplet.tags == {"hasite", "uid:1", "role:lb"}


async def test_every_call_is_counted_under_a_fixed_name() -> None:
    calls = Calls()
    cloud = Cloud(limits=UNLIMITED)
    server = await serve(cloud)
    driver = DigitalOcean(TOKEN, server.url, metrics=calls)
    await driver.droplet(1)
    cloud.faults.fail(Kind.RESET_BEFORE, method="POST", path="/v2/droplets")
    with pytest.raises(Unclear):
        await driver.create_droplet(SPEC)
    assert calls.seen == [("droplets.get", 404), ("droplets.create", "no answer")]
    await driver.close()
    await server.close()


async def test_one_client_serves_all_users_of_a_token_until_nobody_has_asked_for_it_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[DigitalOcean] = []

    async def close(self: DigitalOcean) -> None:
        closed.append(self)

    monkeypatch.setattr(DigitalOcean, "close", close)
    now = 0.0
    accounts = Accounts("http://127.0.0.1:1", clock=lambda: now)
    first, second = accounts.get("one"), accounts.get("two")
    assert accounts.get("one") is first
    assert first is not second
    now = 600.0
    accounts.get("two")
    now = 1000.0
    assert accounts.get("two") is second
    await asyncio.sleep(0)
    assert closed == [first]
    assert accounts.get("one") is not first
    await accounts.close()
    assert len(closed) == 3
    assert accounts.rate_limit_remaining is None


LISTED = {
    "id": 1,
    "name": "lb-1",
    "region": {"slug": "nyc3"},
    "status": "active",
    "tags": [],
    "created_at": "2026-01-01T00:00:00Z",
}


def test_the_first_public_address_is_the_droplets_own_and_a_reserved_one_follows() -> None:
    networks = {
        "v4": [
            {"type": "private", "ip_address": "198.18.0.1"},
            {"type": "public", "ip_address": "192.0.2.1"},
            {"type": "public", "ip_address": "203.0.113.9"},
        ],
        "v6": [{"type": "public", "ip_address": "2001:db8::1"}, {"type": "public", "ip_address": "2001:db8:9::9"}],
    }
    droplet = droplet_from(LISTED | {"networks": networks})
    assert (droplet.public_ipv4, droplet.private_ipv4, droplet.public_ipv6) == (
        "192.0.2.1",
        "198.18.0.1",
        "2001:db8::1",
    )
