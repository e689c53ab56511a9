"""The values that guards and the operator speak in. Frozen, ordered where order means something, and JSON on the wire.

Terms: an *epoch* numbers the reigns of primaries; a *vote* is what a voter has durably promised; a *lease* is the time
for which a majority of voters has vouched for the holder of the newest epoch; the *sync record* says who has every
acknowledged write.
"""

from dataclasses import dataclass, field
from typing import Literal

from hasite.guard.backup import Backup, Restore

OPERATOR = "operator"
"""The name of the voter that is not a guard."""

State = Literal["absent", "stopped", "starting", "standby", "primary", "failed"]
"""Of a database server: ``absent`` has no data; ``failed`` cannot start, or its data cannot be used."""


@dataclass(frozen=True, order=True)
class Position:
    """How much of the history a member has *received* and holds on disk.

    ``epoch``: the newest row of the replicated table ``hasite.epoch``, which every primary writes before anything else.
    ``offset``: bytes (an LSN) or transactions (a GTID sequence); comparable only within one epoch, which the order of
    the fields ensures.
    """

    epoch: int
    offset: int


@dataclass(frozen=True)
class Member:
    """A guard with a database, or a witness without one. ``address``: where the others reach it (IPv4 or IPv6)."""

    name: str
    location: str
    address: str
    witness: bool = False


@dataclass(frozen=True)
class Membership:
    """Who takes part. ``voters``: one guard a location, and ``OPERATOR`` when that makes an odd number."""

    version: int
    members: tuple[Member, ...]
    voters: tuple[str, ...]

    @property
    def majority(self) -> int:
        """Votes that decide."""
        return len(self.voters) // 2 + 1


@dataclass(frozen=True)
class SyncRecord:
    """Who has every acknowledged write: the primary, and enough of ``eligible`` that losing one location loses none.

    ``required``: how many of ``eligible`` the primary waits for before it acknowledges a write. 0: nobody
    (asynchronous, or degraded by the owner's choice); then only the primary itself is ``eligible``, or, when
    ``eligible`` is empty, the durability is asynchronous. Newer records supersede older ones by (epoch, version).

    Every acknowledged write is on at least ``required + 1`` of ``eligible``, so any ``len(eligible) - required`` of
    them have all. In ``Desired.sync`` it is what the server waits for: ``required`` of ``eligible`` without the server
    itself; when those are too few, the server acknowledges nothing. ``holder``: whose reign made it.
    """

    epoch: int
    version: int
    eligible: frozenset[str]
    required: int
    holder: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """Greater is newer."""
        return (self.epoch, self.version)


@dataclass(frozen=True)
class Vote:
    """What a voter keeps on disk, synced before it answers. Epoch 0: it never voted.

    ``previous``: while a change of the membership is under way, the one before; then both majorities are needed.
    """

    epoch: int = 0
    holder: str = ""
    membership: Membership | None = None
    sync: SyncRecord | None = None
    previous: Membership | None = None


@dataclass(frozen=True)
class Conflict:
    """Why a member of a ring has stopped applying what others wrote: it does not go on until that can be applied.

    ``words``, ``number``: the server's own error, with the table and, where the server tells, the key. ``transaction``:
    its GTID. ``writer``: the member that wrote it. ``row``: what was to be done, as a statement of the row.
    """

    number: int
    words: str
    transaction: str = ""
    writer: str = ""
    row: str = ""


