"""What a voter grants, denies and vouches for."""

from dataclasses import replace
from math import inf

import pytest
from hasite.guard.ballot import Ballot, grant, has_waited, objection, release, standing, trial_objection, vouch
from hasite.guard.messages import Ask, Release, Renew, Renewed, Superseded
from hasite.guard.model import Member, Membership, SyncRecord, Timing, Vote

TIMING = Timing()
OLD = Membership(1, (Member("a1", "a", "10.0.0.1"), Member("b1", "b", "10.0.0.2")), ("a1", "b1", "operator"))
NEW = replace(OLD, version=2)
VOTE = Vote(5, "a1", OLD, SyncRecord(5, 1, frozenset({"a1", "b1"}), 1, "a1"))
FRESH = Ballot(VOTE, quiet_from=100.0)
LATE = 100.0 + TIMING.voter_patience


def ask(sender: str = "b1", epoch: int = 6, membership: Membership = OLD, previous: Membership | None = None) -> Ask:
    return Ask(sender, epoch, False, membership, previous)


GRANTS: dict[str, tuple[Ballot, Ask, float, bool]] = {
    "another candidate waits until the patience is over": (FRESH, ask(), 101.0, False),
    "not a moment sooner": (FRESH, ask(), LATE - 0.001, False),
    "another candidate is granted after the patience": (FRESH, ask(), LATE, True),
    "the holder itself need not wait": (FRESH, ask("a1"), 101.0, True),
    "nobody waits for a holder that gave up": (replace(FRESH, released=5), ask(), 101.0, True),
    "giving up an older epoch frees nothing": (replace(FRESH, released=4), ask(), 101.0, False),
    "who never voted never vouched": (Ballot(Vote(), 100.0), ask(epoch=1), 100.0, True),
    "an epoch is granted once": (FRESH, ask(epoch=5), LATE, False),
    "an older epoch is never granted": (FRESH, ask(epoch=4), LATE, False),
    "the same candidate is told again": (FRESH, ask("a1", epoch=5), 101.0, True),
    "an outdated membership is refused": (replace(FRESH, vote=replace(VOTE, membership=NEW)), ask(), LATE, False),
    "a change under way must be known": (
        replace(FRESH, vote=replace(VOTE, membership=NEW, previous=OLD)),
        ask(membership=OLD),
        LATE,
        False,
    ),
    "the settled form supersedes the one under way": (
        replace(FRESH, vote=replace(VOTE, membership=NEW, previous=OLD)),
        ask(membership=NEW),
        LATE,
        True,
    ),
    "the form under way does not supersede the settled one": (
        replace(FRESH, vote=replace(VOTE, membership=NEW)),
        ask(membership=NEW, previous=OLD),
        LATE,
        False,
    ),
}


@pytest.mark.parametrize("case", GRANTS)
def test_grants(case: str) -> None:
    ballot, request, now, granted = GRANTS[case]
    assert (objection(ballot, request, TIMING, now) == "") is granted


TRIALS: dict[str, tuple[Ballot, str, float, bool]] = {
    "nobody objects once the patience is over": (FRESH, "", LATE, True),
    "whoever sees the primary live objects": (FRESH, "a1 said so", LATE, False),
    "not after the holder gave up": (replace(FRESH, released=5), "a1 said so", 101.0, True),
    "who was granted an epoch just now is given time": (replace(FRESH, granted_at=LATE - 0.5), "", LATE, False),
    "not for ever": (replace(FRESH, granted_at=LATE - 1.5), "", LATE, True),
}


@pytest.mark.parametrize("case", TRIALS)
def test_trials(case: str) -> None:
    ballot, alive, now, granted = TRIALS[case]
    assert (trial_objection(ballot, ask(), TIMING, now, alive) == "") is granted


VOUCHES: dict[str, tuple[Ballot, Renew, type | None]] = {
    "the holder of the vote": (FRESH, Renew("a1", 5, 7), Renewed),
    "the holder that has not reached its raised epoch yet": (
        replace(FRESH, vote=replace(VOTE, epoch=6)),
        Renew("a1", 5, 7),
        Renewed,
    ),
    "an old holder hears who followed": (
        replace(FRESH, vote=replace(VOTE, epoch=6, holder="b1")),
        Renew("a1", 5, 7),
        Superseded,
    ),
    "a holder that was not granted the epoch here asks first": (FRESH, Renew("b1", 6, 7), None),
    "nor the same holder in a higher epoch": (FRESH, Renew("a1", 6, 7), None),
    "one that gave up is not vouched for again": (replace(FRESH, released=5), Renew("a1", 5, 7), None),
}


@pytest.mark.parametrize("case", VOUCHES)
def test_vouches(case: str) -> None:
    ballot, request, kind = VOUCHES[case]
    after, answer = vouch(ballot, "b1", request, 200.0)
    assert (None if answer is None else type(answer)) is kind
    assert after.quiet_from == (200.0 if kind is Renewed else 100.0)


def test_a_vouch_restarts_the_patience() -> None:
    after, _ = vouch(FRESH, "b1", Renew("a1", 5, 7), 102.0)
    assert not has_waited(after, TIMING, LATE)
    assert has_waited(after, TIMING, 102.0 + TIMING.voter_patience)


def test_a_newer_record_comes_with_a_request_and_changes_the_vote() -> None:
    newer = SyncRecord(5, 2, frozenset({"a1"}), 0, "a1")
    after, answer = vouch(FRESH, "b1", Renew("a1", 5, 7, newer), 102.0)
    assert after.vote.sync == newer
    assert isinstance(answer, Renewed) and answer.sync == newer


def test_an_older_record_changes_nothing() -> None:
    after, answer = vouch(FRESH, "b1", Renew("a1", 5, 7, SyncRecord(5, 0, frozenset({"a1"}), 0, "a1")), 102.0)
    assert after.vote is FRESH.vote
    assert isinstance(answer, Renewed) and answer.sync == VOTE.sync


def test_a_grant_keeps_the_record_and_takes_the_membership() -> None:
    after = grant(FRESH, ask(membership=NEW, previous=OLD), LATE)
    assert after.vote == Vote(6, "b1", NEW, VOTE.sync, OLD)


def test_only_the_holder_gives_its_epoch_up() -> None:
    assert not release(FRESH, Release("b1", 5)).given_up
    assert not release(FRESH, Release("a1", 4)).given_up
    assert release(FRESH, Release("a1", 5)).given_up


def test_memberships_are_ordered_by_version_and_then_settled_ones_are_newer() -> None:
    assert standing(None, None) < standing(OLD, None) < standing(NEW, OLD) < standing(NEW, None)


def test_the_patience_outlasts_the_lease_at_the_ends_of_what_clocks_may_differ() -> None:
    TIMING.check()
    longest = (TIMING.holder_deadline + TIMING.kill) / (1 - TIMING.rate)
    shortest = TIMING.voter_patience / (1 + TIMING.rate)
    assert longest <= shortest + 1e-9


@pytest.mark.parametrize(
    "timing", [Timing(kill=-0.5), Timing(kill=3.0), Timing(rate=-0.5), Timing(renew=2.0), Timing(renew=0.0)]
)
def test_timings_that_break_the_fence_are_refused(timing: Timing) -> None:
    with pytest.raises(ValueError):
        timing.check()


def test_nothing_was_vouched_before_the_beginning() -> None:
    assert has_waited(Ballot(Vote(), -inf), TIMING, 0.0)
