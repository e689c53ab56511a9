"""The operator is killed at the most telling moments, and another goes on where it was."""

import re
from dataclasses import dataclass
from typing import Literal

import pytest

from e2e import figures
from e2e.site import Stage, eventually, manifest, user_data

SITE = "crash"

Moment = tuple[Literal["before", "after"], str, str]
"""Of a call: its method, and a regex that its path matches as a whole."""

RECORDS = rf"/v2/domains/{SITE}\.example\.com/records"
MAKING: tuple[Moment, ...] = (
    ("before", "POST", "/v2/firewalls"),
    ("after", "POST", "/v2/domains"),
    ("before", "POST", "/v2/droplets"),
    ("after", "POST", "/v2/droplets"),
    ("before", "POST", RECORDS),
    ("after", "POST", RECORDS),
)
CHANGING: tuple[Moment, ...] = (
    ("after", "POST", "/v2/droplets"),
    ("before", "DELETE", r"/v2/droplets/\d+"),
    ("after", "DELETE", r"/v2/droplets/\d+"),
)
DELETING: tuple[Moment, ...] = (
    ("after", "DELETE", rf"{RECORDS}/\d+"),
    ("before", "DELETE", r"/v2/droplets/\d+"),
    ("after", "DELETE", r"/v2/droplets/\d+"),
    ("before", "DELETE", "/v2/firewalls/.*"),
)


@dataclass
class Assassin:
    """Kills the operators, with SIGKILL, at each moment that is left once; the request is answered to nobody.

    ``bought`` counts the droplets that were created.
    """

    stage: Stage
    left: list[Moment]
    bought: int = 0

    def __call__(self, phase: str, method: str, path: str) -> bool | None:
        if (phase, method, path) == ("after", "POST", "/v2/droplets"):
            self.bought += 1
        for moment in self.left:
            if (phase, method) == moment[:2] and re.fullmatch(moment[2], path):
                self.left.remove(moment)
                self.stage.crash_operators()
                return False
        return None


@pytest.fixture
def assassin(stage: Stage) -> Assassin:
    return Assassin(stage, [])


async def test_an_operator_that_is_killed_again_and_again_buys_nothing_twice(shop: Stage, assassin: Assassin) -> None:
    """Made, scaled up, rolled, deleted: the same end as without a crash, and as many droplets bought."""
    stage = shop
    stage.world.cloud.on_request = assassin
    try:
        assassin.left += MAKING
        await stage.apply(manifest(SITE, locations=["new-york"]))
        figures.record(f"a site made through {len(MAKING)} crashes of the operator", await stage.until_ready(SITE, 300))
        assert not assassin.left
        assert assassin.bought == 2

        assassin.left += CHANGING
        await stage.patch(SITE, {"app": {"replicasPerLocation": 2}})
        await stage.until_ready(SITE, 240)
        await stage.patch(SITE, {"app": {"replicasPerLocation": 1, "userData": user_data("2")}})
        await stage.until_ready(SITE, 300)
        await eventually(lambda: _count(stage, 2), 60, "a load balancer and an app are left")
        assert not assassin.left
        assert assassin.bought == 4

        uids = await stage.uids(SITE)
        assassin.left += DELETING
        figures.record(f"a site deleted through {len(DELETING)} crashes of the operator", await stage.delete(SITE, 300))
        assert not assassin.left
        assert not [thing for uid in uids for thing in stage.owned_by(uid)]
    finally:
        stage.world.cloud.on_request = None


async def _count(stage: Stage, count: int) -> bool:
    return len(await stage.droplets(SITE)) == count
