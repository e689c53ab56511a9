"""One world for all scenarios, and what holds after each of their modules."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import packages
from e2e.site import WITHDRAWN, Stage, manifest

SHOP = "shop"


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
    """The world, with an operator and no site."""
    async with packages.world_of_its_own("hse-") as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _shop(stage: Stage) -> Stage:
    await stage.apply(manifest(SHOP, apps=2))
    return stage


@pytest_asyncio.fixture(loop_scope="package")
async def shop(_shop: Stage) -> Stage:
    """A stage whose site `shop` is Ready: two locations, a load balancer and two apps at each."""
    await _shop.until_ready(SHOP, 240)
    return _shop


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def abandoned(stage: Stage) -> tuple[float, list[str]]:
    """A site `abandoned` that was deleted after its token was withdrawn: since when, and its UIDs.

    The operator tries for five minutes; other scenarios run meanwhile.
    """
    await stage.secret("withdrawn", WITHDRAWN)
    await stage.apply(manifest("abandoned", locations=["amsterdam"], secret="withdrawn"))
    await stage.until_ready("abandoned")
    uids = await stage.uids("abandoned")
    stage.world.cloud.faults.revoke(WITHDRAWN)
    await stage.kubectl("delete", "hasites", "abandoned", "--wait=false")
    return time.monotonic(), uids


@pytest.fixture(autouse=True)
def no_name_ever_leads_astray(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the watch saw during a scenario fails it."""
    yield
    for stage in packages.standing:
        problems, stage.watcher.problems = stage.watcher.problems, []
        assert not problems, "\n".join(problems)


@pytest_asyncio.fixture(scope="module", loop_scope="package", autouse=True)
async def nothing_is_left_over() -> AsyncIterator[None]:
    """After each module: nothing at the provider without an owner, and none of the calls that are never made."""
    yield
    for stage in packages.standing:
        assert stage.deployed == {"operator"}, "each module leaves the one operator that it found"
        journal = stage.world.cloud.journal
        assert not [call for call in journal if call.method == "DELETE" and "tag_name" in call.query]
        assert not [v for v in stage.world.cloud.violations if v.kind == "destroy-by-tag"]
        assert not stage.orphans(await stage.live_uids())
        keys = [key.public_key for key in stage.world.cloud.state.keys.values()]
        assert len(keys) == len(set(keys)) <= stage.namespaces, "one SSH key for each namespace of operators"
