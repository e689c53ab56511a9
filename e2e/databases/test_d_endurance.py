"""A bad network and a guard that hardly runs are no reason to fail over. For longer: HASITE_E2E_TROUBLED_SECONDS."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e import figures
from e2e.database import GUARD, Databases
from e2e.site import Stage

LOSS = 5.0
"""Percent of packets."""
AWAY, AWAKE = 0.25, 0.05
"""Seconds for which the guard is kept from the processor, and has it, in turn."""
TROUBLED = float(os.environ.get("HASITE_E2E_TROUBLED_SECONDS", "300"))


@pytest_asyncio.fixture(loop_scope="package")
async def database(stage: Stage) -> AsyncIterator[Databases]:
    """A primary and a standby, synchronous."""
    made = Databases(stage, "steady", "postgresql")
    await made.apply(degradedWrites="allow")
    await made.until_ready(300)
    yield made
    await stage.world.restore()
    await made.delete()


@pytest.mark.timeout(TROUBLED + 600)
async def test_packet_loss_and_a_starved_guard_cause_no_needless_failover(database: Databases) -> None:
    stage, primary, epoch = database.stage, await database.primary(), (await database.status())["epoch"]
    async with database.clients(2, seconds=TROUBLED + 300) as history:
        await asyncio.sleep(1)
        await stage.world.network.loss(LOSS)
        async with stage.world.machines.starved(primary.id, GUARD, AWAY, AWAKE):
            await asyncio.sleep(TROUBLED)
        await stage.world.network.restore()
        await database.until_ready(60)
    reigns = {(o.node, o.epoch) for o in history.acknowledged()}
    name = f"postgresql: needless failovers in {TROUBLED:g} s with {LOSS:g} % packet loss and a starved guard"
    figures.note(name, len(reigns) - 1)
    assert not history.violations
    assert reigns == {(primary.name, epoch)}
