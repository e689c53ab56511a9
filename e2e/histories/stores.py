"""How a client talks to each engine: one connection, plain SQL, and what an error says about what happened.

No server-side time-out is used: PostgreSQL answers a cancelled wait for a synchronous standby with a success and a
warning (its manual, "Synchronous Replication"). A client that waits too long closes its connection instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ACCOUNTS = 5
OPENING_BALANCE = 100
TOTAL = ACCOUNTS * OPENING_BALANCE

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS lists (id int PRIMARY KEY, content text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance int NOT NULL)",
)


class Refused(Exception):
    """It certainly did not happen."""


class Uncertain(Exception):
    """It may have happened, or may still."""


@dataclass(frozen=True)
class Server:
    """Where clients connect. ``ca``: path of the certificate that the server is verified by; "" for a local proxy."""

    hosts: tuple[str, ...]
    port: int
    user: str
    password: str
    database: str
    ca: str = ""


@dataclass(frozen=True)
class Said:
    """Who answered, and in which epoch."""

    node: str
    epoch: int


class Store(Protocol):
    """One connection. Every method raises ``Refused`` or ``Uncertain``."""

    def prepare(self, keys: int) -> None:
        """Tables, all lists empty, opening balances."""
        ...

    def append(self, key: int, value: int) -> Said:
        """Puts the value at the end of the list."""
        ...

    def read(self, key: int) -> tuple[tuple[int, ...], Said]:
        """The list."""
        ...

    def transfer(self, source: int, target: int, amount: int) -> Said:
        """Moves money."""
        ...

    def total(self) -> tuple[int, Said]:
        """The sum of all accounts."""
        ...

    def close(self) -> None:
        """Lets go of the connection, whatever its state."""
        ...


class SqlStore:
    """What both engines share. Subclasses connect, name themselves and sort their errors."""

    WHO: str
    """A query for the node's name and its epoch."""

    APPEND: str

    def __init__(self, server: Server, timeout: float) -> None:
        self.server = server
        self.timeout = timeout
        self.connection: Any = self._connect()

    def _connect(self) -> Any:
        raise NotImplementedError

    def _is_certain(self, error: Exception) -> bool:
        """The statement, or its transaction, was refused as a whole."""
        raise NotImplementedError

    def _check_warnings(self) -> None:
        """Raises ``Uncertain`` when the server took something back while it said yes."""

    def _transaction(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> tuple[list[Any], Said]:
        committing = False
        try:
            with self.connection.cursor() as cursor:
                rows: list[Any] = []
                for sql, arguments in (*statements, (self.WHO, ())):
                    cursor.execute(sql, arguments)
                    rows.append(cursor.fetchall() if cursor.description else None)
                committing = True
                self.connection.commit()
            self._check_warnings()
        except Uncertain:
            raise
        except Exception as error:
            if not committing or self._is_certain(error):
                raise Refused(f"{type(error).__name__}: {error}"[:200]) from error
            raise Uncertain(f"{type(error).__name__}: {error}"[:200]) from error
        node, epoch = rows[-1][0]
        return rows, Said(str(node), int(epoch))

    def prepare(self, keys: int) -> None:
        """See ``Store``."""
        lists = [("INSERT INTO lists VALUES (%s, '')", (key,)) for key in range(keys)]
        accounts = [("INSERT INTO accounts VALUES (%s, %s)", (n, OPENING_BALANCE)) for n in range(ACCOUNTS)]
        empty = [("DELETE FROM lists", ()), ("DELETE FROM accounts", ())]
        self._transaction([*((sql, ()) for sql in SCHEMA), *empty, *lists, *accounts])

    def append(self, key: int, value: int) -> Said:
        """See ``Store``."""
        return self._transaction([(self.APPEND, (f"{value} ", key))])[1]

    def read(self, key: int) -> tuple[tuple[int, ...], Said]:
        """See ``Store``."""
        rows, said = self._transaction([("SELECT content FROM lists WHERE id = %s", (key,))])
        return tuple(int(word) for word in rows[0][0][0].split()), said

    def transfer(self, source: int, target: int, amount: int) -> Said:
        """See ``Store``."""
        first, second = sorted([(source, -amount), (target, amount)])
        sql = "UPDATE accounts SET balance = balance + %s WHERE id = %s"
        return self._transaction([(sql, (change, account)) for account, change in (first, second)])[1]

    def total(self) -> tuple[int, Said]:
        """See ``Store``."""
        rows, said = self._transaction([("SELECT SUM(balance) FROM accounts", ())])
        return int(rows[0][0][0]), said

    def close(self) -> None:
        """See ``Store``."""
        self.connection.close()


class PostgresqlStore(SqlStore):
    """libpq finds the member that takes writes itself."""

    WHO = "SELECT current_setting('cluster_name'), current_setting('hasite.epoch')"
    APPEND = "UPDATE lists SET content = content || %s::text WHERE id = %s"

    def _check_warnings(self) -> None:
        """A wait for a standby that was cancelled is a success with a warning."""
        if self._warnings:
            raise Uncertain(self._warnings[0][:200])

    def _connect(self) -> Any:
        import psycopg

        server = self.server
        self._warnings: list[str] = []
        try:
            connection = psycopg.connect(
                host=",".join(server.hosts),
                port=server.port,
                user=server.user,
                password=server.password,
                dbname=server.database,
                target_session_attrs="read-write",
                connect_timeout=2,
                # A server that loses its power after it took the query owes an answer and will never say so.
                tcp_user_timeout=int(self.timeout * 1000),
                keepalives_idle=1,
                keepalives_interval=1,
                keepalives_count=int(self.timeout),
                sslmode="verify-full" if server.ca else "disable",
                sslrootcert=server.ca or None,
            )
        except psycopg.Error as error:
            raise Refused(f"connect: {error}"[:200]) from error
        connection.add_notice_handler(self._notice)
        return connection

    def _notice(self, notice: Any) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append(str(notice.message_primary))

    def _is_certain(self, error: Exception) -> bool:
        """Class 40 (rolled back) and 25006 (read-only): PostgreSQL's manual, appendix A."""
        state = getattr(error, "sqlstate", None) or ""
        return (state.startswith("40") and state != "40003") or state == "25006"


class MysqlStore(SqlStore):
    """MySQL and MariaDB: the first host that is not read-only."""

    WHO = "SELECT @@report_host, (SELECT MAX(epoch) FROM hasite.epoch)"
    APPEND = "UPDATE lists SET content = CONCAT(content, %s) WHERE id = %s"

    def _connect(self) -> Any:
        words = []
        for host in self.server.hosts:
            try:
                return self._connect_to(host)
            except Exception as error:
                words.append(f"{host}: {error}"[:100])
        raise Refused(f"connect: {'; '.join(words)}")

    def _connect_to(self, host: str) -> Any:
        import pymysql

        server = self.server
        connection = pymysql.connect(
            host=host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            connect_timeout=2,
            read_timeout=self.timeout,
            write_timeout=self.timeout,
            ssl={"ca": server.ca} if server.ca else None,
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@read_only")
            row = cursor.fetchone()
        if row is None or row[0]:
            connection.close()
            raise Refused("read-only")
        return connection

    def _is_certain(self, error: Exception) -> bool:
        """1290, 1836: read-only; 1205, 1213: rolled back (Server Error Message Reference)."""
        return bool(error.args) and error.args[0] in (1205, 1213, 1290, 1836)


def store(engine: str, server: Server, timeout: float = 3.0) -> Store:
    """A connection to the member that takes writes. Raises ``Refused``."""
    return PostgresqlStore(server, timeout) if engine == "postgresql" else MysqlStore(server, timeout)
