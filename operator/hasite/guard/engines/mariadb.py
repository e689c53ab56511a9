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

from hasite.guard import backuprun
from hasite.guard.copy import CopyServer, output, receive
from hasite.guard.engines import mariadb_restored
from hasite.guard.engines.base import EngineError, Layout, Service
from hasite.guard.engines.mariadb_logs import apply, read
from hasite.guard.engines.mariadb_settings import DENIED, configuration, unit_file
from hasite.guard.engines.mariadb_words import (
    CLIENTS,
    THREADS,
    VARIABLES,
    copied_position,
    newest,
    next_transaction,
    source_of,
    transactions,
)
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
from hasite.guard.engines.mysqlcommon_domains import lacking, parse, size, union
from hasite.guard.engines.mysqlcommon_flavour import Admitted, Files
from hasite.guard.engines.mysqlcommon_history import history, reign, remote, with_newest
from hasite.guard.engines.mysqlcommon_members import first_row, server_id, writer_of
from hasite.guard.engines.mysqlcommon_programs import first_lines, row_counts, run
from hasite.guard.engines.mysqlcommon_ring import RingDriver
from hasite.guard.engines.mysqlcommon_sql import Connection, Session, SqlError
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Member, Settings

__all__ = ["DENIED", "MariaDB", "unit_file"]

_FRESH = "hasite-copy.json"
_LARGEST = 1 << 30
"""Bytes: more the server does not take in one statement."""
_BROKEN = frozenset({1007, 1008, 1032, 1050, 1051, 1062, 1146, 1396, 1594, 1950})


