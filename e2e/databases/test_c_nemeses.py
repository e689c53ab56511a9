"""What else befalls database machines, of PostgreSQL and MariaDB side by side; and control runs: without what protects
the data, the checker finds damage."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest_asyncio

from e2e import figures
from e2e.database import GUARD, Databases, History
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
TROUBLED = float(os.environ.get("HASITE_E2E_TROUBLED_SECONDS", "20"))
"""Seconds of packet loss with a starved guard."""
COPIED = 60.0
REBOOT_PAUSE = 10.0
"""Seconds, at worst, with another world beside this one on the machine."""

FAKETIME = """
[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE=/etc/faketimerc FAKETIME_CACHE_DURATION=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
"""

PARAMETERS = {"postgresql": {"max_slot_wal_keep_size": "32MB", "wal_keep_size": "16MB"}, "mariadb": {}}
TIME = {"postgresql": "SELECT extract(epoch FROM clock_timestamp())", "mariadb": "SELECT UNIX_TIMESTAMP(NOW(6))"}
FILES = {"postgresql": f"{DATA}/base {DATA}/global -size +7k", "mariadb": f"{DATA} -name 'ib*' -size +7k"}
"""What is damaged, for ``find``."""
PROCESSES = "information_schema.PROCESSLIST"

Pairs = Sequence[Databases]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def _pairs(stage: Stage) -> AsyncIterator[Pairs]:
    """One of each engine, with a primary and a standby."""
    made = [Databases(stage, f"pair-{engine}", engine) for engine in PARAMETERS]
    for each in made:
        more = {"degradedWrites": "allow", "maximumLag": f"{MAXIMUM_LAG:g}s", "parameters": PARAMETERS[each.engine]}
        await each.apply(durability="asynchronous", **more)
    yield made
    await stage.world.restore()
    await asyncio.gather(*(each.delete() for each in made))


@pytest_asyncio.fixture(loop_scope="package")
async def loose(_pairs: Pairs) -> Pairs:
    """Asynchronous: what was acknowledged may be lost, and a failover is refused past a lag of 2 s."""
    await asyncio.gather(*(become(each, "asynchronous") for each in _pairs))
    return _pairs


@pytest_asyncio.fixture(loop_scope="package")
async def strict(_pairs: Pairs) -> Pairs:
    """Synchronous."""
    await asyncio.gather(*(become(each, "synchronous") for each in _pairs))
    return _pairs


@pytest_asyncio.fixture(loop_scope="package", autouse=True)
async def _mended(stage: Stage) -> AsyncIterator[None]:
    """No scenario inherits what another broke."""
    yield
    await stage.world.restore()


async def become(database: Databases, durability: str) -> None:
    """Ready by that durability."""
    await database.patch({"durability": durability})
    await protected(database)


async def protected(database: Databases) -> None:
    """Until it is Ready by its latest spec, and no write is on the primary only against its durability."""

    async def holds() -> bool:
        status = await database.status()
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        current = status.get("observedGeneration") == await database.generation()
        return current and (conditions.get("Ready"), conditions.get("DegradedWrites")) == ("True", "False")

    await eventually(holds, 300, f"{database.name} is ready, its writes protected", 0.5)


@contextlib.asynccontextmanager
async def clients_of(pairs: Pairs, **how: Any) -> AsyncIterator[list[History]]:
    """Of all at once."""
    async with contextlib.AsyncExitStack() as stack:
        yield list(await asyncio.gather(*(stack.enter_async_context(each.clients(2, **how)) for each in pairs)))


async def primaries(pairs: Pairs) -> list[Droplet]:
    return list(await asyncio.gather(*(each.primary() for each in pairs)))


async def epochs(pairs: Pairs) -> list[int]:
    return [(await each.status())["epoch"] for each in pairs]


async def standby(database: Databases, primary: Droplet) -> Droplet:
    (other,) = await others(database, primary)
    return other


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
    """Which data folder it has: a fresh copy is another. Empty while it has none."""
    _, inode = await stage.world.machines.exec(droplet.id, ("stat", "-c", "%i", DATA))
    return inode.strip()


async def copied_afresh(stage: Stage, droplet: Droplet, copy: str) -> float:
    """Seconds until it has another copy than that."""

    async def fresh() -> bool:
        return await copy_of(stage, droplet) not in ("", copy)

    return (await eventually(fresh, 120, f"{droplet.name} is copied afresh", 0.5))[1]


async def ready(pairs: Pairs, within: float = 180) -> None:
    await asyncio.gather(*(each.until_ready(within) for each in pairs))


def says(database: Databases, kind: str, word: str = "") -> Callable[[], Awaitable[bool]]:
    """Whether a condition holds, with that word in its message."""

    async def holds() -> bool:
        condition = await database.condition(kind)
        return condition.get("status") == "True" and word in condition["message"]

    return holds


# -- control runs ----------------------------------------------------------------------------------------------------


async def test_control_a_standby_that_lags_is_refused_and_by_order_promoted_and_the_checker_finds_the_loss(
    loose: Pairs,
) -> None:
    stage, before, reigns = loose[0].stage, await primaries(loose), await epochs(loose)
    here = stage.location(before[0])
    assert {stage.location(each) for each in before} == {here}
    heirs = [await standby(database, primary) for database, primary in zip(loose, before, strict=True)]

    async with clients_of(loose, each=False) as histories:
        await asyncio.sleep(2)
        await stage.world.network.cut_between(before[0].region, heirs[0].region)
        await asyncio.sleep(4 * MAXIMUM_LAG)
        await stage.world.drop(here)
        await asyncio.gather(
            *(eventually(says(each, "FailoverRefused", "allowed"), 30, "refused for its lag") for each in loose)
        )
        await asyncio.sleep(3)
        for database, heir, epoch in zip(loose, heirs, reigns, strict=True):
            assert not await database.leads(heir)
            order = {"location": stage.location(heir), "epoch": epoch, "acceptDataLoss": True}
            await database.patch({"promote": order})
        await asyncio.gather(*(d.until_primary(p.name) for d, p in zip(loose, before, strict=True)))
        await asyncio.sleep(2)
        await stage.world.restore()
        await ready(loose)
    for database, history in zip(loose, histories, strict=True):
        found = [violation.rule for violation in history.violations]
        assert {"lost"} <= set(found) <= {"lost", "diverged"}, found  # who had read what is lost
        name = f"{database.engine}: control run, appends lost by an order past {MAXIMUM_LAG:g} s of lag"
        figures.note(name, found.count("lost"))
        assert (await database.condition("DataSaved"))["status"] == "True"


async def test_control_without_guard_and_fuse_two_primaries_take_writes_and_the_checker_finds_it(loose: Pairs) -> None:
    stage, before = loose[0].stage, await primaries(loose)
    heirs = [await standby(database, primary) for database, primary in zip(loose, before, strict=True)]
    assert len({each.region for each in before}) == 1
    async with clients_of(loose) as histories:
        await asyncio.sleep(2)
        await asyncio.gather(*(unguard(stage, each) for each in before))
        for place in (heirs[0].region, "ops"):  # but not from its clients
            await stage.world.network.cut_between(before[0].region, place)
        await asyncio.gather(*(d.until_primary(p.name) for d, p in zip(loose, before, strict=True)))
        await asyncio.sleep(3)
        await asyncio.gather(*(guarded_again(stage, each) for each in before))
        await stage.world.network.restore()
        await ready(loose)
    for database, history in zip(loose, histories, strict=True):
        found = {violation.rule for violation in history.violations}
        figures.note(f"{database.engine}: control run without guard and fuse, what the checker finds", sorted(found))
        assert {"epoch went back", "lost"} <= found
        assert (await database.condition("DataSaved"))["status"] == "True"


# -- nemeses ---------------------------------------------------------------------------------------------------------


async def test_a_slow_disk_slows_writes_and_is_no_reason_to_fail_over(strict: Pairs) -> None:
    before, reigns, machines = await primaries(strict), await epochs(strict), strict[0].stage.world.machines
    async with clients_of(strict) as histories:
        await asyncio.sleep(1)
        async with contextlib.AsyncExitStack() as stack:
            for each in before:
                await stack.enter_async_context(machines.slow_disk(each.id, SLOW, SERVER, GUARD))
            began = time.monotonic()
            await asyncio.sleep(8)
            ended = time.monotonic()
        await ready(strict, 60)
    for history in histories:
        assert not history.violations
        slow = [o for o in history.acknowledged() if began < o.invoked and o.completed < ended]
        assert slow
        assert min(o.completed - o.invoked for o in slow) > SLOW / 2
    assert await epochs(strict) == reigns


async def test_a_standby_whose_files_are_damaged_is_copied_afresh_and_nothing_is_lost(strict: Pairs) -> None:
    stage, before = strict[0].stage, await primaries(strict)

    async def harm(database: Databases, primary: Droplet) -> None:
        damaged = await standby(database, primary)
        copy = await copy_of(stage, damaged)
        damage = (
            f"find {FILES[database.engine]} -type f | while read -r file; do "
            'dd if=/dev/urandom of="$file" bs=512 count=16 conv=notrunc status=none; done'
        )
        await stage.on(damaged, "sh", "-c", damage)
        await stage.on(damaged, "systemctl", "kill", "--signal=KILL", SERVER)

        took = await copied_afresh(stage, damaged, copy)
        await database.until_ready(120)
        name = f"{database.engine}: a standby's files are damaged, until it has a fresh copy"
        figures.record(name, took, COPIED)

    async with clients_of(strict) as histories:
        await asyncio.sleep(1)
        await asyncio.gather(*(harm(*each) for each in zip(strict, before, strict=True)))
    assert not [history.violations for history in histories if history.violations]


async def forget(database: Databases, primary: Droplet) -> None:
    """The primary no longer has the log that a standby which was cut off needs: PostgreSQL gives its slot up, MariaDB's
    binary logs are purged by a person."""
    if database.engine == "postgresql":
        for _ in range(8):
            await database.sql(primary, "CREATE TABLE IF NOT EXISTS filler (n int); INSERT INTO filler VALUES (1)")
            await database.sql(primary, "SELECT pg_switch_wal()")
        await database.sql(primary, "CHECKPOINT")
        return

    async def purged() -> bool:
        """Not while the old connection of the standby counts as one that reads them."""
        readers = await database.sql(primary, f"SELECT ID FROM {PROCESSES} WHERE COMMAND LIKE 'Binlog Dump%'")
        for reader in readers.split():
            await database.sql(primary, f"KILL {reader}")
        newest = (await database.sql(primary, "FLUSH BINARY LOGS; SHOW BINARY LOGS")).split()[-2]
        await database.sql(primary, f"PURGE BINARY LOGS TO '{newest}'")
        return len((await database.sql(primary, "SHOW BINARY LOGS")).splitlines()) == 1

    await eventually(purged, 30, "the binary logs are purged", 0.5)


async def test_a_standby_that_needs_log_which_the_primary_no_longer_has_is_copied_afresh(strict: Pairs) -> None:
    stage, before, reigns = strict[0].stage, await primaries(strict), await epochs(strict)
    behind = [await standby(database, primary) for database, primary in zip(strict, before, strict=True)]
    copies = [await copy_of(stage, each) for each in behind]

    async with clients_of(strict) as histories:
        await asyncio.sleep(1)
        await stage.world.network.cut_between(before[0].region, behind[0].region)
        await asyncio.gather(*(eventually(says(each, "DegradedWrites"), 30, "it goes on alone") for each in strict))
        await asyncio.sleep(1)
        await asyncio.gather(*(forget(*each) for each in zip(strict, before, strict=True)))
        await stage.world.network.restore()
        await asyncio.gather(*(copied_afresh(stage, *each) for each in zip(behind, copies, strict=True)))
        await asyncio.gather(*(protected(each) for each in strict))
    assert not [history.violations for history in histories if history.violations]
    assert await epochs(strict) == reigns


async def test_packet_loss_and_a_starved_guard_cause_no_needless_failover(strict: Pairs) -> None:
    """For longer: HASITE_E2E_TROUBLED_SECONDS. The guard has the processor for a sixth of the time."""
    stage, before, reigns = strict[0].stage, await primaries(strict), await epochs(strict)
    async with clients_of(strict) as histories:
        await asyncio.sleep(1)
        await stage.world.network.loss(LOSS)
        async with contextlib.AsyncExitStack() as stack:
            for each in before:
                await stack.enter_async_context(stage.world.machines.starved(each.id, GUARD, 0.25, 0.05))
            await asyncio.sleep(TROUBLED)
        await stage.world.network.restore()
        await ready(strict, 60)
    for database, primary, epoch, history in zip(strict, before, reigns, histories, strict=True):
        assert not history.violations
        reigned = {(o.node, o.epoch) for o in history.acknowledged()}
        name = (
            f"{database.engine}: needless failovers in {TROUBLED:g} s with {LOSS:g} % packet loss and a starved guard"
        )
        figures.note(name, len(reigned) - 1)
        assert reigned == {(primary.name, epoch)}


async def wear_faketime(stage: Stage, droplet: Droplet) -> None:
    """The server of a machine gets its time of day through a library that can shift it, as a machine here has no clock
    of its own. What is monotonic stays, as it does when a clock is stepped; the guard knows no other time."""
    await stage.on(droplet, "apt-get", "-qq", "-y", "install", "faketime")
    await stage.on(droplet, "tee", "/etc/faketimerc", text="+0\n")
    await configure(stage, droplet, (SERVER,), "faketime", FAKETIME)
    await stage.on(droplet, "systemctl", "kill", "--signal=KILL", SERVER)


async def test_clocks_that_are_stepped_by_five_minutes_change_nothing(strict: Pairs) -> None:
    """The primary's one way, the standby's the other way."""
    stage = strict[0].stage
    members = [droplet for each in strict for droplet in (await each.members()).values()]
    await asyncio.gather(*(wear_faketime(stage, each) for each in members))
    await asyncio.sleep(3)  # until everybody has noticed
    await ready(strict)
    before = await primaries(strict)
    seen: dict[tuple[str, bool], list[int]] = {}
    async with clients_of(strict) as histories:
        await asyncio.sleep(1)
        for shift in (STEP, -STEP, 0):
            for database, primary in zip(strict, before, strict=True):
                for droplet in (await database.members()).values():
                    own = shift if droplet.id == primary.id else -shift
                    await stage.on(droplet, "tee", "/etc/faketimerc", text=f"{own:+d}\n")
            await asyncio.sleep(4)
            for database, primary in zip(strict, before, strict=True):
                for droplet in (await database.members()).values():
                    told = float(await database.sql(droplet, TIME[database.engine])) - time.time()
                    seen.setdefault((database.engine, droplet.id == primary.id), []).append(round(told / STEP))
        await ready(strict, 60)
    ways = {True: [1, -1, 0], False: [-1, 1, 0]}
    assert seen == {(each.engine, leads): ways[leads] for each in strict for leads in ways}
    for history in histories:
        assert not history.violations
        assert len({(o.node, o.epoch) for o in history.acknowledged()}) == 1


async def test_a_primarys_machine_that_is_rebooted_hands_over_first(strict: Pairs) -> None:
    stage, before = strict[0].stage, await primaries(strict)
    async with clients_of(strict, each=False) as histories:
        await asyncio.sleep(2)
        for each in before:
            await stage.world.machines.exec(each.id, ("systemctl", "reboot"))
        await asyncio.gather(*(d.until_primary(p.name) for d, p in zip(strict, before, strict=True)))
        await asyncio.sleep(2)
        await ready(strict)
    for database, primary, history in zip(strict, before, histories, strict=True):
        assert not history.violations
        writes = history.acknowledged()
        pause = min(o.completed for o in writes if o.node != primary.name) - max(
            o.completed for o in writes if o.node == primary.name
        )
        name = f"{database.engine}: the primary's machine is rebooted, pause of writes"
        figures.record(name, pause, REBOOT_PAUSE)
