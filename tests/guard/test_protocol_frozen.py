"""Only positions of data that stand still decide: not those of a voter that refused, for it has frozen nothing."""

from dataclasses import replace

from hasite.guard import protocol
from hasite.guard.messages import Answer, Ask
from hasite.guard.model import Database, Desired, Member, Membership, Position, Settings, SyncRecord, Vote
from hasite.guard.protocol import Guard, Observed, Output, Received, Send, Tick

MEMBERS = (Member("a1", "a", "x"), Member("b1", "b", "y"), Member("b2", "b", "z"))
THREE = Membership(1, MEMBERS, ("a1", "b1", "operator"))
VOTE = Vote(5, "a1", THREE, SyncRecord(5, 1, frozenset({"a1", "b1", "b2"}), 1, "a1"))
SETTINGS = Settings("shop", "b1", "postgresql", "15", "PrimaryReplica", "synchronous", False, 5.0, THREE)
HERE = Database("standby", Position(5, 1000), True)
FROZEN = Desired("frozen")


def asked(outputs: tuple[Output, ...]) -> Ask:
    return next(o.message for o in outputs if isinstance(o, Send) and isinstance(o.message, Ask))


def answers(guard: Guard, now: float, *given: Answer) -> tuple[Guard, tuple[Output, ...]]:
    out: tuple[Output, ...] = ()
    for answer in given:
        guard, out = protocol.step(guard, Received(answer), now)
    return guard, out


def in_earnest(now: float) -> tuple[Guard, Ask]:
    """b1, which b2 and the operator would grant the next epoch; its data is frozen."""
    guard, _ = protocol.step(protocol.start(SETTINGS, VOTE, 0.0), Observed(HERE, FROZEN), 0.1)
    guard, out = protocol.step(guard, Tick(), now)
    trial = asked(out)
    b2 = Answer("b2", trial.epoch, True, True, VOTE, Position(5, 1000), state="standby", quiet=9.0)
    guard, _ = answers(guard, now, b2, Answer("operator", trial.epoch, True, True, VOTE, quiet=9.0))
    guard, out = protocol.step(guard, Tick(), now + 0.3)
    ask = asked(out)
    assert not ask.trial
    return protocol.step(guard, Observed(HERE, FROZEN), now + 0.31)[0], ask


def reigns(granted: bool) -> bool:
    """Whether b1 takes over with b2's answer, which has a position."""
    guard, ask = in_earnest(10.0)
    holder = "b1" if granted else "b2"
    vote = replace(VOTE, epoch=ask.epoch, holder=holder)
    b2 = Answer("b2", ask.epoch, False, granted, vote, Position(5, 1000), "" if granted else "taken", "standby")
    mine = replace(VOTE, epoch=ask.epoch, holder="b1")
    guard, _ = answers(guard, 10.35, b2, Answer("operator", ask.epoch, False, True, mine, quiet=9.0))
    for tenth in range(1, 12):
        guard, _ = protocol.step(guard, Tick(), 10.35 + tenth / 10)
    return guard.reign is not None


def test_the_position_of_one_that_granted_counts() -> None:
    assert reigns(granted=True)


def test_the_position_of_one_that_refused_does_not() -> None:
    assert not reigns(granted=False)


def test_a_refusal_tells_no_position() -> None:
    guard, _ = protocol.step(protocol.start(SETTINGS, VOTE, 0.0), Observed(HERE, FROZEN), 0.1)
    _, out = protocol.step(guard, Received(Ask("b2", 6, False, THREE)), 0.2)
    answer = next(o.message for o in out if isinstance(o, Send) and isinstance(o.message, Answer))
    assert (answer.granted, answer.position) == (False, None)
