"""The local world's machines and network, with real Debian in them. Needs root."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from e2e.probes import connect, eventually, reaches, silent, traces
from e2e.world.cloud.backend import FirewallRule, MachineSpec
from e2e.world.machines import ArchiveServer, Machines, clean, ensure_archive, ensure_image
from e2e.world.network import Network, forward, inside, listen_in

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and machines: needs root"),
]

IMAGE = "debian-12-x64"
PREFIX = "hst-"
HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")
LOGIN_KEY = asyncssh.generate_private_key("ssh-ed25519")


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


USER_DATA = f"""\
#cloud-config
ssh_keys:
  ed25519_private: |
{textwrap.indent(HOST_KEY.export_private_key().decode(), "    ")}
  ed25519_public: {public(HOST_KEY)}
package_update: true
packages: [haproxy]
runcmd:
  - [touch, /root/bootstrapped]
"""

NEW_YORK = MachineSpec(
    101, "lb-1.new-york", "nyc3", IMAGE, "s-1vcpu-1gb", "192.0.2.10", "198.18.1.10", "2001:db8:1::10", USER_DATA,
    (public(LOGIN_KEY),),
)  # fmt: skip
AMSTERDAM = replace(
    NEW_YORK, id=102, name="lb-1.amsterdam", region="ams3",
    public_ipv4="198.51.100.10", private_ipv4="198.18.3.10", public_ipv6="2001:db8:3::10",
)  # fmt: skip
NEIGHBOUR = replace(
    NEW_YORK, id=103, name="app-1.new-york", user_data="",
    public_ipv4="192.0.2.11", private_ipv4="198.18.1.11", public_ipv6=None,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    network: Network
    machines: Machines

    async def reaches(self, place: str, address: str, port: int = 22, seconds: float = 1.0) -> bool:
        """Whether a TCP connection can be opened from a place."""
        return await reaches(self.network.namespace(place), address, port, seconds)

    async def connect(self, place: str, address: str, port: int = 22, seconds: float = 1.0) -> socket.socket:
        return await connect(self.network.namespace(place), address, port, seconds)

    async def ssh(self, address: str) -> asyncssh.SSHClientConnection:
        opened = await self.connect("ops", address, 22, 5)
        trusted: tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]] = (
            [HOST_KEY.convert_to_public()],
            [],
            [],
        )
        return await asyncssh.connect(
            address, sock=opened, username="root", client_keys=[LOGIN_KEY], known_hosts=trusted, config=None
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("world") / "run"
    image = await asyncio.to_thread(ensure_image, IMAGE)
    archive = await asyncio.to_thread(ensure_archive, IMAGE)
    await clean(directory, PREFIX)
    try:
        network = Network(PREFIX)
        await network.start()
        machines = Machines(network, {IMAGE: image}, directory)
        await machines.start()
        packages = ArchiveServer(network, {IMAGE: archive})
        made = World(network, machines)
        await asyncio.gather(*map(machines.create, (NEW_YORK, AMSTERDAM, NEIGHBOUR)))
        for spec in (NEW_YORK, AMSTERDAM, NEIGHBOUR):
            await eventually(lambda spec=spec: bootstrapped(made, spec))  # type: ignore[misc]
        yield made
        await machines.close()
        packages.close()
    finally:
        await clean(directory, PREFIX)


async def bootstrapped(world: World, spec: MachineSpec) -> bool:
    """cloud-init is at its end, as the machine itself says."""
    with contextlib.suppress(RuntimeError):
        status, said = await world.machines.exec(spec.id, ["cloud-init", "status"])
        return status == 0 and "done" in said
    return False


async def up(world: World, spec: MachineSpec) -> bool:
    return await world.reaches("ops", spec.public_ipv4)


# -- bootstrap --------------------------------------------------------------------------------------------------------


async def test_a_droplet_shows_the_host_key_of_its_user_data_and_lets_root_in_by_the_key_of_the_account(
    world: World,
) -> None:
    async with await world.ssh(NEW_YORK.public_ipv4) as connection:
        assert (await connection.run("id -un", check=True)).stdout == "root\n"


async def test_user_data_installs_haproxy_with_apt(world: World) -> None:
    for spec in (NEW_YORK, AMSTERDAM):
        assert await world.machines.exec(spec.id, ["systemctl", "is-active", "haproxy"]) == (0, "active\n")
        assert (await world.machines.exec(spec.id, ["test", "-e", "/root/bootstrapped"]))[0] == 0


async def test_a_droplet_has_its_own_name_and_boots_without_a_failed_unit(world: World) -> None:
    assert await world.machines.exec(AMSTERDAM.id, ["hostname", "-f"]) == (0, "lb-1.amsterdam\n")
    assert await world.machines.exec(AMSTERDAM.id, ["systemctl", "is-system-running"]) == (0, "running\n")


async def test_a_droplet_uses_less_than_100_megabytes(world: World) -> None:
    assert sum(world.machines.memory(NEW_YORK.id)) < 100e6


async def test_an_image_that_the_world_does_not_have_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="no image plan9"):
        await world.machines.create(replace(NEIGHBOUR, id=199, image="plan9"))


# -- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [AMSTERDAM.public_ipv4, AMSTERDAM.public_ipv6])
async def test_droplets_of_two_regions_reach_each_other_on_public_addresses(world: World, address: str) -> None:
    assert (await world.machines.exec(NEW_YORK.id, ["ping", "-c1", "-W2", address]))[0] == 0


async def test_private_addresses_are_reached_within_a_region_only(world: World) -> None:
    assert await world.reaches(f"d-{NEW_YORK.id}", NEIGHBOUR.private_ipv4)
    assert not await world.reaches(f"d-{NEW_YORK.id}", AMSTERDAM.private_ipv4)
    assert not await world.reaches("client", NEW_YORK.private_ipv4)


async def test_no_route_leads_out_of_the_world(world: World) -> None:
    routes = inside(world.network.namespace("core"), lambda: subprocess.check_output(["ip", "route"], text=True))
    assert "default" not in routes
    assert not await world.reaches("client", "192.0.2.99", seconds=0.3), "an address nobody has"


async def test_a_firewall_lets_in_what_it_lists_and_answers_to_the_droplet_itself(world: World) -> None:
    ssh_from_ops = FirewallRule("tcp", "22", ("203.0.113.10/32", "2001:db8:ff::10/128"))
    ping = FirewallRule("icmp", "", ("0.0.0.0/0", "::/0"))
    await world.machines.set_firewall(NEW_YORK.id, (ssh_from_ops, ping))
    try:
        assert await world.reaches("ops", NEW_YORK.public_ipv4)
        assert await world.reaches("ops", NEW_YORK.public_ipv6 or "")
        assert not await world.reaches("client", NEW_YORK.public_ipv4, seconds=0.3)
        assert not await world.reaches(f"d-{NEIGHBOUR.id}", NEW_YORK.private_ipv4, seconds=0.3)
        assert (await world.machines.exec(NEIGHBOUR.id, ["ping", "-c1", "-W1", NEW_YORK.private_ipv4]))[0] == 0
        assert await world.reaches(f"d-{NEW_YORK.id}", AMSTERDAM.public_ipv4)
    finally:
        await world.machines.set_firewall(NEW_YORK.id, None)
    assert await world.reaches("client", NEW_YORK.public_ipv4)


async def test_a_reserved_address_moves_between_the_droplets_of_a_region(world: World) -> None:
    async def answers() -> str:
        connection = await world.ssh("192.0.2.120")
        said = await connection.run("hostname", check=True)
        connection.close()
        return str(said.stdout)

    await world.machines.assign_reserved_ip("192.0.2.120", NEW_YORK.id)
    assert await answers() == "lb-1\n"
    await world.machines.assign_reserved_ip("192.0.2.120", NEIGHBOUR.id)
    with pytest.raises(asyncssh.HostKeyNotVerifiable):  # the other droplet made its own host key
        await answers()
    await world.machines.assign_reserved_ip("192.0.2.120", None)
    assert not await world.reaches("ops", "192.0.2.120", seconds=0.3)


async def test_a_server_of_the_host_can_be_reached_from_inside_through_a_forwarder(world: World) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    listener = listen_in(world.network.namespace("ops"), "203.0.113.10", 6443)
    relay = await forward(listener, "127.0.0.1", server.sockets[0].getsockname()[1])
    with await world.connect("client", "203.0.113.10", 6443) as connection:
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"hello"
    relay.close()
    server.close()


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_a_cut_silences_open_connections_and_ends_with_the_restore(world: World) -> None:
    with await world.connect("client", NEW_YORK.public_ipv4) as connection:
        await asyncio.get_running_loop().sock_recv(connection, 1000)  # sshd's banner
        await world.network.cut("nyc3")
        try:
            connection.send(b"no answer to this\r\n")
            assert await silent(connection)
            assert not await world.reaches("ops", NEW_YORK.public_ipv4, seconds=0.3)
            assert await world.reaches("ops", AMSTERDAM.public_ipv4)
            assert await world.reaches(f"d-{NEIGHBOUR.id}", NEW_YORK.public_ipv4), "inside the region all is well"
        finally:
            await world.network.restore("nyc3")
        assert not await silent(connection, 5), "sshd's answer comes when the packet is sent again"


@pytest.mark.parametrize(("direction", "arrives"), [("in", False), ("out", True)])
async def test_a_cut_in_one_direction_lets_the_other_pass(world: World, direction: str, arrives: bool) -> None:
    def received() -> int:
        listing = inside(world.network.namespace("r-nyc3"), lambda: Path("/proc/thread-self/net/dev").read_text())
        return int(re.search(r"core:\s*\d+\s+(\d+)", listing)[1])  # type: ignore[index]

    await world.network.cut("nyc3", direction)  # type: ignore[arg-type]
    try:
        before = received()
        assert not await world.reaches("client", NEW_YORK.public_ipv4, seconds=0.3)
        assert (received() > before) is arrives
    finally:
        await world.network.restore("nyc3")


async def test_two_places_can_be_cut_off_from_each_other_only(world: World) -> None:
    await world.network.cut_between("ops", "nyc3")
    try:
        assert not await world.reaches("ops", NEW_YORK.public_ipv4, seconds=0.3)
        assert await world.reaches("client", NEW_YORK.public_ipv4)
        assert await world.reaches("ops", AMSTERDAM.public_ipv4)
    finally:
        await world.network.restore()


async def test_a_share_of_the_packets_between_two_places_can_be_lost(world: World) -> None:
    await world.network.loss(50, ("nyc3", "ams3"))
    try:
        ping = ["ping", "-q", "-c60", "-i0.01", "-W1", AMSTERDAM.public_ipv4]
        _, said = await world.machines.exec(NEW_YORK.id, ping)
    finally:
        await world.network.restore()
    assert 45 < float(re.search(r"([\d.]+)% packet loss", said)[1]) < 97, said  # type: ignore[index]


async def test_a_power_cut_is_not_heard_and_the_disk_survives_it(world: World) -> None:
    await world.machines.exec(NEIGHBOUR.id, ["sh", "-c", "echo kept > /root/kept"])
    with await world.connect("client", NEIGHBOUR.public_ipv4) as connection:
        await asyncio.get_running_loop().sock_recv(connection, 1000)
        await world.machines.kill(NEIGHBOUR.id)
        assert await silent(connection), "a reset or an end of stream would tell the client at once"
    assert not world.machines.running(NEIGHBOUR.id)
    assert not await world.reaches("client", NEIGHBOUR.public_ipv4, seconds=0.3)
    await world.machines.power(NEIGHBOUR.id, True)
    await eventually(lambda: up(world, NEIGHBOUR))
    assert await world.machines.exec(NEIGHBOUR.id, ["cat", "/root/kept"]) == (0, "kept\n")


async def test_a_guest_that_is_asked_to_shut_down_does_so_in_order(world: World) -> None:
    await eventually(lambda: bootstrapped(world, NEIGHBOUR))
    witness = ["systemd-run", "--unit=witness", "--property=ExecStop=touch /root/stopped", "sleep", "infinity"]
    assert (await world.machines.exec(NEIGHBOUR.id, witness))[0] == 0
    await world.machines.power(NEIGHBOUR.id, False, hard=False)
    assert not world.machines.running(NEIGHBOUR.id)
    await world.machines.power(NEIGHBOUR.id, True)
    await eventually(lambda: up(world, NEIGHBOUR))
    assert (await world.machines.exec(NEIGHBOUR.id, ["test", "-e", "/root/stopped"]))[0] == 0


async def test_a_guest_that_reboots_itself_comes_back(world: World) -> None:
    await eventually(lambda: bootstrapped(world, NEIGHBOUR))
    await world.machines.exec(NEIGHBOUR.id, ["touch", "/run/this-boot"])
    await world.machines.exec(NEIGHBOUR.id, ["systemctl", "reboot"])

    async def booted_again() -> bool:
        with contextlib.suppress(RuntimeError):
            return (await world.machines.exec(NEIGHBOUR.id, ["test", "!", "-e", "/run/this-boot"]))[0] == 0
        return False

    await eventually(booted_again)
    await eventually(lambda: up(world, NEIGHBOUR))


async def test_a_full_disk_refuses_writes_until_it_is_freed(world: World) -> None:
    write = ["sh", "-c", "echo something > /root/file 2>&1 || exit 1; cat /root/file"]
    await world.machines.fill_disk(NEW_YORK.id)
    try:
        async with await world.ssh(NEW_YORK.public_ipv4) as connection:
            refused = await connection.run("echo something > /root/file")
        assert "No space left on device" in str(refused.stderr)
    finally:
        await world.machines.free_disk(NEW_YORK.id)
    assert await world.machines.exec(NEW_YORK.id, write) == (0, "something\n")


async def test_a_region_goes_dark_and_comes_back(world: World) -> None:
    await world.machines.power_off_region("nyc3")
    assert not world.machines.running(NEW_YORK.id)
    assert not await world.reaches("client", NEW_YORK.public_ipv4, seconds=0.3)
    assert await world.reaches("client", AMSTERDAM.public_ipv4)
    await world.machines.power_on_region("nyc3")
    await eventually(lambda: up(world, NEW_YORK))
    await eventually(lambda: up(world, NEIGHBOUR))


async def test_a_destroyed_machine_leaves_nothing_and_its_address_can_be_given_to_another(world: World) -> None:
    first = replace(NEIGHBOUR, id=104, public_ipv4="192.0.2.12", private_ipv4="198.18.1.12")
    await world.machines.create(first)
    await world.machines.destroy(first.id)
    assert traces(f"{PREFIX}104", world.machines.directory / "104") == []
    assert traces(f"{PREFIX}d-104", world.machines.directory / "104") == []
    second = replace(first, id=105)
    await world.machines.create(second)
    await eventually(lambda: up(world, second))
    await world.machines.destroy(second.id)


# -- cleaning up ------------------------------------------------------------------------------------------------------

CRASHING_WORLD = """\
import asyncio, sys
from pathlib import Path
from e2e.test_world_machines import NEIGHBOUR
from e2e.world.machines import Machines
from e2e.world.nameservers import Knot
from e2e.world.network import Network

async def main(image: Path, directory: Path) -> None:
    network = Network("hsc-")
    await network.start()
    machines = Machines(network, {NEIGHBOUR.image: image}, directory)
    await machines.start()
    await Knot(network, directory).start()
    await machines.create(NEIGHBOUR)
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_a_world_that_crashed_is_cleaned_away_entirely(tmp_path: Path) -> None:
    directory, prefix = tmp_path / "run", "hsc-"
    image = await asyncio.to_thread(ensure_image, IMAGE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASHING_WORLD, str(image), str(directory), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await clean(directory, prefix)
    await clean(directory, prefix)
    assert traces(prefix, directory) == []
