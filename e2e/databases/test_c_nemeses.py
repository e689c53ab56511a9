"""What else befalls database machines; and control runs: without what protects the data, the checker finds damage."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from e2e import figures
from e2e.database import GUARD, Databases
from e2e.databases.test_b_witness import others
from e2e.site import Stage, eventually
from e2e.world.cloud.state import Droplet

FUSE = "hasite-fuse.service"
SERVER = "hasite-db.service"
DATA = "/var/lib/hasite/data"
MAXIMUM_LAG = 2.0
SLOW = 0.3
"""Seconds that each fsync takes longer."""
STEP = 300
"""Seconds by which a clock is stepped."""
LOSS = 5.0
"""Percent of packets."""
TROUBLED = float(os.environ.get("HASITE_E2E_TROUBLED_SECONDS", "300"))
"""Seconds of packet loss with a starved guard."""

FAKETIME = """
[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE=/etc/faketimerc FAKETIME_NO_CACHE=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
"""

RETENTION = {"max_slot_wal_keep_size": "32MB", "wal_keep_size": "16MB"}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def _databases(stage: Stage) -> AsyncIterator[tuple[Databases, Databases]]:
    loose, strict = (Databases(stage, name, "postgresql") for name in ("loose", "strict"))
    await loose.apply(durability="asynchronous", maximumLag=f"{MAXIMUM_LAG:g}s")
    await strict.apply(degradedWrites="allow", parameters=RETENTION)
    yield loose, strict
    await stage.world.restore()
    await asyncio.gather(loose.delete(), strict.delete())


@pytest_asyncio.fixture(loop_scope="package")
async def loose(_databases: tuple[Databases, Databases]) -> Databases:
    """Asynchronous: what was acknowledged may be lost, and a failover is refused past a lag of 2 s."""
    await _databases[0].until_ready(300)
    return _databases[0]


@pytest_asyncio.fixture(loop_scope="package")
async def strict(_databases: tuple[Databases, Databases]) -> Databases:
    """Synchronous."""
    await _databases[1].until_ready(300)
    return _databases[1]


@pytest_asyncio.fixture(loop_scope="package", autouse=True)
async def _mended(stage: Stage) -> AsyncIterator[None]:
    """No scenario inherits what another broke."""
    yield
    if os.environ.get("H13"):  # DEBUG
        for d in stage.world.cloud.state.droplets.values():
            if "strict" in d.name:
                print("=====", d.name, (await stage.world.machines.exec(d.id, ("journalctl", "-u", "hasite-guard", "-u", "hasite-db", "-u", "hasite-fuse", "--no-pager", "-n", "150", "-o", "short-precise")))[1])
                print((await stage.world.machines.exec(d.id, ("sh", "-c", "echo | timeout 2 nc -U /run/hasite/guard.sock || curl -s 127.0.0.1:7432/metrics")))[1])
        print(await stage.kubectl("get", "rdb", "-o", "yaml"))
    await stage.world.restore()


async def configure(stage: Stage, droplet: Droplet, units: tuple[str, ...], name: str, text: str) -> None:
    """Gives units of a machine a setting that its next boot forgets."""
    for unit in units:
        folder = f"/run/systemd/system/{unit}.d"
        await stage.on(droplet, "mkdir", "-p", folder)
        await stage.on(droplet, "tee", f"{folder}/{name}.conf", text=text)
    await stage.on(droplet, "systemctl", "daemon-reload")


async def unguard(stage: Stage, droplet: Droplet) -> None:
    """Guard and fuse are killed, and not started again; the server goes on."""
    await configure(stage, droplet, (GUARD, FUSE), "away", "[Unit]\nConditionPathExists=/nowhere\n")
    await stage.on(droplet, "systemctl", "kill", "--signal=KILL", GUARD, FUSE)


async def guarded_again(stage: Stage, droplet: Droplet) -> None:
    await configure(stage, droplet, (GUARD, FUSE), "away", "")
    await stage.on(droplet, "systemctl", "start", FUSE, GUARD)


async def copy_of(stage: Stage, droplet: Droplet) -> str:
    """Which data folder it has: a fresh copy is another."""
    return (await stage.on(droplet, "stat", "-c", "%i", DATA)).strip()


# -- control runs ----------------------------------------------------------------------------------------------------


async def test_control_without_guard_and_fuse_two_primaries_take_writes_and_the_checker_finds_it(
    loose: Databases,
) -> None:
    stage, before = loose.stage, await loose.primary()
    (other,) = await others(loose, before)
    async with loose.clients() as history:
        await asyncio.sleep(2)
        await unguard(stage, before)
        for place in (other.region, "ops"):  # but not from its clients
            await stage.world.network.cut_between(before.region, place)
        await loose.until_primary(before.name)
        await asyncio.sleep(3)
        await guarded_again(stage, before)
        await stage.world.network.restore()
        await loose.until_ready(180)
    found = {violation.rule for violation in history.violations}
    figures.note("postgresql: control run without guard and fuse, what the checker finds", sorted(found))
    assert {"epoch went back", "lost"} <= found
    assert (await loose.condition("DataSaved"))["status"] == "True"


async def test_control_a_standby_that_lags_is_refused_and_by_order_promoted_and_the_checker_finds_the_loss(
    loose: Databases,
) -> None:
    stage, before, epoch = loose.stage, await loose.primary(), (await loose.status())["epoch"]
    (other,) = await others(loose, before)

    async def refused() -> bool:
        condition = await loose.condition("FailoverRefused")
        return condition.get("status") == "True" and "allowed" in condition["message"]

    async with loose.clients(each=False) as history:
        await asyncio.sleep(2)
        await stage.world.network.cut_between(before.region, other.region)
        await asyncio.sleep(4 * MAXIMUM_LAG)
        await stage.world.drop(stage.location(before))
        await eventually(refused, 30, "the failover is refused for its lag")
        await asyncio.sleep(5)
        assert not await loose.leads(other)
        order = {"location": stage.location(other), "epoch": epoch, "acceptDataLoss": True}
        await loose.patch({"promote": order})
        await loose.until_primary(before.name)
        await asyncio.sleep(2)
        await stage.world.restore()
        await loose.until_ready(180)
    found = {violation.rule for violation in history.violations}
    assert {"lost"} <= found <= {"lost", "diverged"}  # who had read what is lost
    lost = sum(violation.rule == "lost" for violation in history.violations)
    figures.note(f"postgresql: control run, appends lost by an order past {MAXIMUM_LAG:g} s of lag", lost)
    assert (await loose.condition("DataSaved"))["status"] == "True"


# -- nemeses ---------------------------------------------------------------------------------------------------------


async def test_a_slow_disk_slows_writes_and_is_no_reason_to_fail_over(strict: Databases) -> None:
    before, epoch = await strict.primary(), (await strict.status())["epoch"]
    machines = strict.stage.world.machines
    async with strict.clients() as history:
        await asyncio.sleep(2)
        async with machines.slow_disk(before.id, SLOW, SERVER, GUARD):
            began = time.monotonic()
            await asyncio.sleep(15)
            ended = time.monotonic()
        await asyncio.sleep(2)
        await strict.until_ready(60)
    assert not history.violations
    slow = [o for o in history.acknowledged() if began < o.invoked and o.completed < ended]
    assert slow
    assert min(o.completed - o.invoked for o in slow) > SLOW / 2
    assert (await strict.status())["epoch"] == epoch


async def test_a_standby_whose_files_are_damaged_is_copied_afresh_and_nothing_is_lost(strict: Databases) -> None:
    stage, before = strict.stage, await strict.primary()
    (standby,) = await others(strict, before)
    copy = await copy_of(stage, standby)
    damage = (
        f"find {DATA}/base {DATA}/global -type f -size +7k | while read -r file; do "
        'dd if=/dev/urandom of="$file" bs=512 count=16 conv=notrunc status=none; done'
    )

    async def fresh() -> bool:
        return await copy_of(stage, standby) != copy

    async with strict.clients() as history:
        await asyncio.sleep(2)
        await stage.on(standby, "sh", "-c", damage)
        await stage.on(standby, "systemctl", "kill", "--signal=KILL", SERVER)
        _, took = await eventually(fresh, 120, "the standby is copied afresh", 0.5)
        await strict.until_ready(120)
    figures.record("postgresql: a standby's files are damaged, until it has a fresh copy", took, 60)
    assert not history.violations


async def test_a_standby_whose_slot_was_given_up_is_copied_afresh_and_nothing_is_lost(strict: Databases) -> None:
    stage, before, epoch = strict.stage, await strict.primary(), (await strict.status())["epoch"]
    (standby,) = await others(strict, before)
    copy = await copy_of(stage, standby)
    async with strict.clients() as history:
        await asyncio.sleep(2)
        await stage.world.network.cut_between(before.region, standby.region)
        await eventually(lambda: degraded(strict), 30, "it goes on alone")
        for _ in range(8):
            await strict.sql(before, "CREATE TABLE IF NOT EXISTS filler (n int); INSERT INTO filler VALUES (1)")
            await strict.sql(before, "SELECT pg_switch_wal()")
        await strict.sql(before, "CHECKPOINT")
        await stage.world.network.restore()
        await strict.until_ready(180)
        assert await copy_of(stage, standby) != copy
    assert not history.violations
    assert (await strict.status())["epoch"] == epoch


async def degraded(database: Databases) -> bool:
    return (await database.condition("DegradedWrites")).get("status") == "True"


async def wear_faketime(database: Databases, droplet: Droplet) -> None:
    """Guard and server of a machine get their time of day through a library that can shift it: a network namespace
    has no clock of its own. What is monotonic stays, as it does when a clock is stepped."""
    stage = database.stage
    await stage.on(droplet, "apt-get", "-qq", "-y", "install", "faketime")
    await stage.on(droplet, "tee", "/etc/faketimerc", text="+0\n")
    await configure(stage, droplet, (GUARD, SERVER), "faketime", FAKETIME)
    await stage.on(droplet, "systemctl", "restart", GUARD)
    await stage.on(droplet, "systemctl", "kill", "--signal=KILL", SERVER)

    async def serves() -> bool:
        pages = [f"http://127.0.0.1:7432/{page}" for page in ("primary", "replica")]
        return "200" in await stage.on(droplet, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} ", *pages)

    await eventually(serves, 120, f"{droplet.name} serves again")


async def test_a_clock_that_is_stepped_by_five_minutes_changes_nothing(strict: Databases) -> None:
    stage = strict.stage
    for droplet in (await strict.members()).values():
        await wear_faketime(strict, droplet)
        await strict.until_ready(180)
    (primary,) = [each for each in (await strict.members()).values() if await strict.leads(each)]
    seen: list[float] = []
    async with strict.clients() as history:
        await asyncio.sleep(2)
        for shift in (STEP, -STEP, 0):
            await stage.on(primary, "tee", "/etc/faketimerc", text=f"{shift:+d}\n")
            await asyncio.sleep(5)
            told = await strict.sql(primary, "SELECT extract(epoch FROM clock_timestamp())")
            seen.append(float(told) - time.time())
        await strict.until_ready(60)
    assert [round(shift / STEP) for shift in seen] == [1, -1, 0]
    assert not history.violations
    assert len({(o.node, o.epoch) for o in history.acknowledged()}) == 1


async def test_packet_loss_and_a_starved_guard_cause_no_needless_failover(strict: Databases) -> None:
    """For longer: HASITE_E2E_TROUBLED_SECONDS. The guard has the processor for a sixth of the time."""
    stage, primary, epoch = strict.stage, await strict.primary(), (await strict.status())["epoch"]
    async with strict.clients(2) as history:
        await asyncio.sleep(1)
        await stage.world.network.loss(LOSS)
        async with stage.world.machines.starved(primary.id, GUARD, 0.25, 0.05):
            await asyncio.sleep(TROUBLED)
        await stage.world.network.restore()
        await strict.until_ready(60)
    assert not history.violations
    reigns = {(o.node, o.epoch) for o in history.acknowledged()}
    name = f"postgresql: needless failovers in {TROUBLED:g} s with {LOSS:g} % packet loss and a starved guard"
    figures.note(name, len(reigns) - 1)
    assert reigns == {(primary.name, epoch)}
