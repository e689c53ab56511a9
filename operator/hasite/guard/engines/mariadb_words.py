"""What MariaDB and its tools write, read. Pure, but for the files that are named."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon import Source, number
from hasite.guard.engines.mysqlcommon_domains import lacking
from hasite.guard.engines.mysqlcommon_sql import Row

VARIABLES = (
    "@@read_only AS read_only, @@gtid_binlog_pos AS logged, @@gtid_slave_pos AS replicated,"
    " @@rpl_semi_sync_slave_enabled AS answering, @@rpl_semi_sync_master_enabled AS awaiting"
)
THREADS = (
    "SELECT COMMAND, HOST, STATE, TIME FROM information_schema.PROCESSLIST"
    " WHERE COMMAND LIKE 'Binlog Dump%' OR STATE LIKE 'Waiting for semi-sync ACK%'"
)
CLIENTS = (
    "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND NOT LIKE 'Binlog Dump%'"
    " AND COMMAND NOT IN ('Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker') AND USER NOT IN ('system user', 'root')"
)


def newest(text: object) -> tuple[int, int, int]:
    """Of domain 0 in a position: sequence number, server, domain; zeros when there is none."""
    parts = [tuple(int(part) for part in each.split("-")) for each in str(text or "").split(",") if each.strip()]
    return max(((part[2], part[1], part[0]) for part in parts if part[0] == 0), default=(0, 0, 0))


def source_of(row: Row) -> Source | None:
    """Of SHOW SLAVE STATUS."""
    if not row:
        return None
    state = str(row["Slave_IO_Running"])
    behind = row["Seconds_Behind_Master"]
    return Source(
        host=str(row["Master_Host"]),
        io="Yes" if state == "Yes" else "No" if state == "No" else "Connecting",
        sql=row["Slave_SQL_Running"] == "Yes",
        received=str(row["Gtid_IO_Pos"] or ""),
        io_errno=number(row, "Last_IO_Errno"),
        io_error=str(row["Last_IO_Error"] or ""),
        sql_errno=number(row, "Last_SQL_Errno"),
        sql_error=str(row["Last_SQL_Error"] or ""),
        behind=None if behind is None else float(behind),
    )


_TRANSACTION = re.compile(r"\tGTID (\d+-(\d+)-\d+)")


def next_transaction(lines: Sequence[str], position: str) -> tuple[str, int, Sequence[str]] | None:
    """The first one after a position in what ``mariadb-binlog`` wrote: its name, its server, and its lines."""
    for at, line in enumerate(lines):
        found = _TRANSACTION.search(line)
        if found is not None and lacking(found[1], position):
            return found[1], int(found[2]), lines[at:]
    return None


def copied_position(folder: Path) -> str:
    """That of a prepared copy. Raises EngineError."""
    for name in ("xtrabackup_binlog_info", "mariadb_backup_binlog_info"):
        with suppress(OSError, IndexError):
            return (folder / name).read_text().split("\t")[2].strip()
    raise EngineError("the copy does not say which transactions it has")


def transactions(statements: Path) -> int:
    """How many there are in what ``mariadb-binlog`` wrote."""
    with statements.open(errors="replace") as file:
        return sum(line.startswith("#") and "\tGTID " in line for line in file)
