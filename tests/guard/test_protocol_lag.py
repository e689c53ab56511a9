"""Asynchronous: how much a candidate may be missing."""

from dataclasses import replace

import pytest
from hasite.guard import protocol
from hasite.guard.messages import Answer, Ask, Renew
from hasite.guard.model import Database, Desired, Member, Membership, Position, Settings, SyncRecord, Vote
from hasite.guard.protocol import Guard, Observed, Received, Send, Tick

PAIR = Membership(1, (Member("a1", "a", "x"), Member("b1", "b", "y")), ("a1", "b1", "operator"))
VOTE = Vote(3, "a1", PAIR, SyncRecord(3, 1, frozenset(), 0, "a1"))
SETTINGS = Settings("shop", "b1", "postgresql", "15", "PrimaryReplica", "asynchronous", False, 5.0, PAIR)
LIVE = Database("standby", Position(3, 100), True, "a1", True, lag_bytes=0, lag_seconds=0.5)
BROKEN = replace(LIVE, streaming=False)
PARTED = 10.0
"""When the stream was live for the last time."""


def candidate(now: float) -> tuple[Guard, Ask]:
    """b1, whose stream was live and which vouched for the last time at ``PARTED``, asks on trial at ``now``."""
    guard = protocol.start(SETTINGS, VOTE, 0.0)
    guard, _ = protocol.step(guard, Received(Renew("a1", 3, 1)), PARTED)
    guard, _ = protocol.step(guard, Observed(LIVE, None), PARTED)
    guard, _ = protocol.step(guard, Observed(BROKEN, Desired("frozen")), PARTED + 0.1)
    guard, out = protocol.step(guard, Tick(), now)
    return guard, next(o.message for o in out if isinstance(o, Send) and isinstance(o.message, Ask))


@pytest.mark.parametrize(
    ("now", "quiet", "refusal"),
    [
        pytest.param(13.5, 3.4, "", id="the primary was lost with the stream"),
        pytest.param(70.0, 60.1, "", id="nobody has vouched since, however long ago that was"),
        pytest.param(17.0, 3.1, "", id="it went on without this member for less than is allowed"),
        pytest.param(40.0, 3.1, "27.4 s behind, 5 s allowed; a1 unheard", id="it went on for longer"),
    ],
)
def test_the_time_for_which_a_primary_was_vouched_for_after_the_stream_broke_counts_as_lag(
    now: float, quiet: float, refusal: str
) -> None:
    guard, trial = candidate(now)
    answer = Answer("operator", trial.epoch, True, True, VOTE, quiet=quiet)
    guard, _ = protocol.step(guard, Received(answer), now)
    guard, _ = protocol.step(guard, Tick(), now + 0.5)
    assert guard.refusal == refusal
    assert (guard.ballot.vote.holder == "b1") is (refusal == "")


def test_a_voter_says_how_long_ago_it_last_vouched() -> None:
    guard = protocol.start(replace(SETTINGS, name="b1"), VOTE, 0.0)
    ask = Ask("a1", 4, True, PAIR)
    _, out = protocol.step(guard, Received(ask), 7.5)
    answer = next(o.message for o in out if isinstance(o, Send) and isinstance(o.message, Answer))
    assert answer.quiet == 7.5
