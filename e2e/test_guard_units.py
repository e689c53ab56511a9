"""The guard and the fuse under a real systemd, on Debian 12 and 13, as they are delivered. Needs root."""

import asyncio
import base64
import contextlib
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hasite.databases import guardfiles
from hasite.guard.model import Member, Membership, Settings

from e2e.world.cloud.backend import MachineSpec
from e2e.world.machines import Machines, clean, ensure_image
from e2e.world.network import Network
from tests.guard.pki import Authority

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and machines: needs root"),
]

PREFIX = "hsg-"
IMAGES = {21: "debian-12-x64", 22: "debian-13-x64"}
SERVER = """[Service]
Type=exec
ExecStart=/bin/sh -c 'sleep 301 & exec sleep 300'
"""
LEASE = (
    "import sys, time; n = (1 << 64) - 1 if sys.argv[1] == 'never' else "
    "time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(float(sys.argv[1]) * 1e9); "
    "open('/run/hasite/lease', 'r+b' if __import__('os').path.exists('/run/hasite/lease') else 'wb')"
    ".write(n.to_bytes(8, 'little') + (n ^ ((1 << 64) - 1)).to_bytes(8, 'little'))"
)
STATUS = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/hasite/guard.sock'); s.sendall(b'status\\n'); "
    "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
)


@dataclass
class Box:
    """One machine, with a guard that is a witness: it needs no database server."""

    hypervisor: Machines
    number: int

    async def run(self, command: str, text: str = "", *, check: bool = True) -> str:
        status, out = await self.hypervisor.exec(self.number, ("sh", "-c", command), text)
        assert status == 0 or not check, f"{command[:200]}: {status}: {out[-2000:]}"
        return out.strip()

    async def write(self, path: str, data: bytes) -> None:
        folder = path.rsplit("/", 1)[0]
        await self.run(f"mkdir -p {folder}; base64 -d >{path}; chmod 600 {path}", base64.b64encode(data).decode())

    async def lease(self, seconds: float | str) -> None:
        await self.run(f'python3 -c "{LEASE}" {seconds}')

    async def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(await self.run(f'python3 -c "{STATUS}"'))
        return told

    async def pid(self, unit: str) -> int:
        return int(await self.run(f"systemctl show -p MainPID --value {unit}"))

    async def active(self, unit: str) -> bool:
        return await self.run(f"systemctl is-active {unit}", check=False) == "active"


def settings(version: int) -> Settings:
    members = (Member("w", "here", "127.0.0.1", witness=True),)
    return Settings(
        "shop",
        "w",
        "postgresql",
        "15",
        "PrimaryReplica",
        "synchronous",
        degraded_writes=False,
        maximum_lag=5.0,
        membership=Membership(version, members, ("w",)),
    )


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> float:
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def deliver(box: Box, folder: Path) -> None:
    tls = Authority().issue(folder, "w")
    files = dict(guardfiles.program_files("postgresql", "15"))
    files["/etc/systemd/system/hasite-db.service"] = SERVER.encode()
    files[guardfiles.SETTINGS] = guardfiles.settings_file(settings(1))
    pairs = ((guardfiles.CA, tls.ca), (guardfiles.CERTIFICATE, tls.certificate), (guardfiles.KEY, tls.key))
    files |= {path: source.read_bytes() for path, source in pairs}
    for path, data in files.items():
        await box.write(path, data)
    await box.run("systemctl daemon-reload && systemctl -q enable --now hasite-fuse hasite-guard")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def boxes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[int, Box]]:
    directory = tmp_path_factory.mktemp("world") / "run"
    images = {slug: await asyncio.to_thread(ensure_image, slug) for slug in IMAGES.values()}
    await clean(directory, PREFIX)
    try:
        network = Network(PREFIX)
        await network.start()
        hypervisor = Machines(network, images, directory)
        await hypervisor.start()
        made = {}
        for number, image in IMAGES.items():
            size, address = "s-1vcpu-1gb", f"192.0.2.{number}"
            spec = MachineSpec(number, f"g{number}", "nyc3", image, size, address, f"198.18.1.{number}", None, "", ())
            await hypervisor.create(spec)
            made[number] = Box(hypervisor, number)
        for number, box in made.items():
            await until(functools.partial(booted, box), 60)
            await deliver(box, directory.parent / str(number))
        yield made
        await hypervisor.close()
    finally:
        await clean(directory, PREFIX)


async def booted(box: Box) -> bool:
    with contextlib.suppress(RuntimeError):
        return await box.run("systemctl is-active multi-user.target", check=False) == "active"
    return False


@pytest.fixture(params=list(IMAGES), ids=list(IMAGES.values()))
def box(boxes: dict[int, Box], request: pytest.FixtureRequest) -> Box:
    return boxes[int(request.param)]


async def test_guard_and_fuse_say_that_they_are_ready_and_run_before_the_others(box: Box) -> None:
    for unit in ("hasite-fuse", "hasite-guard"):
        assert await box.active(unit), await box.run(f"journalctl -n 50 -u {unit}", check=False)
        policy = await box.run(f"chrt -p {await box.pid(unit)}")
        assert "SCHED_RR" in policy
    told = await box.status()
    assert told["version"] == guardfiles.guard_version()
    assert told["vote"]["epoch"] == 0


async def test_they_take_little_memory(box: Box) -> None:
    for unit, most in (("hasite-fuse", 12), ("hasite-guard", 30)):
        line = await box.run(f"grep VmRSS /proc/{await box.pid(unit)}/status")
        resident = int(line.split()[1]) / 1024
        print(f"{IMAGES[box.number]} {unit}: {resident:.1f} MiB")
        assert resident < most


async def test_the_fuse_kills_the_servers_whole_unit_when_the_lease_is_over(box: Box) -> None:
    await box.lease("never")
    await box.run("systemctl start hasite-db")
    pid = await box.pid("hasite-db")
    await box.lease(0.5)
    await until(lambda: gone(box), 3)
    assert await box.run(f"test -e /proc/{pid} && echo there", check=False) == ""
    assert await box.run("pgrep -f 'sleep 30[01]'", check=False) == ""


async def test_a_fuse_that_hangs_is_replaced_and_does_its_work(box: Box) -> None:
    await box.lease("never")
    await box.run("systemctl start hasite-db")
    await box.lease(1.0)
    hung = await box.pid("hasite-fuse")
    await box.run(f"kill -STOP {hung}")
    seconds = await until(lambda: gone(box), 12)
    print(f"{IMAGES[box.number]}: a hung fuse cost {seconds:.1f} s")
    assert await box.pid("hasite-fuse") != hung


async def gone(box: Box) -> bool:
    return not await box.active("hasite-db")


async def test_a_guard_that_is_killed_is_started_again_with_its_vote(box: Box) -> None:
    before = await box.pid("hasite-guard")
    await box.run(f"kill -9 {before}")
    await until(lambda: is_ready(box, before), 10)
    assert (await box.status())["vote"]["epoch"] == 0


async def is_ready(box: Box, before: int) -> bool:
    return await box.active("hasite-guard") and await box.pid("hasite-guard") not in (0, before)


async def test_a_reload_reads_the_settings_without_a_restart(box: Box) -> None:
    before = await box.pid("hasite-guard")
    fresh = replace(settings(2), maximum_lag=9.0)
    await box.write(guardfiles.SETTINGS, guardfiles.settings_file(fresh))
    await box.run("systemctl reload hasite-guard")

    async def told() -> bool:
        return "new settings, of membership 2" in await box.run("journalctl -u hasite-guard", check=False)

    await until(told, 5)
    assert await box.pid("hasite-guard") == before
