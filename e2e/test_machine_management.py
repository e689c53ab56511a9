"""The operator's hold on real machines: bootstrap, host keys and HAProxy, on Debian 12 and 13. Needs root."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncssh
import pytest
import pytest_asyncio
from hasite.errors import HostKeyMismatch, Transient
from hasite.machines.base import Target
from hasite.machines.bootstrap import Bootstrap, HostKey, generate_host_key, render_user_data
from hasite.machines.ops import MachineOps
from hasite.machines.ssh import SshMachines, SshSession
from hasite.plan.proxies import Check, ProxyModel, Upstream
from hasite.plan.world import MachineView
from hasite.proxies.base import Delivered, Rejected
from hasite.proxies.haproxy import HaproxyProxy

from e2e.probes import connect
from e2e.world.cloud.backend import MachineSpec
from e2e.world.machines import ArchiveServer, Machines, clean, ensure_archive, ensure_image
from e2e.world.network import Network

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and machines: needs root"),
]

PREFIX = "hsm-"
IMAGES = ("debian-12-x64", "debian-13-x64")
CLIENT = asyncssh.generate_private_key("ssh-ed25519")
WEB = """#cloud-config
packages: [jq]
write_files:
  - path: /etc/systemd/system/web.service
    content: |
      [Service]
      ExecStart=python3 -m http.server 8080 --directory /srv
runcmd: [[systemctl, start, web]]
"""


@dataclass
class Droplet:
    """A machine of the test, reached through a forwarded port on loopback."""

    spec: MachineSpec
    key: HostKey
    port: int = 0
    known: list[str] = field(default_factory=list)

    @property
    def target(self) -> Target:
        return Target(self.spec.name, "127.0.0.1", (self.key.public, *self.known), self.port)


@dataclass
class Lab:
    hypervisor: Machines
    machines: SshMachines
    droplets: dict[str, Droplet]
    ops: MachineOps = field(default_factory=MachineOps)
    proxy: HaproxyProxy = field(default_factory=HaproxyProxy)

    async def session(self, name: str, seconds: float = 90.0) -> SshSession:
        """Waits for the machine's sshd."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.machines.session(self.droplets[name].target, timeout=5.0)
            except Transient:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def born(self, name: str, seconds: float = 120.0) -> MachineView:
        """Waits for the end of cloud-init."""
        deadline = time.monotonic() + seconds
        view = await self.ops.observe(await self.session(name), time.time())
        while view.cloud_init == "running" and time.monotonic() < deadline:
            await asyncio.sleep(0.3)
            view = await self.ops.observe(await self.session(name), time.time())
        return view


def droplet(number: int, name: str, image: str, packages: tuple[str, ...], user_data: str = "") -> Droplet:
    key = generate_host_key()
    text = render_user_data(Bootstrap(name, key, packages, user_data))
    public = CLIENT.export_public_key().decode().strip()
    spec = MachineSpec(
        number, name, "nyc3", image, "s-1vcpu-1gb", f"192.0.2.{number}", f"198.18.1.{number}", None, text, (public,)
    )
    return Droplet(spec, key)


