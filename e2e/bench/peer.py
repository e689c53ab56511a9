"""Patroni's two members and its three etcd in the local world, made, watched and measured like our own."""

import asyncio
import contextlib
import json
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from e2e.bench import patroni
from e2e.bench.client import proxy
from e2e.bench.losses import Keep, losses, say
from e2e.bench.patroni import Node, Passwords, Timing
from e2e.controlplane.build import build
from e2e.database import VERSIONS
from e2e.histories.stores import Server
from e2e.site import LOCATIONS, Stage, eventually
from e2e.world.cloud.state import Droplet
from e2e.world.network import SITES

WHERE = ("new-york", "amsterdam")
THIRD = "ops"
"""Where HASite's operator has its vote."""

MADE_WITHIN = 600.0


class Peer:
    """The machines, once they are made. ``label`` names the timing in force."""

    engine, aim = "postgresql", ""

    def __init__(self, stage: Stage, droplets: dict[str, Droplet], passwords: Passwords) -> None:
        self.stage = stage
        self.droplets = droplets
        self.passwords = passwords
        self.nodes = [Node(location, droplet.public_ipv4) for location, droplet in droplets.items()]
        self.etcd = [*self.nodes, Node(THIRD, SITES[THIRD].ipv4)]
        self.label = ""

    async def primary_location(self) -> str:
        """See ``Cluster``."""
        found = [each["name"] for each in await self.members() if each["role"] == "leader"]
        assert len(found) == 1, f"Patroni names {found} as leader"
        return str(found[0])

    async def members(self) -> list[dict[str, Any]]:
        """As the first that answers tells; empty when none does."""
        for node in self.nodes:
            status, text = await self.ask(node, "cluster")
            if status == 0:
                return list(json.loads(text)["members"])
        return []

    async def ask(self, node: Node, path: str, *options: str, port: int = patroni.REST_PORT) -> tuple[int, str]:
        """curl's exit status, and the answer."""
        url = f"http://{node.address}:{port}/{path}"
        return await self.stage.world.output_at("client", "curl", "-sf", "--max-time", "2", *options, url)

    async def until_whole(self, within: float) -> None:
        """See ``Cluster``."""

        async def whole() -> bool:
            members = await self.members()
            roles = sorted(f"{each['role']} {each['state']}" for each in members)
            healthy = [await self.ask(node, "health", port=patroni.ETCD_PORT) for node in self.etcd]
            return roles == ["leader running", "sync_standby streaming"] and all(status == 0 for status, _ in healthy)

        await eventually(whole, within, "Patroni's members are whole", 0.5)

    async def set_timing(self, timing: Timing) -> None:
        """In force on all members when they have gone round once."""
        self.label = f"Patroni {patroni.VERSION} {timing}, PostgreSQL {VERSIONS['postgresql']}"
        body = json.dumps(timing.dynamic)
        name = await self.primary_location()
        leader = next(node for node in self.nodes if node.name == name)
        status, words = await self.ask(leader, "config", "-X", "PATCH", "-d", body)
        assert status == 0, f"Patroni does not take {body}: {words}"
        await asyncio.sleep(patroni.DEFAULTS.loop_wait + 2)

    def server(self) -> Server:
        """Through the proxy, as its superuser."""
        return Server(("127.0.0.1",), patroni.PORT, "postgres", self.passwords.superuser, "postgres")


async def losses_of_peer(stage: Stage, runs: int, keep: Keep) -> None:
    """With its default timing, and with the tightest that it takes."""
    async with peer(stage) as made:
        for timing in (patroni.DEFAULTS, patroni.TIGHTEST):
            await made.set_timing(timing)
            config = patroni.haproxy(made.nodes, timing, patroni.PORT)
            async with proxy(stage, config, patroni.PORT, _folder(stage)):
                await losses(stage, made, made.server(), runs, keep)


def _folder(stage: Stage) -> Path:
    """The world takes it away with itself."""
    folder = stage.world.directory / "peer"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.asynccontextmanager
async def peer(stage: Stage) -> AsyncIterator[Peer]:
    """Whole; gone again afterwards."""
    say("Patroni is downloaded, where the cache does not hold it")
    folder = await asyncio.to_thread(patroni.program)
    etcd = await asyncio.to_thread(build, say)
    say("two members of Patroni are being made")
    droplets = {location: await _droplet(stage, location) for location in WHERE}
    made = Peer(stage, droplets, Passwords(*(secrets.token_urlsafe(16) for _ in range(3))))
    third: subprocess.Popen[bytes] | None = None
    try:
        await asyncio.gather(*(_install(made, location, folder, etcd) for location in WHERE))
        for location in WHERE:
            await stage.on(droplets[location], "systemctl", "daemon-reload")
            await stage.on(droplets[location], "systemctl", "enable", "--now", "--no-block", *_units(made, location))
        data = _folder(stage) / "etcd"
        argv = [str(etcd), *patroni.etcd_arguments(made.etcd[-1], made.etcd, str(data))]
        with (_folder(stage) / "etcd.log").open("wb") as log:
            third = stage.world.run_at(THIRD, argv, stdout=log, stderr=log)
        await made.until_whole(MADE_WITHIN)
        yield made
    finally:
        if third is not None:
            third.terminate()
            try:
                await asyncio.to_thread(third.wait, 10)
            except subprocess.TimeoutExpired:
                third.kill()
        await stage.world.restore()
        await stage.destroy(*droplets.values())


async def _droplet(stage: Stage, location: str) -> Droplet:
    """Ordered by a person, with no firewall."""
    order = {
        "name": f"peer-{location}",
        "region": LOCATIONS[location],
        "size": "s-1vcpu-1gb",
        "image": "debian-12-x64",
        "user_data": patroni.user_data(VERSIONS["postgresql"]),
    }
    made = (await stage.cloud("POST", "droplets", **order))["droplet"]
    return stage.world.cloud.state.droplets[made["id"]]


async def _install(made: Peer, location: str, folder: Path, etcd: Path) -> None:
    """What cloud-init doesn't: Patroni, etcd and their units, put on the machine's disk from outside."""
    stage, droplet = made.stage, made.droplets[location]
    node = next(each for each in made.nodes if each.name == location)

    async def up() -> bool:
        try:
            status, text = await stage.world.machines.exec(droplet.id, ["cloud-init", "status"])
        except (KeyError, RuntimeError):
            return False
        return status == 0 and "done" in text

    await eventually(up, MADE_WITHIN, f"cloud-init of {droplet.name} is done", 0.5)
    root = stage.world.machines.directory / str(droplet.id) / "root"
    await asyncio.to_thread(shutil.copytree, folder, root / patroni.FOLDER.lstrip("/"))
    await asyncio.to_thread(shutil.copy, etcd, root / patroni.ETCD.lstrip("/"))
    for name, text in _units(made, location).items():
        (root / "etc/systemd/system" / name).write_text(text)
    (root / "etc/patroni.yml").write_text(
        patroni.settings(node, made.etcd, VERSIONS["postgresql"], made.passwords, patroni.DEFAULTS)
    )


def _units(made: Peer, location: str) -> dict[str, str]:
    node = next(each for each in made.nodes if each.name == location)
    return patroni.units(node, made.etcd)
