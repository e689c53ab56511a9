"""Which change of what the guards say gives which Event: a table of scripts, played beat by beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hasite.guard.messages import Beat, Order
from hasite.guard.model import OPERATOR, Member, SyncRecord
from hasite.plan.databasestory import Story, begin, cast, hear, look, order
from hasite.plan.happenings import Happening, clock

from tests.plan.database_build import beat

A, B, C, W = "shop-a", "shop-b", "shop-c", "shop-w"
MEMBERS = {
    A: Member(A, "new-york", "192.0.2.1"),
    B: Member(B, "amsterdam", "198.51.100.1"),
    C: Member(C, "frankfurt", "203.0.113.1"),
    W: Member(W, "oslo", "203.0.113.2", witness=True),
}
START = 86400.0 * 20_000 + 14 * 3600
"""14:00:00Z of a day."""
SAVED = "/var/lib/hasite/saved/3-20261124T140005Z"
CALM = frozenset({A, B})

Said = Beat | None
"""From some second on, every half second; None: silence."""
Script = Mapping[str, Sequence[tuple[float, Said]]]


def leads(name: str, epoch: int, **more: Any) -> Beat:
    return beat(name, name, epoch, **{"sync": SyncRecord(epoch, 1, CALM, 1)} | more)


def follows(name: str, primary: str, epoch: int, **more: Any) -> Beat:
    return beat(name, primary, epoch, **more)


def cut_off(name: str, primary: str, epoch: int, **more: Any) -> Beat:
    seen = {"streaming": False} | more.pop("seen", {})
    return beat(name, primary, epoch, seen=seen, **more)


def stopped(name: str, epoch: int, **more: Any) -> Beat:
    return beat(name, name, epoch, lease_left=0.0, role="stopped", seen={"state": "stopped", "read_only": True}, **more)


def alone(name: str, epoch: int) -> Beat:
    return leads(name, epoch, sync=SyncRecord(epoch, 2, frozenset({name}), 0))


@dataclass
class Played:
    """``news``: each with the second it was told in."""

    story: Story
    news: list[tuple[float, Happening]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [f"{happening.reason}: {happening.text}" for _, happening in self.news]

    @property
    def reasons(self) -> list[str]:
        return [happening.reason for _, happening in self.news]


def play(
    script: Script, until: float, orders: Mapping[float, Order] | None = None, story: Story | None = None
) -> Played:
    """From 14:00:00 on, in tenths of a second. A beat comes at once when what a guard says has changed, and every half
    second, as with the real ones; a look is taken every second."""
    played = Played(cast(story or begin(START, A, 3), [MEMBERS[name] for name in script]))
    last: dict[str, tuple[Said, float]] = {}
    for tenth in range(int(until * 10) + 1):
        second, at = tenth / 10, START + tenth / 10
        for when, given in (orders or {}).items():
            if when == second:
                played.story = order(played.story, given, at)
        for name, lines in script.items():
            said = [each for since, each in lines if since <= second][-1]
            before, spoke = last.get(name, (None, -1.0))
            if said is not None and (said != before or second - spoke >= 0.49):
                last[name] = (said, second)
                _note(played, second, hear(played.story, said, at))
            elif said is None:
                last.pop(name, None)
        if tenth % 10 == 0:
            _note(played, second, look(played.story, at))
    return played


def _note(played: Played, second: float, told: tuple[Story, tuple[Happening, ...]]) -> None:
    played.story = told[0]
    played.news += [(second, happening) for happening in told[1]]


def switch(to: str) -> Order:
    return Order(OPERATOR, "switchover", to, 3)


LATE = cut_off(B, A, 3, refusal="lag of 7.3 s is more than maximumLag, 5 s")
LATER = cut_off(B, A, 3, refusal="lag of 7.9 s is more than maximumLag, 5 s")
TOO_LATE = "FailoverRefused: shop-b does not take over: lag of 7.3 s is more than maximumLag, 5 s"
LOST = (
    "PrimaryLost: shop-a, primary of epoch 3, is lost since 14:00:05.5Z: "
    "so say the operator, which does not hear it; shop-b, whose stream is broken"
)
PROMOTED = "Promoted: shop-b takes writes in place of shop-a since 14:00:09.0Z, in epoch 4: 3.5 s after the loss"
FAILOVER: Script = {
    A: [(0, leads(A, 3)), (5.1, None)],
    B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3)), (9, leads(B, 4))],
}


def returning(*lines: tuple[float, Said]) -> Script:
    """The failover, and then the old primary says so."""
    return {A: [*FAILOVER[A], *lines], B: FAILOVER[B]}


STORIES: dict[str, tuple[Script, list[str]]] = {
    "a calm database has nothing to tell": ({A: [(0, leads(A, 3))], B: [(0, follows(B, A, 3))]}, []),
    "a primary is lost when it is not heard and nobody streams from it": (
        {A: [(0, leads(A, 3)), (5.1, None)], B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3))]},
        [LOST],
    ),
    "a primary that only the operator does not hear is not lost": (
        {A: [(0, leads(A, 3)), (5.1, None)], B: [(0, follows(B, A, 3))]},
        [],
    ),
    "an operator that hears nobody says that it is alone with its word": (
        {A: [(0, leads(A, 3)), (5.1, None)], B: [(0, follows(B, A, 3)), (5.1, None)]},
        [
            "PrimaryLost: shop-a, primary of epoch 3, is lost since 14:00:05.5Z: "
            "so say the operator, which does not hear it"
        ],
    ),
    "a stream that breaks beside a living primary is no loss": (
        {A: [(0, leads(A, 3))], B: [(0, follows(B, A, 3)), (5, cut_off(B, A, 3))]},
        [],
    ),
    "a primary that misses beats and is back within two seconds was not lost": (
        {A: [(0, leads(A, 3)), (5.1, None), (6.9, leads(A, 3))], B: [(0, cut_off(B, A, 3))]},
        [],
    ),
    "a primary whose own guard says that its lease is over is lost since then": (
        {A: [(0, leads(A, 3)), (5, stopped(A, 3))], B: [(0, follows(B, A, 3)), (5.2, cut_off(B, A, 3))]},
        [
            "PrimaryLost: shop-a, primary of epoch 3, is lost since 14:00:05.0Z: "
            "so say shop-a itself; shop-b, whose stream is broken"
        ],
    ),
    "a failover is told with its times, from the first missing beat to the first beat of the new primary": (
        FAILOVER,
        [LOST, PROMOTED],
    ),
    "a failover that is over before anybody could call it a loss is told all the same": (
        {
            A: [(0, leads(A, 3)), (5, stopped(A, 3)), (5.2, None)],
            B: [(0, follows(B, A, 3)), (5.1, cut_off(B, A, 3)), (5.8, leads(B, 4))],
        },
        ["Promoted: shop-b takes writes in place of shop-a since 14:00:05.8Z, in epoch 4: 0.8 s after the loss"],
    ),
    "a primary that comes back in time is told to be back": (
        {
            A: [(0, leads(A, 3)), (5.1, None), (8, leads(A, 3))],
            B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3)), (8.2, follows(B, A, 3))],
        },
        [LOST, "PrimaryBack: shop-a takes writes again since 14:00:08.0Z, in epoch 3, 2.5 s after it was lost"],
    ),
    "a primary that raises its epoch for a new member stays the primary": (
        {A: [(0, leads(A, 3)), (5, leads(A, 5))], B: [(0, follows(B, A, 3)), (5.2, follows(B, A, 5))]},
        [],
    ),
    "an old primary that still speaks of its old epoch is not believed": (
        {
            A: [(0, leads(A, 3)), (5.1, None), (10, leads(A, 3))],
            B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3)), (9, leads(B, 4))],
        },
        [LOST, PROMOTED],
    ),
    "an old primary whose data are still a part of the new one's history just follows": (
        returning((20, cut_off(A, B, 4)), (21, follows(A, B, 4))),
        [LOST, PROMOTED, "Rejoined: shop-a follows in epoch 4, with its own data (followed), after 12.0 s"],
    ),
    "an old primary is rewound, and what it alone had is kept": (
        returning((20, cut_off(A, B, 4)), (24, follows(A, B, 4, saved=(SAVED,)))),
        [
            LOST,
            PROMOTED,
            "Rejoined: shop-a follows in epoch 4, with its data rewound (rewound), after 15.0 s; "
            f"what it alone had is kept on it in {SAVED}",
        ],
    ),
    "an old primary whose data can't be used is copied afresh": (
        returning(
            (20, cut_off(A, B, 4, seen={"state": "failed", "position": None}, saved=(SAVED,))),
            (24, follows(A, B, 4, saved=(SAVED,))),
        ),
        [
            LOST,
            PROMOTED,
            "Rejoined: shop-a follows in epoch 4, with a fresh copy (copied), after 15.0 s; "
            f"what it alone had is kept on it in {SAVED}",
        ],
    ),
    "what was kept at an earlier return is not told again": (
        {
            A: [(0, leads(A, 3, saved=(SAVED,))), (5.1, None), (20, follows(A, B, 4, saved=(SAVED,)))],
            B: FAILOVER[B],
        },
        [LOST, PROMOTED, "Rejoined: shop-a follows in epoch 4, with its own data (followed), after 11.0 s"],
    ),
    "other standbys are told to follow the new primary": (
        {
            **FAILOVER,
            C: [(0, follows(C, A, 3)), (5.3, cut_off(C, A, 3)), (9.4, follows(C, B, 4))],
        },
        [
            f"{LOST}; shop-c, whose stream is broken",
            PROMOTED,
            "Rejoined: shop-c follows in epoch 4, with its own data (followed), after 0.4 s",
        ],
    ),
    "a witness has a say in nothing that is told": (
        {**FAILOVER, W: [(0, beat(W, A, 3, seen={"state": "absent"})), (8, None)]},
        [LOST, PROMOTED],
    ),
    "a standby that was away is told to be there again": (
        {A: [(0, leads(A, 3))], B: [(0, follows(B, A, 3)), (5, cut_off(B, A, 3)), (15, follows(B, A, 3))]},
        ["Rejoined: shop-b follows in epoch 3, with its own data (followed), after 10.0 s"],
    ),
    "a standby whose stream breaks for a moment was not away": (
        {A: [(0, leads(A, 3))], B: [(0, follows(B, A, 3)), (5, cut_off(B, A, 3)), (9, follows(B, A, 3))]},
        [],
    ),
    "writes without a standby are told, and how long that lasted": (
        {A: [(0, leads(A, 3)), (5, alone(A, 3)), (15.5, leads(A, 3))], B: [(0, follows(B, A, 3))]},
        [
            "DegradedWrites: since 14:00:05.0Z acknowledged writes are on shop-a only",
            "DegradedWritesOver: since 14:00:15.5Z acknowledged writes are not on shop-a only any more: "
            "that took 10.5 s",
        ],
    ),
    "asynchronous durability is no degraded one": (
        {A: [(0, leads(A, 3, sync=SyncRecord(3, 1, frozenset(), 0)))], B: [(0, follows(B, A, 3))]},
        [],
    ),
    "a member that is alone by its owner's will is not degraded": ({A: [(0, alone(A, 3))]}, []),
    "a refusal is told when a failover takes longer than it should, once though its figures change": (
        {A: FAILOVER[A], B: [(0, follows(B, A, 3)), (5.3, LATE), (12, LATER)]},
        [LOST, TOO_LATE],
    ),
    "a candidate that waits for the lease to run out refuses nothing": (
        {A: FAILOVER[A], B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3, refusal="too early")), (9, leads(B, 4))]},
        [LOST, PROMOTED],
    ),
}


@pytest.mark.parametrize(("script", "told"), STORIES.values(), ids=STORIES.keys())
def test_a_story(script: Script, told: list[str]) -> None:
    assert play(script, 30).lines == told


HANDED_OVER: Script = {
    A: [(0, leads(A, 3)), (5.2, stopped(A, 3)), (7, follows(A, B, 4))],
    B: [(0, follows(B, A, 3)), (6.1, leads(B, 4))],
}
STARTED = (
    "SwitchoverStarted: shop-a, primary of epoch 3, takes no more writes since 14:00:05.2Z: shop-b is to take over"
)

ORDERED: dict[str, tuple[Script, list[str]]] = {
    "a switchover is told with the pause that it took": (
        HANDED_OVER,
        [
            STARTED,
            "SwitchoverDone: shop-b took over from shop-a at 14:00:06.1Z, in epoch 4: writes waited 0.9 s",
            "Rejoined: shop-a follows in epoch 4, with its own data (followed), after 0.9 s",
        ],
    ),
    "a switchover that is refused is told with the reason, and nothing has started": (
        {
            A: [(0, leads(A, 3)), (5.2, leads(A, 3, refusal="shop-b does not follow closely"))],
            B: [(0, cut_off(B, A, 3))],
        },
        ["SwitchoverRefused: shop-a does not hand over to shop-b: shop-b does not follow closely"],
    ),
    "a switchover whose target does not take over is told to have failed": (
        {
            A: [(0, leads(A, 3)), (5.2, stopped(A, 3)), (15.2, leads(A, 5))],
            B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3)), (15.4, follows(B, A, 5))],
        },
        [
            STARTED,
            "SwitchoverFailed: shop-b did not take over: shop-a takes writes again, in epoch 5; they waited 10.0 s",
            "Rejoined: shop-b follows in epoch 5, with its own data (followed), after 10.1 s",
        ],
    ),
}


@pytest.mark.parametrize(("script", "told"), ORDERED.values(), ids=ORDERED.keys())
def test_a_story_with_a_switchover_ordered_after_five_seconds(script: Script, told: list[str]) -> None:
    assert play(script, 25, {5.0: switch(B)}).lines == told


def test_an_order_that_is_given_again_is_told_once() -> None:
    refusing = leads(A, 3, refusal="shop-b does not follow closely")
    script: Script = {A: [(0, leads(A, 3)), (5.2, refusing)], B: [(0, cut_off(B, A, 3))]}
    assert play(script, 30, {5.0: switch(B), 15.0: switch(B), 25.0: switch(B)}).reasons == ["SwitchoverRefused"]


def test_a_primary_that_dies_while_it_hands_over_is_told_to_be_lost_in_the_end() -> None:
    script: Script = {
        A: [(0, leads(A, 3)), (5.2, stopped(A, 3)), (6, None)],
        B: [(0, follows(B, A, 3)), (6, cut_off(B, A, 3))],
    }
    assert play(script, 45, {5.0: switch(B)}).reasons == ["SwitchoverStarted", "PrimaryLost"]


def test_a_promotion_that_a_person_ordered_says_so() -> None:
    script: Script = {A: FAILOVER[A], B: [(0, follows(B, A, 3)), (5.3, cut_off(B, A, 3)), (20.4, leads(B, 4))]}
    played = play(script, 25, {20.0: Order(OPERATOR, "promote", B, 3, True)})
    assert played.lines[-1] == (
        "Promoted: shop-b takes writes in place of shop-a since 14:00:20.4Z, in epoch 4, as ordered: "
        "14.9 s after the loss"
    )


def test_the_first_primary_of_a_new_database_is_no_failover_and_its_first_minutes_alone_are_no_news() -> None:
    script: Script = {A: [(0, alone(A, 1)), (20, leads(A, 1))], B: [(0, cut_off(B, A, 1)), (19, follows(B, A, 1))]}
    played = play(script, 30, story=begin(START, "", 0))
    assert (played.lines, played.story.primary, played.story.failovers) == ([], A, 0)


def test_the_first_copy_of_a_new_member_is_no_return() -> None:
    new = beat(C, A, 3, seen={"state": "absent", "streaming": False, "position": None})
    script: Script = {
        A: [(0, leads(A, 3))],
        B: [(0, follows(B, A, 3))],
        C: [(0, new), (20, follows(C, A, 3)), (25, cut_off(C, A, 3)), (35, follows(C, A, 3))],
    }
    assert [second for second, _ in play(script, 40).news] == [35.0]


def test_after_a_restart_of_the_operator_nothing_is_told_twice() -> None:
    script: Script = {A: [(0, alone(A, 3))], B: [(0, cut_off(B, A, 3))]}
    assert play(script, 30, story=begin(START, A, 3, degraded=True)).lines == []


def test_a_failover_that_an_operator_finds_done_is_told_without_a_time_that_nobody_measured() -> None:
    script: Script = {A: [(0, None)], B: [(0, leads(B, 4))]}
    played = play(script, 1)
    assert played.lines == [
        "Promoted: shop-b takes writes in place of shop-a since 14:00:00.0Z, in epoch 4: when it was lost was not seen"
    ]
    assert (played.story.failovers, played.story.failover_seconds) == (1, None)


def test_a_primary_that_was_gone_when_the_operator_came_is_lost_since_before_that() -> None:
    script: Script = {A: [(0, None)], B: [(0, cut_off(B, A, 3))]}
    (line,) = play(script, 10).lines
    assert "is lost since before this operator looked" in line


def test_a_vacancy_that_a_status_remembers_ends_with_the_same_reign_or_with_a_promotion() -> None:
    vacant = begin(START, "", 3)
    assert play({A: [(0, leads(A, 3))], B: [(0, follows(B, A, 3))]}, 1, story=vacant).reasons == ["PrimaryBack"]
    assert play({A: [(0, leads(A, 4))], B: [(0, follows(B, A, 4))]}, 1, story=vacant).reasons == ["Promoted"]


def test_each_is_told_once_in_a_reign_and_again_after_ten_minutes() -> None:
    there, gone = [leads(A, 3), None], [follows(B, A, 3), cut_off(B, A, 3)]
    times = [0, 5, 20, 25, 700, 705]
    script: Script = {
        A: [(at, there[number % 2]) for number, at in enumerate(times)],
        B: [(at, gone[number % 2]) for number, at in enumerate(times)],
    }
    assert play(script, 720).reasons.count("PrimaryLost") == 2


def test_a_refusal_that_is_worded_anew_each_time_does_not_go_on_for_ever() -> None:
    story = cast(begin(START, A, 3), [MEMBERS[A], MEMBERS[B]])
    told: list[Happening] = []
    for number in range(1000):
        reason = "x" * number
        story, more = hear(story, cut_off(B, A, 3, refusal=reason), START + 10 + number / 10)
        told += more
    assert len(told) <= 100


def test_counts_are_of_failovers_and_switchovers_and_the_last_of_each_is_remembered() -> None:
    failed = play(FAILOVER, 10).story
    assert (failed.failovers, failed.switchovers, round(failed.failover_seconds or 0, 3)) == (1, 0, 3.5)
    assert failed.last is not None
    assert (failed.last.kind, failed.last.former, failed.last.primary, failed.last.epoch) == ("failover", A, B, 4)
    switched = play(HANDED_OVER, 10, {5.0: switch(B)}).story
    assert (switched.failovers, switched.switchovers, switched.failover_seconds) == (0, 1, None)


def test_a_beat_of_a_guard_that_takes_no_part_is_nothing() -> None:
    story = cast(begin(START, A, 3), [MEMBERS[A], MEMBERS[B]])
    assert hear(story, leads(C, 9), START) == (story, ())


def test_a_member_that_leaves_is_forgotten() -> None:
    story = play(FAILOVER, 30).story
    assert A in story.away
    left = cast(story, [MEMBERS[B]])
    assert (A in left.away, A in left.heard) == (False, False)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (START, "14:00:00.0Z"),
        (START + 59.97, "14:01:00.0Z"),
        (START + 36000, "00:00:00.0Z"),
        (START + 3599.9, "14:59:59.9Z"),
    ],
)
def test_a_time_of_day(at: float, text: str) -> None:
    assert clock(at) == text
