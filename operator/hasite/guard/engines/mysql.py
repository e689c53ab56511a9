"""MySQL 8.4 and later: GTIDs, semi-synchronous replication, the clone plugin.

What a standby received stays in its relay logs when it crashes, and is applied first after its start:
``relay_log_recovery`` would throw it away and ask the source again, which may be gone.
"""

import asyncio
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.mysql_settings import DENIED, configuration, unit_file
from hasite.guard.engines.mysql_words import in_full, named, source_of
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
from hasite.guard.engines.mysqlcommon_flavour import Admitted, Files
from hasite.guard.engines.mysqlcommon_gtids import difference, parse, size
from hasite.guard.engines.mysqlcommon_history import history, reign, remote, with_newest
from hasite.guard.engines.mysqlcommon_members import first_row, writer_of
from hasite.guard.engines.mysqlcommon_programs import first_lines, row_counts, run
from hasite.guard.engines.mysqlcommon_ring import RingDriver
from hasite.guard.engines.mysqlcommon_sql import Connection, NotAnswering, Session, SqlError
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Member, Settings

__all__ = ["DENIED", "MySQL", "unit_file"]

_FRESH = "hasite-made"
_BROKEN = frozenset({1007, 1008, 1032, 1050, 1051, 1062, 1146, 1396, 1594, 3142, 10023, 13121, 13122})
_NO_BINARY_LOG = 13114
_VARIABLES = (
    "@@read_only AS read_only, @@gtid_executed AS executed, @@global.gtid_owned AS owned,"
    " @@rpl_semi_sync_replica_enabled AS answering,"
    " @@rpl_semi_sync_source_enabled AS awaiting, @@rpl_semi_sync_source_wait_for_replica_count AS answers"
)
_THREADS = (
    "SELECT COMMAND, HOST, STATE, TIME FROM information_schema.PROCESSLIST"
    " WHERE COMMAND LIKE 'Binlog Dump%' OR STATE LIKE 'Waiting for semi-sync ACK%'"
)
_CLIENTS = (
    "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND NOT LIKE 'Binlog Dump%'"
    " AND COMMAND <> 'Daemon' AND USER NOT IN ('system user', 'event_scheduler', 'root')"
)
_SMALL = ("--innodb-buffer-pool-size=32M", "--innodb-redo-log-capacity=32M", "--performance-schema=OFF", "--mysqlx=OFF")


class MySQL(RingDriver):
    """Satisfies ``Engine``."""

    def __init__(self, settings: Settings, layout: Layout, service: Service, place: Place | None = None) -> None:
        place = place or Place(layout.data.with_name("mysql.cnf"))
        super().__init__(settings, layout, service, Server(settings, layout, place))


