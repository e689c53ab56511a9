"""`python -m e2e.bench.writer ENGINE`: an app's connections that write one row after the other through its local proxy.

Every attempt is a line of JSON on stdout, until SIGTERM. Then one more line: the rows that were acknowledged and are
not there. The server comes as JSON on stdin, so that no password is in an argument.
"""

import contextlib
import json
import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from e2e.histories.stores import Server

WRITERS = 4
PAUSE = 0.04
"""Seconds between two attempts of one connection: together they try every 10 ms."""

CONNECT_SECONDS = 2
ANSWER_SECONDS = 10.0
FINAL_SECONDS = 60.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS bench_writes (
    batch varchar(32) NOT NULL, writer int NOT NULL, number int NOT NULL, PRIMARY KEY (batch, writer, number))
"""
INSERT = "INSERT INTO bench_writes VALUES (%s, %s, %s)"
ALL = "SELECT writer, number FROM bench_writes WHERE batch = %s"


@dataclass(frozen=True)
class Attempt:
    """Times of the machine's monotonic clock. ``node``: the server that acknowledged it; "" when none did."""

    began: float
    ended: float
    writer: int
    number: int
    node: str
    why: str = ""


class Doubtful(Exception):
    """The server said yes and warned: a wait for its standby was cancelled."""


class Postgresql:
    """One connection."""

    WHO = "SELECT host(inet_server_addr())"

    def __init__(self, server: Server) -> None:
        import psycopg

        self._warnings: list[str] = []
        self._connection: Any = psycopg.connect(
            host=server.hosts[0],
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=server.database,
            connect_timeout=CONNECT_SECONDS,
            sslmode="verify-ca" if server.ca else "require",
            sslrootcert=server.ca or None,
            autocommit=True,
        )
        self._connection.add_notice_handler(
            lambda said: self._warnings.append(str(said.message_primary)) if said.severity == "WARNING" else None
        )
        self.node = str(self.ask(self.WHO)[0][0])

    def ask(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows, if there are any. Raises the driver's errors, and ``Doubtful``."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            rows = cursor.fetchall() if cursor.description else []
        if self._warnings:
            raise Doubtful(self._warnings[0])
        return list(rows)

    def close(self) -> None:
        """At once."""
        self._connection.close()


class Mariadb:
    """One connection."""

    WHO = "SELECT @@report_host, @@read_only"

    def __init__(self, server: Server) -> None:
        import pymysql

        self._connection: Any = pymysql.connect(
            host=server.hosts[0],
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
            ssl={"ca": server.ca or None, "check_hostname": False},
            autocommit=True,
        )
        self.node = str(self.ask(self.WHO)[0][0])

    def ask(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows, if there are any. Raises the driver's errors."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def close(self) -> None:
        """At once."""
        self._connection.close()


Connection = Postgresql | Mariadb


def connect(engine: str, server: Server) -> Connection:
    """Raises the driver's errors."""
    return Postgresql(server) if engine == "postgresql" else Mariadb(server)


class Writers:
    """All connections of one batch."""

    def __init__(self, engine: str, server: Server) -> None:
        self._engine = engine
        self._server = server
        self._batch = secrets.token_hex(16)
        self._stop = threading.Event()
        self._say = threading.Lock()
        self._acknowledged: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        connected = connect(self._engine, self._server)
        connected.ask(SCHEMA)
        connected.close()
        threads = [threading.Thread(target=self._write, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
            time.sleep(PAUSE / WRITERS)
        for thread in threads:
            thread.join()
        self._tell({"missing": sorted(self._missing()), "acknowledged": len(self._acknowledged)})

    def _write(self, writer: int) -> None:
        connected: Connection | None = None
        number = 0
        while not self._stop.is_set():
            number += 1
            began, node, why = time.monotonic(), "", ""
            try:
                connected = connected or connect(self._engine, self._server)
                connected.ask(INSERT, (self._batch, writer, number))
                node = connected.node
                self._acknowledged.add((writer, number))
            except Exception as error:
                why = f"{type(error).__name__}: {error}"[:200]
                if connected is not None:
                    with contextlib.suppress(Exception):
                        connected.close()
                connected = None
            self._tell(asdict(Attempt(began, time.monotonic(), writer, number, node, why)))
            self._stop.wait(PAUSE)

    def _tell(self, line: object) -> None:
        with self._say:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def _missing(self) -> set[tuple[int, int]]:
        """Acknowledged, and not there. Raises the driver's error of the last try."""
        end = time.monotonic() + FINAL_SECONDS
        while True:
            try:
                connected = connect(self._engine, self._server)
                found = {(int(writer), int(number)) for writer, number in connected.ask(ALL, (self._batch,))}
                return self._acknowledged - found
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)


def main() -> None:
    """See the module."""
    server = json.loads(sys.stdin.read())
    Writers(sys.argv[1], Server(**{**server, "hosts": tuple(server["hosts"])})).run()


if __name__ == "__main__":
    main()