class MariaDB(RingDriver):
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
    RELOAD = "FLUSH LOCAL SSL"

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

    def renew(self) -> None:
        """As ``Flavour`` says."""
        if self._copies is not None:
            self._copies.renew()

    # a database's beginning

    async def make(self) -> None:
        """As ``Flavour`` says."""
        if self._settings.restore is not None:
            await in_thread(backuprun.take, self._layout, self.files.fresh)
            return
        fresh = await self.files.begin()
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
        fresh = await self.files.begin()
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
        (fresh / _FRESH).write_text(json.dumps({"gtid": copied_position(fresh)}))
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
            server = str(self._place.binaries[0] / "mariadbd")
            await run([server, f"--defaults-file={path}", "--help", "--verbose"], user=self._place.user)
        except EngineError:
            self.files.write(path, configuration(self._settings, self.files, self._place, {}).encode())

    async def recover(self, hand: Session) -> None:
        """As ``Flavour`` says."""
        await mariadb_restored.forget(self.files.data, hand)
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
            usual = number(await hand.row("SELECT @@global.max_allowed_packet AS packet"), "packet")
            await hand.do(f"SET GLOBAL max_allowed_packet={_LARGEST}")
            try:
                await apply(relays, look.gtid, self._place.socket, _LARGEST)
            finally:
                await hand.do(f"SET GLOBAL max_allowed_packet={usual}")
        await hand.run(self._align, 5.0)

    # looking

    def foreign(self) -> bool:
        """As ``Flavour`` says."""
        return mariadb_restored.is_raw(self.files.data)

    def look(self, connection: Connection) -> Look:
        """As ``Flavour`` says."""
        now = with_newest(connection, VARIABLES)
        applied = max(newest(now["logged"]), newest(now["replicated"]))
        source = source_of(connection.row("SHOW SLAVE STATUS"))
        everywhere = union(now["logged"], now["replicated"]) if self._settings.ring else ""
        threads = [] if now["read_only"] else connection.rows(THREADS)
        receivers = [row for row in threads if str(row["COMMAND"]).startswith("Binlog Dump")]
        return Look(
            read_only=bool(now["read_only"]),
            gtid=everywhere or ("-".join(str(part) for part in applied[::-1]) if applied[0] else ""),
            applied=size(everywhere) if everywhere else applied[0],
            received=self._received(source, everywhere) if source else 0,
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

    def _received(self, source: Source, everywhere: str) -> int:
        return size(union(everywhere, source.received)) if self._settings.ring else newest(source.received)[0]

    async def ask(self, upstream: Member) -> History:
        """As ``Flavour`` says."""

        def work(connection: Connection) -> History:
            look = connection.row("SELECT @@read_only AS r, @@gtid_binlog_pos AS b, @@gtid_slave_pos AS s")
            offset = max(newest(look["b"]), newest(look["s"]))[0]
            return history(connection, offset, writable=not look["r"])

        return await remote(self._layout, upstream, self._place.port, work)

    # changing

    def follow(self, connection: Connection, upstream: Member, acknowledge: bool) -> None:
        """As ``Flavour`` says."""
        connection.rows("STOP SLAVE")
        self._align(connection)
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

    def _align(self, connection: Connection) -> None:
        """Replication goes on from the newest that the server has, whoever wrote it; of a ring, in each domain."""
        now = connection.row("SELECT @@gtid_binlog_pos AS logged, @@gtid_slave_pos AS replicated")
        logged, replicated = str(now["logged"] or ""), str(now["replicated"] or "")
        if self._settings.ring and lacking(logged, replicated):
            connection.rows(f"SET GLOBAL gtid_slave_pos={quoted(union(logged, replicated))}")
        elif not self._settings.ring and newest(logged) > newest(replicated):
            connection.rows(f"SET GLOBAL gtid_slave_pos={quoted(logged)}")

    async def has(self, upstream: Member) -> str:
        """As ``Flavour`` says."""

        def work(connection: Connection) -> str:
            now = connection.row("SELECT @@gtid_binlog_pos AS logged, @@gtid_slave_pos AS replicated")
            return union(now["logged"], now["replicated"])

        return await remote(self._layout, upstream, self._place.port, work)

    def lacks(self, one: str, other: str) -> str:
        """As ``Flavour`` says."""
        return lacking(one, other)

    def lost(self, theirs: str, own: str) -> bool:
        """As ``Flavour`` says."""
        domain = server_id(self._settings, self.files.incarnation)
        return parse(theirs).get(domain, (0, 0)) > parse(own).get(domain, (0, 0))

    async def stopped_at(self) -> tuple[str, str, str] | None:
        """As ``Flavour`` says: the first in the relay logs after what is applied."""

        def applied() -> str:
            connection = Connection(self.files.local())
            try:
                return str(connection.row("SELECT @@gtid_slave_pos AS applied")["applied"] or "")
            finally:
                connection.close()

        position = await asyncio.to_thread(applied)
        relays = sorted(str(path) for path in self.files.data.glob("relay.[0-9]*"))
        command = ["/usr/bin/mariadb-binlog", "--no-defaults", "--verbose", "--base64-output=decode-rows"]
        lines = await first_lines([*command, *([f"--start-position={position}"] if position else []), *relays])
        found = next_transaction(lines, position)
        if found is None:
            return None
        transaction, server, its = found
        return transaction, writer_of(self._settings, server), first_row(its)

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
            for row in connection.rows(CLIENTS):
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
        start = lonely.theirs.gtids if self._settings.ring else f"0-{server}-{after}" if after else ""
        until = str((await hand.row("SELECT @@gtid_binlog_pos AS gtid"))["gtid"])
        if self.files.already(after=start, until=until):
            return
        logs = [str(row["Log_name"]) for row in await hand.rows("SHOW BINARY LOGS")]
        into = self.files.save_into(own.epoch)
        statements = into / "transactions.sql"
        remarks = []
        try:
            await read([str(self.files.data / name) for name in logs], start, statements)
        except EngineError as error:  # the logs are kept all the same
            remarks.append(str(error))
        await asyncio.to_thread(self.files.keep, into)
        summary = {
            "engine": "mariadb",
            "member": self._settings.name,
            "reason": lonely.reason,
            "after": start,
            "until": until,
            "complete": not remarks,
            "remarks": remarks,
            "transactions": await asyncio.to_thread(transactions, statements),
            "rows": await asyncio.to_thread(row_counts, statements),
        }
        await in_thread(self.files.seal, into, summary)