class Server:
    """MySQL's ``Flavour``."""

    MOST_AWAITED = 65535
    STOP_RECEIVING = "STOP REPLICA IO_THREAD"
    START_APPLYING = "START REPLICA SQL_THREAD"
    FORGET: tuple[str, ...] = ("STOP REPLICA", "RESET REPLICA ALL")
    SILENCE = "SET GLOBAL rpl_semi_sync_replica_enabled=OFF"
    OWN_WRITES: tuple[str, ...] = ("SET GLOBAL super_read_only=OFF",)
    TAKE_WRITES: tuple[str, ...] = ("SET GLOBAL event_scheduler=ON", "SET GLOBAL read_only=OFF")
    RELOAD = "ALTER INSTANCE RELOAD TLS"

    def __init__(self, settings: Settings, layout: Layout, place: Place) -> None:
        self._settings, self._layout, self._place = settings, layout, place
        self.files = Files(layout, place)

    def configure(self, settings: Settings) -> None:
        """As ``Flavour`` says."""
        self._settings = settings

    async def open(self, admitted: Admitted) -> None:
        """Nothing: the clone plugin serves copies, to whom has a certificate of the cluster's."""

    async def close(self) -> None:
        """Nothing."""

    def renew(self) -> None:
        """Nothing."""

    def _server(self, *options: str) -> list[str]:
        return [str(self._place.binaries[0] / "mysqld"), *options]

    # a database's beginning

    async def make(self) -> None:
        """As ``Flavour`` says."""
        await self._initialize(await self.files.begin())
        (self.files.fresh / _FRESH).touch()

    async def _initialize(self, folder: Path) -> None:
        await in_thread(shutil.rmtree, folder, True)
        command = self._server("--no-defaults", "--initialize-insecure", f"--datadir={folder}", *_SMALL)
        await run([*command, f"--user={self._place.user}", *self._base()])

    def _base(self) -> list[str]:
        wanted = ("basedir", "plugin_dir", "lc_messages_dir")
        return [f"--{name}={self._place.extra[name]}" for name in wanted if name in self._place.extra]

    async def copy(self, upstream: Member) -> None:
        """As ``Flavour`` says: by a server of its own for the time, so that the one that runs stays as it is."""
        await self.ask(upstream)  # a server that proves its name: the plugin looks at the authority alone
        self.files.certificates()
        scratch = self.files.data.with_name("scratch")
        await self._initialize(scratch)
        socket = self.files.folder(self._place.sockets, 0o755) / "scratch.sock"
        await in_thread(shutil.rmtree, self.files.fresh, True)
        process = await asyncio.create_subprocess_exec(
            *self._server(
                "--no-defaults",
                f"--datadir={scratch}",
                f"--socket={socket}",
                "--skip-networking",
                "--secure-file-priv=NULL",
            ),
            *(f"--user={self._place.user}", f"--pid-file={scratch}/pid", "--disable-log-bin", *_SMALL, *self._base()),
            "--plugin-load-add=mysql_clone.so",
            *(f"--loose-clone-ssl-{name}={path}" for name, path in self.files.tls_files().items()),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        session = Session({"unix_socket": str(socket), "user": "root", "ssl_disabled": True})
        try:
            await _answers(session, lambda: process.returncode is None)
            at = f"{upstream.address}:{self._place.port}"
            await session.do(f"SET GLOBAL clone_valid_donor_list={quoted(at)}")
            await session.do(
                f"CLONE INSTANCE FROM {REPLICATION_USER}@{quoted(upstream.address)}:{self._place.port}"
                f" IDENTIFIED BY '' DATA DIRECTORY={quoted(str(self.files.fresh))} REQUIRE SSL",
                timeout=6 * 3600.0,
            )
        finally:
            session.close()
            if process.returncode is None:
                process.kill()
            await asyncio.shield(process.wait())
            await in_thread(shutil.rmtree, scratch, True)

    # starting

    async def prepare(self, *, plain: bool) -> None:
        """As ``Flavour`` says. Settings of the user's that the server does not take are left out, all of them."""
        self.files.certificates()
        self.files.folder(self._place.sockets, 0o755)
        wanted = {} if plain else kept(self._settings, DENIED)
        path = self._place.configuration
        self.files.write(path, configuration(self._settings, self.files, self._place, wanted).encode())
        if not wanted:
            return
        try:
            await run(self._server(f"--defaults-file={path}", "--validate-config", f"--user={self._place.user}"))
        except EngineError:
            self.files.write(path, configuration(self._settings, self.files, self._place, {}).encode())

    async def recover(self, hand: Session) -> None:
        """As ``Flavour`` says."""
        mark = self.files.data / _FRESH
        if mark.exists():
            await hand.do(
                "SET GLOBAL super_read_only=OFF",
                "SET SESSION sql_log_bin=OFF",
                "ALTER USER root@localhost IDENTIFIED WITH auth_socket",
                "SET SESSION sql_log_bin=ON",
                "RESET BINARY LOGS AND GTIDS",  # of a database without data
                "SET GLOBAL super_read_only=ON",
            )
            mark.unlink()
        look = await hand.run(self.look, 5.0)
        if look.source is not None and not look.source.sql and look.received > look.applied:
            await hand.do("START REPLICA SQL_THREAD", timeout=30.0)

    # looking

    def foreign(self) -> bool:
        """As ``Flavour`` says. Nothing is restored."""
        return False

    def look(self, connection: Connection) -> Look:
        """As ``Flavour`` says."""
        now = with_newest(connection, _VARIABLES)
        executed = str(now["executed"]).replace("\n", "")
        source = source_of(connection.row("SHOW REPLICA STATUS"))
        if self._settings.ring and source is not None and source.sql_errno:
            source = in_full(source, connection)
        threads = [] if now["read_only"] else connection.rows(_THREADS)
        held = [executed, source.received if source else "", "" if now["read_only"] else named(now["owned"])]
        receivers = [row for row in threads if str(row["COMMAND"]).startswith("Binlog Dump")]
        return Look(
            read_only=bool(now["read_only"]),
            gtid=executed,
            applied=size([executed]),
            received=size(list(filter(None, held))),
            reign=reign(now),
            source=source,
            acknowledging=bool(now["answering"]),
            awaiting=int(now["answers"]) if now["awaiting"] else 0,
            replicas=tuple(number(row, "Server_Id") for row in connection.rows("SHOW REPLICAS")) if receivers else (),
            sending=frozenset(str(row["HOST"]).rpartition(":")[0] for row in receivers),
            caught_up=frozenset(
                str(row["HOST"]).rpartition(":")[0] for row in receivers if "has sent all" in str(row["STATE"])
            ),
            waiting=max((int(row["TIME"]) for row in threads if row not in receivers), default=0),
        )

    async def ask(self, upstream: Member) -> History:
        """As ``Flavour`` says."""

        def work(connection: Connection) -> History:
            look = connection.row("SELECT @@read_only AS r, @@gtid_executed AS g, @@global.gtid_owned AS o")
            gtids = ",".join(filter(None, (str(look["g"]).replace("\n", ""), named(look["o"]))))
            found = history(connection, size([gtids]), writable=not look["r"])
            return History(found.reigns, found.offset, found.writable, gtids)

        return await remote(self._layout, upstream, self._place.port, work)

    # changing

    def follow(self, connection: Connection, upstream: Member, acknowledge: bool) -> None:
        """As ``Flavour`` says."""
        connection.rows("STOP REPLICA")
        connection.rows(f"SET GLOBAL rpl_semi_sync_replica_enabled={int(acknowledge)}")
        connection.rows(
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST={quoted(upstream.address)}, SOURCE_PORT={self._place.port},"
            f" SOURCE_USER='{REPLICATION_USER}', SOURCE_PASSWORD='', SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1,"
            " SOURCE_RETRY_COUNT=3, SOURCE_HEARTBEAT_PERIOD=0.5, SOURCE_SSL=1, SOURCE_SSL_VERIFY_SERVER_CERT=1,"
            f" SOURCE_SSL_CA={quoted(str(self.files.ca))}, SOURCE_SSL_CERT={quoted(str(self.files.certificate))},"
            f" SOURCE_SSL_KEY={quoted(str(self.files.key))}"
        )
        connection.rows("START REPLICA")

    def damage(self, source: Source) -> str:
        """As ``Flavour`` says."""
        if source.io_errno == _NO_BINARY_LOG:
            return source.io_error
        return source.sql_error if source.sql_errno in _BROKEN else ""

    def found(self, connection: Connection) -> None:
        """As ``Flavour`` says."""
        for statement in (
            "CREATE DATABASE IF NOT EXISTS hasite",
            EPOCH_TABLE,
            PULSE_TABLE,
            f"CREATE USER IF NOT EXISTS {REPLICATION_USER}@'%' REQUIRE X509",
            f"GRANT REPLICATION SLAVE, BACKUP_ADMIN ON *.* TO {REPLICATION_USER}@'%'",
            f"GRANT SELECT ON hasite.* TO {REPLICATION_USER}@'%'",
            f"CREATE USER IF NOT EXISTS {OPERATOR_USER}@'%' REQUIRE SUBJECT {quoted(OPERATOR_SUBJECT)}",
            f"GRANT {OPERATOR_RIGHTS}, CREATE ROLE, DROP ROLE ON *.* TO {OPERATOR_USER}@'%' WITH GRANT OPTION",
        ):
            connection.rows(statement)

    def await_followers(self, required: int) -> tuple[str, ...]:
        """As ``Flavour`` says."""
        count = f"SET GLOBAL rpl_semi_sync_source_wait_for_replica_count={max(required, 1)}"
        return (count, f"SET GLOBAL rpl_semi_sync_source_enabled={int(required > 0)}")

    def refuse_writes(self, connection: Connection) -> None:
        """As ``Flavour`` says. Who has not ended a transaction after a second is cut off."""
        connection.rows("SET SESSION lock_wait_timeout=1")
        connection.rows("SET GLOBAL event_scheduler=OFF")
        try:
            connection.rows("SET GLOBAL super_read_only=ON")
        except SqlError:
            for row in connection.rows(_CLIENTS):
                with suppress(SqlError):
                    connection.rows(f"KILL {row['ID']}")
            connection.rows("SET GLOBAL super_read_only=ON")

    def shut_down(self, connection: Connection) -> None:
        """As ``Flavour`` says. What was sent arrives: the connections are closed in order."""
        sending = (
            "SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
            " AND STATE NOT LIKE '%has sent all%'"
        )
        while connection.rows(sending):
            pass
        connection.rows("SHUTDOWN")

    async def has(self, upstream: Member) -> str:
        """As ``Flavour`` says."""
        return (await self.ask(upstream)).gtids

    def lacks(self, one: str, other: str) -> str:
        """As ``Flavour`` says."""
        return difference(one, other)

    def lost(self, theirs: str, own: str) -> bool:
        """As ``Flavour`` says. The server takes no transaction that bears its own number."""
        named = re.search(r"server-uuid=(\S+)", (self.files.data / "auto.cnf").read_text())
        return named is not None and named[1].lower() in parse(difference(theirs, own))

    async def stopped_at(self) -> tuple[str, str, str] | None:
        """As ``Flavour`` says: the server names the transaction, the relay logs have it."""

        def failed() -> str:
            connection = Connection(self.files.local())
            try:
                return str(connection.row("SHOW REPLICA STATUS").get("Last_SQL_Error") or "")
            finally:
                connection.close()

        named = re.search(r"transaction '([^']+)'", await asyncio.to_thread(failed))
        if named is None:
            return None
        relays = sorted(str(path) for path in self.files.data.glob("relay.[0-9]*"))
        command = [str(self._place.binaries[1] / "mysqlbinlog"), "--no-defaults", "--verbose"]
        command += ["--base64-output=decode-rows", f"--include-gtids={named[1]}"]
        lines = await first_lines([*command, *relays])
        servers = [m[1] for line in lines if "\tGTID" in line and (m := re.search(r"server id (\d+)", line))]
        return named[1], writer_of(self._settings, int(servers[0])) if servers else "", first_row(lines)

    # saving

    def stray(self, own: History, theirs: History) -> str:
        """As ``Flavour`` says."""
        lacking = difference(own.gtids, theirs.gtids)
        return f"it alone has {lacking}" if lacking else ""

    async def save(self, hand: Session, own: History, lonely: Lonely) -> None:
        """As ``Flavour`` says: as statements, with the rows in comments, and the binary logs themselves."""
        lacking = difference(own.gtids, lonely.theirs.gtids)
        if self.files.already(gtids=lacking, reason=lonely.reason):
            return
        logs = [str(row["Log_name"]) for row in await hand.rows("SHOW BINARY LOGS")]
        paths = [str(self.files.data / name) for name in logs]
        into = self.files.save_into(own.epoch)
        command = [str(self._place.binaries[1] / "mysqlbinlog"), "--no-defaults", "--verbose", "--base64-output=auto"]
        chosen = [f"--include-gtids={lacking}"] if lacking else []
        remarks = []
        with (into / "transactions.sql").open("wb") as file:
            try:
                await run([*command, *chosen, *paths], stdout=file.fileno())
            except EngineError as error:  # the logs are kept all the same
                remarks.append(str(error))
        await asyncio.to_thread(self.files.keep, into)
        rows = await asyncio.to_thread(row_counts, into / "transactions.sql")
        summary = {
            "engine": "mysql",
            "member": self._settings.name,
            "reason": lonely.reason,
            "gtids": lacking,
            "complete": not remarks,
            "remarks": remarks,
            "transactions": size([lacking]),
            "rows": rows,
        }
        await in_thread(self.files.seal, into, summary)


async def _answers(session: Session, alive: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(NotAnswering):
                await session.rows("SELECT 1")
                return
            if not alive():
                raise EngineError("the server that was to fetch the copy does not start")
            await asyncio.sleep(0.05)
