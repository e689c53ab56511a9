"""The stories of databases, from what listens to the guards to Events, figures and the record in the status."""

from dataclasses import dataclass, field

import pytest
from hasite.guard.messages import Answer, Beat, Order
from hasite.guard.model import OPERATOR, Member, Vote
from hasite.plan.world import Unknown
from hasite.reconcilers.narrator import Narrator

from tests.plan.database_build import beat, database

A, B = "shop-a", "shop-b"
MEMBERS = (Member(A, "new-york", "192.0.2.1"), Member(B, "amsterdam", "198.51.100.1"))
SILENT = Unknown("its guard is not heard")
DATABASE = database(status={"primary": A, "epoch": 3})
UID = DATABASE.uid
LEADS, FOLLOWS = beat(A, A, 3), beat(B, A, 3, seen={"lag_bytes": 7})


@dataclass
class Scene:
    """``now``: Unix time. ``woken``: how often the database was."""

    now: float = 1_800_000_000.0
    woken: int = 0
    narrator: Narrator = field(init=False)

    def __post_init__(self) -> None:
        self.narrator = Narrator(lambda: self.now, self._wake)
        self.narrator.follow(DATABASE, MEMBERS)

    def _wake(self, namespace: str, name: str) -> None:
        assert (namespace, name) == (DATABASE.namespace, DATABASE.name)
        self.woken += 1

    def hear(self, *beats: Beat, after: float = 0.0) -> None:
        self.now += after
        for each in beats:
            self.narrator.heard(UID, each)

    def fail_over(self) -> None:
        self.hear(LEADS, FOLLOWS)
        self.hear(beat(B, B, 4), after=4.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_figures_are_of_this_moment(scene: Scene) -> None:
    scene.hear(LEADS, FOLLOWS)
    scene.now += 0.5
    figures = scene.narrator.figures(UID)
    assert (figures.primary, figures.epoch, figures.ready, figures.wanted, figures.heard) == (A, 3, 2, 2, 2)
    assert (round(figures.lease_left, 3), figures.synchronous) == (1.5, 1)
    assert [(m.role, m.location, m.lag_bytes) for m in figures.members] == [
        ("primary", "new-york", None),
        ("standby", "amsterdam", 7),
    ]


def test_figures_of_a_silent_member_are_not_those_of_long_ago(scene: Scene) -> None:
    scene.hear(LEADS, FOLLOWS)
    scene.now += 60
    figures = scene.narrator.figures(UID)
    assert (figures.primary, figures.lease_left, figures.ready, figures.heard) == ("", 0.0, 0, 0)
    assert [(m.role, m.lag_seconds) for m in figures.members] == [("unknown", None)] * 2


def test_what_happened_wakes_the_database_and_is_told_once(scene: Scene) -> None:
    scene.fail_over()
    assert scene.woken == 1
    assert [h.reason for h in scene.narrator.tell(UID)] == ["Promoted"]
    assert scene.narrator.tell(UID) == ()


def test_the_record_of_a_failover_is_for_the_status(scene: Scene) -> None:
    assert scene.narrator.last(UID) is None
    scene.fail_over()
    last = scene.narrator.last(UID)
    assert last is not None
    assert last.wire() == {
        "kind": "failover",
        "at": "2027-01-15T08:00:04Z",
        "former": A,
        "primary": B,
        "epoch": 4,
        "took": "3.5s",
    }


def test_a_beat_that_a_look_shows_again_is_as_old_as_when_it_came(scene: Scene) -> None:
    scene.hear(LEADS, FOLLOWS)
    scene.now += 2.5
    scene.narrator.saw(UID, {A: LEADS, B: FOLLOWS})
    scene.now += 1.0
    scene.narrator.saw(UID, {A: SILENT, B: SILENT})
    assert [h.reason for h in scene.narrator.tell(UID)] == ["PrimaryLost"]


def test_silence_is_noticed_by_a_look(scene: Scene) -> None:
    scene.hear(LEADS, FOLLOWS)
    scene.now += 5
    scene.narrator.saw(UID, {A: SILENT, B: SILENT})
    (happening,) = scene.narrator.tell(UID)
    assert happening.reason == "PrimaryLost"


def test_an_order_makes_a_change_of_the_primary_a_switchover(scene: Scene) -> None:
    scene.hear(LEADS, FOLLOWS)
    scene.narrator.ordered(UID, Order(OPERATOR, "switchover", B, 3))
    scene.hear(beat(B, B, 4), after=1.0)
    assert [h.reason for h in scene.narrator.tell(UID)] == ["SwitchoverDone"]
    figures = scene.narrator.figures(UID)
    assert (figures.failovers, figures.switchovers) == (0, 1)


def test_votes_are_counted_and_one_that_is_given_again_is_the_same(scene: Scene) -> None:
    def answer(epoch: int, granted: bool, trial: bool = False) -> None:
        scene.narrator.answered(UID, B, Answer(OPERATOR, epoch, trial, granted, Vote()))

    for epoch, granted, trial in [
        (4, False, True),
        (4, False, True),
        (4, True, True),
        (4, True, False),
        (4, True, False),
    ]:
        answer(epoch, granted, trial)
    assert scene.narrator.figures(UID).votes == {
        ("trial", "refused"): 1,
        ("trial", "granted"): 1,
        ("vote", "granted"): 1,
    }


def test_a_database_that_is_gone_is_forgotten(scene: Scene) -> None:
    scene.fail_over()
    scene.narrator.forget(UID)
    scene.hear(LEADS)
    assert (scene.narrator.tell(UID), scene.narrator.last(UID), scene.narrator.figures(UID).members) == ((), None, ())
