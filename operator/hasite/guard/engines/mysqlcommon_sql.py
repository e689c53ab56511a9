"""SQL without blocking the event loop: one connection and one thread, given up when the server does not answer."""

import asyncio
import importlib
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon import ROOT_SESSION

T = TypeVar("T")
Row = dict[str, Any]


class NotAnswering(EngineError):
    """Nobody listens, or it took too long."""


class SqlError(EngineError):
    """The server refused a statement."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} ({number})")
        self.number = number


class Connection:
    """A connection for use in one thread."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._driver: Any = importlib.import_module("pymysql")
        self.socket: socket.socket | None = None
        self._connection: Any = self._guarded(
            lambda: self._driver.connect(
                charset="utf8mb4", autocommit=True, init_command=ROOT_SESSION, **{"connect_timeout": 2, **parameters}
            )
        )
        self.socket = getattr(self._connection, "_sock", None)

    @property
    def thread(self) -> int:
        """The server's number for this connection."""
        return int(self._connection.thread_id())

    def rows(self, statement: str) -> list[Row]:
        """Of one statement, given whole: names and values in it are quoted by the caller."""

        def work() -> list[Row]:
            with self._connection.cursor(self._driver.cursors.DictCursor) as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []

        return self._guarded(work)

    def row(self, statement: str) -> Row:
        """The first one; empty when there is none."""
        rows = self.rows(statement)
        return rows[0] if rows else {}

    def close(self) -> None:
        """Without a word of farewell, which could block."""
        with suppress(Exception):
            self._connection._force_close()

    def _guarded(self, work: Callable[[], T]) -> T:
        errors = self._driver.err
        try:
            return work()
        except errors.MySQLError as error:
            number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            text = " ".join(str(part) for part in error.args[1:]) or str(error)
            if number and number not in (1053, 1927) and not 2000 <= number < 3000:
                raise SqlError(number, text) from None
            raise NotAnswering(text) from None
        except (OSError, ValueError, AttributeError, TypeError) as error:  # what a socket cut under the driver gives
            raise NotAnswering(str(error) or type(error).__name__) from None


class Session:
    """A connection that is made when it is needed and kept. Not for two callers at once.

    ``stuck``: called when an abandoned statement would not end at the server; None: its statements change nothing.
    """

    def __init__(self, parameters: Mapping[str, Any], stuck: Callable[[], None] | None = None) -> None:
        self._parameters = dict(parameters)
        self._stuck = stuck
        self._connection: Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[Connection], T], timeout: float) -> T:  # noqa: ASYNC109
        """What ``work`` returns, done in the session's thread. Raises NotAnswering or SqlError.

        When it takes longer than ``timeout`` seconds, or the caller is cancelled, it has ended, at the server as well,
        before this returns.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(future)
        except TimeoutError:
            await asyncio.shield(self._abandon(future))
            raise NotAnswering(f"no answer within {timeout:g} s") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._abandon(future))
            raise

    async def rows(self, statement: str, timeout: float = 5.0) -> list[Row]:  # noqa: ASYNC109
        """The rows of one statement."""
        return await self.run(lambda connection: connection.rows(statement), timeout)

    async def row(self, statement: str, timeout: float = 5.0) -> Row:  # noqa: ASYNC109
        """The first row; empty when there is none."""
        return await self.run(lambda connection: connection.row(statement), timeout)

    async def do(self, *statements: str, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """One after the other."""
        for statement in statements:
            await self.rows(statement, timeout)

    def close(self) -> None:
        """At once; what is under way fails."""
        self._cut()
        self._connection = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)

    def _call(self, work: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = Connection(self._parameters)
        try:
            return work(self._connection)
        except NotAnswering:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            raise

    def _cut(self) -> None:
        connection = self._connection
        if connection is not None and connection.socket is not None:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    async def _abandon(self, future: "asyncio.Future[Any]") -> None:
        """A server goes on with a statement whose client has left: it is told to stop, and seen to have stopped."""
        await asyncio.wait([future], timeout=0.1 if self._stuck else 0.0)  # most end by themselves
        if not future.done() and self._stuck is not None and self._connection is not None:
            number = self._connection.thread
            if not await asyncio.to_thread(self._ended, number):
                self._stuck()
        while not future.done():
            self._cut()
            await asyncio.wait([future], timeout=0.05)
        if not future.cancelled():
            future.exception()
        self.close()

    def _ended(self, number: int) -> bool:
        try:
            connection = Connection({**self._parameters, "connect_timeout": 1, "read_timeout": 0.5})
        except EngineError:
            return False
        try:
            with suppress(SqlError):
                connection.rows(f"KILL {number}")
            look = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number}"  # noqa: S608
            return any(not connection.rows(look) for _ in range(200))
        except EngineError:
            return False
        finally:
            connection.close()
