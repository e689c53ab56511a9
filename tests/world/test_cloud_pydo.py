"""DigitalOcean's own client against the simulated cloud: it can't tell the difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pydo.aio
import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.core.pipeline.policies import AsyncRetryPolicy, SansIOHTTPPolicy

from e2e.world.cloud import Kind, NullNameServers
from tests.world.cloud_api import KEY, TOKEN, Api, order, running


class Bearer(SansIOHTTPPolicy):  # type: ignore[misc]
    """Sends the token over http too, which pydo's own policy refuses unless told otherwise at every call."""

    def on_request(self, request: Any) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {TOKEN}"


@asynccontextmanager
async def client_of(api: Api, **options: Any) -> AsyncIterator[Any]:
    policies = {"authentication_policy": Bearer(), "retry_policy": AsyncRetryPolicy.no_retries()}
    async with pydo.aio.Client(TOKEN, endpoint=api.server.url, **(policies | options)) as client:
        yield client


async def test_a_site_is_built_and_taken_down_with_pydo() -> None:
    name_servers = NullNameServers()
    async with running(name_servers=name_servers) as api, client_of(api) as client:
        key = (await client.ssh_keys.create({"name": "operator", "public_key": KEY}))["ssh_key"]
        await client.tags.create({"name": "site:lb"})
        rule = {"protocol": "tcp", "ports": "80", "sources": {"addresses": ["0.0.0.0/0", "::/0"]}}
        body = {"name": "site-lb", "inbound_rules": [rule], "tags": ["site:lb"]}
        firewall = (await client.firewalls.create(body))["firewall"]
        created = await client.droplets.create(order("lb-1", tags=["site:lb"], ssh_keys=[key["id"]]))
        await api.cloud.settle()
        action = await client.actions.get(created["links"]["actions"][0]["id"])
        assert action["action"]["status"] == "completed"
        [droplet] = (await client.droplets.list(tag_name="site:lb", per_page=200))["droplets"]
        assert droplet["status"] == "active"

        address = droplet["networks"]["v4"][0]["ip_address"]
        await client.domains.create({"name": "example.com"})
        record_body = {"type": "A", "name": "www", "data": address, "ttl": 30}
        record = (await client.domains.create_record("example.com", record_body))["domain_record"]
        await api.cloud.settle()
        assert name_servers.zones["example.com"][-1].data == address

        assert await client.domains.delete_record("example.com", record["id"]) is None
        assert await client.droplets.destroy(droplet["id"]) is None
        await client.firewalls.delete(firewall["id"])
        await client.tags.delete("site:lb")
        await client.ssh_keys.delete(key["id"])
        await client.domains.delete("example.com")
        await api.cloud.settle()
        assert (await client.droplets.list())["droplets"] == []
        assert api.cloud.violations == []


async def test_a_reserved_ip_is_assigned_with_pydo() -> None:
    async with running() as api, client_of(api) as client:
        droplet = await api.droplet()
        reserved = (await client.reserved_ips.create({"region": "nyc3"}))["reserved_ip"]
        body = {"type": "assign", "droplet_id": droplet["id"]}
        action = (await client.reserved_ips_actions.post(reserved["ip"], body))["action"]
        await api.cloud.settle()
        assert (await client.reserved_ips_actions.get(reserved["ip"], action["id"]))["action"]["status"] == "completed"
        assert (await client.reserved_ips.get(reserved["ip"]))["reserved_ip"]["droplet"]["id"] == droplet["id"]


async def test_the_rate_headers_come_through_pydo() -> None:
    async with running() as api, client_of(api) as client:
        body, headers = await client.account.get(cls=lambda pipeline, body, headers: (body, headers))
        assert body["account"]["status"] == "active"
        assert set(headers) == {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}


async def test_pydo_refuses_plain_http_unless_told_at_the_call() -> None:
    async with running() as api, pydo.aio.Client(TOKEN, endpoint=api.server.url, retry_total=0) as client:
        with pytest.raises(ServiceRequestError):
            await client.droplets.list()
        assert (await client.droplets.list(enforce_https=False))["droplets"] == []


async def test_a_404_comes_back_from_pydo_as_a_plain_dict() -> None:
    async with running() as api, client_of(api) as client:
        assert (await client.droplets.get(1))["id"] == "not_found"
        assert (await client.domains.list_records("example.com"))["id"] == "not_found"


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.ERROR_BEFORE, 500), (Kind.RATE_LIMITED, 429), (Kind.UNAVAILABLE, 503)]
)
async def test_an_error_is_an_exception_of_pydo_with_its_status(kind: Kind, status: int) -> None:
    async with running() as api, client_of(api) as client:
        api.cloud.faults.fail(kind)
        with pytest.raises(HttpResponseError) as caught:
            await client.droplets.create(order())
        assert caught.value.status_code == status


async def test_pydo_with_its_own_retries_creates_one_droplet_twice() -> None:
    async with running() as api, client_of(api, retry_policy=AsyncRetryPolicy(retry_backoff_factor=0.0)) as client:
        api.cloud.faults.fail(Kind.ERROR_AFTER, method="POST")
        await client.droplets.create(order())
        assert len(api.cloud.state.droplets) == 2


async def test_a_connection_reset_after_the_work_looks_to_pydo_as_if_nothing_was_sent() -> None:
    async with running() as api, client_of(api) as client:
        api.cloud.faults.fail(Kind.RESET_AFTER)
        with pytest.raises(ServiceRequestError):
            await client.droplets.create(order())
        assert len(api.cloud.state.droplets) == 1
