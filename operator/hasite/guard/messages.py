"""What guards and the operator say to each other. Every message names its sender; the transport proves who that is."""

from dataclasses import dataclass
from typing import Literal

from hasite.guard.backup import Word
from hasite.guard.model import Database, Membership, Position, State, SyncRecord, Vote


@dataclass(frozen=True)
class Renew:
    """The holder asks a voter to vouch for its epoch. ``sync``: the record that it wants stored, if it changes."""

    sender: str
    epoch: int
    sequence: int
    sync: SyncRecord | None = None


@dataclass(frozen=True)
class Renewed:
    """The voter vouches. ``sync``: the newest record that it has stored."""

    sender: str
    epoch: int
    sequence: int
    sync: SyncRecord | None = None


@dataclass(frozen=True)
class Ask:
    """A candidate asks for an epoch; ``trial``: it only asks whether it would be granted, and nothing changes by it.

    ``membership``: the one that it would reign with; ``previous``: with the majority of that one as well.
    ``reigning``: it holds a lease already, and raises its own epoch or asks a latecomer in; nobody need freeze for it.
    ``sync``: with ``reigning``, its record, to be stored with the vote.
    """

    sender: str
    epoch: int
    trial: bool
    membership: Membership
    previous: Membership | None = None
    reigning: bool = False
    sync: SyncRecord | None = None


@dataclass(frozen=True)
class Answer:
    """To an Ask. ``vote``: the voter's own, as it stands now. ``position``: of its drained, frozen data, when it has
    any (to a trial: as it is). ``state``: of its database; None from the operator. ``reason``: why not. ``quiet``:
    seconds since it last vouched for anybody, or since its start, for before that it may have."""

    sender: str
    epoch: int
    trial: bool
    granted: bool
    vote: Vote
    position: Position | None = None
    reason: str = ""
    state: State | None = None
    quiet: float = 0.0


@dataclass(frozen=True)
class Release:
    """The holder gives its epoch up: its server is stopped in it for good."""

    sender: str
    epoch: int


@dataclass(frozen=True)
class Yield:
    """The receiver should ask now: it has the newer data, or a switchover chose it. ``epoch``: the newest known."""

    sender: str
    epoch: int


@dataclass(frozen=True)
class Superseded:
    """What the receiver said is of an old epoch: this is the newest that the sender has granted."""

    sender: str
    vote: Vote


@dataclass(frozen=True)
class Order:
    """From the operator, for a person. Holds for ``epoch`` only, so that it can't be carried out twice: a switchover
    for the reign of that epoch, a promotion while no later reign than that one is known (``Beat.reign``)."""

    sender: str
    kind: Literal["switchover", "promote"]
    member: str
    epoch: int
    accept_data_loss: bool = False


@dataclass(frozen=True)
class Beat:
    """How a guard is, every ``renew`` seconds to everybody. ``lease_left``: seconds, 0 without a valid lease.

    ``settings_version``: of the membership that it was given; ``membership_version``: of the one in force in its vote,
    0 while a change of it is under way. ``refusal``: why it does not take over, when it should.
    ``sync``: of a primary, what it waits for, with ``required`` 0 for nobody; of others, the record in their vote.
    ``saved``: where it keeps what it alone had, the newest of it, those last; ``saved_count``: all. ``epoch`` and
    ``holder`` are of its vote; ``reign``: the newest epoch that it knows a primary to have reigned in. ``backup``: None
    where none are asked for. ``obeys``: the key of the newest ``sync`` that it has heard from the primary and that its
    server was seen to keep to since: unless it is eligible there, it acknowledges nothing, whatever older word may
    still come.
    """

    sender: str
    epoch: int
    holder: str
    lease_left: float
    role: Literal["primary", "standby", "frozen", "stopped", "ring"]
    database: Database
    sync: SyncRecord | None = None
    settings_version: int = 0
    membership_version: int = 0
    refusal: str = ""
    saved: tuple[str, ...] = ()
    reign: int = 0
    backup: Word | None = None
    obeys: tuple[int, ...] = ()
    saved_count: int = 0


Message = Renew | Renewed | Ask | Answer | Release | Yield | Superseded | Order | Beat
