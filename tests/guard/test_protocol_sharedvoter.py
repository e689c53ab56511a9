"""The operator as one voter, however many operators there are."""

from dataclasses import replace

from hasite.guard.messages import Answer, Ask, Beat, Message, Release, Renew, Renewed
from hasite.guard.model import Database, Member, Membership, SyncRecord, Timing, Vote
from hasite.guard.sharedvoter import (
    Begun,
    Fetch,
    Fetched,
    Passed,
    SharedOutput,
    SharedVoter,
    Stored,
    Write,
    Written,
    start_shared,
    step_shared,
)
from hasite.guard.state import Received, Send

TIMING = Timing()
PAIR = Membership(1, (Member("a1", "a", "x"), Member("b1", "b", "y")), ("a1", "b1", "operator"))
VOTE = Vote(3, "a1", PAIR)
OWNED = Stored(VOTE, "op", 8)
LATER = 2.0 + TIMING.voter_patience


def speaking(vote: Vote = VOTE) -> SharedVoter:
    """An operator that took the object over at 2.0."""
    voter, _ = step_shared(start_shared("op", TIMING), Begun(), 0.0)
    voter, _ = step_shared(voter, Fetched(Stored(vote, "other", 7)), 1.0)
    return step_shared(voter, Written("done"), 2.0)[0]


def hear(voter: SharedVoter, message: Message, now: float) -> tuple[SharedVoter, tuple[SharedOutput, ...]]:
    return step_shared(voter, Received(message), now)


def said(outputs: tuple[SharedOutput, ...]) -> list[Message]:
    return [o.message for o in outputs if isinstance(o, Send)]


def ask(sender: str = "b1", epoch: int = 4, trial: bool = False) -> Ask:
    return Ask(sender, epoch, trial, PAIR)


def test_it_takes_the_object_over_before_it_says_anything() -> None:
    voter, out = step_shared(start_shared("op", TIMING), Begun(), 0.0)
    assert out == (Fetch(),)
    _, out = step_shared(voter, Fetched(Stored(VOTE, "other", 7)), 1.0)
    assert out == (Write(OWNED),)


def test_a_vouch_rests_on_a_read_begun_after_the_request_came() -> None:
    voter, out = hear(speaking(), Renew("a1", 3, 5), 2.5)
    assert out == (Fetch(),)
    _, out = step_shared(voter, Fetched(OWNED), 2.6)
    assert said(out) == [Renewed("operator", 3, 5)]


def test_a_request_that_comes_during_a_read_waits_for_the_next() -> None:
    voter, _ = hear(speaking(), Renew("a1", 3, 5), 2.5)
    voter, out = hear(voter, Renew("a1", 3, 6), 2.55)
    assert out == ()
    voter, out = step_shared(voter, Fetched(OWNED), 2.6)
    assert said(out) == [Renewed("operator", 3, 5)] and out[-1] == Fetch()
    _, out = step_shared(voter, Fetched(OWNED), 2.7)
    assert said(out) == [Renewed("operator", 3, 6)]


def test_another_owner_silences_it_for_good() -> None:
    voter, _ = hear(speaking(), Renew("a1", 3, 5), 2.5)
    voter, out = step_shared(voter, Fetched(Stored(VOTE, "other", 9)), 2.6)
    assert out == () and voter.phase == "lost"
    assert hear(voter, Renew("a1", 3, 6), 3.0)[1] == ()


def test_after_taking_over_it_waits_before_it_grants() -> None:
    voter, _ = hear(speaking(), ask(), 2.5)
    _, out = step_shared(voter, Fetched(OWNED), 2.6)
    (answer,) = said(out)
    assert isinstance(answer, Answer) and not answer.granted


def test_a_grant_is_written_before_it_is_answered() -> None:
    voter, _ = hear(speaking(), ask(), LATER)
    voter, out = step_shared(voter, Fetched(OWNED), LATER + 0.1)
    assert out == (Write(Stored(Vote(4, "b1", PAIR), "op", 8)),)
    _, out = step_shared(voter, Written("done"), LATER + 0.2)
    (answer,) = said(out)
    assert isinstance(answer, Answer) and answer.granted and answer.vote.epoch == 4


def test_while_a_grant_is_being_written_nobody_is_vouched_for() -> None:
    voter, _ = hear(speaking(), ask(), LATER)
    voter, _ = step_shared(voter, Fetched(OWNED), LATER + 0.1)
    _, out = hear(voter, Renew("a1", 3, 9), LATER + 0.15)
    assert out == ()


def test_a_conflict_is_looked_at_again() -> None:
    voter, _ = hear(speaking(), ask(), LATER)
    voter, _ = step_shared(voter, Fetched(OWNED), LATER + 0.1)
    voter, out = step_shared(voter, Written("conflict"), LATER + 0.2)
    assert out == (Fetch(),)
    _, out = step_shared(voter, Fetched(OWNED), LATER + 0.3)
    assert isinstance(out[0], Write)


def test_after_an_unclear_write_it_takes_over_anew_under_a_higher_term() -> None:
    voter, _ = hear(speaking(), ask(), LATER)
    voter, _ = step_shared(voter, Fetched(OWNED), LATER + 0.1)
    voter, out = step_shared(voter, Written("unclear"), LATER + 1)
    assert said(out) == []
    voter, out = step_shared(voter, Passed(), LATER + 1.5)
    assert out == (Fetch(),)
    granted = Stored(Vote(4, "b1", PAIR), "op", 8)
    voter, out = step_shared(voter, Fetched(granted), LATER + 1.6)
    assert out == (Write(replace(granted, term=9)),)


def test_an_object_that_cannot_be_read_means_silence_and_another_try() -> None:
    voter, _ = hear(speaking(), Renew("a1", 3, 5), 2.5)
    voter, out = step_shared(voter, Fetched(None), 3.5)
    assert out == ()
    assert hear(voter, Renew("a1", 3, 6), 4.0)[1] == (Fetch(),)


def test_a_record_is_written_before_the_vouch_that_says_so() -> None:
    record = SyncRecord(3, 1, frozenset({"a1"}), 0, "a1")
    voter, _ = hear(speaking(), Renew("a1", 3, 5, record), 2.5)
    voter, out = step_shared(voter, Fetched(OWNED), 2.6)
    assert out == (Write(Stored(replace(VOTE, sync=record), "op", 8)),)
    _, out = step_shared(voter, Written("done"), 2.7)
    assert said(out) == [Renewed("operator", 3, 5, record)]


def test_a_trial_is_answered_at_once_and_changes_nothing() -> None:
    voter, out = hear(speaking(), ask(trial=True), LATER)
    (answer,) = said(out)
    assert isinstance(answer, Answer) and answer.trial and answer.granted
    assert voter.ballot.vote == VOTE


def test_a_primary_that_said_so_is_alive() -> None:
    beat = Beat("a1", 3, "a1", 2.0, "primary", Database("primary"))
    voter, _ = hear(speaking(), beat, LATER - 0.5)
    _, out = hear(voter, ask(trial=True), LATER)
    (answer,) = said(out)
    assert isinstance(answer, Answer) and not answer.granted and answer.reason.startswith("a1 reigns")


def test_a_holder_that_gives_up_is_not_waited_for() -> None:
    voter, _ = hear(speaking(), Release("a1", 3), 2.1)
    voter, _ = hear(voter, ask(), 2.2)
    _, out = step_shared(voter, Fetched(OWNED), 2.3)
    assert isinstance(out[0], Write)
