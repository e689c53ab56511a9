"""MariaDB's own tools on its binary and relay logs."""

from pathlib import Path

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon_programs import pipe, run


async def apply(relays: list[str], gtid: str, socket: Path, packet: int) -> None:
    """What is in the relay logs after ``gtid``. A row comes in one statement, a third longer than it is: ``packet``,
    the longest statement. Raises EngineError."""
    position = [f"--start-position={gtid}"] if gtid else []
    reader = ["/usr/bin/mariadb", "--no-defaults", f"--socket={socket}", "--binary-mode"]
    reader.append(f"--max-allowed-packet={packet}")
    # The writer may complain: a transaction that was not received whole is the log's end.
    _, failure = await pipe(["/usr/bin/mariadb-binlog", "--no-defaults", *position, *relays], reader)
    if failure:
        raise EngineError(f"what was received can't be applied: {failure}")


async def read(logs: list[str], start: str, into: Path) -> None:
    """As statements, from ``start`` on where the logs go so far back. Raises EngineError."""
    command = ["/usr/bin/mariadb-binlog", "--no-defaults", "--verbose", "--base64-output=auto"]
    position = [f"--start-position={start}"] if start else []
    with into.open("wb") as file:
        try:
            await run([*command, *position, *logs], stdout=file.fileno())
        except EngineError:  # the logs begin later than that: all of them, then
            file.truncate(0)
            file.seek(0)
            await run([*command, *logs], stdout=file.fileno())
