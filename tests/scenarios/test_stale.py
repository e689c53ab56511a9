"""What the operator believed may have stopped being true: old lists, missed changes, wakes that mean nothing."""

import asyncio
import itertools
from typing import Any

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import Resource

from tests.scenarios.clockwork import monotonic
from tests.scenarios.extent import sample
from tests.scenarios.portrait import difference, portrait
from tests.scenarios.stories import LONG, STORIES, is_gone, is_ready, ready
from tests.scenarios.universe import DOMAIN, NAME, NAMESPACE, Universe, play

ON_ITS_WAY = 0.05
"""Seconds: what was decided on by an answer that had left the API server before."""
KINDS: tuple[type[Resource], ...] = (HASite, LoadBalancerPool)


async def _begin(universe: Universe) -> None:
    universe.start()
    universe.create_site()
    await ready(universe)
    await asyncio.sleep(20.0)
    universe.journal.clear()


def _did(universe: Universe, what: str) -> list[str]:
    return [line for line in universe.journal if f"before {what}" in line]


def _vanish(universe: Universe) -> None:
    """Both objects are gone at once, finalizers or not: somebody took these off by hand."""
    for kind in KINDS:
        universe.kube.objects.pop((kind.KIND, NAMESPACE, NAME), None)


def test_an_old_list_of_objects_that_are_gone_has_nothing_done() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        universe.crash(restart=None)
        universe.kube.freeze()
        _vanish(universe)
        universe.start(stale=True)
        await asyncio.sleep(120.0)
        assert not _did(universe, "")

    play(story)


@pytest.mark.parametrize("occasion", sample(range(6), 6))
def test_an_object_that_was_deleted_and_made_again_under_a_plan_stops_the_plan(occasion: int) -> None:
    """The swap comes right after a status with destructive steps was written: those must not be taken any more."""

    async def story(universe: Universe) -> None:
        await _begin(universe)
        plans = itertools.count()
        swapped_at: list[float] = []

        def swap(number: int) -> None:
            if "after kube write_status" not in universe.effects[number] or swapped_at:
                return
            lines = [line for kind in KINDS for line in _plan(universe, kind)]
            if any(line.startswith(("Destroy", "Delete")) for line in lines) and next(plans) == occasion:
                _vanish(universe)
                universe.create_site()
                swapped_at.append(monotonic())

        universe.on_effect = swap
        universe.delete_site()
        await universe.until(lambda: swapped_at or is_gone(universe), LONG, "a destructive plan")
        if not swapped_at:
            pytest.skip("there are not so many destructive plans")
        await asyncio.sleep(120.0)
        sent = [float(line.split()[0]) for line in universe.journal if "sent cloud DELETE" in line]
        assert not [at for at in sent if at > swapped_at[0] + ON_ITS_WAY]

    play(story)


def _plan(universe: Universe, kind: type[Resource]) -> list[str]:
    raw = universe.kube.raw(kind, NAMESPACE, NAME)
    return list((raw or {}).get("status", {}).get("plan", ()))


def test_a_site_that_was_deleted_and_made_again_unseen_does_not_touch_what_the_first_left() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        left = set(universe.cloud.state.droplets)
        records = universe.names.addresses(DOMAIN)
        universe.crash(restart=None)
        _vanish(universe)
        universe.create_site()
        universe.start()
        await asyncio.sleep(300.0)
        assert not _did(universe, "cloud DELETE")
        assert left <= set(universe.cloud.state.droplets)
        assert universe.names.addresses(DOMAIN) == records
        site = universe.site()
        assert site is not None
        assert "DomainOwnedByOther" in {c.reason for c in site.status.conditions if c.type == "Stalled"}

    play(story)


def test_a_change_and_back_while_the_operator_was_away_changes_nothing() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        universe.crash(restart=None)
        before = portrait(universe)
        universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=3, userData="#!/bin/sh\n# v2\n"))
        universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=1, userData="#!/bin/sh\n# v1\n"))
        universe.start()
        await ready(universe)
        await asyncio.sleep(100.0)
        assert not _did(universe, "cloud")
        assert not _did(universe, "ssh")
        assert not difference(before, portrait(universe))

    play(story)


@pytest.mark.parametrize("after", sample([1.0, 5.0, 14.0, 18.0, 25.0, 40.0], 4, 1))
def test_a_roll_out_that_is_taken_back_half_way_ends_where_it_began(after: float) -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        before = portrait(universe)
        universe.edit_site(lambda spec: spec["app"].update(userData="#!/bin/sh\n# v2\n"))
        await asyncio.sleep(after)
        universe.crash(restart=5.0)
        universe.edit_site(lambda spec: spec["app"].update(userData="#!/bin/sh\n# v1\n"))
        await asyncio.sleep(10.0)
        await ready(universe)
        await asyncio.sleep(100.0)
        assert not universe.witness.breaches
        assert not difference(before, portrait(universe))

    play(story)


@pytest.mark.parametrize("name", sample(["creating", "rolling apps", "deleting"], 3))
def test_wakes_without_a_change_and_out_of_order_change_nothing(name: str) -> None:
    async def story(universe: Universe) -> tuple[dict[str, Any], int]:
        disturbed = bool(universe.seed)
        universe.start()
        if name != "creating":
            universe.create_site()
            await ready(universe)
        waking = asyncio.create_task(_wake_for_ever(universe)) if disturbed else None
        await STORIES[name].act(universe)
        if waking is not None:
            waking.cancel()
        await asyncio.sleep(60.0)
        assert not universe.witness.breaches
        return portrait(universe), universe.witness.born.total()

    assert play(story, seed=1) == play(story, seed=0)


async def _wake_for_ever(universe: Universe) -> None:
    while True:
        await asyncio.sleep(universe.random.uniform(0.0, 0.3))
        for operator in universe.operators:
            name = universe.random.choice([NAME, NAME, NAME, "never-was"])
            kind, urgent = universe.random.choice(KINDS), universe.random.random() < 0.2
            operator.loop.wake(kind, NAMESPACE, name, urgent=urgent, fresh=universe.random.random() < 0.5)


def test_a_pool_that_is_deleted_by_hand_is_made_again_with_its_name_published() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        universe.witness.giving_up = universe.witness.trouble = True
        pool = universe.pool()
        universe.kube.remove(LoadBalancerPool, NAMESPACE, NAME)
        await universe.until(lambda: (p := universe.pool()) and pool and p.uid != pool.uid, LONG, "another pool")
        await universe.until(lambda: is_ready(universe), LONG, "Ready")
        assert not any("not ours" in breach for breach in universe.witness.breaches)
        assert len(universe.names.addresses(DOMAIN)) == 4
        await asyncio.sleep(60.0)
        assert len(universe.cloud.state.droplets) == 4

    play(story)


def test_a_change_that_no_event_tells_of_is_seen_all_the_same() -> None:
    async def story(universe: Universe) -> None:
        await _begin(universe)
        universe.deaf = True
        universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=2))
        await asyncio.sleep(300.0)
        assert is_ready(universe)
        assert len(universe.cloud.state.droplets) == 6

    play(story)
