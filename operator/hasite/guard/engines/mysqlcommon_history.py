"""Reading ``hasite.epoch``: this member's, and another's over the network."""

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.mysqlcommon import REPLICATION_USER, History, Reign
from hasite.guard.engines.mysqlcommon_sql import Connection, Row, SqlError
from hasite.guard.link import Tls, identity
from hasite.guard.model import Member

T = TypeVar("T")

_NO_TABLE = (1049, 1146)


def history(connection: Connection, offset: int, *, writable: bool = False) -> History:
    """The rows of ``hasite.epoch``, in a thread; none before the first primary ruled."""
    try:
        rows = connection.rows("SELECT epoch, holder, server, begins FROM hasite.epoch ORDER BY epoch")
    except SqlError as error:
        if error.number not in _NO_TABLE:
            raise
        rows = []
    return History(tuple(each for row in rows if (each := reign(row))), offset, writable)


def with_newest(connection: Connection, expressions: str) -> Row:
    """One row: the expressions, and the last row of ``hasite.epoch``, when there is one."""
    try:
        return connection.row(
            f"SELECT {expressions}, epoch, holder, server, begins FROM (SELECT 1) AS one LEFT JOIN"  # noqa: S608
            " (SELECT * FROM hasite.epoch ORDER BY epoch DESC LIMIT 1) AS last ON TRUE"
        )
    except SqlError as error:
        if error.number not in _NO_TABLE:
            raise
        return connection.row(f"SELECT {expressions}")


def reign(row: Row) -> Reign | None:
    """From a row's columns; None when they are NULL or not there."""
    if row.get("epoch") is None:
        return None
    return Reign(int(row["epoch"]), str(row["holder"]), int(row["server"]), int(row["begins"]))


async def remote(layout: Layout, member: Member, port: int, work: Callable[[Connection], T]) -> T:
    """``work`` with another member's server, in a thread, over TLS, each side knowing who the other is."""
    context = Tls(layout.ca, layout.certificate, layout.key).context(ssl.Purpose.SERVER_AUTH)
    parameters = {
        "host": member.address,
        "port": port,
        "user": REPLICATION_USER,
        "ssl": context,
        "read_timeout": 3.0,
        "write_timeout": 3.0,
    }

    def call() -> T:
        connection = Connection(parameters)
        try:
            certificate = connection.socket.getpeercert() if isinstance(connection.socket, ssl.SSLSocket) else None
            if identity(certificate) != member.name:
                raise EngineError(f"the server at {member.address} is not {member.name}")
            return work(connection)
        finally:
            connection.close()

    return await asyncio.to_thread(call)
