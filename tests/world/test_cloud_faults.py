"""Trouble on command, in this process and over HTTP."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from e2e.world.cloud import Kind, NullHypervisor
from tests.world.cloud_api import TOKEN, Api, Clock, order, running

TAG = {"name": "web"}


@pytest.mark.parametrize(
    ("kind", "status", "done"),
    [
        (Kind.RATE_LIMITED, 429, False),
        (Kind.ERROR_BEFORE, 500, False),
        (Kind.ERROR_AFTER, 500, True),
        (Kind.UNAVAILABLE, 503, False),
    ],
)
async def test_a_call_fails_once_and_then_works(kind: Kind, status: int, done: bool) -> None:
    async with running() as api:
        api.cloud.faults.fail(kind, method="POST", path="/v2/tags")
        answer = await api.call("POST", "/tags", TAG)
        assert (answer.status, "web" in api.cloud.state.tags) == (status, done)
        assert (await api.call("POST", "/tags", TAG)).status == 201


async def test_an_injected_429_says_how_long_to_wait_and_carries_the_rate_headers() -> None:
    async with running() as api:
        api.cloud.faults.fail(Kind.RATE_LIMITED)
        headers = (await api.call("GET", "/account")).headers
        assert {"retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= set(headers)


@pytest.mark.parametrize(
    ("kind", "done"),
    [(Kind.HANG_BEFORE, False), (Kind.HANG_AFTER, True), (Kind.RESET_BEFORE, False), (Kind.RESET_AFTER, True)],
)
async def test_a_call_gets_no_answer_before_or_after_its_work(kind: Kind, done: bool) -> None:
    async with running() as api:
        api.cloud.faults.fail(kind)
        with pytest.raises((TimeoutError, aiohttp.ClientError, ConnectionError)):
            async with asyncio.timeout(0.3):
                await api.call("POST", "/tags", TAG)
        assert ("web" in api.cloud.state.tags) is done


async def test_a_hanging_call_is_dropped_when_the_faults_are_cleared() -> None:
    async with running() as api:
        api.cloud.faults.fail(Kind.HANG_BEFORE)
        hanging = asyncio.create_task(api.call("POST", "/tags", TAG))
        done, _ = await asyncio.wait({hanging}, timeout=0.2)
        assert not done
        api.cloud.faults.clear()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await asyncio.wait_for(hanging, timeout=2)


async def test_only_the_matching_method_and_path_fail() -> None:
    async with running() as api:
        api.cloud.faults.fail(Kind.ERROR_BEFORE, method="POST", path=r"/v2/domains/[^/]+/records", count=None)
        await api.post("/domains", {"name": "example.com"})
        body = {"type": "A", "name": "www", "data": "192.0.2.10"}
        for _ in range(2):
            assert (await api.call("POST", "/domains/example.com/records", body)).status == 500
        assert (await api.call("GET", "/domains/example.com/records")).status == 200


async def test_all_calls_fail_for_a_time() -> None:
    clock = Clock()
    async with running(now=clock) as api:
        api.cloud.faults.fail(Kind.UNAVAILABLE, duration=600)
        for _ in range(3):
            clock.advance(100)
            assert (await api.call("GET", "/account")).status == 503
        clock.advance(300)
        assert (await api.call("GET", "/account")).status == 200


async def test_a_list_is_empty_once_by_mistake() -> None:
    async with running() as api:
        await api.droplet()
        api.cloud.faults.fail(Kind.EMPTY_LIST, path="/v2/droplets")
        lied = await api.get("/droplets")
        assert (lied["droplets"], lied["meta"]["total"]) == ([], 0)
        assert len((await api.get("/droplets"))["droplets"]) == 1


@pytest.mark.parametrize(("kind", "given", "promised"), [(Kind.SHORT_LIST, 1, 3), (Kind.LAST_PAGE, 2, 2)])
async def test_a_list_comes_back_short(kind: Kind, given: int, promised: int) -> None:
    async with running() as api:
        for number in range(3):
            await api.post("/tags", {"name": f"tag-{number}"})
        api.cloud.faults.fail(kind, path="/v2/tags")
        lied = await api.get("/tags", per_page=2)
        assert (len(lied["tags"]), lied["meta"]["total"], lied["links"]) == (given, promised, {})


async def test_a_list_fails_on_its_second_page_only() -> None:
    async with running() as api:
        for number in range(3):
            await api.post("/tags", {"name": f"tag-{number}"})
        api.cloud.faults.fail(Kind.ERROR_BEFORE, path="/v2/tags", page=2)
        assert (await api.call("GET", "/tags", per_page=2)).status == 200
        assert (await api.call("GET", "/tags", per_page=2, page=2)).status == 500


async def test_a_token_can_be_revoked_made_read_only_and_restored() -> None:
    async with running() as api:
        for change, status in ((api.cloud.faults.revoke, 401), (api.cloud.faults.make_read_only, 403)):
            change(TOKEN)
            assert (await api.call("POST", "/tags", TAG)).status == status
        api.cloud.faults.restore(TOKEN)
        assert (await api.call("POST", "/tags", TAG)).status == 201


@pytest.mark.parametrize(("errored", "status", "locked"), [(True, "errored", False), (False, "in-progress", True)])
async def test_a_droplet_never_becomes_active(errored: bool, status: str, locked: bool) -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        api.cloud.faults.never_active("web-.*", errored=errored)
        droplet = await api.droplet("web-1")
        assert (droplet["status"], droplet["locked"], hypervisor.machines) == ("new", locked, {})
        [action] = (await api.get(f"/droplets/{droplet['id']}/actions"))["actions"]
        assert action["status"] == status
        assert (await api.droplet("web-2"))["status"] == "active"


async def test_a_droplet_whose_machine_cannot_be_made_stays_new_with_an_errored_action() -> None:
    class Broken(NullHypervisor):
        async def create(self, spec: object) -> None:
            raise OSError("no memory left")

    async with running(hypervisor=Broken()) as api:
        droplet = await api.droplet()
        [action] = (await api.get(f"/droplets/{droplet['id']}/actions"))["actions"]
        assert (droplet["status"], action["status"]) == ("new", "errored")
        assert (await api.call("DELETE", f"/droplets/{droplet['id']}")).status == 204


async def test_answers_are_slow() -> None:
    async with running() as api:
        api.cloud.faults.slow(0.2, path="/v2/account")
        started = time.perf_counter()
        await api.get("/account")
        assert time.perf_counter() - started >= 0.2
        api.cloud.faults.slow(0, path="/v2/account")
        assert api.cloud.faults.delay_of("/v2/account") == 0


async def test_the_hook_is_called_around_the_work_of_each_call() -> None:
    async with running() as api:
        seen: list[tuple[str, str, str, bool]] = []

        def hook(phase: str, method: str, path: str) -> None:
            seen.append((phase, method, path, "web" in api.cloud.state.tags))

        api.cloud.on_request = hook
        await api.post("/tags", TAG)
        assert seen == [("before", "POST", "/v2/tags", False), ("after", "POST", "/v2/tags", True)]


@pytest.mark.parametrize(("phase", "done"), [("before", False), ("after", True)])
async def test_a_client_killed_around_a_write_finds_the_work_done_or_not(phase: str, done: bool) -> None:
    async with running() as api:
        killed = asyncio.Event()
        client: list[asyncio.Task[object]] = []

        async def hook(at: str, method: str, path: str) -> bool:
            if at == phase:
                client[0].cancel()
                killed.set()
            return at != phase

        api.cloud.on_request = hook
        client.append(asyncio.create_task(api.call("POST", "/droplets", order())))
        await asyncio.wait_for(killed.wait(), timeout=2)
        with pytest.raises(asyncio.CancelledError):
            await client[0]
        assert [droplet.name for droplet in api.cloud.state.droplets.values()] == (["web-1"] if done else [])


async def test_the_journal_holds_every_call_with_its_status() -> None:
    async with running() as api:
        await api.get("/droplets", tag_name="web")
        await api.call("POST", "/tags", TAG)
        await api.call("GET", "/account", token="wrong")
        calls = [(call.method, call.path, call.query, call.status) for call in api.cloud.journal]
        assert calls == [
            ("GET", "/v2/droplets", "tag_name=web", 200),
            ("POST", "/v2/tags", "", 201),
            ("GET", "/v2/account", "", 401),
        ]
        assert [call.path for call in api.cloud.journal.writes()] == ["/v2/tags"]


async def over_http(api: Api, method: str, path: str, body: dict[str, object] | None = None) -> int:
    return (await api.call(method, f"/_world/{path}", body)).status


async def test_the_same_faults_are_set_over_http() -> None:
    async with running() as api:
        assert await over_http(api, "POST", "faults", {"kind": "error-before", "path": "/v2/account"}) == 204
        assert (await api.call("GET", "/account")).status == 500
        assert await over_http(api, "POST", "token", {"token": TOKEN, "access": "revoked"}) == 204
        assert (await api.call("GET", "/account")).status == 401
        assert await over_http(api, "POST", "token", {"token": TOKEN, "access": "read-write"}) == 204
        assert await over_http(api, "POST", "slow", {"seconds": 0.01}) == 204
        assert await over_http(api, "POST", "never-active", {"name": "x"}) == 204
        assert await over_http(api, "POST", "faults", {"kind": "unavailable", "count": None}) == 204
        assert await over_http(api, "DELETE", "faults") == 204
        assert (await api.call("GET", "/account")).status == 200
        journal = await api.call("GET", "/_world/journal")
        assert [call["status"] for call in journal.body["calls"]] == [500, 401, 200]
        violations = await api.call("GET", "/_world/violations")
        assert violations.body == {"violations": [], "dangling": []}


@pytest.mark.parametrize("body", [{"kind": "unknown"}, {"kind": "unavailable", "colour": "red"}])
async def test_an_unknown_fault_is_refused(body: dict[str, object]) -> None:
    async with running() as api:
        assert await over_http(api, "POST", "faults", body) == 422
