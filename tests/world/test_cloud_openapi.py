"""Every answer of the simulated cloud holds against DigitalOcean's published OpenAPI description.

The other tests check each answer in passing; here every endpoint is called once, so that none is forgotten.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.world.cloud_api import KEY, Api, check, openapi, openapi_path, operation, order, running

pytestmark = pytest.mark.skipif(
    openapi() is None,
    reason=f"DigitalOcean's OpenAPI description is not at {openapi_path()}; name its path in HASITE_OPENAPI",
)

RULE = {"protocol": "tcp", "ports": "80", "sources": {"addresses": ["0.0.0.0/0"]}}
OTHER_RULE = {"protocol": "tcp", "ports": "all", "destinations": {"addresses": ["::/0"]}}


def routes_of(api: Api) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in api.cloud.app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v2/") and route.method != "HEAD"
    }


async def call_all(api: Api, calls: list[tuple[str, str, dict[str, Any] | None]]) -> None:
    for method, path, body in calls:
        answer = await api.call(method, path, body)
        assert answer.status < 300, (method, path, answer)
        await api.cloud.settle()


async def test_every_endpoint_answers_as_described() -> None:
    async with running() as api:
        await visit_catalogue(api)
        await visit_domains(api)
        droplet = await api.droplet(ipv6=True, tags=["web"])
        await visit_firewalls(api, droplet["id"])
        await visit_reserved_ips(api, droplet["id"])
        await visit_droplets(api, droplet["id"])
        assert {(method, operation(method, path)) for method, path in routes_of(api)} == api.checked


async def visit_catalogue(api: Api) -> None:
    key = (await api.post("/account/keys", {"name": "operator", "public_key": KEY}))["ssh_key"]
    vpc = (await api.post("/vpcs", {"name": "shop", "region": "nyc3", "ip_range": "10.10.10.0/24"}))["vpc"]
    await call_all(
        api,
        [
            ("GET", "/account", None),
            ("GET", "/account/keys", None),
            ("GET", f"/account/keys/{key['id']}", None),
            ("PUT", f"/account/keys/{key['id']}", {"name": "renamed"}),
            ("DELETE", f"/account/keys/{key['id']}", None),
            ("GET", "/regions", None),
            ("GET", "/sizes", None),
            ("GET", "/images", None),
            ("GET", "/images/debian-12-x64", None),
            ("GET", "/vpcs", None),
            ("GET", f"/vpcs/{vpc['id']}", None),
            ("GET", f"/vpcs/{vpc['id']}/members", None),
            ("PUT", f"/vpcs/{vpc['id']}", {"name": "shop-2"}),
            ("PATCH", f"/vpcs/{vpc['id']}", {"description": "the shop's"}),
            ("DELETE", f"/vpcs/{vpc['id']}", None),
        ],
    )


async def visit_domains(api: Api) -> None:
    await api.post("/domains", {"name": "example.com", "ip_address": "192.0.2.10"})
    records = "/domains/example.com/records"
    record = (await api.post(records, {"type": "TXT", "name": "www", "data": "owner"}))["domain_record"]
    await call_all(
        api,
        [
            ("GET", "/domains", None),
            ("GET", "/domains/example.com", None),
            ("GET", records, None),
            ("GET", f"{records}/{record['id']}", None),
            ("PUT", f"{records}/{record['id']}", {"type": "TXT", "ttl": 30}),
            ("PATCH", f"{records}/{record['id']}", {"type": "TXT", "ttl": 60}),
            ("DELETE", f"{records}/{record['id']}", None),
            ("DELETE", "/domains/example.com", None),
        ],
    )


async def visit_firewalls(api: Api, droplet: int) -> None:
    await api.post("/tags", {"name": "lb"})
    body = {"name": "web", "inbound_rules": [RULE], "outbound_rules": [OTHER_RULE], "tags": ["web"]}
    path = f"/firewalls/{(await api.post('/firewalls', body))['firewall']['id']}"
    tagged = {"resources": [{"resource_id": str(droplet), "resource_type": "droplet"}]}
    await call_all(
        api,
        [
            ("GET", "/firewalls", None),
            ("GET", path, None),
            ("PUT", path, body),
            ("POST", f"{path}/droplets", {"droplet_ids": [droplet]}),
            ("GET", f"/droplets/{droplet}/firewalls", None),
            ("DELETE", f"{path}/droplets", {"droplet_ids": [droplet]}),
            ("POST", f"{path}/tags", {"tags": ["lb"]}),
            ("DELETE", f"{path}/tags", {"tags": ["lb"]}),
            ("POST", f"{path}/rules", {"inbound_rules": [RULE | {"ports": "443"}]}),
            ("DELETE", f"{path}/rules", {"inbound_rules": [RULE | {"ports": "443"}]}),
            ("DELETE", path, None),
            ("GET", "/tags", None),
            ("POST", "/tags/lb/resources", tagged),
            ("GET", "/tags/lb", None),
            ("DELETE", "/tags/lb/resources", tagged),
            ("DELETE", "/tags/lb", None),
        ],
    )


async def visit_reserved_ips(api: Api, droplet: int) -> None:
    path = f"/reserved_ips/{(await api.post('/reserved_ips', {'droplet_id': droplet}))['reserved_ip']['ip']}"
    await api.cloud.settle()
    action = (await api.post(f"{path}/actions", {"type": "unassign"}))["action"]
    await call_all(
        api,
        [
            ("GET", "/reserved_ips", None),
            ("GET", path, None),
            ("GET", f"{path}/actions", None),
            ("GET", f"{path}/actions/{action['id']}", None),
            ("POST", f"{path}/actions", {"type": "assign", "droplet_id": droplet}),
            ("DELETE", path, None),
        ],
    )


async def visit_droplets(api: Api, droplet: int) -> None:
    path = f"/droplets/{droplet}"
    action = (await api.post(f"{path}/actions", {"type": "snapshot"}))["action"]
    await api.cloud.settle()
    [snapshot] = (await api.get("/images", private="true"))["images"]
    assert (await api.call("POST", "/droplets/actions", {"type": "power_cycle"}, tag_name="web")).status == 201
    assert (await api.call("POST", "/droplets", order("a") | {"names": ["a", "b"], "tags": ["many"]})).status == 202
    await api.cloud.settle()
    assert (await api.call("DELETE", "/droplets", tag_name="many")).status == 204
    await call_all(
        api,
        [
            ("GET", "/droplets", None),
            ("GET", f"{path}/actions", None),
            ("GET", f"{path}/actions/{action['id']}", None),
            ("GET", f"{path}/snapshots", None),
            ("GET", f"{path}/backups", None),
            ("GET", "/actions", None),
            ("GET", f"/actions/{action['id']}", None),
            ("PUT", f"/images/{snapshot['id']}", {"name": "golden"}),
            ("DELETE", f"/images/{snapshot['id']}", None),
            ("DELETE", path, None),
        ],
    )


def test_an_answer_that_the_description_does_not_allow_is_noticed() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("GET", "/v2/droplets", 200, {"droplets": [{"id": "one"}], "links": {}, "meta": {"total": 1}})
