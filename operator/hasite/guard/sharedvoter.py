"""The operator as a voter: its vote is an object that several operators may reach. Pure; reads and writes take time.

All operators together are one voter. What makes them one is the object, changed by compare-and-swap only:

- ``owner`` and ``term`` say who speaks for it. An operator vouches only after a *read begun after the request came* has
  shown that it is still the owner; so whatever it vouches for was asked for before any later owner took over.
- A new owner may find that its predecessor vouched a moment ago: its patience begins when it took over.
- A write whose outcome is unclear may still come into force. No vouch is given before the object was taken over anew,
  under a higher term: that write makes the other impossible, or shows that it was done.
- One request at a time, so that no vouch for one epoch is given while a grant of the next is on its way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

from hasite.guard import ballot as ballots
from hasite.guard.ballot import Ballot
from hasite.guard.messages import Answer, Ask, Beat, Message, Release, Renew, Superseded
from hasite.guard.model import OPERATOR, Timing, Vote
from hasite.guard.state import Heard, Received, Send


@dataclass(frozen=True, slots=True)
class Stored:
    """The object. ``owner``: a name that no other process ever had."""

    vote: Vote = field(default_factory=Vote)
    owner: str = ""
    term: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """The process starts, or wants to speak again after it was told that it lost the object."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to Fetch. ``stored``: None: the object could not be read."""

    stored: Stored | None


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to Write. ``conflict``: somebody else wrote since the last read, so nothing was written."""

    outcome: Literal["done", "conflict", "unclear"]


@dataclass(frozen=True, slots=True)
class Passed:
    """Time has passed: to come once a ``renew``."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read the object (a linearizable read, begun now) and answer with Fetched."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write the object on the condition that it is as last fetched or written, and answer with Written."""

    stored: Stored


SharedEvent = Begun | Fetched | Written | Passed | Received
SharedOutput = Fetch | Write | Send
Phase = Literal["idle", "fetching", "taking", "writing", "failed", "lost"]
Request = Renew | Ask


@dataclass(frozen=True, slots=True)
class SharedVoter:
    """``owner``: this process. ``phase``: what it waits for; ``lost``: another owner speaks, this one is silent for
    good; ``failed``: to be taken over again. ``queue``: requests, the newest of each sender and kind. ``batch``: those
    that came before the read under way. ``writing``: the request that the write under way is for, and the ballot
    after it."""

    owner: str
    timing: Timing
    ballot: Ballot
    term: int = 0
    phase: Phase = "failed"
    owned: bool = False
    queue: tuple[Request, ...] = ()
    batch: tuple[Request, ...] = ()
    writing: tuple[Request, Ballot] | None = None
    heard: Mapping[str, Heard] = field(default_factory=dict)


def start_shared(owner: str, timing: Timing) -> SharedVoter:
    """A process that has read nothing yet. Its first event is Begun."""
    return SharedVoter(owner, timing, Ballot(Vote(), inf))


def step_shared(voter: SharedVoter, event: SharedEvent, now: float) -> tuple[SharedVoter, tuple[SharedOutput, ...]]:
    """The next state and what is to be done, in order. At most one Fetch or Write is under way at any time."""
    turn = _Turn(voter, now)
    match event:
        case Begun() | Passed():
            pass
        case Received():
            hear(turn, event.message)
        case Fetched():
            fetched(turn, event.stored)
        case Written():
            written(turn, event.outcome)
    if turn.voter.phase == "failed" and isinstance(event, Begun | Passed):
        turn.put(phase="fetching", owned=False, batch=())
        turn.out.append(Fetch())
    elif turn.voter.phase == "idle" and turn.voter.queue:
        turn.put(phase="fetching", batch=turn.voter.queue, queue=())
        turn.out.append(Fetch())
    return turn.voter, tuple(turn.out)


@dataclass(slots=True)
class _Turn:
    voter: SharedVoter
    now: float
    out: list[SharedOutput] = field(default_factory=list)

    def put(self, **changes: Any) -> None:
        self.voter = replace(self.voter, **changes)

    def send(self, to: str, message: Message) -> None:
        self.out.append(Send(to, message))


def hear(turn: _Turn, message: Message) -> None:
    """Requests wait for a read, trials are answered from memory, as nothing rests on them."""
    voter = turn.voter
    match message:
        case Beat():
            turn.put(heard={**voter.heard, message.sender: Heard(message, turn.now)})
        case Release():
            turn.put(ballot=ballots.release(voter.ballot, message))
        case Ask(trial=True) if voter.owned:
            reason = ballots.trial_objection(
                voter.ballot, message, voter.timing, turn.now, alive(voter, message, turn.now)
            )
            turn.send(message.sender, _answer(voter.ballot, message, reason, turn.now))
        case Ask(trial=False) | Renew():
            kept = [m for m in voter.queue if (type(m), m.sender) != (type(message), message.sender)]
            turn.put(queue=(*kept, message))
        case _:
            pass


def alive(voter: SharedVoter, ask: Ask, now: float) -> str:
    """Who reigns by its own word, not long ago."""
    for name, heard in voter.heard.items():
        beat = heard.beat
        fresh = heard.at > now - voter.timing.ttl / 2
        if fresh and name != ask.sender and beat.lease_left > 0 and beat.database.state == "primary":
            return f"{name} reigns and said so {now - heard.at:.1f} s ago"
    return ""


def fetched(turn: _Turn, stored: Stored | None) -> None:
    """The object as it was after the requests of the batch had come."""
    voter = turn.voter
    if voter.phase != "fetching":
        return
    if stored is None:
        turn.put(phase="idle" if voter.owned else "failed", batch=())
    elif not voter.owned:
        take_over(turn, stored)
    elif (stored.owner, stored.term) != (voter.owner, voter.term):
        turn.put(phase="lost", owned=False, queue=(), batch=())
    else:
        turn.put(phase="idle")
        serve(turn)


def take_over(turn: _Turn, stored: Stored) -> None:
    """Writes its name on the object. The vote stays as it is."""
    ballot = Ballot(stored.vote, inf)
    turn.put(phase="taking", ballot=ballot, term=stored.term + 1)
    turn.out.append(Write(Stored(stored.vote, turn.voter.owner, stored.term + 1)))


def serve(turn: _Turn) -> None:
    """Answers the batch, up to the first request that changes the vote; the rest is asked again by its senders."""
    batch = turn.voter.batch
    turn.put(batch=())
    for request in batch:
        before = turn.voter.ballot
        ballot, answer = _considered(turn.voter, request, turn.now)
        if ballot.vote != before.vote:
            turn.put(phase="writing", writing=(request, ballot))
            turn.out.append(Write(Stored(ballot.vote, turn.voter.owner, turn.voter.term)))
            return
        turn.put(ballot=ballot)
        if answer is not None:
            turn.send(request.sender, answer)


def written(turn: _Turn, outcome: Literal["done", "conflict", "unclear"]) -> None:
    """The vote is durable, or is not; when that is not known, or the object was changed, it is taken over anew."""
    voter = turn.voter
    if voter.phase == "taking":
        if outcome == "done":
            turn.put(phase="idle", owned=True, ballot=replace(voter.ballot, quiet_from=turn.now))
        else:
            turn.put(phase="failed", owned=False)
    elif voter.phase == "writing" and voter.writing is not None:
        request, ballot = voter.writing
        turn.put(writing=None)
        if outcome == "unclear":
            turn.put(phase="failed", owned=False)
        elif outcome == "conflict":
            turn.put(phase="idle", queue=(request, *voter.queue))
        else:
            quiet = turn.now if isinstance(request, Renew) else ballot.quiet_from
            turn.put(phase="idle", ballot=replace(ballot, quiet_from=quiet, released=voter.ballot.released))
            _, answer = _considered(turn.voter, request, turn.now)
            if answer is not None:
                turn.send(request.sender, answer)


def _considered(voter: SharedVoter, request: Request, now: float) -> tuple[Ballot, Message | None]:
    """The ballot and the answer, were the ballot already stored."""
    if isinstance(request, Renew):
        ballot, reply = ballots.vouch(voter.ballot, OPERATOR, request, now)
        message: Message | None = reply
        return ballot, message if reply is None or isinstance(reply, Superseded) else reply
    reason = ballots.objection(voter.ballot, request, voter.timing, now)
    if reason:
        return voter.ballot, _answer(voter.ballot, request, reason, now)
    if request.epoch == voter.ballot.vote.epoch:
        return voter.ballot, _answer(voter.ballot, request, "", now)
    ballot = ballots.grant(voter.ballot, request, now)
    return ballot, _answer(ballot, request, "", now)


def _answer(ballot: Ballot, ask: Ask, reason: str, now: float) -> Answer:
    quiet = now - ballot.quiet_from
    return Answer(OPERATOR, ask.epoch, ask.trial, not reason, ballot.vote, None, reason, quiet=quiet)
