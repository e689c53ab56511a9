"""The guard, step by step."""

from dataclasses import replace

from hasite.guard import candidate, protocol
from hasite.guard.messages import Answer, Ask, Beat, Message, Order, Release, Renew, Renewed, Superseded, Yield
from hasite.guard.model import Database, Desired, Member, Membership, Position, Settings, SyncRecord, Timing, Vote
from hasite.guard.protocol import Given, Guard, Observed, Output, Received, Send, Store, Tick

TIMING = Timing()
PAIR = Membership(1, (Member("a1", "a", "x"), Member("b1", "b", "y")), ("a1", "b1", "operator"))
BOTH = SyncRecord(3, 1, frozenset({"a1", "b1"}), 1, "a1")
VOTE = Vote(3, "a1", PAIR, BOTH)
SETTINGS = Settings("shop", "b1", "postgresql", "15", "PrimaryReplica", "synchronous", False, 5.0, PAIR)
STANDBY = Database("standby", Position(3, 100), True)
LATER = TIMING.voter_patience + 0.01
FROZEN = Desired("frozen")


def follower(vote: Vote = VOTE) -> Guard:
    """b1, started at 0, whose server has been seen frozen."""
    guard = protocol.start(SETTINGS, vote, 0.0)
    return protocol.step(guard, Observed(STANDBY, FROZEN), 0.1)[0]


def hear(guard: Guard, message: Message, now: float) -> tuple[Guard, tuple[Output, ...]]:
    return protocol.step(guard, Received(message), now)


def sent(outputs: tuple[Output, ...], kind: type, to: str | None = None) -> list[Message]:
    return [o.message for o in outputs if isinstance(o, Send) and isinstance(o.message, kind) and to in (None, o.to)]


def stored(outputs: tuple[Output, ...]) -> list[Vote]:
    return [o.vote for o in outputs if isinstance(o, Store)]


def granted(sender: str, ask: Ask, position: Position | None = None) -> Answer:
    vote = Vote(ask.epoch, ask.sender, ask.membership, BOTH) if not ask.trial else VOTE
    return Answer(sender, ask.epoch, ask.trial, True, vote, position)


def beat(sender: str = "a1", lease: float = 2.0, state: str = "primary", epoch: int = 3) -> Beat:
    database = Database(state, Position(3, 100))  # type: ignore[arg-type]
    return Beat(sender, epoch, "a1", lease, "primary", database)


def asking() -> tuple[Guard, Ask]:
    """b1 in earnest, after a trial that the operator agreed to."""
    guard, out = protocol.step(follower(), Tick(), LATER)
    trial = sent(out, Ask, "operator")[0]
    assert isinstance(trial, Ask) and trial.trial
    guard, out = hear(guard, granted("operator", trial), LATER + 0.01)
    ask = sent(out, Ask, "operator")[0]
    assert isinstance(ask, Ask) and not ask.trial
    return guard, ask


def reigning() -> Guard:
    """b1 in epoch 4 with the operator's vouch, its server primary."""
    guard, ask = asking()
    guard, _ = protocol.step(guard, Observed(STANDBY, FROZEN), LATER + 0.02)
    guard, out = hear(guard, granted("operator", ask), LATER + 0.3)
    (renew,) = sent(out, Renew, "operator")
    assert isinstance(renew, Renew)
    guard, _ = hear(guard, Renewed("operator", 4, renew.sequence, renew.sync), LATER + 0.31)
    assert guard.desired.role == "primary"
    primary = Database("primary", Position(4, 101), True, read_only=False)
    return protocol.step(guard, Observed(primary, guard.desired), LATER + 0.4)[0]


def test_a_guard_starts_frozen_whatever_it_was() -> None:
    guard = protocol.start(replace(SETTINGS, name="a1"), VOTE, 0.0)
    assert guard.desired == FROZEN and guard.deadline is None


def test_a_restarted_guard_waits_before_it_asks() -> None:
    _, out = protocol.step(follower(), Tick(), LATER - 0.1)
    assert not sent(out, Ask)


def test_a_trial_stores_nothing() -> None:
    _, out = protocol.step(follower(), Tick(), LATER)
    assert sent(out, Ask) and not stored(out)


