"""An app logs in with what it is told: through the proxy on its machine, and directly. Real servers on loopback."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hasite.databases.certificates import issue, new_authority
from hasite.plan.connection import AUTHORITY_PATH, Connection, environment_of
from hasite.plan.proxies import DatabaseMember
from hasite.proxies.base import Delivered

from tests.contract.database_lab import Member, database_lab
from tests.contract.web import eventually
from tests.databases.postgresql_lab import BINARIES, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

HOST = "127.0.1.3"
PASSWORD = 'p@ss:/?#[]w%rd "quoted" \\ $HOME é'
HBA = b"local all all trust\nhostssl all all all scram-sha-256\n"


def as_postgres(*words: str) -> None:
    subprocess.run(["runuser", "-u", "postgres", "--", *words], check=True, capture_output=True, cwd="/")


@contextmanager
def server(port: int) -> Iterator[bytes]:
    """PostgreSQL with a certificate such as members have. Yields that of its authority."""
    authority = new_authority("test", time.time())
    own = issue(authority, "a", (HOST,), time.time())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in (("cert.pem", own.certificate), ("key.pem", own.key), ("pg_hba.conf", HBA)):
            (root / name).write_bytes(content)
            (root / name).chmod(0o600)
        subprocess.run(["chown", "-R", "postgres", folder], check=True)
        as_postgres(f"{BINARIES}/initdb", "-D", f"{root}/data", "-A", "trust", "--no-sync")
        settings = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": root,
            "hba_file": root / "pg_hba.conf",
            "ssl": "on",
            "ssl_cert_file": root / "cert.pem",
            "ssl_key_file": root / "key.pem",
            "fsync": "off",
        }
        control = [f"{BINARIES}/pg_ctl", "-D", f"{root}/data", "-w", "-l", f"{root}/log"]
        as_postgres(*control, "-o", " ".join(f"-c {name}={value}" for name, value in settings.items()), "start")
        try:
            with psycopg.connect(host=folder, port=port, user="postgres", autocommit=True) as admin:
                admin.execute(psycopg.sql.SQL("CREATE ROLE shop LOGIN PASSWORD {}").format(PASSWORD))
                admin.execute("CREATE DATABASE shop OWNER shop")
            yield authority.certificate
        finally:
            as_postgres(*control, "-m", "immediate", "stop")


def who(url: str) -> str:
    """Address and user, as the server sees them; "" while nobody answers."""
    try:
        with psycopg.connect(url, connect_timeout=3) as connection:
            row = connection.execute("SELECT host(inet_server_addr()) || ' ' || current_user").fetchone()
            return row[0] if row else ""
    except psycopg.OperationalError as error:
        assert "certificate" not in str(error) and "password" not in str(error)
        return ""


async def test_an_app_logs_in_with_every_url_that_it_is_told(tmp_path: Path) -> None:
    async with database_lab(tmp_path) as lab, Member("c", HOST, "primary") as member:
        with server(lab.port) as certificate:
            await member.guard(lab.health_port)
            connection = Connection("postgresql", (DatabaseMember("c", HOST),), "shop", "shop", PASSWORD)
            environment = environment_of(connection, certificate, b"key")
            assert await lab.deliver(member, environment=environment) == Delivered()
            names = ("DATABASE_URL", "DATABASE_REPLICA_URL", "DATABASE_URL_DIRECT")
            said = await lab.local.run(f". {lab.files.environment}; echo " + " ".join(f'"${name}"' for name in names))
            urls = said.stdout.replace(AUTHORITY_PATH, lab.files.authority)
            urls = urls.replace(":5432", f":{lab.port}").replace(":5433", f":{lab.port + 1}")
            assert len(urls.split()) == len(names)
            for url in urls.split():

                async def logged_in(url: str = url) -> bool:
                    return await asyncio.to_thread(who, url) == f"{HOST} shop"

                await eventually(logged_in)
