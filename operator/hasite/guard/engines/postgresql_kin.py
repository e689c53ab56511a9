"""How the history of this server's data relates to that of the member that it is to follow.

Timelines alone don't tell: two members that were promoted without knowing of each other may have taken the same number
at the same position. So the log itself is compared: the last bytes that this server replayed with the bytes at the same
position upstream; the log's records hold checksums, transaction numbers and times. Beside it the reigns in
``hasite.epoch``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hasite.guard.engines.postgresql_server import SEGMENT, number
from hasite.guard.engines.postgresql_sql import Session

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

COMPARED = 64 * 1024
"""Bytes of the log, at most, and not across a segment's beginning."""

Timelines = tuple[tuple[int, float], ...]
"""Each with the position at which it ends; the last one is open."""


class Kin(Enum):
    """What may be done with the data here."""

    SAME = "upstream has all of it, and the log that comes next"
    BEHIND = "upstream is not as far as this server: wait"
    DIVERGED = "this server has what upstream has not"
    OUTDATED = "upstream no longer has the log that comes next"
    FOREIGN = "the data are of another database"


@dataclass(frozen=True)
class Own:
    """This server's, with everything replayed. ``end``: of the last record."""

    system: str
    end: int
    epochs: frozenset[int]
    log: Path
    data: bytes
    timeline: int

    @classmethod
    def read(cls, system: str, end: int, epochs: frozenset[int], log: Path) -> "Own":
        """``log``: the folder pg_wal. Raises OSError when the log's end is not there."""
        suffix = segment_suffix(end - 1)
        names = sorted(file.name for file in log.iterdir() if len(file.name) == 24 and file.name[8:] == suffix)
        if not names:
            raise FileNotFoundError(f"no segment {suffix} in {log}")
        start = compared_from(end)
        with open(log / names[-1], "rb") as file:
            file.seek(start % SEGMENT)
            data = file.read(end - start)
        return cls(system, end, epochs, log, data, int(names[-1][:8], 16))

    def timelines(self) -> Timelines:
        """Those that led here."""
        file = self.log / f"{self.timeline:08X}.history"
        return timelines(file.read_text() if file.exists() else "", self.timeline)


@dataclass(frozen=True)
class Upstream:
    """What the other member told. ``data``: of its log where ours ends; None when it has that no more."""

    system: str
    recovering: bool
    position: int
    timelines: Timelines
    epochs: Mapping[int, int]
    data: bytes | None
    slot: bool


def kinship(own: Own, upstream: Upstream) -> Kin:
    """The first that holds."""
    if own.system != upstream.system:
        return Kin.FOREIGN
    if own.epochs - upstream.epochs.keys() and not upstream.recovering:
        return Kin.DIVERGED
    if upstream.position < own.end:
        return Kin.BEHIND if upstream.recovering else Kin.DIVERGED
    if upstream.data is None:
        return Kin.OUTDATED
    return Kin.SAME if upstream.data == own.data else Kin.DIVERGED


def fork(own: Timelines, other: Timelines) -> int | None:
    """Where two histories part; None when their timelines don't show it."""
    for index, ((mine, my_end), (theirs, their_end)) in enumerate(zip(own, other, strict=False)):
        if mine != theirs:
            return int(own[index - 1][1]) if index else None
        if my_end != their_end:
            return int(min(my_end, their_end))
    return None


def timelines(history: str, current: int) -> Timelines:
    """From the text of ``current``'s history file."""
    lines = [line.split() for line in history.splitlines() if line.strip() and not line.startswith("#")]
    return (*((int(words[0]), float(number(words[1]))) for words in lines), (current, inf))


def segment_suffix(position: int) -> str:
    """The end of the name of the log file that holds ``position``: what comes after the timeline."""
    index = position // SEGMENT
    each = (1 << 32) // SEGMENT
    return f"{index // each:08X}{index % each:08X}"


def compared_from(end: int) -> int:
    """Where the bytes begin that are compared up to ``end``."""
    return max((end - 1) // SEGMENT * SEGMENT, end - COMPARED)


async def ask(session: Session, end: int, slot: str) -> Upstream:
    """Over a connection as the replication user. ``end``: of our own log. Raises EngineError."""
    return await session.run(lambda cursor: _ask(cursor, end, slot), within=5.0)


async def has_slot(session: Session, slot: str) -> bool:
    """Whether upstream keeps log for us. Raises EngineError."""
    return await session.run(lambda cursor: _slot(cursor, slot), within=5.0)


def _slot(cursor: "Cursor", slot: str) -> bool:
    cursor.execute("SELECT wal_status IS DISTINCT FROM 'lost' FROM pg_replication_slots WHERE slot_name = %s", (slot,))
    row = cursor.fetchone()
    return bool(row and row[0])


def _ask(cursor: "Cursor", end: int, slot: str) -> Upstream:
    cursor.execute(_WHO)
    system, recovering, position, timeline = _row(cursor)
    cursor.execute("SELECT epoch, (lsn - '0/0')::bigint FROM hasite.epoch")
    epochs = {int(epoch): int(lsn) for epoch, lsn in cursor.fetchall()}
    history = b""
    if timeline > 1:
        cursor.execute("SELECT pg_read_binary_file(%s)", (f"pg_wal/{timeline:08X}.history",))
        history = bytes(_row(cursor)[0])
    known = timelines(history.decode(), timeline)
    return Upstream(
        system=str(system),
        recovering=recovering,
        position=int(position),
        timelines=known,
        epochs=epochs,
        data=_log(cursor, known, end) if position >= end else None,
        slot=_slot(cursor, slot),
    )


_WHO = """
SELECT (SELECT system_identifier FROM pg_control_system()), pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
         ELSE pg_current_wal_flush_lsn() END - '0/0',
    CASE WHEN pg_is_in_recovery() THEN
        greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""


def _log(cursor: "Cursor", known: Timelines, end: int) -> bytes | None:
    """The bytes before ``end``, from the timeline that held it, or a later one: a switch copies the segment."""
    start = compared_from(end)
    for timeline, last in known:
        if last < end:
            continue
        name = f"pg_wal/{timeline:08X}{segment_suffix(end - 1)}"
        cursor.execute("SELECT pg_read_binary_file(%s, %s, %s, true)", (name, start % SEGMENT, end - start))
        if (data := _row(cursor)[0]) is not None:
            return bytes(data)
    return None


def _row(cursor: "Cursor") -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101
    return row