def test_nobody_asks_while_the_primary_says_that_it_lives() -> None:
    guard, _ = hear(follower(), beat(), LATER - 0.1)
    _, out = protocol.step(guard, Tick(), LATER)
    assert not sent(out, Ask)


def test_nobody_asks_while_the_stream_is_live() -> None:
    live = replace(STANDBY, upstream="a1", streaming=True)
    guard, _ = protocol.step(follower(), Observed(live, None), 0.2)
    _, out = protocol.step(guard, Tick(), LATER)
    assert not sent(out, Ask)


def test_a_stream_from_one_that_says_it_does_not_reign_is_no_sign_of_life() -> None:
    live = replace(STANDBY, upstream="a1", streaming=True)
    guard, _ = protocol.step(follower(), Observed(live, None), 0.2)
    guard, _ = hear(guard, beat(lease=0.0, state="standby"), LATER - 0.1)
    _, out = protocol.step(guard, Tick(), LATER)
    assert sent(out, Ask)


def test_one_objection_ends_a_trial() -> None:
    guard, out = protocol.step(follower(), Tick(), LATER)
    (trial,) = sent(out, Ask, "operator")
    assert isinstance(trial, Ask)
    guard, _ = hear(guard, Answer("operator", trial.epoch, True, False, VOTE, None, "a1 reigns"), LATER + 0.01)
    guard, out = hear(guard, granted("operator", trial), LATER + 0.02)
    assert not stored(out) and guard.refusal.startswith("operator: a1 reigns")


def test_a_refusal_says_as_well_who_was_not_heard_lately() -> None:
    guard, out = protocol.step(follower(), Tick(), LATER)
    (trial,) = sent(out, Ask, "operator")
    assert isinstance(trial, Ask)
    answer = Answer("operator", trial.epoch, True, False, VOTE, None, "started just now")
    guard, _ = hear(guard, answer, LATER + 0.01)
    assert guard.refusal == "operator: started just now; no answer from a1"


def test_a_vote_is_stored_before_it_is_asked_for() -> None:
    guard, out = protocol.step(follower(), Tick(), LATER)
    (trial,) = sent(out, Ask, "operator")
    assert isinstance(trial, Ask)
    _, out = hear(guard, granted("operator", trial), LATER + 0.01)
    first = next(o for o in out if isinstance(o, Store) or (isinstance(o, Send) and isinstance(o.message, Ask)))
    assert isinstance(first, Store) and first.vote.epoch == 4 and first.vote.holder == "b1"


def test_a_candidate_is_not_holder_before_its_own_data_is_frozen() -> None:
    live = follower()
    live, _ = hear(live, beat(), 0.2)
    assert live.desired == Desired("standby", 3, "a1")
    live, _ = protocol.step(live, Observed(replace(STANDBY, upstream="a1"), live.desired), 0.3)
    guard, out = protocol.step(live, Tick(), LATER + 0.2)
    (trial,) = sent(out, Ask, "operator")
    assert isinstance(trial, Ask)
    guard, out = hear(guard, granted("operator", trial), LATER + 0.21)
    guard, out = protocol.step(guard, Tick(), LATER + 0.6)
    (ask,) = sent(out, Ask, "operator")
    assert isinstance(ask, Ask) and not ask.trial
    guard, _ = hear(guard, granted("operator", ask), LATER + 1.2)
    assert guard.reign is None and guard.desired == FROZEN
    guard, _ = protocol.step(guard, Observed(STANDBY, FROZEN), LATER + 1.3)
    assert guard.reign is not None


def test_elected_is_not_yet_primary() -> None:
    guard, ask = asking()
    guard, _ = protocol.step(guard, Observed(STANDBY, FROZEN), LATER + 0.02)
    guard, _ = hear(guard, granted("operator", ask), LATER + 0.3)
    assert guard.reign is not None
    assert guard.desired == FROZEN and guard.deadline is None


def test_with_a_majority_s_vouch_it_is_primary_until_the_deadline() -> None:
    guard = reigning()
    assert guard.desired.role == "primary" and guard.desired.epoch == 4
    assert guard.deadline == LATER + 0.3 + TIMING.holder_deadline


