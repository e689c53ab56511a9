"""How a member comes by its data: made new, copied from another member, or brought back to where histories part."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from hasite.guard import backuprun
from hasite.guard.engines import postgresql_settings as configuration
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_server import Server
from hasite.guard.engines.postgresql_sql import NotAnswering, Session
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Member

_PREPARE = "SET statement_timeout = '60s'; SET default_transaction_isolation = 'read committed'"

_MAKE = f"""
CREATE SCHEMA hasite
CREATE TABLE hasite.epoch (epoch bigint PRIMARY KEY, holder text NOT NULL, lsn pg_lsn NOT NULL, began timestamptz NOT NULL DEFAULT now())
CREATE ROLE {configuration.REPLICATION_USER} LOGIN REPLICATION
CREATE ROLE {configuration.OPERATOR_USER} LOGIN SUPERUSER
GRANT pg_monitor, pg_checkpoint TO {configuration.REPLICATION_USER}
GRANT USAGE ON SCHEMA hasite TO {configuration.REPLICATION_USER}
GRANT SELECT ON hasite.epoch TO {configuration.REPLICATION_USER}
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint), pg_read_binary_file(text, bigint, bigint, boolean) TO {configuration.REPLICATION_USER}
"""  # noqa: E501 - a single-user server takes one line for one statement
"""The rights to read files are those that pg_rewind needs."""


def connection(server: Server, member: Member) -> dict[str, str]:
    """How this member reaches ``member``'s server: its name is verified, and so is ours."""
    place = server.files.place
    folder = place.configuration
    return {
        "host": member.name,
        "hostaddr": member.address,
        "port": str(place.port),
        "user": configuration.REPLICATION_USER,
        "sslmode": "verify-full",
        "sslrootcert": str(folder / "ca.pem"),
        "sslcert": str(folder / "cert.pem"),
        "sslkey": str(folder / "key.pem"),
        "gssencmode": "disable",
        "connect_timeout": "2",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "5000",
    }


def session(server: Server, member: Member) -> Session:
    """For asking ``member``'s server."""
    return Session({**connection(server, member), "dbname": "postgres"}, _PREPARE)


async def make(server: Server) -> None:
    """A new, empty database. The collation is the same on every release of the C library: indexes outlast upgrades."""
    folder = await server.files.fresh()
    await server.tools.run(
        "initdb",
        f"--pgdata={folder}",
        f"--username={server.files.place.user}",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
        "--no-instructions",
    )
    await in_thread(server.files.place.role.unlink, True)
    await server.single(_MAKE.strip() + "\n", folder)
    await in_thread(server.files.adopt)


async def restore(server: Server) -> None:
    """The database that a backup held, as a new one. Raises EngineError while that is not restored."""
    await in_thread(backuprun.take, server.files.layout, server.files.aside)
    await in_thread(server.files.place.role.unlink, True)
    await in_thread(server.files.adopt)


async def clone(server: Server, upstream: Member, *, alone: bool = False) -> None:
    """A base backup of ``upstream`` in place of whatever is here; ``alone``: that goes first, once upstream answers.

    The server must be down.
    """
    if alone:
        there = session(server, upstream)
        try:
            await there.value("SELECT 1")
        finally:
            there.close()
        await in_thread(shutil.rmtree, server.files.data)
    folder = await server.files.fresh()
    source = configuration.conninfo(connection(server, upstream))
    options = (f"--pgdata={folder}", "--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password")
    await server.tools.run("pg_basebackup", f"--dbname={source}", *options)
    await in_thread(server.files.adopt)


async def rewind(server: Server, upstream: Member) -> None:
    """Takes back what this server did after the histories parted. The server must be down. Raises EngineError.

    Its log is first recovered to its end: pg_rewind wants a clean shutdown, and would take a standby's whose pages are
    older than the fork for one that need not be rewound, although its log reaches beyond. Upstream's checkpoint comes
    before: until then its control file may still tell the old timeline. From the first change on the data are of no use
    to anybody, and ``unusable`` says so: until a server has come up with them, for which it needs upstream's log.
    """
    await server.recover_alone()
    there = session(server, upstream)
    try:
        await there.value("CHECKPOINT", within=60.0)
    finally:
        there.close()
    files = server.files
    source = configuration.conninfo({**connection(server, upstream), "dbname": "postgres"})
    await in_thread(files.write, files.unusable, "pg_rewind\n")
    try:
        await server.tools.run(
            "pg_rewind",
            f"--target-pgdata={files.data}",
            f"--source-server={source}",
            f"--config-file={files.place.file}",
            "--progress",
        )
    except EngineError as error:
        if "connection to server at" in str(error) and "failed" in str(error):
            await in_thread(files.unusable.unlink)
            raise NotAnswering(str(error)) from None
        raise
    await in_thread(files.stand_by)


def following(server: Server, upstream: Member, name: str, slot: str | None) -> Mapping[str, str]:
    """The role's settings of a standby called ``name``."""
    source = {**connection(server, upstream), "application_name": name}
    return {
        "primary_conninfo": configuration.conninfo(source),
        "primary_slot_name": slot or "",
        "synchronous_standby_names": configuration.nobody(name),
    }


async def set_apart(server: Server, folder: Path) -> None:
    """Moves the data of another database out of the way, whole: a person may want them."""

    def move() -> None:
        folder.mkdir(parents=True, mode=0o700)
        server.files.data.rename(folder / "data")

    await in_thread(move)


def crowded(server: Server) -> str:
    """Why the data won't fit beside a copy of about their size; empty: they do."""
    data = server.files.data
    if not data.exists():
        return ""
    size = sum(file.lstat().st_size for file in data.rglob("*") if file.is_file() and not file.is_symlink())
    free = shutil.disk_usage(data.parent).free
    if free >= size * 1.1:
        return ""
    return f"a copy needs {size * 11 // 10 >> 20} MiB beside the data, and {free >> 20} are free"
