"""Tags and firewalls, and what the machines are told of them."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.world.cloud import FirewallRule, NullHypervisor
from tests.world.cloud_api import Api, running

HTTP = {"protocol": "tcp", "ports": "80", "sources": {"addresses": ["0.0.0.0/0", "::/0"]}}
HTTP_RULE = FirewallRule("tcp", "80", ("0.0.0.0/0", "::/0"))


def firewall(*inbound: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "web", "inbound_rules": list(inbound) or [HTTP]} | more


async def rules_of(api: Api, droplet: dict[str, Any]) -> tuple[FirewallRule, ...] | None:
    await api.cloud.settle()
    hypervisor = api.cloud.core.hypervisor
    assert isinstance(hypervisor, NullHypervisor)
    return hypervisor.firewalls.get(droplet["id"])


async def test_a_droplet_without_a_firewall_is_open() -> None:
    async with running() as api:
        assert await rules_of(api, await api.droplet()) is None


async def test_a_firewall_by_tag_is_in_force_before_a_new_droplet_is_active() -> None:
    async with running() as api:
        await api.post("/tags", {"name": "lb"})
        created = (await api.post("/firewalls", firewall(tags=["lb"])))["firewall"]
        assert created["status"] == "waiting"
        droplet = await api.droplet(tags=["lb"])
        assert (droplet["status"], await rules_of(api, droplet)) == ("active", (HTTP_RULE,))
        assert (await api.get(f"/firewalls/{created['id']}"))["firewall"]["status"] == "succeeded"
        [applying] = (await api.get(f"/droplets/{droplet['id']}/firewalls"))["firewalls"]
        assert applying["id"] == created["id"]


async def test_a_source_tag_stands_for_the_public_and_private_addresses_of_its_droplets() -> None:
    async with running() as api:
        await api.post("/tags", {"name": "lb"})
        app = await api.droplet("app")
        rule = {"protocol": "tcp", "ports": "8080", "sources": {"tags": ["lb"]}}
        await api.post("/firewalls", firewall(rule, droplet_ids=[app["id"]]))
        assert await rules_of(api, app) == ()
        balancer = await api.droplet("lb", tags=["lb"])
        sources = tuple(sorted(f"{network['ip_address']}/32" for network in balancer["networks"]["v4"]))
        assert await rules_of(api, app) == (FirewallRule("tcp", "8080", sources),)
        await api.call("DELETE", f"/droplets/{balancer['id']}")
        assert await rules_of(api, app) == ()


async def test_several_firewalls_add_up() -> None:
    async with running() as api:
        droplet = await api.droplet()
        await api.post("/firewalls", firewall(droplet_ids=[droplet["id"]]))
        ssh = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["203.0.113.10"]}}
        await api.post("/firewalls", firewall(ssh, name="ssh", droplet_ids=[droplet["id"]]))
        assert await rules_of(api, droplet) == (HTTP_RULE, FirewallRule("tcp", "22", ("203.0.113.10/32",)))


@pytest.mark.parametrize(
    ("given", "stored", "told"),
    [
        ({"protocol": "tcp", "ports": "all"}, "0", FirewallRule("tcp", "all", ("0.0.0.0/0",))),
        ({"protocol": "udp", "ports": "0"}, "0", FirewallRule("udp", "all", ("0.0.0.0/0",))),
        ({"protocol": "tcp", "ports": "8000-9000"}, "8000-9000", FirewallRule("tcp", "8000-9000", ("0.0.0.0/0",))),
        ({"protocol": "icmp", "ports": "0"}, "0", FirewallRule("icmp", "", ("0.0.0.0/0",))),
    ],
)
async def test_ports_are_stored_and_told_in_their_own_forms(
    given: dict[str, Any], stored: str, told: FirewallRule
) -> None:
    async with running() as api:
        droplet = await api.droplet()
        rule = given | {"sources": {"addresses": ["0.0.0.0/0"]}}
        created = (await api.post("/firewalls", firewall(rule, droplet_ids=[droplet["id"]])))["firewall"]
        assert created["inbound_rules"][0]["ports"] == stored
        assert await rules_of(api, droplet) == (told,)


async def test_rules_tags_and_droplets_of_a_firewall_can_be_added_and_removed() -> None:
    async with running() as api:
        droplet = await api.droplet()
        await api.post("/tags", {"name": "lb"})
        created = (await api.post("/firewalls", firewall()))["firewall"]
        path = f"/firewalls/{created['id']}"
        ssh = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["203.0.113.10/32"]}}
        steps: list[tuple[str, str, dict[str, Any], tuple[FirewallRule, ...] | None]] = [
            ("POST", "droplets", {"droplet_ids": [droplet["id"]]}, (HTTP_RULE,)),
            ("POST", "rules", {"inbound_rules": [ssh]}, (HTTP_RULE, FirewallRule("tcp", "22", ("203.0.113.10/32",)))),
            ("DELETE", "rules", {"inbound_rules": [ssh]}, (HTTP_RULE,)),
            ("DELETE", "droplets", {"droplet_ids": [droplet["id"]]}, None),
            ("POST", "tags", {"tags": ["lb"]}, None),
        ]
        for method, part, body, expected in steps:
            assert (await api.call(method, f"{path}/{part}", body)).status == 204
            assert await rules_of(api, droplet) == expected
        resources = {"resources": [{"resource_id": str(droplet["id"]), "resource_type": "droplet"}]}
        for method, expected in (("POST", (HTTP_RULE,)), ("DELETE", None)):
            assert (await api.call(method, "/tags/lb/resources", resources)).status == 204
            assert await rules_of(api, droplet) == expected


async def test_replacing_a_firewall_drops_what_the_body_leaves_out() -> None:
    async with running() as api:
        droplet = await api.droplet()
        created = (await api.post("/firewalls", firewall(droplet_ids=[droplet["id"]])))["firewall"]
        assert (await api.call("PUT", f"/firewalls/{created['id']}", firewall())).status == 200
        assert await rules_of(api, droplet) is None


async def test_a_deleted_firewall_leaves_its_droplets_open() -> None:
    async with running() as api:
        droplet = await api.droplet()
        created = (await api.post("/firewalls", firewall(droplet_ids=[droplet["id"]])))["firewall"]
        assert (await api.call("DELETE", f"/firewalls/{created['id']}")).status == 204
        assert await rules_of(api, droplet) is None


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"name": "a_b"}, 422, "name contains invalid characters"),
        ({"name": "taken"}, 409, "duplicate name"),
        ({"inbound_rules": []}, 422, "must have at least one rule"),
        ({"tags": ["unknown"]}, 422, "tag unknown does not exist"),
        ({"droplet_ids": [1]}, 422, "droplet 1 not found"),
        ({"inbound_rules": [HTTP | {"protocol": "gre"}]}, 422, "invalid protocol"),
        ({"inbound_rules": [HTTP | {"ports": "90-80"}]}, 422, "invalid ports"),
        ({"inbound_rules": [HTTP | {"sources": {"addresses": ["example.com"]}}]}, 422, "invalid address"),
        ({"inbound_rules": [HTTP | {"sources": {}}]}, 422, "rule must have at least one source or destination"),
    ],
)
async def test_a_wrong_firewall_is_refused(change: dict[str, Any], status: int, message: str) -> None:
    async with running() as api:
        await api.post("/firewalls", firewall(name="taken"))
        answer = await api.call("POST", "/firewalls", firewall() | change)
        assert (answer.status, answer.message) == (status, message)


async def test_a_tag_keeps_the_case_in_which_it_was_first_written() -> None:
    async with running() as api:
        await api.post("/tags", {"name": "Web"})
        droplet = await api.droplet(tags=["WEB"])
        assert droplet["tags"] == ["Web"]
        assert len((await api.get("/droplets", tag_name="web"))["droplets"]) == 1
        tag = (await api.get("/tags/web"))["tag"]
        assert (tag["name"], tag["resources"]["droplets"]["count"]) == ("Web", 1)


async def test_creating_a_tag_that_exists_answers_with_it() -> None:
    async with running() as api:
        for _ in range(2):
            assert (await api.post("/tags", {"name": "web"}))["tag"]["name"] == "web"
        assert (await api.get("/tags"))["meta"]["total"] == 1


async def test_a_deleted_tag_is_off_every_droplet() -> None:
    async with running() as api:
        droplet = await api.droplet(tags=["web", "blue"])
        assert (await api.call("DELETE", "/tags/web")).status == 204
        assert (await api.get(f"/droplets/{droplet['id']}"))["droplet"]["tags"] == ["blue"]


async def test_a_tag_with_other_characters_is_refused() -> None:
    async with running() as api:
        answer = await api.call("POST", "/tags", {"name": "a/b"})
        assert (answer.status, answer.body["error"][:31]) == (400, "Error validating resource tag: ")