@dataclass(frozen=True)
class Database:
    """What the engine's driver saw of the local server.

    ``position``: None when it could not be read. ``drained``: everything received is replayed, so that the position's
    epoch is right. ``upstream``: the member that it is set to receive from; ``streaming``: that stream is live.
    ``followers``: on a primary, members that stream from it and have received all but a moment's worth.
    ``read_only``: the server refuses writes. ``conflict``: of a ring alone.

    Of engines whose primary takes anybody's answer (``election.SEMI_SYNC``): ``acknowledging``: it answers its
    upstream, or may; ``receivers``: on a primary, members with a connection that they receive by, whatever they lack.
    """

    state: State
    position: Position | None = None
    drained: bool = False
    upstream: str | None = None
    streaming: bool = False
    followers: frozenset[str] = frozenset()
    read_only: bool = True
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    detail: str = ""
    conflict: Conflict | None = None
    acknowledging: bool = False
    receivers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Desired:
    """What the local server is to be, as a goal that is reached by looking, not a command that is obeyed once.

    ``primary``: takes writes, in ``epoch``, acknowledging by ``sync``. ``standby``: receives from ``upstream`` (None:
    it runs read-only and receives nothing, as does ``frozen``, which also drains what it has). ``stopped``: at once,
    as a fence, unless ``clean``: by a shutdown that first sends everything to the followers. ``create``: a primary may
    make a new, empty database when it has none; without it, a server without data must fail.

    ``ring``: takes writes as all members do, and receives those of others from ``upstream`` (None: as it is set
    already). A server that has just started takes writes when it has caught up with its upstream, or ``alone``: nobody
    is there. ``epoch``, when not 0: all apps are led to this member. See ``ring``.
    """

    role: Literal["primary", "standby", "frozen", "stopped", "ring"]
    epoch: int = 0
    upstream: str | None = None
    sync: SyncRecord | None = None
    clean: bool = False
    create: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds. The invariant that makes a lease a fence is asserted by ``check``.

    ``ttl``: a vouch holds for so long, counted by the holder from when it *asked*, by the voter from when it answered.
    ``renew``: between two requests for vouches. ``kill``: the longest that stopping the server can take once the guard
    or the fuse has decided to. ``rate``: the most by which two monotonic clocks differ in speed.
    """

    ttl: float = 3.0
    renew: float = 0.5
    kill: float = 0.5
    rate: float = 0.01

    @property
    def holder_deadline(self) -> float:
        """After a majority was asked, and its vouches came: when the holder's server must begin to be stopped."""
        return self.ttl - self.kill

    @property
    def voter_patience(self) -> float:
        """After its last vouch, or its start: before a voter may grant another epoch."""
        return self.ttl * (1 + self.rate) / (1 - self.rate)

    def check(self) -> None:
        """Raises ValueError when a holder could still take writes while a voter grants another epoch."""
        if not (0 < self.kill < self.ttl and 0 <= self.rate < 0.5):
            raise ValueError("kill must be within ttl, and rate a small fraction")
        if not (self.holder_deadline + self.kill) * (1 + self.rate) <= self.voter_patience * (1 - self.rate) + 1e-9:
            raise ValueError("the lease would outlive the voters' patience")
        if not 0 < self.renew * 3 <= self.holder_deadline:
            raise ValueError("renew must leave room for three tries before the lease runs out")


@dataclass(frozen=True)
class Settings:
    """What the operator writes to /etc/hasite/guard.json; ``engine_settings`` go to the server, already validated.

    ``bootstrap``: the member that may make a new, empty database when nobody has one; None after that.
    ``degraded_writes``: in synchronous mode, whether a primary without standbys may go on. ``maximum_lag``: seconds.
    ``restore``: what ``bootstrap`` makes the database from, in place of an empty one.
    ``write_routing``: of a ring, whether apps are led to one member or each to that of its own location.
    """

    cluster: str
    name: str
    engine: Literal["postgresql", "mysql", "mariadb"]
    version: str
    topology: Literal["PrimaryReplica", "PrimaryPrimary"]
    durability: Literal["synchronous", "asynchronous"]
    degraded_writes: bool
    maximum_lag: float
    membership: Membership
    bootstrap: str | None = None
    preferred_location: str | None = None
    engine_settings: dict[str, str] = field(default_factory=dict, hash=False)
    timing: Timing = field(default_factory=Timing)
    backup: Backup | None = None
    restore: Restore | None = None
    write_routing: Literal["single", "local"] = "single"

    @property
    def ring(self) -> bool:
        """Whether every member takes writes. Then a lease says only where apps are led to, and fences nobody."""
        return self.topology == "PrimaryPrimary"
