"""One world for all scenarios of databases, beside that of the sites."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import packages
from e2e.site import Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    packages.prepare(items, Path(__file__).parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if Path(__file__).parent in item.path.parents:
        packages.explain(report)
    return report


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def stage() -> AsyncIterator[Stage]:
    """The world, with an operator and no resource."""
    async with packages.world_of_its_own("hsd-") as made:
        yield made
