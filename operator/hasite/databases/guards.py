"""Standing connections to the guards of each database: their beats, people's orders to them, and the operator's vote.

All of it runs beside the reconciles, which only read what was heard last.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.certificates import OPERATOR_NAME, Authority, issue
from hasite.databases.memory import MemoryFile
from hasite.guard.link import Tls
from hasite.guard.messages import Answer, Beat, Message, Order
from hasite.guard.model import OPERATOR, Member
from hasite.guard.transport import PORT, Address, Transport
from hasite.plan.world import Unknown

SILENT_SECONDS = 3.0
"""A guard that was not heard for so long is not known to be anything."""

RENEWAL_SECONDS = 30 * 86400.0
"""Age at which the operator gives itself a new certificate."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Paths:
    """The operator's certificate as files that only this process can read."""

    ca: str
    certificate: str
    key: str


class Guards(Protocol):
    """What the reconciler needs of it. ``uid``: the database's."""

    async def follow(self, database: ReplicatedDatabase, authority: Authority, members: Sequence[Member]) -> None:
        """From now on talk to these members, in the operator's name, and vote."""
        ...

    def beats(self, uid: str, names: Sequence[str]) -> Mapping[str, Beat | Unknown]:
        """The latest word of each guard."""
        ...

    def order(self, uid: str, order: Order) -> None:
        """Tell all guards; who is concerned carries it out."""
        ...

    def ordered(self, uid: str) -> tuple[Order, float] | None:
        """The latest order, and when it was given (Unix time)."""
        ...

    def paths(self, uid: str) -> Paths | None:
        """The operator's certificate, once the database is followed."""
        ...

    def authority(self, uid: str) -> Authority | None:
        """The one in use, once the database is followed."""
        ...

    async def drop(self, uid: str) -> None:
        """The database is gone, or not this operator's affair any more."""
        ...


class Voter(Protocol):
    """The operator's vote in one database, as far as messages are concerned."""

    def received(self, message: Message) -> None:
        """One that the transport has proved to be from its sender."""
        ...

    async def close(self) -> None:
        """Says nothing more, from this instant on."""
        ...


class Listener(Protocol):
    """Who is told, as it happens, what a plan need not know. Nothing may wait here."""

    def heard(self, uid: str, beat: Beat) -> None:
        """Each beat of a guard."""
        ...

    def answered(self, uid: str, to: str, answer: Answer) -> None:
        """What the operator's own vote said to a candidate."""
        ...


MakeVoter = Callable[[ReplicatedDatabase, Callable[[str, Message], None]], Voter]
"""Of a database; the other argument sends."""


@dataclass
class _Line:
    """One database's connections."""

    owner: tuple[str, str]
    authority: Authority
    files: tuple[MemoryFile, ...]
    issued: float
    transport: Transport
    voter: Voter | None = None
    peers: dict[str, Address] = field(default_factory=dict)
    beats: dict[str, tuple[Beat, float]] = field(default_factory=dict)
    told: dict[str, object] = field(default_factory=dict)
    ordered: tuple[Order, float] | None = None

    @property
    def paths(self) -> Paths:
        ca, certificate, key = (file.path for file in self.files)
        return Paths(ca, certificate, key)

    async def close(self) -> None:
        if self.voter is not None:
            await self.voter.close()
        await self.transport.close()
        for file in self.files:
            file.close()


