"""Machines that misbehave: the condition says it in their words, and the rest goes on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from e2e import figures
from e2e.scenarios.conftest import SHOP
from e2e.site import Stage, eventually, manifest, user_data
from e2e.world.cloud.state import Droplet

DOMAIN = "shop.example.com"
HOST_KEY = "/etc/ssh/hasite_host_ed25519_key"
LIBRARY = "/usr/lib/x86_64-linux-gnu/liblua5.3.so.0"
RESTART_SSH = "systemctl stop ssh; pkill -x sshd; systemctl start ssh"

BROKEN = {
    "apt": user_data() + "packages: [no-such-package]\n",
    "init": "#!/bin/sh\necho the app cannot be installed >&2\nexit 7\n",
    "yaml": "#cloud-config\nruncmd: [unclosed\n",
}


def broken(name: str) -> dict[str, object]:
    site = manifest(name, locations=["new-york"])
    site["spec"]["app"]["userData"] = BROKEN.get(name, user_data())
    return site


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def sites(stage: Stage) -> AsyncIterator[Stage]:
    """Small sites, each with its trouble."""
    stage.world.cloud.faults.never_active("never-app-.*", count=None)
    names = (*BROKEN, "never")
    await stage.apply(*(broken(name) for name in names))
    yield stage
    stage.world.cloud.faults.clear()
    await asyncio.gather(*(stage.delete(name) for name in names))


async def test_user_data_that_is_no_yaml_is_refused_before_anything_is_bought(sites: Stage) -> None:
    await sites.until_condition("yaml", "Stalled", "InvalidUserData", "not valid YAML", "line")
    assert not await sites.droplets("yaml")


async def test_what_apt_says_is_in_the_condition(sites: Stage) -> None:
    await sites.until_condition("apt", "Stalled", "BootstrapFailed", "no-such-package", within=120)


async def test_what_a_failed_script_of_cloud_init_left_is_in_the_condition(sites: Stage) -> None:
    await sites.until_condition("init", "Stalled", "BootstrapFailed", within=120)


async def test_a_droplet_that_never_becomes_active_is_reported(sites: Stage) -> None:
    await sites.until_condition("never", "Stalled", "RolloutStalled", "never-app-", within=180)


async def test_a_load_balancer_with_a_foreign_host_key_is_withdrawn(shop: Stage) -> None:
    (impostor,) = await shop.droplets(SHOP, "lb", "new-york")
    (kept,) = await shop.addresses(SHOP, "amsterdam")
    async with shop.visitors(DOMAIN):
        change = f"cp -p {HOST_KEY} /root/kept && rm {HOST_KEY} && ssh-keygen -q -t ed25519 -N '' -f {HOST_KEY}"
        await shop.on(impostor, "sh", "-c", f"{change}; {RESTART_SSH}")
        await shop.until_condition(SHOP, "Stalled", "HostKeyMismatch", impostor.name)
        await eventually(lambda: shop.watcher.holds(DOMAIN, kept), 20, "its address is gone from DNS")
        await shop.on(impostor, "sh", "-c", f"cp -p /root/kept {HOST_KEY}; {RESTART_SSH}")
        await shop.until_ready(SHOP)


async def test_a_full_disk_is_reported_and_the_other_location_goes_on(shop: Stage) -> None:
    (full,) = await shop.droplets(SHOP, "lb", "new-york")
    async with shop.visitors(DOMAIN):
        await shop.world.machines.fill_disk(full.id)
        await shop.patch(SHOP, {"app": {"healthCheck": {"fall": 3}}})
        await shop.until_condition(SHOP, "Ready", full.name, "space", status="False", within=60)
        (other,) = await shop.droplets(SHOP, "lb", "amsterdam")
        await eventually(lambda: _has(shop, other.id, "fall 3"), 30, "the other one has the new configuration")
        await shop.world.machines.free_disk(full.id)
        await shop.until_ready(SHOP)
        assert await _has(shop, full.id, "fall 3")


@dataclass(frozen=True)
class Cause:
    """Why `haproxy -c` refuses what was rendered: how that comes about and passes, and what HAProxy says to it."""

    comes: str
    goes: str
    words: str


CAUSES = {
    "its account is not there": Cause(
        "sed -i s/^haproxy:/stray:/ /etc/passwd", "sed -i s/^stray:/haproxy:/ /etc/passwd", "cannot find user id for"
    ),
    "a library of its own is missing": Cause(
        f"mv {LIBRARY} /root/", f"mv /root/liblua5.3.so.0 {LIBRARY}", "error while loading shared libraries: liblua"
    ),
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
async def test_a_configuration_that_haproxy_refuses_leaves_the_running_one_and_the_other_location(
    shop: Stage, cause: Cause
) -> None:
    (here,), (there,) = [await shop.droplets(SHOP, "lb", each) for each in ("new-york", "amsterdam")]
    addresses = await shop.addresses(SHOP)
    before, fall = await _running(shop, here), 4 if "fall 3" in await _config(shop, here) else 3
    async with shop.visitors(DOMAIN):
        await shop.on(here, "sh", "-c", cause.comes)
        try:
            await shop.patch(SHOP, {"app": {"healthCheck": {"fall": fall}}})
            await shop.until_condition(SHOP, "Stalled", "ConfigurationRejected", here.name, cause.words)
            await eventually(
                lambda: _has(shop, there.id, f"fall {fall}"), 30, "the other one has the new configuration"
            )
            assert await _running(shop, here) == before
            assert shop.watcher.holds(DOMAIN, *addresses)
        finally:
            await shop.on(here, "sh", "-c", cause.goes)
        figures.record(
            "a configuration that HAProxy refused, its cause gone: until Ready", await shop.until_ready(SHOP)
        )
        assert await _has(shop, here.id, f"fall {fall}")


async def _running(stage: Stage, droplet: Droplet) -> tuple[str, str]:
    """What is on the disk, and which processes serve."""
    return await _config(stage, droplet), await stage.on(droplet, "pgrep", "-x", "haproxy")


async def _config(stage: Stage, droplet: Droplet) -> str:
    return await stage.on(droplet, "cat", "/etc/haproxy/haproxy.cfg")


async def _has(stage: Stage, droplet: int, words: str) -> bool:
    _, config = await stage.world.machines.exec(droplet, ("cat", "/etc/haproxy/haproxy.cfg"))
    return words in config
