"""What MySQL says, as values."""

import re
from contextlib import suppress
from dataclasses import replace

from hasite.guard.engines.mysqlcommon import Source, number
from hasite.guard.engines.mysqlcommon_sql import Connection, Row, SqlError


def named(owned: object) -> str:
    """What is in the binary log and sent, but not acknowledged yet: a follower may have it before that."""
    return re.sub(r"#\d+", "", str(owned or ""))


def in_full(source: Source, connection: Connection) -> Source:
    """The status says only that a worker failed; what it failed at is said elsewhere, when the server notes it."""
    with suppress(SqlError):
        worker = connection.row(
            "SELECT LAST_ERROR_NUMBER AS number, LAST_ERROR_MESSAGE AS words"
            " FROM performance_schema.replication_applier_status_by_worker WHERE LAST_ERROR_NUMBER <> 0 LIMIT 1"
        )
        if worker:
            return replace(source, sql_errno=number(worker, "number"), sql_error=str(worker["words"]))
    return source


def source_of(row: Row) -> Source | None:
    """Of ``SHOW REPLICA STATUS``."""
    if not row:
        return None
    state = str(row["Replica_IO_Running"])
    behind = row["Seconds_Behind_Source"]
    return Source(
        host=str(row["Source_Host"]),
        io="Yes" if state == "Yes" else "No" if state == "No" else "Connecting",
        sql=row["Replica_SQL_Running"] == "Yes",
        received=str(row["Retrieved_Gtid_Set"] or ""),
        io_errno=number(row, "Last_IO_Errno"),
        io_error=str(row["Last_IO_Error"] or ""),
        sql_errno=number(row, "Last_SQL_Errno"),
        sql_error=str(row["Last_SQL_Error"] or ""),
        behind=None if behind is None else float(behind),
    )
