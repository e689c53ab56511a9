"""Keeps what a returning primary alone had: its log after the fork, what is in it, and the rows that it wrote.

In a folder for each occasion: ``divergence.json`` (from, to, bytes, transactions, rows by table), ``rows.jsonl`` (the
rows as they stood, one a line), ``records.txt`` (pg_waldump's reading), ``wal/`` (the segments themselves).
"""

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_kin import segment_suffix
from hasite.guard.engines.postgresql_server import SEGMENT, Server, notation, sync_folder
from hasite.guard.engines.postgresql_sql import Session
from hasite.guard.engines.threads import in_thread

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

RECORDS = 200_000
"""Log records that are read, at most; ROWS of one table that are written out. The segments hold the rest."""
ROWS = 10_000
ROW = 1 << 20
BYTES = 64 << 20
"""Of rows, at most: of one, and of all that are written out."""

_CHANGE = re.compile(
    r"rmgr: Heap2? .* tx: +(\d+), .* desc: (?:INSERT|UPDATE|HOT_UPDATE|MULTI_INSERT)\b.* rel (\d+)/(\d+)/(\d+)"
)
_COMMIT = re.compile(r"rmgr: Transaction .* tx: +(\d+), .* desc: COMMIT(?:_PREPARED)? (.*)")
_BELOW = re.compile(r"subxacts: ([\d ]+)")


@dataclass
class Divergence:
    """What the summary says. ``complete``: the rows are all that was inserted or updated."""

    member: str
    epoch: int
    saved_at: str
    timeline: int
    from_lsn: str
    to_lsn: str
    bytes: int
    transactions: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    complete: bool = True
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Changes:
    """``transactions``: those that committed; ``touched``: tables by (database, tablespace, file node)."""

    commits: int
    transactions: frozenset[str]
    touched: frozenset[tuple[int, int, int]]


def read_records(lines: Iterable[str]) -> Changes:
    """From pg_waldump's output."""
    commits = 0
    committed: set[str] = set()
    touched: dict[tuple[int, int, int], set[str]] = {}
    for line in lines:
        if change := _CHANGE.match(line):
            transaction, space, database, node = change.groups()
            touched.setdefault((int(database), int(space), int(node)), set()).add(transaction)
        elif commit := _COMMIT.match(line):
            commits += 1
            committed.add(commit[1])
            for below in _BELOW.findall(commit[2]):
                committed.update(below.split())
    return Changes(commits, frozenset(committed), frozenset(table for table, by in touched.items() if by & committed))


async def save(server: Server, found: Divergence, start: int, end: int) -> Path:
    """Keeps the log from ``start`` to ``end`` in a new folder; the server must run, with all of it replayed.

    What was saved already, before a return that failed, is not saved again.
    """
    saved = server.files.layout.saved
    for file in saved.glob("*Z/divergence.json"):
        before = json.loads(file.read_text())
        if all(before[key] == getattr(found, key) for key in ("epoch", "timeline", "from_lsn")):
            return file.parent
    aside = _begin(saved, found)
    await in_thread(_keep_log, server.files.data / "pg_wal", aside / "wal", start, end)
    changes = await _records(server, found, aside / "records.txt", start, end)
    await _rows(server, found, changes, aside / "rows.jsonl")
    return await in_thread(_finish, aside, found)


def keep_unread(server: Server, found: Divergence) -> Path:
    """Keeps the whole log, of a server that is down."""
    aside = _begin(server.files.layout.saved, found)
    shutil.copytree(server.files.data / "pg_wal", aside / "wal")
    return _finish(aside, found)


def _begin(saved: Path, found: Divergence) -> Path:
    """A folder that does not count until it is finished. What an earlier try has left half done goes."""
    for stale in saved.glob("*.new"):
        shutil.rmtree(stale)
    aside = saved / f"{found.epoch}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.new"
    aside.mkdir(parents=True, mode=0o700)
    return aside


