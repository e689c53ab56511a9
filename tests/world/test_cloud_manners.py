"""Tokens, rate limits, pagination, errors: what every endpoint has in common."""

from __future__ import annotations

import pytest

from e2e.world.cloud import RateLimits
from tests.world.cloud_api import TOKEN, Clock, order, running

TOKENS = {TOKEN: "read-write", "reader": "read-only"}


async def test_a_wrong_token_is_refused_with_401() -> None:
    async with running() as api:
        answer = await api.call("GET", "/droplets", token="wrong")
        assert (answer.status, answer.body["id"], answer.message) == (401, "unauthorized", "Unable to authenticate you")
        assert answer.body["request_id"] == answer.headers["x-request-id"]


async def test_a_read_only_token_reads_and_does_not_write() -> None:
    async with running(tokens=TOKENS) as api:
        assert (await api.call("GET", "/droplets", token="reader")).status == 200
        answer = await api.call("POST", "/droplets", order(), token="reader")
        assert (answer.status, answer.body["id"]) == (403, "forbidden")
        assert api.cloud.state.droplets == {}


@pytest.mark.parametrize("path", ["/droplets/1", "/droplets/abc", "/domains/none.example", "/nothing", "/tags/none"])
async def test_what_is_not_there_is_answered_with_404(path: str) -> None:
    async with running() as api:
        answer = await api.call("GET", path)
        assert (answer.status, answer.body["id"]) == (404, "not_found")


async def test_a_body_that_is_no_json_object_is_refused_with_400() -> None:
    async with running() as api:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with api.session.post(f"{api.server.url}/v2/droplets", data="{", headers=headers) as response:
            assert (response.status, (await response.json())["id"]) == (400, "bad_request")


async def test_a_method_that_a_path_does_not_have_is_refused_with_405() -> None:
    async with running() as api:
        assert (await api.call("PATCH", "/droplets/1")).status == 405


async def test_a_list_is_cut_into_pages_with_links_to_the_others() -> None:
    async with running() as api:
        for number in range(45):
            await api.post("/tags", {"name": f"tag-{number}"})
        first = await api.get("/tags")
        assert (len(first["tags"]), first["meta"]["total"]) == (20, 45)
        assert set(first["links"]["pages"]) == {"next", "last"}
        second = await api.get("/tags", page=2)
        assert set(second["links"]["pages"]) == {"first", "prev", "next", "last"}
        last = await api.get("/tags", page=3)
        assert (len(last["tags"]), set(last["links"]["pages"])) == (5, {"first", "prev"})
        assert (await api.get("/tags", page=4))["tags"] == []
        whole = await api.get("/tags", per_page=200)
        assert (len(whole["tags"]), whole["links"]) == (45, {})


async def test_a_link_to_a_page_keeps_the_filter_and_can_be_followed() -> None:
    async with running() as api:
        for number in range(3):
            await api.droplet(f"web-{number}", tags=["env:prod"])
        first = await api.get("/droplets", tag_name="env:prod", per_page=2)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with api.session.get(first["links"]["pages"]["next"], headers=headers) as response:
            assert [droplet["name"] for droplet in (await response.json())["droplets"]] == ["web-2"]


async def test_a_page_has_200_items_at_most() -> None:
    async with running() as api:
        for number in range(201):
            await api.post("/tags", {"name": f"tag-{number}"})
        assert len((await api.get("/tags", per_page=1000))["tags"]) == 200


async def test_the_hourly_limit_is_counted_down_in_the_headers_per_token() -> None:
    clock = Clock()
    async with running(now=clock, limits=RateLimits(5000, 250), tokens=TOKENS) as api:
        await api.call("GET", "/account")
        clock.advance(10)
        answer = await api.call("GET", "/account")
        assert (answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]) == ("5000", "4998")
        assert float(answer.headers["ratelimit-reset"]) == clock() - 10 + 3600
        assert (await api.call("GET", "/account", token="reader")).headers["ratelimit-remaining"] == "4999"


@pytest.mark.parametrize(("limits", "wait"), [(RateLimits(3, 250), 3600), (RateLimits(5000, 3), 60)])
async def test_a_call_past_a_limit_gets_429_until_the_oldest_one_expires(limits: RateLimits, wait: int) -> None:
    clock = Clock()
    async with running(now=clock, limits=limits) as api:
        for _ in range(3):
            assert (await api.call("GET", "/account")).status == 200
        answer = await api.call("GET", "/account")
        assert (answer.status, answer.body["id"]) == (429, "too_many_requests")
        assert answer.headers["retry-after"] == str(wait)
        clock.advance(wait)
        assert (await api.call("GET", "/account")).status == 200
