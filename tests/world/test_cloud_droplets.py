"""Droplets and their actions."""

from __future__ import annotations

import pytest

from e2e.world.cloud import NullHypervisor
from tests.world.cloud_api import KEY, Clock, order, running


async def test_a_droplet_is_new_before_it_is_active() -> None:
    async with running() as api:
        created = (await api.post("/droplets", order()))["droplet"]
        assert (created["status"], created["networks"]) == ("new", {"v4": [], "v6": []})
        await api.cloud.settle()
        later = (await api.get(f"/droplets/{created['id']}"))["droplet"]
        assert later["status"] == "active"
        assert [network["type"] for network in later["networks"]["v4"]] == ["public", "private"]


async def test_a_droplet_stays_new_until_its_boot_delay_has_passed() -> None:
    clock = Clock()
    async with running(now=clock, boot_delay=30) as api:
        droplet = await api.droplet()
        assert (droplet["status"], droplet["locked"], droplet["networks"]["v4"]) == ("new", True, [])
        clock.advance(30)
        droplet = (await api.get(f"/droplets/{droplet['id']}"))["droplet"]
        assert (droplet["status"], droplet["locked"]) == ("active", False)


async def test_the_create_action_is_in_progress_first_and_completed_later() -> None:
    clock = Clock()
    async with running(now=clock, boot_delay=30) as api:
        created = await api.post("/droplets", order())
        [link] = created["links"]["actions"]
        action = (await api.get(f"/actions/{link['id']}"))["action"]
        assert (action["type"], action["status"], action["completed_at"]) == ("create", "in-progress", None)
        await api.cloud.settle()
        clock.advance(31)
        assert (await api.get(f"/actions/{link['id']}"))["action"]["status"] == "completed"


async def test_tags_given_at_creation_show_in_listings_only_later() -> None:
    clock = Clock()
    async with running(now=clock, tag_delay=5) as api:
        created = await api.post("/droplets", order(tags=["web"]))
        assert created["droplet"]["tags"] == ["web"]
        assert (await api.get("/droplets", tag_name="web"))["droplets"] == []
        assert (await api.get("/droplets", name="web-1"))["droplets"][0]["tags"] == []
        clock.advance(5)
        assert len((await api.get("/droplets", tag_name="web"))["droplets"]) == 1


async def test_the_hypervisor_gets_what_was_ordered() -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        key = (await api.post("/account/keys", {"name": "operator", "public_key": KEY}))["ssh_key"]
        droplet = await api.droplet(
            "lb-1", region="ams3", ipv6=True, user_data="#cloud-config\n", ssh_keys=[key["id"], key["fingerprint"]]
        )
        spec = hypervisor.machines[droplet["id"]]
        assert (spec.name, spec.region, spec.image, spec.user_data) == (
            "lb-1",
            "ams3",
            "debian-12-x64",
            "#cloud-config\n",
        )
        assert set(spec.ssh_keys) == {KEY}
        shown = {network["ip_address"] for kind in ("v4", "v6") for network in droplet["networks"][kind]}
        assert shown == {spec.public_ipv4, spec.private_ipv4, spec.public_ipv6}


async def test_names_create_several_droplets_at_once() -> None:
    async with running() as api:
        body = order() | {"names": ["a-1", "a-2"]}
        del body["name"]
        created = await api.post("/droplets", body)
        assert [droplet["name"] for droplet in created["droplets"]] == ["a-1", "a-2"]
        assert len(created["links"]["actions"]) == 2


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"name": "under_score"}, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"),
        ({"region": "nyc9"}, "You specified an invalid region for Droplet creation."),
        ({"size": "huge"}, "You specified an invalid size for Droplet creation."),
        ({"image": "debian-99-x64"}, "You specified an invalid image for Droplet creation."),
        ({"ssh_keys": [1]}, "1 are invalid key identifiers for Droplet creation."),
        ({"tags": ["no spaces"]}, "tag 'no spaces' contains invalid characters"),
        ({"user_data": "x" * 65537}, "User data must be text of 64 KiB at most."),
        ({"vpc_uuid": "nowhere"}, "You specified an invalid VPC for Droplet creation."),
    ],
)
async def test_a_wrong_order_is_refused(wishes: dict[str, object], message: str) -> None:
    async with running() as api:
        answer = await api.call("POST", "/droplets", order() | wishes)
        assert (answer.status, answer.body["id"], answer.message) == (422, "unprocessable_entity", message)
        assert (await api.get("/droplets"))["meta"]["total"] == 0


async def test_the_droplet_limit_of_the_account_holds() -> None:
    async with running() as api:
        api.cloud.state.droplet_limit = 1
        await api.droplet()
        answer = await api.call("POST", "/droplets", order("web-2"))
        assert answer.message == "creating this/these droplet(s) will exceed your droplet limit"


async def test_two_droplets_may_have_one_name_and_the_filter_finds_both() -> None:
    async with running() as api:
        for name in ("twin", "twin", "other"):
            await api.droplet(name)
        assert len((await api.get("/droplets", name="TWIN"))["droplets"]) == 2


