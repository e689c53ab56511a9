"""What the packages of scenarios share: one world and one event loop each, and what explains a failure."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e.evidence import evidence
from e2e.site import Stage
from e2e.world.world import World

standing: list[Stage] = []
"""The stage that stands now, for the reports of failures."""


def prepare(items: Sequence[pytest.Item], folder: Path) -> None:
    """All scenarios of a package share one event loop, in which the world's cloud lives."""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="package"), append=False)
            item.add_marker(pytest.mark.timeout(600))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="makes network namespaces and machines: needs root"))


def explain(report: pytest.TestReport) -> None:
    """Attaches what explains a failure."""
    if report.failed:
        for stage in standing:
            report.sections += evidence(stage)


@asynccontextmanager
async def world_of_its_own(prefix: str) -> AsyncIterator[Stage]:
    """The world, with an operator and no site. Worlds of different prefixes stand side by side."""
    prefix = os.environ.get("HASITE_E2E_PREFIX", prefix)
    directory = Path(f"/run/hasite-e2e-{prefix.strip('-')}")
    made = Stage(World(directory, prefix=prefix, progress=lambda text: print(f"  {text}", flush=True)))
    try:
        await made.start()
        standing.append(made)
        yield made
    finally:
        standing.clear()
        await made.close()
