"""What a guard knows and does, as one frozen value, with the events that change it and the outputs that follow."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from hasite.guard.ballot import Ballot, standing
from hasite.guard.messages import Answer, Beat, Message, Order
from hasite.guard.model import OPERATOR, Database, Desired, Member, Membership, Position, Settings, SyncRecord, Vote


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a peer whose identity the transport has proved."""

    message: Message


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at the server. ``reached``: the Desired whose ``reach`` was complete *before* the look began, and which is
    has been the one desired ever since, without an interval of another; None while a reach is under way or has failed.
    Proofs of freezing, stopping and waiting for followers rest on it, so it may be late and never early."""

    database: Database
    reached: Desired | None


@dataclass(frozen=True, slots=True)
class Given:
    """Settings from the operator."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Leave:
    """The guard's process is asked to end."""


Event = Tick | Received | Observed | Given | Leave


@dataclass(frozen=True, slots=True)
class Store:
    """To be on disk before any later output is carried out. When that fails the guard must end."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class Send:
    """May be lost, delayed or doubled."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class Note:
    """For the log: a turn of the story."""

    text: str


Output = Store | Send | Note


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest beat of a peer, and when it came."""

    beat: Beat
    at: float


@dataclass(frozen=True, slots=True)
class Owed:
    """An Ask that is granted and stored, and whose answer waits until the data is frozen and drained."""

    candidate: str
    epoch: int
    since: float


@dataclass(frozen=True, slots=True)
class Campaign:
    """This guard asks for an epoch. ``answers`` by voter, the guard's own among them. ``order``: a person's.
    ``chosen``: another asked it to, so no preferred location speaks against it. ``vouched``: when any who granted last
    vouched for somebody."""

    epoch: int
    trial: bool
    began: float
    sent: float
    membership: Membership
    previous: Membership | None
    answers: Mapping[str, Answer] = field(default_factory=dict)
    order: Order | None = None
    chosen: bool = False
    vouched: float = -inf


@dataclass(frozen=True, slots=True)
class Raise:
    """The holder raises its own epoch: for a new membership, or above an epoch that a failed candidate left behind."""

    epoch: int
    membership: Membership
    previous: Membership | None
    granted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Handover:
    """The holder gives its epoch up. ``target``: who should have it (a switchover); None: whoever can."""

    target: str | None
    clean: bool
    began: float
    stopped: float | None = None


@dataclass(frozen=True, slots=True)
class Reign:
    """This guard holds an epoch. Two electorates while the membership changes: ``membership`` and ``previous``.

    ``first``: the epoch in which it was elected. ``sent``: when each recent request for vouches was sent.
    ``vouched``: by voter, when the newest request was *sent* that it has answered. ``stored``: by voter, its newest
    record. ``joined``: who has answered in the present epoch. ``throned``: its record is at a majority, so the server
    may be primary while ``deadline`` is ahead. ``record``: in force. ``proposal``: on its way to the voters.
    ``intent``: the server is made to satisfy it first; ``mark``: where its history was when it did.
    ``seen``: by member, whether it follows, and since when. ``create``: it may make the database. ``issued``: the
    newest version that a record or an intent was given. For ``silence``: ``linked``: by member, when it was last seen
    to receive; ``looks``: how many there were; ``hushed``: how many when all others were found silent.
    """

    epoch: int
    first: int
    membership: Membership
    previous: Membership | None
    began: float
    record: SyncRecord
    sequence: int = 0
    sent: tuple[tuple[int, float], ...] = ()
    last_round: float = -inf
    vouched: Mapping[str, float] = field(default_factory=dict)
    stored: Mapping[str, SyncRecord] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()
    deadline: float = -inf
    throned: bool = False
    primary_seen: bool = False
    proposal: SyncRecord | None = None
    intent: SyncRecord | None = None
    mark: Position | None = None
    seen: Mapping[str, tuple[bool, float]] = field(default_factory=dict)
    raising: Raise | None = None
    handover: Handover | None = None
    create: bool = False
    issued: int = 0
    linked: Mapping[str, float] = field(default_factory=dict)
    looks: int = 0
    hushed: int | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a member of a ring sees of it. ``upstream``: whom to receive from; None: nobody is there, since ``lonely``.
    ``alone``: for so long that it goes on by itself. ``since``: by member, from when on it has been sound."""

    upstream: str | None = None
    alone: bool = False
    since: Mapping[str, float] = field(default_factory=dict)
    lonely: float | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard's whole state. ``desired`` and ``deadline`` are for the runtime; without a deadline ahead of the clock
    the server may not be primary.

    ``known``: the newest configuration heard of, and ``highest``: the highest epoch. ``followed``: the primary that is
    known to reign. ``ended``: a reign of this guard is over and its server not yet seen stopped. ``lag``: seconds
    behind when the stream was last live, at ``streamed_at``. ``urged``: until when somebody's Yield makes it ask.
    ``order`` came at ``ordered_at``.
    ``reigned``: the newest epoch with a primary, as far as known. ``leaving``: it is to end, and wants no office.
    """

    settings: Settings
    ballot: Ballot
    database: Database
    desired: Desired
    known: tuple[Membership, Membership | None]
    deadline: float | None = None
    reached: Desired | None = None
    reign: Reign | None = None
    campaign: Campaign | None = None
    owed: Owed | None = None
    followed: str | None = None
    ended: bool = False
    heard: Mapping[str, Heard] = field(default_factory=dict)
    highest: int = 0
    reigned: int = 0
    next_try: float = -inf
    attempts: int = 0
    next_beat: float = -inf
    refusal: str = ""
    order: Order | None = None
    ordered_at: float = -inf
    lag: float | None = None
    streamed_at: float = -inf
    urged: float = -inf
    leaving: bool = False
    obeyed: tuple[int, ...] = ()
    around: Around = field(default_factory=Around)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.settings.name

    @property
    def member(self) -> Member | None:
        """Itself in the newest known membership, or in the one that it was given; None when it was removed."""
        for membership in (self.known[0], self.settings.membership):
            for member in membership.members:
                if member.name == self.name:
                    return member
        return None

    def peers_wanted(self) -> frozenset[str]:
        """Everybody that this guard may have to talk to, itself excluded."""
        return peers_of(self.settings.membership, *self.known) - {self.name}


def peers_of(*memberships: Membership | None) -> frozenset[str]:
    """The guards of these memberships, and the operator."""
    return frozenset(m.name for membership in memberships if membership for m in membership.members) | {OPERATOR}


@dataclass(slots=True)
class Turn:
    """One step under way: the state so far and what follows from it, in order."""

    guard: Guard
    now: float
    out: list[Output] = field(default_factory=list)

    @property
    def reign(self) -> Reign:
        """For the steps of a holder. Raises LookupError when the guard is none."""
        if self.guard.reign is None:
            raise LookupError("no reign")
        return self.guard.reign

    def put(self, **changes: Any) -> None:
        """Changes the guard's state."""
        self.guard = replace(self.guard, **changes)

    def put_reign(self, **changes: Any) -> None:
        """Changes the reign's state."""
        self.guard = replace(self.guard, reign=replace(self.reign, **changes))

    def send(self, to: str, message: Message) -> None:
        """After everything that is already to be stored."""
        self.out.append(Send(to, message))

    def broadcast(self, message: Message) -> None:
        """To everybody but itself."""
        for peer in sorted(self.guard.peers_wanted()):
            self.out.append(Send(peer, message))

    def note(self, text: str) -> None:
        """A line for the log."""
        self.out.append(Note(text))

    def vote(self, ballot: Ballot) -> None:
        """Takes the ballot over; a changed vote is stored first of all that follows."""
        if ballot.vote is not self.guard.ballot.vote:
            self.out.append(Store(ballot.vote))
        self.put(ballot=ballot, highest=max(self.guard.highest, ballot.vote.epoch))
        learn(self, ballot.vote)


def learn(turn: Turn, vote: Vote) -> None:
    """What a vote, its own or another's, tells of the newest epoch and configuration."""
    guard = turn.guard
    if vote.membership and standing(vote.membership, vote.previous) > standing(*guard.known):
        turn.put(known=(vote.membership, vote.previous))
    if vote.epoch > guard.highest:
        turn.put(highest=vote.epoch)
