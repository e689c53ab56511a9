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

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_kin import segment_suffix
from hasite.guard.engines.postgresql_server import SEGMENT, Server, notation, sync_folder
from hasite.guard.engines.postgresql_sql import Session, in_thread

RECORDS = 200_000
"""Log records that are read, at most; ROWS of one table that are written out. The segments hold the rest."""
ROWS = 10_000

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
    """A folder that does not count until it is finished."""
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
                for space, node in nodes:
                    for line in await _table(session, found, databases[oid], (space, node), changes.transactions):
                        output.write(line + "\n")
            finally:
                session.close()


async def _table(
    session: Session, found: Divergence, database: str, table: tuple[int, int], transactions: frozenset[str]
) -> list[str]:
    """The rows of one table that these transactions wrote and nobody has changed since. Its name in ``found``."""
    try:
        named = await session.fetch(
            "SELECT c.oid::regclass::text, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = pg_filenode_relation(%s::int8::oid, %s::int8::oid) AND c.relkind IN ('r', 'm')",
            table,
        )
        if not named or named[0][1] in ("pg_catalog", "pg_toast", "information_schema", "hasite"):
            return []
        name = named[0][0]
        rows = await session.fetch(
            f"SELECT to_jsonb(t)::text FROM {name} t WHERE xmin::text = ANY (%s) LIMIT {ROWS + 1}",  # noqa: S608
            (sorted(transactions),),
            within=30.0,
        )
    except EngineError as error:
        found.complete = False
        found.remarks.append(f"{database}: {error}")
        return []
    if len(rows) > ROWS:
        found.complete = False
        found.remarks.append(f"{database}.{name}: more than {ROWS} rows")
    found.rows[f"{database}.{name}"] = min(len(rows), ROWS)
    label = json.dumps(f"{database}.{name}")
    return [f'{{"table": {label}, "row": {row}}}' for (row,) in rows[:ROWS]]
