"""A guard whose process is asked to end."""

from dataclasses import replace

from hasite.guard import protocol
from hasite.guard.messages import Answer, Ask, Beat, Release, Yield
from hasite.guard.model import Database, Desired, Position
from hasite.guard.protocol import Given, Guard, Leave, Observed, Tick

from tests.guard.test_protocol import LATER, PAIR, TIMING, asking, follower, hear, reigning, sent

PRIMARY = Database("primary", Position(4, 102), True, read_only=False)
STOPPED = Desired("stopped", 4, clean=True)
DOWN = Database("stopped", Position(4, 103))


def leaving(followers: frozenset[str]) -> Guard:
    """b1, which reigns in epoch 4, has just been asked."""
    guard = reigning()
    guard, _ = protocol.step(guard, Observed(replace(PRIMARY, followers=followers), guard.desired), LATER + 0.5)
    return protocol.step(guard, Leave(), LATER + 0.6)[0]


def test_a_primary_that_is_to_end_stops_its_server_in_good_order_and_hands_over_to_who_has_everything() -> None:
    guard = leaving(frozenset({"a1"}))
    assert guard.desired == STOPPED
    guard, out = protocol.step(guard, Observed(DOWN, STOPPED), LATER + 0.7)
    assert not sent(out, Release)
    everything = Beat("a1", 4, "b1", 0.0, "standby", Database("standby", Position(4, 103)))
    guard, out = hear(guard, everything, LATER + 0.8)
    assert sent(out, Release, "operator") and sent(out, Yield, "a1") and guard.reign is None


def test_without_a_follower_it_gives_its_epoch_up_once_the_server_is_stopped() -> None:
    guard = leaving(frozenset())
    guard, out = protocol.step(guard, Tick(), LATER + 0.65)
    assert guard.desired == STOPPED and not sent(out, Release)
    guard, out = protocol.step(guard, Observed(DOWN, STOPPED), LATER + 0.7)
    assert sent(out, Release, "a1") and guard.reign is None


def test_it_does_not_start_again_what_it_has_stopped() -> None:
    guard, _ = protocol.step(leaving(frozenset()), Observed(DOWN, STOPPED), LATER + 0.7)
    guard, _ = protocol.step(guard, Tick(), LATER + 0.8)
    assert guard.desired == STOPPED


def test_a_lease_that_runs_out_meanwhile_is_a_fence_all_the_same() -> None:
    guard, _ = protocol.step(leaving(frozenset({"a1"})), Tick(), LATER + 2 * TIMING.ttl)
    assert guard.desired == Desired("stopped", 4)


def test_a_candidate_gives_back_what_it_was_granted() -> None:
    guard, _ = asking()
    guard, out = protocol.step(guard, Leave(), LATER + 0.02)
    assert sent(out, Release, "operator") and guard.campaign is None


def test_it_asks_for_nothing_more() -> None:
    guard, _ = protocol.step(follower(), Leave(), LATER - 0.1)
    guard, out = protocol.step(guard, Tick(), LATER)
    assert not sent(out, Ask)


def test_once_it_has_given_up_it_votes_all_the_same_without_waiting_for_its_data_to_be_frozen() -> None:
    guard, _ = protocol.step(leaving(frozenset()), Observed(DOWN, STOPPED), LATER + 0.7)
    _, out = hear(guard, Ask("a1", 5, False, PAIR), LATER + 0.8)
    (answer,) = sent(out, Answer, "a1")
    assert isinstance(answer, Answer) and answer.granted and answer.position is None


def test_in_a_ring_it_gives_up_the_lead_and_its_server_goes_on() -> None:
    settings = replace(reigning().settings, engine="mariadb", topology="PrimaryPrimary")
    guard, _ = protocol.step(reigning(), Given(settings), LATER + 0.5)
    guard, out = protocol.step(guard, Leave(), LATER + 0.6)
    assert sent(out, Release, "operator") and guard.reign is None and guard.desired.role == "ring"
