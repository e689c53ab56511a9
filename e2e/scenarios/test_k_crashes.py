"""The operator is killed at the most telling moments, and another goes on where it was."""

from dataclasses import dataclass, field

import pytest

from e2e import figures
from e2e.site import Stage, eventually, manifest, user_data

SITE = "crash"

MOMENTS: tuple[tuple[str, str, str], ...] = (
    ("before", "POST", "/v2/firewalls"),
    ("after", "POST", "/v2/domains"),
    ("after", "POST", "/v2/droplets"),
    ("before", "POST", "/v2/droplets"),
    ("after", "POST", f"/v2/domains/{SITE}.example.com/records"),
    ("before", "POST", f"/v2/domains/{SITE}.example.com/records"),
)
"""While it is made. Each is met once, in this order."""
CHANGES: tuple[tuple[str, str, str], ...] = (
    ("after", "POST", "/v2/droplets"),
    ("before", "DELETE", "/v2/droplets/"),
    ("after", "DELETE", "/v2/droplets/"),
)
"""While it is scaled and rolled."""
ENDINGS: tuple[tuple[str, str, str], ...] = (
    ("after", "DELETE", f"/v2/domains/{SITE}.example.com"),
    ("before", "DELETE", "/v2/droplets/"),
    ("after", "DELETE", "/v2/droplets/"),
    ("before", "DELETE", "/v2/firewalls/"),
)
"""While it is deleted."""


@dataclass
class Assassin:
    """Kills the operator at each moment in turn, with SIGKILL; the request is answered to nobody."""

    stage: Stage
    left: list[tuple[str, str, str]]
    creates: list[str] = field(default_factory=list)

    def __call__(self, phase: str, method: str, path: str) -> bool | None:
        if phase == "after" and (method, path) == ("POST", "/v2/droplets"):
            self.creates.append(path)
        if not self.left:
            return None
        wanted_phase, wanted_method, wanted_path = self.left[0]
        if (phase, method) != (wanted_phase, wanted_method) or not path.startswith(wanted_path):
            return None
        self.left.pop(0)
        self.stage.crash_operators()
        return False


@pytest.fixture
def assassin(stage: Stage) -> Assassin:
    return Assassin(stage, [])


async def test_an_operator_that_is_killed_again_and_again_buys_nothing_twice(shop: Stage, assassin: Assassin) -> None:
    """Made, scaled up, rolled, deleted: the same end as without a crash, and as many droplets bought."""
    stage = shop
    stage.world.cloud.on_request = assassin
    try:
        assassin.left += MOMENTS
        await stage.apply(manifest(SITE, locations=["new-york"]))
        figures.record(
            f"a site made through {len(MOMENTS)} crashes of the operator", await stage.until_ready(SITE, 300)
        )
        assert not assassin.left
        assert len(assassin.creates) == 2

        assassin.left += CHANGES
        await stage.patch(SITE, {"app": {"replicasPerLocation": 2}})
        await stage.until_ready(SITE, 240)
        await stage.patch(SITE, {"app": {"replicasPerLocation": 1, "userData": user_data("2")}})
        await stage.until_ready(SITE, 300)
        await eventually(lambda: _count(stage, 2), 60, "a load balancer and an app are left")
        assert not assassin.left
        assert len(assassin.creates) == 4

        uids = await stage.uids(SITE)
        assassin.left += ENDINGS
        figures.record(f"a site deleted through {len(ENDINGS)} crashes of the operator", await stage.delete(SITE, 300))
        assert not assassin.left
        assert not [thing for uid in uids for thing in stage.owned_by(uid)]
    finally:
        stage.world.cloud.on_request = None


async def _count(stage: Stage, count: int) -> bool:
    return len(await stage.droplets(SITE)) == count
