"""Two operators that both believe they lead: no machine is made twice, and the end is the same.

Every call of each takes a time of its own, drawn from the seed, so that each seed interleaves them in another way.
"""

import asyncio
from typing import Any

import pytest

from tests.scenarios.crashes import matrix
from tests.scenarios.extent import FULL, sample
from tests.scenarios.portrait import difference, portrait
from tests.scenarios.stories import STORIES, Story, ready
from tests.scenarios.universe import Universe, play

SEEDS = range(20 if FULL else 1)
TOLD = sample(["creating", "rolling apps", "failing over and back", "scaling down", "deleting"], 4)


def _tell(story: Story, seed: int, operators: int) -> tuple[dict[str, Any], int, list[str], list[str]]:
    async def told(universe: Universe) -> tuple[dict[str, Any], int, list[str], list[str]]:
        for number in range(operators):
            universe.start().life.term = (f"lease {number}", 0)
        if story.prepared:
            universe.create_site()
            await ready(universe)
        universe.journal.clear()
        await story.act(universe)
        await asyncio.sleep(90.0)
        return portrait(universe), universe.witness.born.total(), universe.witness.breaches, universe.journal

    latency = (0.002, 0.02) if operators == 1 else (0.002, 0.4)
    result: tuple[dict[str, Any], int, list[str], list[str]] = play(told, seed=seed, spec=story.spec, latency=latency)
    return result


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.timeout(1800)
def test_an_operator_that_stood_still_for_a_minute_finds_its_plan_too_old(name: str) -> None:
    """At any point, for longer than a claim holds. Another has taken over meanwhile."""
    stride = 1 if FULL else 149
    wrong = matrix(STORIES[name], lambda number: number % stride == 0, deed=lambda universe: universe.freeze(60.0))
    assert not wrong, wrong


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TOLD)
def test_two_operators_at_once_make_nothing_twice_and_reach_the_same_end(name: str, seed: int) -> None:
    reference, born, _, _ = _tell(STORIES[name], seed, 1)
    picture, born_of_two, breaches, journal = _tell(STORIES[name], seed, 2)
    wrong = [*breaches, *difference(reference, picture)]
    if born_of_two != born:
        wrong.append(f"{born_of_two} machines were made, not {born}")
    assert not wrong, "\n".join([*wrong, *journal[-200:]])