class GuardLines:
    """The real one. ``wake``: namespace and name of a database of which something changed that a plan may rest on."""

    def __init__(
        self,
        wake: Callable[[str, str], None],
        make_voter: MakeVoter,
        *,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.time,
        address_of: Callable[[Member], Address] = lambda member: (member.address, PORT),
    ) -> None:
        self._wake = wake
        self._make_voter = make_voter
        self._listener = listener
        self._clock = clock
        self._address_of = address_of
        self._lines: dict[str, _Line] = {}
        self._opening = asyncio.Lock()

    async def follow(self, database: ReplicatedDatabase, authority: Authority, members: Sequence[Member]) -> None:
        """See ``Guards``."""
        async with self._opening:
            line = self._lines.get(database.uid)
            aged = line is not None and self._clock() - line.issued > RENEWAL_SECONDS
            if line is not None and (line.authority != authority or aged):
                await self._lines.pop(database.uid).close()
                line = None
            if line is None:
                line = self._lines[database.uid] = await self._open(database, authority)
            peers = {member.name: self._address_of(member) for member in members}
            if peers != line.peers:
                line.peers = peers
                line.transport.peers(peers)
                line.beats = {name: heard for name, heard in line.beats.items() if name in peers}

    def beats(self, uid: str, names: Sequence[str]) -> Mapping[str, Beat | Unknown]:
        """See ``Guards``."""
        line, now = self._lines.get(uid), time.monotonic()
        heard = line.beats if line is not None else {}
        found: dict[str, Beat | Unknown] = {}
        for name in names:
            beat, at = heard.get(name, (None, 0.0))
            silent = beat is None or now - at > SILENT_SECONDS
            found[name] = Unknown("its guard is not heard") if beat is None or silent else beat
        return found

    def order(self, uid: str, order: Order) -> None:
        """See ``Guards``."""
        line = self._lines.get(uid)
        if line is not None:
            line.ordered = (order, self._clock())
            for name in line.peers:
                line.transport.send(name, order)

    def ordered(self, uid: str) -> tuple[Order, float] | None:
        """See ``Guards``."""
        line = self._lines.get(uid)
        return line.ordered if line is not None else None

    def paths(self, uid: str) -> Paths | None:
        """See ``Guards``."""
        line = self._lines.get(uid)
        return line.paths if line is not None else None

    def authority(self, uid: str) -> Authority | None:
        """See ``Guards``."""
        line = self._lines.get(uid)
        return line.authority if line is not None else None

    async def drop(self, uid: str) -> None:
        """See ``Guards``."""
        line = self._lines.pop(uid, None)
        if line is not None:
            await line.close()

    async def close(self) -> None:
        """Ends everything."""
        for uid in list(self._lines):
            await self.drop(uid)

    async def _open(self, database: ReplicatedDatabase, authority: Authority) -> _Line:
        now, uid = self._clock(), database.uid
        own = issue(authority, OPERATOR_NAME, (), now)
        files = tuple(
            MemoryFile(name, data)
            for name, data in (("ca", authority.certificate), ("certificate", own.certificate), ("key", own.key))
        )
        tls = Tls(*(Path(file.path) for file in files))
        transport = Transport(OPERATOR, tls, lambda message: self._received(uid, message))
        line = _Line((database.namespace, database.name), authority, files, now, transport)
        line.voter = self._make_voter(database, lambda to, message: self._say(uid, transport, to, message))
        await transport.start()
        return line

    def _say(self, uid: str, transport: Transport, to: str, message: Message) -> None:
        """In the name of the operator's vote."""
        transport.send(to, message)
        if isinstance(message, Answer):
            self._tell(lambda listener: listener.answered(uid, to, message))

    def _tell(self, news: Callable[[Listener], None]) -> None:
        """No fault in what is only told may cost the vote."""
        if self._listener is not None:
            try:
                news(self._listener)
            except Exception:
                _log.exception("the listener to the guards failed")

    def _received(self, uid: str, message: Message) -> None:
        line = self._lines.get(uid)
        if line is None or message.sender not in line.peers:
            return
        if isinstance(message, Beat):
            line.beats[message.sender] = (message, time.monotonic())
            told = _told(message)
            if line.told.get(message.sender) != told:
                line.told[message.sender] = told
                self._wake(*line.owner)
        if line.voter is not None:
            with contextlib.suppress(asyncio.CancelledError):
                line.voter.received(message)
        if isinstance(message, Beat):
            self._tell(lambda listener: listener.heard(uid, message))


def _told(beat: Beat) -> object:
    """What of a beat may change a plan or a condition."""
    database = replace(beat.database, position=None, lag_bytes=None, lag_seconds=None, drained=False)
    return replace(beat, database=database, lease_left=float(beat.lease_left > 0))
