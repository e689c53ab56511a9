"""The local world's authoritative name servers: real Knot, two instances. Needs root."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.rcode
import pytest
import pytest_asyncio

from e2e.probes import ask
from e2e.world.cloud.backend import DnsRecord
from e2e.world.machines import clean
from e2e.world.nameservers import Knot
from e2e.world.network import Network, command_in, run

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]

PREFIX = "hsn-"


@dataclass(frozen=True)
class World:
    network: Network
    knot: Knot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("world") / "run"
    await clean(directory, PREFIX)
    try:
        network = Network(PREFIX)
        await network.start()
        knot = Knot(network, directory)
        await knot.start()
        yield World(network, knot)
        await knot.close()
    finally:
        await clean(directory, PREFIX)


async def data(world: World, server: str, name: str, kind: str) -> set[str]:
    answer = await ask(world.network.namespace("client"), server, name, kind)
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


async def test_a_published_zone_is_served_whole_by_every_server_at_once(world: World) -> None:
    for last in (10, 11):
        address = DnsRecord("shop", "A", f"192.0.2.{last}", 30)
        await world.knot.publish("example.com", (address, DnsRecord("_hasite.shop", "TXT", 'uid="1;2"', 30)))
        for server in world.knot.names.values():
            assert await data(world, server, "shop.example.com", "A") == {f"192.0.2.{last}"}
            assert await data(world, server, "_hasite.shop.example.com", "TXT") == {r'"uid=\"1;2\""'}


async def test_the_name_servers_of_a_zone_are_found_through_the_servers_themselves(world: World) -> None:
    await world.knot.publish("example.org", ())
    for server in world.knot.names.values():
        assert await data(world, server, "example.org", "NS") == {"ns1.digitalocean.com.", "ns2.digitalocean.com."}
        assert await data(world, server, "ns2.digitalocean.com", "A") == {"203.0.113.54"}


async def test_a_removed_zone_is_served_no_more(world: World) -> None:
    await world.knot.publish("example.net", (DnsRecord("@", "A", "192.0.2.10", 30),))
    await world.knot.remove("example.net")
    for server in world.knot.names.values():
        assert (await ask(world.network.namespace("client"), server, "example.net", "A")).rcode() == dns.rcode.REFUSED


async def test_a_name_server_can_be_cut_off(world: World) -> None:
    await world.network.cut("dns1")
    try:
        with pytest.raises(TimeoutError):
            await ask(world.network.namespace("client"), "203.0.113.53", "digitalocean.com", "SOA")
        assert await data(world, "203.0.113.54", "digitalocean.com", "SOA")
    finally:
        await world.network.restore("dns1")


async def test_a_program_inside_the_world_resolves_names_with_the_servers(world: World) -> None:
    await world.knot.publish("example.com", (DnsRecord("shop", "A", "192.0.2.10", 30),))
    resolve = ["getent", "ahostsv4", "shop.example.com"]
    answer = await run(command_in(world.network.namespace("client"), resolve, world.knot.resolv_conf))
    assert answer.startswith("192.0.2.10 ")
