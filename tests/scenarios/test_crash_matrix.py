"""Whatever the operator is doing when it is killed, the next one brings it to the same end.

All points with ``HASITE_MATRIX=1`` (of the mishaps every 7th); every 149th of them in the fast suite.
"""

import pytest

from tests.scenarios.crashes import Deed, Ending, Telling, judge, matrix
from tests.scenarios.extent import FULL, sample
from tests.scenarios.stories import STORIES
from tests.scenarios.universe import Universe, play

STRIDE = 1 if FULL else 149


def _annotate(universe: Universe) -> None:
    """Somebody else writes to every object in this instant: the next write of the operator is a conflict."""
    for key, each in universe.kube.objects.items():
        if key[0] in ("HASite", "LoadBalancerPool"):
            universe.kube._touch(each)


def _shown(wrong: dict[int, list[str]]) -> str:
    return "\n".join(f"at {number}: {'; '.join(found)}"[:2000] for number, found in list(wrong.items())[:5])


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.timeout(1800)
def test_an_operator_that_is_killed_at_any_point_is_followed_by_one_that_ends_the_work(name: str) -> None:
    wrong = matrix(STORIES[name], lambda number: number % STRIDE == 3 * len(name) % STRIDE)
    assert not wrong, _shown(wrong)


@pytest.mark.parametrize("name", sample(["creating", "rolling apps", "deleting"], 3))
@pytest.mark.timeout(1800)
def test_a_conflict_at_any_write_changes_nothing_about_the_end(name: str) -> None:
    wrong = matrix(STORIES[name], lambda number: number % STRIDE == 0, deed=_annotate)
    assert not wrong, _shown(wrong)


def _fails(kind: str, method: str, path: str) -> Deed:
    """The next such call fails in that way."""
    return lambda universe: universe.cloud.faults.fail(kind, method=method, path=path)


MISHAPS = {
    "no droplets are listed": _fails("empty-list", "GET", "/v2/droplets"),
    "no firewalls are listed": _fails("empty-list", "GET", "/v2/firewalls"),
    "no domains are listed": _fails("empty-list", "GET", "/v2/domains"),
    "no records are listed": _fails("empty-list", "GET", "/v2/domains/[^/]+/records"),
    "a read fails": _fails("error-before", "GET", ".*"),
    "a creation is done and answered with 500": _fails("error-after", "POST", ".*"),
    "a creation is done and its answer lost": _fails("reset-after", "POST", ".*"),
    "a deletion is done and its answer lost": _fails("reset-after", "DELETE", ".*"),
    "a call is turned away by the rate limit": _fails("rate-limited", "*", ".*"),
}


@pytest.mark.parametrize("mishap", sample(MISHAPS, 9, 5))
@pytest.mark.parametrize("name", sample(["creating", "rolling apps", "deleting"], 3))
@pytest.mark.timeout(1800)
def test_one_mishap_at_any_point_changes_nothing_about_the_end(name: str, mishap: str) -> None:
    stride = 7 if FULL else STRIDE
    wrong = matrix(STORIES[name], lambda number: number % stride == 0, deed=MISHAPS[mishap])
    assert not wrong, _shown(wrong)


def test_the_same_story_is_told_the_same_way_twice() -> None:
    one, other = (play(Telling(STORIES["rolling apps"])) for _ in range(2))
    assert one.journal == other.journal


def test_the_matrix_sees_a_machine_that_is_made_twice() -> None:
    """A claim is written before the request and held for longer than the request may take: without, this happens."""
    story = STORIES["creating at a slow provider"]
    reference: Ending = play(Telling(story))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hasite.plan.droplets.CLAIM_SECONDS", 1.0)
        endings = [play(Telling(story, only=number)) for number in _sent(reference)]
    assert any("lives 2 times" in wrong for ending in endings for wrong in judge(reference, ending))


def _sent(reference: Ending) -> list[int]:
    """The numbers at which the request for a droplet is on its way."""
    lines = [line.split("#", 1)[1] for line in reference.journal if "sent cloud POST /v2/droplets" in line]
    return [int(line.split(" ", 1)[0]) for line in lines[:2]]
