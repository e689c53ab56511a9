"""How the cloud meets the world below it, and how it is served."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from e2e.world.cloud import UNLIMITED, Cloud, DnsRecord, FirewallRule, NullHypervisor, NullNameServers, serve
from tests.world.cloud_api import TOKEN, running

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.get(f"{url}/v2/account") as response:
        return response.status


async def test_one_cloud_is_served_on_several_sockets() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    server = await serve(Cloud(), sockets)
    try:
        assert [await status_of(f"http://127.0.0.1:{port}") for port in ports] == [200, 200]
    finally:
        await server.close()


async def test_a_cloud_that_went_away_comes_back_with_its_state() -> None:
    cloud = Cloud(limits=UNLIMITED)
    server = await serve(cloud)
    cloud.state.tags["web"] = "web"
    port = int(server.url.rsplit(":", 1)[1])
    await server.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(server.url)
    server = await serve(cloud, port=port)
    try:
        assert (await status_of(server.url), cloud.state.tags) == (200, {"web": "web"})
    finally:
        await server.close()


async def test_a_droplet_whose_machine_powered_itself_off_is_off() -> None:
    async with running() as api:
        droplet = await api.droplet()
        api.cloud.machine_stopped(droplet["id"])
        assert (await api.get(f"/droplets/{droplet['id']}"))["droplet"]["status"] == "off"


async def test_a_droplet_that_cannot_be_destroyed_stays_and_can_be_deleted_again() -> None:
    class Stubborn(NullHypervisor):
        async def destroy(self, machine: int) -> None:
            if not self.calls.count(("destroy", machine)):
                self.calls.append(("destroy", machine))
                raise OSError("device is busy")
            await super().destroy(machine)

    async with running(hypervisor=Stubborn()) as api:
        droplet = await api.droplet()
        for expected in (200, 404):
            assert (await api.call("DELETE", f"/droplets/{droplet['id']}")).status == 204
            await api.cloud.settle()
            assert (await api.call("GET", f"/droplets/{droplet['id']}")).status == expected


async def test_a_firewall_that_could_not_be_set_is_set_with_the_next_change() -> None:
    class Flaky(NullHypervisor):
        async def set_firewall(self, machine: int, inbound: tuple[FirewallRule, ...] | None) -> None:
            if ("set-firewall", machine) not in self.calls:
                self.calls.append(("set-firewall", machine))
                raise OSError("nft failed")
            await super().set_firewall(machine, inbound)

    hypervisor = Flaky()
    async with running(hypervisor=hypervisor) as api:
        droplet = await api.droplet()
        rule = {"protocol": "tcp", "ports": "80", "sources": {"addresses": ["0.0.0.0/0"]}}
        await api.post("/firewalls", {"name": "web", "inbound_rules": [rule], "droplet_ids": [droplet["id"]]})
        await api.cloud.settle()
        assert hypervisor.firewalls == {}
        await api.post("/tags", {"name": "web"})
        tagged = {"resources": [{"resource_id": str(droplet["id"]), "resource_type": "droplet"}]}
        await api.call("POST", "/tags/web/resources", tagged)
        await api.cloud.settle()
        assert hypervisor.firewalls == {droplet["id"]: (FirewallRule("tcp", "80", ("0.0.0.0/0",)),)}


async def test_a_zone_that_could_not_be_published_is_published_again() -> None:
    class Flaky(NullNameServers):
        failed = False

        async def publish(self, zone: str, records: tuple[DnsRecord, ...]) -> None:
            if not self.failed:
                self.failed = True
                raise OSError("no answer from the control socket")
            await super().publish(zone, records)

    name_servers = Flaky()
    async with running(name_servers=name_servers) as api:
        await api.post("/domains", {"name": "example.com"})
        await api.cloud.settle()
        assert set(name_servers.zones) == {"example.com"}


async def test_the_calls_for_one_machine_come_in_their_order() -> None:
    hypervisor = NullHypervisor()
    async with running(hypervisor=hypervisor) as api:
        droplet = await api.droplet()
        await api.call("POST", f"/droplets/{droplet['id']}/actions", {"type": "power_off"})
        await api.cloud.settle()
        await api.call("DELETE", f"/droplets/{droplet['id']}")
        await api.cloud.settle()
        assert [call for call, _ in hypervisor.calls] == ["create", "power-off", "destroy"]