async def road(namespace: str, address: str) -> asyncio.Server:
    """A loopback port of this host that leads to the machine's sshd, as the operator's network does in a cluster."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(sock=await connect(namespace, address, 22, 2.0))
            with contextlib.closing(far_writer):
                pumps = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for each in pumps:
                    each.cancel()

    return await asyncio.start_server(relay, "127.0.0.1", 0)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    directory = tmp_path_factory.mktemp("world") / "run"
    images = {slug: await asyncio.to_thread(ensure_image, slug) for slug in IMAGES}
    archives = {slug: await asyncio.to_thread(ensure_archive, slug) for slug in IMAGES}
    droplets = {
        "lb12": droplet(12, "lb12", "debian-12-x64", ("haproxy",), WEB),
        "lb13": droplet(13, "lb13", "debian-13-x64", ("haproxy",), WEB),
        "broken": droplet(14, "broken", "debian-12-x64", (), "#cloud-config\npackages: [no-such-package]\n"),
    }
    await clean(directory, PREFIX)
    try:
        async with contextlib.AsyncExitStack() as stack:
            network = Network(PREFIX)
            await network.start()
            hypervisor = Machines(network, images, directory)
            await hypervisor.start()
            stack.callback(ArchiveServer(network, archives).close)
            await asyncio.gather(*(hypervisor.create(each.spec) for each in droplets.values()))
            machines = SshMachines(CLIENT.export_private_key("openssh").decode())
            stack.push_async_callback(machines.close)
            for each in droplets.values():
                server = await road(network.namespace("ops"), each.spec.public_ipv4)
                stack.callback(server.close)
                each.port = server.sockets[0].getsockname()[1]
            yield Lab(hypervisor, machines, droplets)
            await hypervisor.close()
    finally:
        await clean(directory, PREFIX)


def model(address: str) -> ProxyModel:
    upstreams = (Upstream("web", address, "Active"),)
    return ProxyModel(
        "lb", "new-york", "shop.example.com", 8080, upstreams, Check("/", 0.5, 0.4, 2, 2), (), 1.0, 0.5, 10.0
    )


BALANCERS = pytest.mark.parametrize("name", ["lb12", "lb13"])


async def seen_up(lab: Lab, session: SshSession) -> None:
    deadline = time.monotonic() + 20
    while not (await lab.proxy.observe(session)).servers["web"].up:
        assert time.monotonic() < deadline, "the app server did not come up"
        await asyncio.sleep(0.1)


@BALANCERS
async def test_a_machine_is_born_with_our_key_our_packages_and_the_users(lab: Lab, name: str) -> None:
    view = await lab.born(name)
    assert (view.cloud_init, view.cloud_init_error) == ("done", "")
    assert view.host_key == lab.droplets[name].key.public
    session = await lab.session(name)
    assert (await session.run("test -x /usr/sbin/haproxy && test -x /usr/bin/jq && hostname")).stdout == f"{name}\n"


@BALANCERS
async def test_a_delivered_configuration_serves_and_is_in_force(lab: Lab, name: str) -> None:
    session = await lab.session(name)
    config = lab.proxy.render(model("127.0.0.1"))
    assert await lab.proxy.deliver(session, config) == Delivered()
    await seen_up(lab, session)
    view = await lab.proxy.observe(session)
    assert (view.installed, view.active, view.enabled) == (True, True, True)
    assert view.config_sha256 == hashlib.sha256(config).hexdigest()
    for family in ("-4", "-6"):
        done = await session.run(f"curl -s {family} -o /dev/null -w '%{{http_code}}' http://localhost/")
        assert done.stdout == "200"


@BALANCERS
async def test_a_reload_keeps_the_servers_up(lab: Lab, name: str) -> None:
    session = await lab.session(name)
    assert await lab.proxy.deliver(session, lab.proxy.render(model("127.0.0.1"))) == Delivered()
    assert (await lab.proxy.observe(session)).servers["web"].up


@BALANCERS
@pytest.mark.parametrize("damage", ["systemctl stop haproxy", "systemctl disable haproxy", "kill", "edit"])
async def test_damage_is_seen_and_healed(lab: Lab, name: str, damage: str) -> None:
    session = await lab.session(name)
    commands = {
        "kill": "systemctl kill -s KILL haproxy; systemctl stop haproxy",
        "edit": "echo '# mine' >>/etc/haproxy/haproxy.cfg; systemctl reload haproxy",
    }
    await session.run(commands.get(damage, damage))
    view = await lab.proxy.observe(session)
    config = lab.proxy.render(model("127.0.0.1"))
    sha = hashlib.sha256(config).hexdigest()
    assert not (view.active and view.enabled and view.config_sha256 == sha)
    assert await lab.proxy.deliver(session, config) == Delivered()
    view = await lab.proxy.observe(session)
    assert (view.active, view.enabled, view.config_sha256) == (True, True, sha)


@BALANCERS
async def test_a_refused_configuration_leaves_the_running_one(lab: Lab, name: str) -> None:
    session = await lab.session(name)
    config = lab.proxy.render(model("127.0.0.1"))
    refused = await lab.proxy.deliver(session, config.replace(b"balance roundrobin", b"nonsense here"))
    assert isinstance(refused, Rejected)
    assert refused.stage == "check"
    assert "unknown keyword 'nonsense'" in refused.words
    assert (await lab.proxy.observe(session)).config_sha256 == hashlib.sha256(config).hexdigest()


@BALANCERS
async def test_a_full_disk_is_said_in_the_machines_words(lab: Lab, name: str) -> None:
    session = await lab.session(name)
    await lab.hypervisor.fill_disk(lab.droplets[name].spec.id)
    try:
        refused = await lab.proxy.deliver(session, lab.proxy.render(model("127.0.0.1")))
    finally:
        await lab.hypervisor.free_disk(lab.droplets[name].spec.id)
    assert isinstance(refused, Rejected)
    assert "No space left on device" in refused.words


@BALANCERS
async def test_the_bootstraps_key_gives_way_and_no_secret_stays(lab: Lab, name: str) -> None:
    droplet, session = lab.droplets[name], await lab.session(name)
    secret = droplet.key.private_openssh.splitlines()[2]
    search = f"grep -rlaF -- '{secret}' /var/lib/cloud /run/cloud-init /etc/ssh /var/log"
    assert (await session.run(search)).stdout != ""
    staged = await lab.ops.stage_host_key(session)
    droplet.known.append(staged)
    await lab.ops.activate_host_key(session)
    assert (await session.run(search)).stdout == ""
    await lab.machines.drop(name)
    assert (await lab.session(name)).host_key == staged
    with pytest.raises(HostKeyMismatch):
        await lab.machines.session(Target("other", "127.0.0.1", (droplet.key.public,), droplet.port))


@BALANCERS
async def test_after_a_reboot_the_key_is_the_same_and_haproxy_serves(lab: Lab, name: str) -> None:
    droplet = lab.droplets[name]
    await lab.hypervisor.power(droplet.spec.id, False)
    await lab.machines.drop(name)
    await lab.hypervisor.power(droplet.spec.id, True)
    session = await lab.session(name)
    assert session.host_key == droplet.known[-1]
    assert (await lab.born(name)).cloud_init == "done"
    view = await lab.proxy.observe(session)
    config = lab.proxy.render(model("127.0.0.1"))
    assert (view.active, view.enabled, view.config_sha256) == (True, True, hashlib.sha256(config).hexdigest())


async def test_an_apt_that_fails_is_said_in_its_own_words(lab: Lab) -> None:
    view = await lab.born("broken")
    assert view.cloud_init == "error"
    assert "Unable to locate package no-such-package" in view.cloud_init_error
