"""The simulation in the fast suite: some ten thousand steps, the calm, and every mutation."""

import json

import pytest

from tests.sim.mutations import CAUGHT, MUTATIONS, Mutation, caught, outcome
from tests.sim.scenario import Scenario, Shape

SEEDS = json.loads(CAUGHT.read_text())


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_no_invariant_is_violated(seed: int) -> None:
    world = Scenario(seed).run()
    assert world.steps > 2_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_loss_delay_and_starved_guards_cause_no_failover(seed: int) -> None:
    Scenario(seed, kind="calm", busy=60.0).run()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_follower_that_no_longer_hears_the_primary_disturbs_nobody(seed: int) -> None:
    Scenario(seed, kind="deaf", busy=30.0, shape=Shape("1+1", "synchronous", False, "postgresql", 1)).run()


def test_a_seed_tells_the_same_story_again() -> None:
    assert Scenario(14).run().tale == Scenario(14).run().tale


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_each_broken_rule_is_caught(mutation: Mutation) -> None:
    """By the seed that is written down, or by one of a few more, as any change of the simulation moves them.

    ``python -m tests.sim.mutations`` looks for new ones and writes them down.
    """
    seed = next(seed for seed in (SEEDS[mutation.name], *range(1, 100)) if caught(mutation, seed))
    assert outcome(mutation, seed) == "", "the rule in force must pass the same seed"
