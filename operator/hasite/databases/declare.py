"""Users and databases as they are declared, made or changed on the primary. Nothing that exists is ever dropped.

Run in a thread: the libraries block. They are imported when the first database needs them.
"""

import hashlib
import hmac
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hasite.api.replicateddatabase import OUR_DATABASES
from hasite.errors import Permanent, Transient
from hasite.machines.words import plain

USER = "hasite_operator"
"""Known to the server by the operator's certificate."""

_CONNECT = 5
_STATEMENT = 10
"""Seconds. In synchronous mode a change waits for a standby."""


@dataclass(frozen=True)
class Declaration:
    """``passwords`` by user; ``owners``: database → the user that owns it. All names are plain words."""

    passwords: Mapping[str, str] = field(repr=False)
    owners: Mapping[str, str]

    def digest(self, key: bytes) -> str:
        """Differs when anything does. Keyed: it stands in the status, and must not help to guess a password."""
        text = json.dumps([sorted(self.passwords.items()), sorted(self.owners.items())])
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True)
class Server:
    """Where the primary is reached, and the paths of the operator's PEM files."""

    address: str
    port: int
    ca: str
    certificate: str
    key: str


def declare_postgresql(server: Server, wanted: Declaration) -> None:
    """Raises Transient or Permanent."""
    refuse_reserved(wanted)
    import psycopg
    from psycopg import sql

    try:
        with psycopg.connect(
            host=server.address,
            port=server.port,
            user=USER,
            dbname="postgres",
            sslmode="verify-full",
            sslrootcert=server.ca,
            sslcert=server.certificate,
            sslkey=server.key,
            connect_timeout=_CONNECT,
            tcp_user_timeout=_STATEMENT * 1000,
            options=f"-c statement_timeout={_STATEMENT * 1000}",
            autocommit=True,
        ) as connection:
            for user, password in sorted(wanted.passwords.items()):
                known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone()
                verb = sql.SQL("ALTER" if known else "CREATE")
                # Hashed here, so that no log of statements holds a password.
                hashed = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
                order = sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(user), sql.Literal(hashed))
                connection.execute(order)
            for name, owner in sorted(wanted.owners.items()):
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
                words = "ALTER DATABASE {} OWNER TO {}" if known else "CREATE DATABASE {} OWNER {}"
                connection.execute(sql.SQL(words).format(sql.Identifier(name), sql.Identifier(owner)))
    except psycopg.OperationalError as error:
        raise Transient(f"{server.address}: {plain(str(error), 300)}") from error
    except psycopg.Error as error:
        raise Permanent(f"{server.address}: {plain(str(error), 300)}", "DeclarationFailed") from error


def declare_mysql(server: Server, wanted: Declaration) -> None:
    """Raises Transient or Permanent. MySQL itself writes no password into its binary log."""
    _declare(server, wanted, lambda password: ("IDENTIFIED BY %s", password))


def declare_mariadb(server: Server, wanted: Declaration) -> None:
    """Raises Transient or Permanent. MariaDB writes statements into its binary log as they are: passwords are hashed
    here, as its mysql_native_password does."""
    _declare(server, wanted, lambda password: ("IDENTIFIED BY PASSWORD %s", native_hash(password)))


def native_hash(password: str) -> str:
    """Of mysql_native_password."""
    once = hashlib.sha1(password.encode()).digest()  # noqa: S324 - the server's own form
    return "*" + hashlib.sha1(once).hexdigest().upper()  # noqa: S324


def refuse_reserved(wanted: Declaration) -> None:
    """Raises Permanent: who owns one of the system's databases could make itself anything."""
    taken = sorted({*wanted.owners} & {*OUR_DATABASES})
    if taken:
        raise Permanent(f"{', '.join(taken)}: kept for the system", "DeclarationFailed")


def _declare(server: Server, wanted: Declaration, identified: Callable[[str], tuple[str, str]]) -> None:
    refuse_reserved(wanted)
    import pymysql

    context = ssl.create_default_context(cafile=server.ca)
    context.load_cert_chain(server.certificate, server.key)
    try:
        connection = pymysql.connect(
            host=server.address,
            port=server.port,
            user=USER,
            ssl=context,
            connect_timeout=_CONNECT,
            read_timeout=_STATEMENT,
            write_timeout=_STATEMENT,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            for user, password in sorted(wanted.passwords.items()):
                by, word = identified(password)
                cursor.execute(f"CREATE USER IF NOT EXISTS %s@'%%' {by} REQUIRE SSL", (user, word))
                cursor.execute(f"ALTER USER %s@'%%' {by} REQUIRE SSL", (user, word))
                # Whoever writes may ask in which reign.
                cursor.execute("GRANT SELECT ON hasite.epoch TO %s@'%%'", (user,))
            for name, owner in sorted(wanted.owners.items()):
                cursor.execute(f"CREATE DATABASE IF NOT EXISTS {_quoted(name)} CHARACTER SET utf8mb4")
                cursor.execute(f"GRANT ALL PRIVILEGES ON {_pattern(name)}.* TO %s@'%%'", (owner,))
    except (pymysql.err.OperationalError, pymysql.err.InterfaceError, OSError) as error:
        raise Transient(f"{server.address}: {plain(str(error), 300)}") from error
    except pymysql.err.Error as error:
        raise Permanent(f"{server.address}: {plain(str(error), 300)}", "DeclarationFailed") from error


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _pattern(name: str) -> str:
    """In GRANT a database's name is a pattern, in which an underscore stands for any character."""
    return _quoted(name.replace("\\", "\\\\").replace("_", "\\_"))


Declare = Callable[[Server, Declaration], Any]
DECLARE: Mapping[str, Declare] = {
    "postgresql": declare_postgresql,
    "mysql": declare_mysql,
    "mariadb": declare_mariadb,
}