def test_at_the_deadline_the_server_is_to_be_stopped() -> None:
    guard = reigning()
    assert guard.deadline is not None
    guard, _ = protocol.step(guard, Tick(), guard.deadline)
    assert guard.desired.role == "stopped" and not guard.desired.clean and guard.deadline is None


def test_a_late_answer_does_not_bring_a_lease_back() -> None:
    guard = reigning()
    assert guard.deadline is not None and guard.reign is not None
    sequence = guard.reign.sequence
    guard, _ = hear(guard, Renewed("operator", 4, sequence, guard.reign.record), guard.deadline + 0.01)
    assert guard.reign is None and guard.desired.role == "stopped"


def test_after_a_fence_the_server_is_seen_stopped_before_it_starts_again() -> None:
    guard = reigning()
    guard, _ = protocol.step(guard, Tick(), LATER + 10)
    guard, _ = protocol.step(guard, Observed(Database("stopped", Position(4, 101)), None), LATER + 10.1)
    assert guard.desired.role == "stopped"
    guard, _ = protocol.step(guard, Observed(Database("stopped", Position(4, 101)), guard.desired), LATER + 10.2)
    assert guard.desired == FROZEN


def test_a_grant_is_answered_when_the_data_is_frozen() -> None:
    guard, _ = hear(follower(), beat(), 0.2)
    guard, out = hear(guard, Ask("c1", 4, False, PAIR), LATER + 1)
    assert stored(out) and not sent(out, Answer)
    guard, out = protocol.step(guard, Observed(STANDBY, FROZEN), LATER + 1.1)
    (answer,) = sent(out, Answer, "c1")
    assert isinstance(answer, Answer) and answer.granted and answer.position == Position(3, 100)


def test_a_look_from_before_the_freeze_is_no_proof() -> None:
    guard, _ = hear(follower(), beat(), 0.2)
    before = guard.desired
    guard, _ = hear(guard, Ask("c1", 4, False, PAIR), LATER + 1)
    _, out = protocol.step(guard, Observed(STANDBY, before), LATER + 1.1)
    assert not sent(out, Answer)


def test_a_slow_freeze_does_not_hold_the_vote_back() -> None:
    guard, _ = hear(follower(), beat(), 0.2)
    ask = Ask("c1", 4, False, PAIR)
    guard, _ = hear(guard, ask, LATER + 1)
    guard, out = hear(guard, ask, LATER + 1 + 2 * TIMING.renew)
    (answer,) = sent(out, Answer, "c1")
    assert isinstance(answer, Answer) and answer.granted and answer.position is None
    _, out = protocol.step(guard, Observed(STANDBY, FROZEN), LATER + 2.1)
    (answer,) = sent(out, Answer, "c1")
    assert isinstance(answer, Answer) and answer.position == Position(3, 100)


def test_an_outdated_request_is_told_of_the_newest_vote() -> None:
    _, out = hear(follower(replace(VOTE, epoch=7, holder="b1")), Renew("a1", 3, 1), 0.2)
    (answer,) = sent(out, Superseded, "a1")
    assert isinstance(answer, Superseded) and answer.vote.epoch == 7


def test_a_holder_raises_its_epoch_above_one_that_a_failed_candidate_left() -> None:
    guard, out = hear(reigning(), Superseded("a1", Vote(9, "a1", PAIR)), LATER + 0.5)
    (vote,) = stored(out)
    assert (vote.epoch, vote.holder) == (10, "b1")
    assert guard.desired.role == "primary" and guard.desired.epoch == 4


def test_when_the_holder_gives_its_epoch_up_nobody_waits_for_a_lease() -> None:
    _, out = hear(follower(), Release("a1", 3), 0.5)
    assert sent(out, Ask)


def test_a_yield_makes_a_member_ask_that_let_another_go_first() -> None:
    better = Beat("a2", 3, "a1", 0.0, "frozen", Database("standby", Position(3, 200)))
    guard, _ = hear(follower(replace(VOTE, sync=None)), better, 0.2)
    guard, out = hear(guard, Release("a1", 3), 0.5)
    assert not sent(out, Ask)
    _, out = hear(guard, Yield("a2", 3), 0.51)
    assert sent(out, Ask)


