"""Reserved IPs, SSH keys, private networks and the catalogue."""

from __future__ import annotations

from e2e.world.cloud import NullHypervisor
from tests.world.cloud_api import KEY, OTHER_KEY, Clock, order, running


async def test_a_reserved_ip_comes_from_the_upper_end_of_its_region() -> None:
    async with running() as api:
        reserved = (await api.post("/reserved_ips", {"region": "ams3"}))["reserved_ip"]
        assert (reserved["ip"], reserved["droplet"], reserved["region"]["slug"]) == ("198.51.100.126", None, "ams3")


async def test_a_reserved_ip_moves_between_the_droplets_of_its_region() -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        first, second = await api.droplet("first"), await api.droplet("second")
        address = (await api.post("/reserved_ips", {"droplet_id": first["id"]}))["reserved_ip"]["ip"]
        await api.cloud.settle()
        assert hypervisor.reserved_ips == {address: first["id"]}
        await api.post(f"/reserved_ips/{address}/actions", {"type": "assign", "droplet_id": second["id"]})
        await api.cloud.settle()
        assert hypervisor.reserved_ips == {address: second["id"]}
        holder = (await api.get(f"/reserved_ips/{address}"))["reserved_ip"]["droplet"]
        public = [network["ip_address"] for network in holder["networks"]["v4"] if network["type"] == "public"]
        assert public[1] == address


async def test_a_reserved_ip_does_not_leave_its_region() -> None:
    async with running() as api:
        droplet = await api.droplet(region="nyc3")
        address = (await api.post("/reserved_ips", {"region": "ams3"}))["reserved_ip"]["ip"]
        body = {"type": "assign", "droplet_id": droplet["id"]}
        answer = await api.call("POST", f"/reserved_ips/{address}/actions", body)
        assert (answer.status, answer.message) == (422, "The Droplet and the floating IP must be in the same region.")


async def test_a_droplet_holds_one_reserved_ip_at_most() -> None:
    async with running() as api:
        droplet = await api.droplet()
        await api.post("/reserved_ips", {"droplet_id": droplet["id"]})
        await api.cloud.settle()
        answer = await api.call("POST", "/reserved_ips", {"droplet_id": droplet["id"]})
        assert answer.message == "The Droplet already has a floating IP."


async def test_a_reserved_ip_with_an_action_in_progress_takes_no_other() -> None:
    clock = Clock()
    async with running(now=clock, action_delay=5) as api:
        droplet = await api.droplet()
        address = (await api.post("/reserved_ips", {"droplet_id": droplet["id"]}))["reserved_ip"]["ip"]
        answer = await api.call("DELETE", f"/reserved_ips/{address}")
        assert answer.message == "The floating IP already has a pending event."
        await api.cloud.settle()
        clock.advance(5)
        [action] = (await api.get(f"/reserved_ips/{address}/actions"))["actions"]
        assert (action["type"], action["status"]) == ("assign_ip", "completed")
        assert (await api.call("DELETE", f"/reserved_ips/{address}")).status == 204


async def test_a_reserved_ip_outlives_its_droplet() -> None:
    async with running() as api:
        droplet = await api.droplet()
        address = (await api.post("/reserved_ips", {"droplet_id": droplet["id"]}))["reserved_ip"]["ip"]
        await api.cloud.settle()
        await api.call("DELETE", f"/droplets/{droplet['id']}")
        await api.cloud.settle()
        assert (await api.get(f"/reserved_ips/{address}"))["reserved_ip"]["droplet"] is None


async def test_an_ssh_key_is_found_by_id_and_by_fingerprint_and_added_only_once() -> None:
    async with running() as api:
        key = (await api.post("/account/keys", {"name": "operator", "public_key": KEY}))["ssh_key"]
        await api.post("/account/keys", {"name": "other", "public_key": OTHER_KEY})
        for identifier in (key["id"], key["fingerprint"]):
            assert (await api.get(f"/account/keys/{identifier}"))["ssh_key"] == key
        answer = await api.call("POST", "/account/keys", {"name": "again", "public_key": KEY})
        assert (answer.status, answer.message) == (422, "SSH Key is already in use on your account")
        renamed = await api.call("PUT", f"/account/keys/{key['id']}", {"name": "renamed"})
        assert renamed.body["ssh_key"]["name"] == "renamed"
        assert (await api.call("DELETE", f"/account/keys/{key['id']}")).status == 204
        assert (await api.get("/account/keys"))["meta"]["total"] == 1


async def test_what_is_no_public_key_is_refused() -> None:
    async with running() as api:
        for wrong in ("hello", "ssh-ed25519 !!", "ssh-rsa " + KEY.split()[1]):
            assert (await api.call("POST", "/account/keys", {"name": "x", "public_key": wrong})).status == 422


async def test_every_region_has_a_default_private_network_and_more_can_be_made() -> None:
    async with running() as api:
        defaults = (await api.get("/vpcs"))["vpcs"]
        assert {(vpc["name"], vpc["default"]) for vpc in defaults} == {
            (f"default-{region}", True) for region in ("nyc3", "sfo3", "ams3", "fra1")
        }
        made = (await api.post("/vpcs", {"name": "shop", "region": "nyc3"}))["vpc"]
        droplet = await api.droplet(vpc_uuid=made["id"])
        assert droplet["vpc_uuid"] == made["id"]
        [member] = (await api.get(f"/vpcs/{made['id']}/members"))["members"]
        assert member["urn"] == f"do:droplet:{droplet['id']}"
        assert (await api.call("DELETE", f"/vpcs/{made['id']}")).message == "Can not delete VPC with members"
        assert (await api.call("POST", "/droplets", order(region="ams3", vpc_uuid=made["id"]))).status == 422


async def test_the_catalogue_lists_account_regions_sizes_and_images() -> None:
    async with running() as api:
        assert (await api.get("/account"))["account"]["status"] == "active"
        assert {region["slug"] for region in (await api.get("/regions"))["regions"]} == {"nyc3", "ams3", "fra1", "sfo3"}
        assert "s-1vcpu-1gb" in {size["slug"] for size in (await api.get("/sizes"))["sizes"]}
        images = (await api.get("/images", type="distribution"))["images"]
        assert {image["slug"] for image in images} == {"debian-12-x64", "debian-13-x64", "ubuntu-24-04-x64"}
        assert (await api.get("/images/debian-12-x64"))["image"]["distribution"] == "Debian"