async def test_a_deleted_droplet_is_gone_and_its_machine_destroyed() -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        droplet = await api.droplet()
        assert (await api.call("DELETE", f"/droplets/{droplet['id']}")).status == 204
        await api.cloud.settle()
        assert (await api.call("GET", f"/droplets/{droplet['id']}")).status == 404
        assert hypervisor.machines == {}


async def test_a_droplet_with_an_action_in_progress_takes_no_other() -> None:
    clock = Clock()
    async with running(now=clock, action_delay=10) as api:
        droplet = await api.droplet()
        path = f"/droplets/{droplet['id']}"
        await api.post(f"{path}/actions", {"type": "power_off"})
        for answer in (
            await api.call("POST", f"{path}/actions", {"type": "power_cycle"}),
            await api.call("DELETE", path),
        ):
            assert (answer.status, answer.message) == (422, "Droplet already has a pending event.")
        await api.cloud.settle()
        clock.advance(10)
        assert (await api.call("DELETE", path)).status == 204


@pytest.mark.parametrize(
    ("kind", "calls", "status"),
    [
        ("power_off", ["power-off"], "off"),
        ("shutdown", ["shutdown"], "off"),
        ("reboot", ["shutdown", "power-on"], "active"),
        ("power_cycle", ["power-off", "power-on"], "active"),
    ],
)
async def test_a_power_action_reaches_the_machine(kind: str, calls: list[str], status: str) -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        droplet = await api.droplet()
        hypervisor.calls.clear()
        await api.post(f"/droplets/{droplet['id']}/actions", {"type": kind})
        await api.cloud.settle()
        assert [call for call, _ in hypervisor.calls] == calls
        assert (await api.get(f"/droplets/{droplet['id']}"))["droplet"]["status"] == status


async def test_a_droplet_can_be_renamed_resized_snapshot_and_rebuilt() -> None:
    async with running() as api:
        droplet = await api.droplet()
        path = f"/droplets/{droplet['id']}"
        for action in (
            {"type": "rename", "name": "renamed"},
            {"type": "power_off"},
            {"type": "resize", "size": "s-2vcpu-2gb"},
            {"type": "snapshot", "name": "before"},
            {"type": "rebuild", "image": "debian-13-x64"},
        ):
            await api.post(f"{path}/actions", action)
            await api.cloud.settle()
        after = (await api.get(path))["droplet"]
        assert (after["name"], after["size_slug"], after["image"]["slug"]) == (
            "renamed",
            "s-2vcpu-2gb",
            "debian-13-x64",
        )
        assert after["networks"] == droplet["networks"]
        [snapshot] = (await api.get(f"{path}/snapshots"))["snapshots"]
        assert (snapshot["name"], after["snapshot_ids"]) == ("before", [snapshot["id"]])
        assert [a["type"] for a in (await api.get(f"{path}/actions"))["actions"]][-1] == "create"


async def test_a_droplet_can_be_made_from_a_snapshot_in_its_region_only() -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        droplet = await api.droplet()
        await api.post(f"/droplets/{droplet['id']}/actions", {"type": "snapshot", "name": "golden"})
        await api.cloud.settle()
        [image] = (await api.get("/images", private="true"))["images"]
        copy = await api.droplet("copy", image=image["id"])
        assert hypervisor.machines[copy["id"]].image == "debian-12-x64"
        answer = await api.call("POST", "/droplets", order(image=image["id"], region="ams3"))
        assert answer.message == "You specified an invalid image for Droplet creation."


async def test_destroying_by_tag_works_and_is_recorded_as_a_violation() -> None:
    async with running() as api:
        await api.droplet(tags=["web"])
        assert (await api.call("DELETE", "/droplets", tag_name="web")).status == 204
        await api.cloud.settle()
        assert (await api.get("/droplets"))["droplets"] == []
        assert [(each.kind, each.detail) for each in api.cloud.violations] == [("destroy-by-tag", "web")]


@pytest.mark.parametrize(("at_once", "same"), [(False, False), (True, True)])
async def test_a_freed_address_is_given_out_again_as_late_as_possible_unless_told_otherwise(
    at_once: bool, same: bool
) -> None:
    async with running(reuse_addresses_at_once=at_once) as api:
        first = await api.droplet("first")
        await api.call("DELETE", f"/droplets/{first['id']}")
        await api.cloud.settle()
        second = await api.droplet("second")
        assert (first["networks"] == second["networks"]) is same


async def test_public_addresses_lie_in_the_network_of_their_region() -> None:
    async with running() as api:
        first = {}
        for region in ("nyc3", "sfo3", "ams3", "fra1"):
            droplet = await api.droplet(region=region)
            first[region] = [network["ip_address"] for network in droplet["networks"]["v4"]]
        assert first == {
            "nyc3": ["192.0.2.10", "198.18.1.10"],
            "sfo3": ["192.0.2.138", "198.18.2.10"],
            "ams3": ["198.51.100.10", "198.18.3.10"],
            "fra1": ["198.51.100.138", "198.18.4.10"],
        }