def test_a_switchover_stops_the_server_in_good_order_first() -> None:
    guard = reigning()
    close = Database("primary", Position(4, 102), True, followers=frozenset({"a1"}), read_only=False)
    guard, _ = protocol.step(guard, Observed(close, guard.desired), LATER + 0.5)
    guard, out = hear(guard, Order("operator", "switchover", "a1", 4), LATER + 0.6)
    assert guard.desired == Desired("stopped", 4, clean=True) and not sent(out, Release)
    down = Observed(Database("stopped", Position(4, 103)), guard.desired)
    guard, out = protocol.step(guard, down, LATER + 0.7)
    assert not sent(out, Release)
    everything = Beat("a1", 4, "b1", 0.0, "standby", Database("standby", Position(4, 103)))
    guard, out = hear(guard, everything, LATER + 0.8)
    assert sent(out, Release, "operator") and sent(out, Yield, "a1") and guard.reign is None


def test_a_switchover_to_one_that_does_not_follow_is_refused() -> None:
    guard, _ = hear(reigning(), Order("operator", "switchover", "a1", 4), LATER + 0.5)
    assert guard.desired.role == "primary" and guard.refusal == "a1 does not follow closely"


def test_an_order_for_another_epoch_is_void() -> None:
    guard, _ = hear(reigning(), Order("operator", "switchover", "a1", 3), LATER + 0.5)
    assert guard.desired.role == "primary" and guard.refusal == ""


def test_an_order_from_anybody_but_the_operator_is_void() -> None:
    guard, _ = hear(follower(), Order("a1", "promote", "b1", 3, True), LATER - 1)
    assert guard.order is None


def test_the_holder_s_record_comes_first_to_the_voters() -> None:
    _, out = hear(follower(), Renew("a1", 3, 5, replace(BOTH, version=2)), 0.5)
    assert isinstance(out[0], Store) and sent(out, Renewed, "a1")


def test_a_new_membership_is_only_proposed_to_who_is_no_holder() -> None:
    bigger = Membership(2, (*PAIR.members, Member("c1", "c", "z")), ("a1", "b1", "c1"))
    guard, out = protocol.step(follower(), Given(replace(SETTINGS, membership=bigger)), 0.5)
    assert guard.known == (PAIR, None) and not stored(out)


def test_the_holder_asks_both_memberships_for_a_change() -> None:
    bigger = Membership(2, (*PAIR.members, Member("c1", "c", "z")), ("a1", "b1", "c1"))
    guard, _ = hear(reigning(), beat("c1", 0.0, "absent", 0), LATER + 0.45)
    guard, out = protocol.step(guard, Given(replace(SETTINGS, membership=bigger)), LATER + 0.5)
    asks = [m for m in sent(out, Ask) if isinstance(m, Ask)]
    assert all(a.membership == bigger and a.previous == PAIR and a.reigning for a in asks)
    assert {o.to for o in out if isinstance(o, Send) and isinstance(o.message, Ask)} == {"a1", "c1", "operator"}
    assert guard.desired.role == "primary"


def ordered(asked_at: float) -> bool:
    """Whether a member that must not take over by itself does so at this time, by an order that came at 0.2."""
    alone = replace(VOTE, sync=replace(BOTH, eligible=frozenset({"a1"}), required=0))
    guard, _ = hear(follower(alone), Order("operator", "promote", "b1", 3, True), 0.2)
    guard, out = protocol.step(replace(guard, next_try=asked_at), Tick(), asked_at)
    trial = next(message for message in sent(out, Ask, "operator") if isinstance(message, Ask))
    guard, out = hear(guard, granted("operator", trial), asked_at + 0.01)
    guard, out = protocol.step(guard, Tick(), asked_at + 0.26)
    return any(isinstance(message, Ask) and not message.trial for message in sent(out, Ask))


def test_an_order_to_promote_counts_for_half_a_minute_by_the_clock_of_who_got_it() -> None:
    assert ordered(candidate.ORDER_SECONDS)
    assert not ordered(candidate.ORDER_SECONDS + 0.3)
