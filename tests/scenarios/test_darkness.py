"""Locations that go dark, and an operator that sees less than there is: what stays published."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.scenarios.extent import sample
from tests.scenarios.stories import ready
from tests.scenarios.universe import DOMAIN, Universe, play


@dataclass(frozen=True)
class Row:
    """``left``: regions that DNS still leads to. ``blind``: the operator says that it sees nothing."""

    darkness: Callable[[Universe], object]
    left: frozenset[str]
    blind: bool = False


def _darken(universe: Universe, region: str, hidden: str) -> None:
    universe.ground.dark.add(region)
    universe.ground.operator_is_cut_off_from.add(hidden)


def _part(universe: Universe) -> None:
    ground = universe.ground
    for one, here in ground.region_of.items():
        ground.cut |= {(one, other) for other, there in ground.region_of.items() if here != there}


BOTH = frozenset({"nyc3", "ams3"})
ROWS = {
    "one location is dark": Row(lambda u: u.ground.dark.add("nyc3"), frozenset({"ams3"})),
    "every location is dark": Row(lambda u: u.ground.dark.update(BOTH), BOTH, blind=True),
    "the operator is cut off from one location": Row(lambda u: u.ground.operator_is_cut_off_from.add("nyc3"), BOTH),
    "the operator is cut off from all": Row(lambda u: u.ground.operator_is_cut_off_from.update(BOTH), BOTH, blind=True),
    "one is dark, and the operator is cut off from the other": Row(
        lambda u: _darken(u, "nyc3", "ams3"), BOTH, blind=True
    ),
    "the locations do not reach each other": Row(_part, BOTH),
    "every app is sick": Row(lambda u: u.ground.healthy.clear(), BOTH),
    "the apps of one location are sick": Row(lambda u: _sicken(u, "nyc3"), BOTH),
    "the load balancer of one location is switched off": Row(lambda u: _stop(u, "nyc3"), frozenset({"ams3"})),
}


def _sicken(universe: Universe, region: str) -> None:
    universe.ground.healthy -= {a for a, where in universe.ground.region_of.items() if where == region}


def _stop(universe: Universe, region: str) -> None:
    """Its proxy ends, and cannot be started again."""
    for spec in universe.ground.specs.values():
        if spec.region == region and "-lb-" in spec.name:
            machine = universe.ground.machines[spec.public_ipv4]
            machine.active, machine.refuses = False, "no"


def _regions(universe: Universe) -> frozenset[str]:
    return frozenset(universe.ground.region_of[a] for a in universe.names.addresses(DOMAIN))


@pytest.mark.parametrize("name", sample(ROWS, 3))
def test_what_stays_published_when(name: str) -> None:
    row = ROWS[name]

    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        await asyncio.sleep(20.0)
        universe.witness.trouble = True
        row.darkness(universe)
        seen = []
        for _ in range(60):
            await asyncio.sleep(1.0)
            seen.append(_regions(universe))
        assert seen[-1] == row.left
        assert all(regions >= row.left for regions in seen)
        pool = universe.pool()
        assert pool is not None
        assert ("Blind", "True" if row.blind else "False") in {(c.type, c.status) for c in pool.status.conditions}
        assert not universe.witness.breaches

    play(story)


def test_a_location_that_flaps_stays_out_longer_and_longer() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        universe.witness.trouble = True
        away = []
        for _ in range(4):
            universe.ground.dark.add("nyc3")
            await universe.until(lambda: _regions(universe) == {"ams3"}, 30.0, "withdrawal")
            universe.ground.dark.clear()
            since = asyncio.get_running_loop().time()
            await universe.until(lambda: _regions(universe) == BOTH, 300.0, "publication")
            away.append(asyncio.get_running_loop().time() - since)
        assert away[-1] > 3 * away[0]

    play(story)
