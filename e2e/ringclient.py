"""An app of a ring, as a process: ``python -m e2e.ringclient NAME``, a server as JSON on stdin.

It inserts rows with numbers that the server gives, at the first of its hosts that takes them, as an app behind its
local proxy does; a line of JSON on stdout for each that was acknowledged. ``rows`` reads them all, once; ``prepare``
makes the table.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from e2e.histories.stores import Server

TABLE = "CREATE TABLE IF NOT EXISTS orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, words VARCHAR(60) NOT NULL)"


def connect(server: Server, host: str) -> Any:
    """To one member. Raises pymysql.Error."""
    import pymysql

    return pymysql.connect(
        host=host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        connect_timeout=1,
        read_timeout=2,
        write_timeout=2,
        autocommit=True,
        ssl={"ca": server.ca} if server.ca else None,
    )


def insert(server: Server, name: str) -> Iterator[dict[str, Any]]:
    """What was acknowledged, for ever. What failed may have been done all the same: it is never tried again."""
    import pymysql

    number = 0
    while True:
        for host in server.hosts:
            try:
                connection = connect(server, host)
                with connection, connection.cursor() as cursor:
                    while True:
                        number += 1
                        words = f"{name} {number}"
                        cursor.execute("INSERT INTO orders (words) VALUES (%s)", (words,))
                        yield {"at": time.monotonic(), "host": host, "words": words, "id": cursor.lastrowid}
                        time.sleep(0.02)
            except (pymysql.Error, OSError):
                continue
        time.sleep(0.1)


def main() -> None:
    """Until it is killed."""
    name = sys.argv[1]
    told = json.loads(sys.stdin.read())
    server = Server(**{**told, "hosts": tuple(told["hosts"])})
    if name in ("rows", "prepare"):
        with connect(server, server.hosts[0]) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE if name == "prepare" else "SELECT id, words FROM orders ORDER BY id")
            print(json.dumps(cursor.fetchall()))
        return
    for done in insert(server, name):
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