def _finish(aside: Path, found: Divergence) -> Path:
    (aside / "divergence.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    _sync(aside)
    folder = aside.rename(aside.with_suffix(""))
    sync_folder(folder.parent)
    return folder


def _keep_log(log: Path, folder: Path, start: int, end: int) -> None:
    folder.mkdir()
    suffixes = {segment_suffix(at) for at in range(start // SEGMENT * SEGMENT, end, SEGMENT)}
    suffixes.add(segment_suffix(start))
    for file in log.iterdir():
        if file.name.endswith(".history") or (len(file.name) == 24 and file.name[8:] in suffixes):
            shutil.copyfile(file, folder / file.name)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


async def _records(server: Server, found: Divergence, file: Path, start: int, end: int) -> Changes:
    """A log that can't be read to the end (a segment is gone) leaves a remark, and what was read."""
    log = server.files.data / "pg_wal"
    options = ("-p", str(log), "-t", str(found.timeline), "-n", str(RECORDS))
    while start < end and not (log / f"{found.timeline:08X}{segment_suffix(start)}").exists():
        start = (start // SEGMENT + 1) * SEGMENT
        found.complete = False
    with file.open("w+") as output:
        try:
            span = ("-s", notation(start), "-e", notation(end))
            await server.tools.run("pg_waldump", *options, *span, into=output.fileno())
        except EngineError as error:
            found.complete = False
            found.remarks.append(str(error))
        output.seek(0)
        changes = await in_thread(read_records, output)
    found.transactions = changes.commits
    return changes


async def _rows(server: Server, found: Divergence, changes: Changes, file: Path) -> None:
    place = server.files.place
    databases = dict(await server.hands.fetch("SELECT oid::int8, datname FROM pg_database WHERE datallowconn"))
    with file.open("w") as output:
        for oid in sorted({database for database, _, _ in changes.touched}):
            if oid not in databases:
                continue
            where = {"host": str(place.sockets), "port": str(place.port), "user": place.user, "dbname": databases[oid]}
            session = Session({**where, "connect_timeout": "2"}, "SET statement_timeout = '20s'")
            try:
                nodes = [(space, node) for database, space, node in sorted(changes.touched) if database == oid]
                for node in nodes:
                    await _table(session, found, (databases[oid], *node), changes.transactions, output)
            finally:
                session.close()


async def _table(
    session: Session, found: Divergence, table: tuple[str, int, int], transactions: frozenset[str], output: TextIO
) -> None:
    """The rows of one table that these transactions wrote and nobody has changed since. Its name in ``found``."""
    database, *node = table
    try:
        named = await session.fetch(
            "SELECT c.oid::regclass::text, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = pg_filenode_relation(%s::int8::oid, %s::int8::oid) AND c.relkind IN ('r', 'm')",
            tuple(node),
        )
        if not named or named[0][1] in ("pg_catalog", "pg_toast", "information_schema", "hasite"):
            return
        name = f"{database}.{named[0][0]}"
        room = BYTES - output.tell()

        def work(cursor: "Cursor") -> tuple[int, str]:
            return _copy_rows(cursor, named[0][0], sorted(transactions), room, _Labelled(output, name))

        found.rows[name], missing = await session.run(work, within=60.0)
    except EngineError as error:
        found.complete = False
        found.remarks.append(f"{database}: {error}")
        return
    if missing:
        found.complete = False
        found.remarks.append(f"{name}: {missing}")


class _Labelled:
    """Writes rows of one table."""

    def __init__(self, output: TextIO, name: str) -> None:
        self._output, self._label = output, json.dumps(name)

    def write(self, row: str) -> int:
        """How many characters that were."""
        return self._output.write(f'{{"table": {self._label}, "row": {row}}}\n')


def _copy_rows(cursor: "Cursor", name: str, transactions: list[str], room: int, output: _Labelled) -> tuple[int, str]:
    """How many were written, and why not all. A few at a time: the guard is to stay small."""
    shorter = f"CASE WHEN octet_length(j) <= {ROW} THEN j END"
    cursor.execute("BEGIN")
    cursor.execute(
        f"DECLARE r NO SCROLL CURSOR FOR SELECT {shorter} FROM (SELECT to_jsonb(t)::text FROM {name} t "  # noqa: S608
        "WHERE xmin::text = ANY (%s)) s (j)",
        (transactions,),
    )
    count, missing = 0, ""
    while not missing.startswith("more"):
        cursor.execute("FETCH 16 FROM r")
        rows = cursor.fetchall()
        if not rows:
            break
        for (row,) in rows:
            if row is None:
                missing = f"a row has more than {ROW >> 20} MiB"
            elif count == ROWS or room < len(row):
                missing = f"more than {ROWS} rows, or {BYTES >> 20} MiB in all"
                break
            else:
                room -= output.write(row)
                count += 1
    cursor.execute("ROLLBACK")
    return count, missing
