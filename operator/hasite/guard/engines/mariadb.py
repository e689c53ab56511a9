"""MariaDB 10.11 and later.

GTIDs of one domain are a sequence: under one primary at a time the number of the newest says how much a server has.
MariaDB throws relay logs away when replication is started after it was stopped whole: what they hold was acknowledged
to the primary, so it is applied first, with MariaDB's own ``mariadb-binlog``, after each start of the server.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from hasite.guard.copy import CopyServer, output, receive
from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.mariadb_settings import DENIED, configuration, unit_file
from hasite.guard.engines.mysqlcommon import (
    EPOCH_TABLE,
    OPERATOR_RIGHTS,
    OPERATOR_SUBJECT,
    OPERATOR_USER,
    PULSE_TABLE,
    REPLICATION_USER,
    History,
    Lonely,
    Look,
    Place,
    Source,
    kept,
    number,
    quoted,
)
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.engines.mysqlcommon_flavour import Admitted, Files, pipe, row_counts, run
from hasite.guard.engines.mysqlcommon_history import history, reign, remote, with_newest
from hasite.guard.engines.mysqlcommon_sql import Connection, Row, Session, SqlError
from hasite.guard.model import Member, Settings

__all__ = ["DENIED", "MariaDB", "unit_file"]

_FRESH = "hasite-copy.json"
_BROKEN = frozenset({1007, 1008, 1032, 1050, 1051, 1062, 1146, 1396, 1594, 1950})
_CLIENTS = (
    "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND NOT LIKE 'Binlog Dump%'"
    " AND COMMAND NOT IN ('Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker') AND USER NOT IN ('system user', 'root')"
)


class MariaDB(Driver):
    """Satisfies ``Engine``."""

    def __init__(self, settings: Settings, layout: Layout, service: Service, place: Place | None = None) -> None:
        place = place or Place(layout.data.with_name("mariadb.cnf"))
        super().__init__(settings, layout, service, Server(settings, layout, place))


class Server:
    """MariaDB's ``Flavour``."""

    MOST_AWAITED = 1
    STOP_RECEIVING = "STOP SLAVE IO_THREAD"
    START_APPLYING = "START SLAVE SQL_THREAD"
    FORGET: tuple[str, ...] = ("STOP SLAVE", "RESET SLAVE ALL")
    SILENCE = "SET GLOBAL rpl_semi_sync_slave_enabled=OFF"
    OWN_WRITES: tuple[str, ...] = ()
    TAKE_WRITES: tuple[str, ...] = ("SET GLOBAL event_scheduler=ON", "SET GLOBAL read_only=OFF")

    def __init__(self, settings: Settings, layout: Layout, place: Place) -> None:
        self._settings, self._layout, self._place = settings, layout, place
        self.files = Files(layout, place)
        self._copies: CopyServer | None = None

    def configure(self, settings: Settings) -> None:
        """As ``Flavour`` says."""
        self._settings = settings

    async def open(self, admitted: Admitted) -> None:
        """As ``Flavour`` says."""
        host = None if self._place.listen == "*" else self._place.listen
        self._copies = CopyServer(self._layout, (host, self._place.copy_port), self._produce, admitted)
        await self._copies.start()

    async def close(self) -> None:
        """As ``Flavour`` says."""
        if self._copies is not None:
            await self._copies.close()

    # a database's beginning

    async def make(self) -> None:
        """As ``Flavour`` says."""
        fresh = self.files.begin()
        await run(
            [
                "/usr/bin/mariadb-install-db",
                "--no-defaults",
                f"--datadir={fresh}",
                "--auth-root-authentication-method=socket",
                "--auth-root-socket-user=root",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            user=self._place.user,
        )

    async def copy(self, upstream: Member) -> None:
        """As ``Flavour`` says."""
        fresh = self.files.begin()
        unpack = await asyncio.create_subprocess_exec(
            "/usr/bin/mbstream", "-x", "-C", str(fresh), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert unpack.stdin is not None  # noqa: S101
            into = unpack.stdin

            async def take(part: bytes) -> None:
                into.write(part)
                await into.drain()

            await receive(self._layout, (upstream.name, upstream.address, self._place.copy_port), "mariadb", take)
            into.close()
            if await unpack.wait():
                raise EngineError("mbstream: the copy can't be unpacked")
        finally:
            if unpack.returncode is None:
                unpack.kill()
                await unpack.wait()
        await run(["/usr/bin/mariadb-backup", "--no-defaults", "--prepare", f"--target-dir={fresh}"])
        (fresh / _FRESH).write_text(json.dumps({"gtid": _copied_position(fresh)}))
        await asyncio.to_thread(self.files.own, fresh)

    async def _produce(self, kind: str) -> AsyncGenerator[bytes, None]:
        if kind != "mariadb":
            raise EngineError(f"there are no copies of kind {kind!r}")
        work = self.files.folder(self.files.data.with_name("copying"), 0o700)
        command = ["/usr/bin/mariadb-backup", "--no-defaults", "--backup", "--stream=mbstream", "--user=root"]
        command += [f"--socket={self._place.socket}", f"--datadir={self.files.data}", f"--target-dir={work}"]
        try:
            parts = output(command, work.with_name("copying.log"))
            async for part in parts:
                yield part
        finally:
            await parts.aclose()
            shutil.rmtree(work, ignore_errors=True)

    # starting

    async def prepare(self) -> None:
        """As ``Flavour`` says. Settings of the user's that the server does not take are left out, all of them."""
        self.files.certificates()
        self.files.folder(self._place.sockets, 0o755)
        wanted = kept(self._settings, DENIED)
        path = self._place.configuration
        self.files.write(path, configuration(self._settings, self.files, self._place, wanted).encode())
        if not wanted:
            return
        try:
            server = str(self._place.binaries[0] / "mariadbd")
            await run([server, f"--defaults-file={path}", "--help", "--verbose"], user=self._place.user)
        except EngineError:
            self.files.write(path, configuration(self._settings, self.files, self._place, {}).encode())

    async def recover(self, hand: Session) -> None:
        """As ``Flavour`` says."""
        mark = self.files.data / _FRESH
        if mark.exists():
            gtid = quoted(json.loads(mark.read_text())["gtid"])
            await hand.do(
                "RESET MASTER",  # of a copy, which has written nothing of its own yet
                f"SET GLOBAL gtid_binlog_state={gtid}",
                f"SET GLOBAL gtid_slave_pos={gtid}",
            )
            mark.unlink()
        look = await hand.run(self.look, 5.0)
        if look.source is None or look.source.sql or look.source.io != "No":
            return
        relays = sorted(str(path) for path in self.files.data.glob("relay.[0-9]*"))
        if relays:
            position = [f"--start-position={look.gtid}"] if look.gtid else []
            reader = ["/usr/bin/mariadb", "--no-defaults", f"--socket={self._place.socket}", "--binary-mode"]
            # The writer may complain: a transaction that was not received whole is the log's end.
            _, failure = await pipe(["/usr/bin/mariadb-binlog", "--no-defaults", *position, *relays], reader)
            if failure:
                raise EngineError(f"what was received can't be applied: {failure}")
        await hand.run(_align, 5.0)

    # looking

    def look(self, connection: Connection) -> Look:
        """As ``Flavour`` says."""
        now = with_newest(connection, _VARIABLES)
        applied = max(_gtid(now["logged"]), _gtid(now["replicated"]))
        source = _source(connection.row("SHOW SLAVE STATUS"))
        threads = [] if now["read_only"] else connection.rows(_THREADS)
        receivers = [row for row in threads if str(row["COMMAND"]).startswith("Binlog Dump")]
        return Look(
            read_only=bool(now["read_only"]),
            gtid="-".join(str(part) for part in applied[::-1]) if applied[0] else "",
            applied=applied[0],
            received=_gtid(source.received)[0] if source else 0,
            reign=reign(now),
            source=source,
            acknowledging=bool(now["answering"]),
            awaiting=int(now["awaiting"]),
            replicas=tuple(number(row, "Server_id") for row in connection.rows("SHOW SLAVE HOSTS"))
            if receivers
            else (),
            sending=frozenset(str(row["HOST"]).rpartition(":")[0] for row in receivers),
            caught_up=frozenset(
                str(row["HOST"]).rpartition(":")[0] for row in receivers if "has sent all" in str(row["STATE"])
            ),
            waiting=max((int(row["TIME"]) for row in threads if row not in receivers), default=0),
        )

    async def ask(self, upstream: Member) -> History:
        """As ``Flavour`` says."""

        def work(connection: Connection) -> History:
            look = connection.row("SELECT @@read_only AS r, @@gtid_binlog_pos AS b, @@gtid_slave_pos AS s")
            offset = max(_gtid(look["b"]), _gtid(look["s"]))[0]
            return history(connection, offset, writable=not look["r"])

        return await remote(self._layout, upstream, self._place.port, work)

    # changing

    def follow(self, connection: Connection, upstream: Member, acknowledge: bool) -> None:
        """As ``Flavour`` says."""
        connection.rows("STOP SLAVE")
        _align(connection)
        connection.rows(f"SET GLOBAL rpl_semi_sync_slave_enabled={int(acknowledge)}")
        connection.rows(
            f"CHANGE MASTER TO MASTER_HOST={quoted(upstream.address)}, MASTER_PORT={self._place.port},"
            f" MASTER_USER='{REPLICATION_USER}', MASTER_PASSWORD='', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1,"
            f" MASTER_HEARTBEAT_PERIOD=0.5, MASTER_SSL=1, MASTER_SSL_VERIFY_SERVER_CERT=1,"
            f" MASTER_SSL_CA={quoted(str(self.files.ca))},"
            f" MASTER_SSL_CERT={quoted(str(self.files.certificate))},"
            f" MASTER_SSL_KEY={quoted(str(self.files.key))}"
        )
        connection.rows("START SLAVE")

    def damage(self, source: Source) -> str:
        """As ``Flavour`` says. 1236: the upstream's log does not lead on from here."""
        if source.io_errno == 1236:
            return source.io_error
        return source.sql_error if source.sql_errno in _BROKEN else ""

    def found(self, connection: Connection) -> None:
        """As ``Flavour`` says."""
        for statement in (
            "CREATE DATABASE IF NOT EXISTS hasite",
            EPOCH_TABLE,
            PULSE_TABLE,
            "INSERT INTO hasite.pulse VALUES (1, 0)",
            f"CREATE USER IF NOT EXISTS {REPLICATION_USER}@'%' REQUIRE X509",
            f"GRANT REPLICATION SLAVE ON *.* TO {REPLICATION_USER}@'%'",
            f"GRANT SELECT ON hasite.* TO {REPLICATION_USER}@'%'",
            f"CREATE USER IF NOT EXISTS {OPERATOR_USER}@'%' REQUIRE SUBJECT {quoted(OPERATOR_SUBJECT)}",
            f"GRANT {OPERATOR_RIGHTS}, DELETE HISTORY ON *.* TO {OPERATOR_USER}@'%' WITH GRANT OPTION",
        ):
            connection.rows(statement)

    def await_followers(self, required: int) -> tuple[str, ...]:
        """As ``Flavour`` says."""
        return (f"SET GLOBAL rpl_semi_sync_master_enabled={int(required > 0)}",)

    def refuse_writes(self, connection: Connection) -> None:
        """As ``Flavour`` says. Who has not ended a transaction after a second is cut off."""
        connection.rows("SET SESSION lock_wait_timeout=1")
        connection.rows("SET GLOBAL event_scheduler=OFF")
        try:
            connection.rows("SET GLOBAL read_only=ON")
        except SqlError:
            for row in connection.rows(_CLIENTS):
                with suppress(SqlError):
                    connection.rows(f"KILL {row['ID']}")
            connection.rows("SET GLOBAL read_only=ON")

    def shut_down(self, connection: Connection) -> None:
        """As ``Flavour`` says."""
        connection.rows("SHUTDOWN WAIT FOR ALL SLAVES")

    # saving

    def stray(self, own: History, theirs: History) -> str:
        """As ``Flavour`` says. A number is given out again after a copy: the epochs tell, not the GTIDs."""
        return ""

    async def save(self, hand: Session, own: History, lonely: Lonely) -> None:
        """As ``Flavour`` says: as statements, with the rows in comments, and the binary logs themselves."""
        after = lonely.after
        server = next((each.server for each in reversed(own.reigns) if each.begins < after), 0)
        start = f"0-{server}-{after}" if after else ""
        until = str((await hand.row("SELECT @@gtid_binlog_pos AS gtid"))["gtid"])
        if self.files.already(after=start, until=until):
            return
        logs = [str(row["Log_name"]) for row in await hand.rows("SHOW BINARY LOGS")]
        into = self.files.save_into(own.epoch)
        statements = into / "transactions.sql"
        await self._read_logs([str(self.files.data / name) for name in logs], start, statements)
        await asyncio.to_thread(self.files.keep, into)
        summary = {
            "engine": "mariadb",
            "member": self._settings.name,
            "reason": lonely.reason,
            "after": start,
            "until": until,
            "transactions": await asyncio.to_thread(_transactions, statements),
            "rows": await asyncio.to_thread(row_counts, statements),
        }
        self.files.seal(into, summary)

    async def _read_logs(self, logs: list[str], start: str, into: Path) -> None:
        command = ["/usr/bin/mariadb-binlog", "--no-defaults", "--verbose", "--base64-output=auto"]
        position = [f"--start-position={start}"] if start else []
        with into.open("wb") as file:
            try:
                await run([*command, *position, *logs], stdout=file.fileno())
            except EngineError:  # the logs begin later than that: all of them, then
                file.truncate(0)
                file.seek(0)
                await run([*command, *logs], stdout=file.fileno())


_VARIABLES = (
    "@@read_only AS read_only, @@gtid_binlog_pos AS logged, @@gtid_slave_pos AS replicated,"
    " @@rpl_semi_sync_slave_enabled AS answering, @@rpl_semi_sync_master_enabled AS awaiting"
)
_THREADS = (
    "SELECT COMMAND, HOST, STATE, TIME FROM information_schema.PROCESSLIST"
    " WHERE COMMAND LIKE 'Binlog Dump%' OR STATE LIKE 'Waiting for semi-sync ACK%'"
)


def _gtid(text: object) -> tuple[int, int, int]:
    """Of domain 0 in a position: sequence number, server, domain; zeros when there is none."""
    parts = [tuple(int(part) for part in each.split("-")) for each in str(text or "").split(",") if each.strip()]
    return max(((part[2], part[1], part[0]) for part in parts if part[0] == 0), default=(0, 0, 0))


def _source(row: Row) -> Source | None:
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


def _align(connection: Connection) -> None:
    """Replication goes on from the newest that the server has, whoever wrote it."""
    now = connection.row("SELECT @@gtid_binlog_pos AS logged, @@gtid_slave_pos AS replicated")
    if _gtid(now["logged"]) > _gtid(now["replicated"]):
        connection.rows(f"SET GLOBAL gtid_slave_pos={quoted(str(now['logged']))}")


def _copied_position(folder: Path) -> str:
    for name in ("xtrabackup_binlog_info", "mariadb_backup_binlog_info"):
        with suppress(OSError, IndexError):
            return (folder / name).read_text().split("\t")[2].strip()
    raise EngineError("the copy does not say which transactions it has")


def _transactions(statements: Path) -> int:
    with statements.open(errors="replace") as file:
        return sum(line.startswith("#") and "\tGTID " in line for line in file)
