"""What MariaDB's and MySQL's drivers share and is pure: names, quoting, settings, and who ruled when.

The replicated table ``hasite.epoch`` has a row for each reign, written before any other transaction of it. Two servers'
rows say where their histories part, as PostgreSQL's timelines do. GTIDs alone don't: a server that was copied afresh
gives the numbers of its lost transactions out again.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hasite.guard.model import Settings

REPLICATION_USER = "hasite_replication"
OPERATOR_USER = "hasite_operator"
OPERATOR_SUBJECT = "/CN=hasite-operator"
"""The whole subject of the operator's certificate, as the servers write it: it has no other field."""

COPY_PORT = 7433

ROOT_SESSION = (
    "SET SESSION sql_mode='', lock_wait_timeout=3, innodb_lock_wait_timeout=3, wait_timeout=31536000, autocommit=1"
)
"""For every connection of the guard: literals mean what ``quoted`` says, and nothing waits for long."""

EPOCH_TABLE = (
    "CREATE TABLE hasite.epoch (epoch BIGINT UNSIGNED NOT NULL PRIMARY KEY, holder VARCHAR(253) NOT NULL,"
    " server BIGINT UNSIGNED NOT NULL, begins BIGINT UNSIGNED NOT NULL,"
    " at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB CHARACTER SET ascii"
)

PULSE_TABLE = "CREATE TABLE hasite.pulse (id TINYINT PRIMARY KEY, beats BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB"
WAITING = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for semi-sync ACK%'"
"""Commits that wait for a follower's answer."""

PULSES = 100
"""Rows of that table. One that waits for its answer keeps its row locked, and must not hold up the next."""


def pulse(number: int) -> str:
    """A transaction on a primary; nothing at all on a standby."""
    return (
        f"INSERT INTO hasite.pulse SELECT {number % PULSES + 1}, 1 FROM DUAL WHERE @@global.read_only = 0"  # noqa: S608
        " ON DUPLICATE KEY UPDATE beats = beats + 1"
    )


OPERATOR_RIGHTS = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES,"
    " CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE,"
    " CREATE USER, EVENT, TRIGGER"
)
"""Enough to declare users and databases, without what writes on a read-only server or changes replication."""

DENIED_COMMON = frozenset(
    {
        "auto_increment_increment", "auto_increment_offset", "autocommit", "basedir", "bind_address", "binlog_do_db",
        "binlog_format", "binlog_ignore_db", "binlog_row_image", "bootstrap", "chroot", "core_file", "datadir",
        "default_storage_engine", "disconnect_on_expired_password", "enforce_storage_engine", "event_scheduler",
        "flush_log_at_trx_commit", "gdb", "general_log_file", "help", "init_connect", "init_file", "init_slave",
        "innodb_data_file_path", "innodb_data_home_dir", "innodb_doublewrite", "innodb_fast_shutdown",
        "innodb_flush_log_at_trx_commit", "innodb_flush_method", "innodb_force_recovery", "innodb_log_group_home_dir",
        "innodb_read_only", "innodb_undo_directory", "language", "lc_messages_dir", "log_basename", "log_bin",
        "log_bin_index", "log_error", "log_slave_updates", "log_replica_updates", "master_info_file",
        "master_retry_count", "master_verify_checksum", "networking", "pid_file", "plugin_dir", "plugin_load",
        "plugin_load_add", "port", "read_only", "relay_log", "relay_log_index", "relay_log_info_file",
        "relay_log_purge", "relay_log_recovery", "replicate_do_db", "replicate_do_table", "replicate_ignore_db",
        "replicate_ignore_table", "replicate_rewrite_db", "replicate_same_server_id", "replicate_wild_do_table",
        "replicate_wild_ignore_table", "report_host", "report_password", "report_port", "report_user",
        "require_secure_transport", "safe_user_create", "secure_file_priv", "server_id", "slave_exec_mode",
        "replica_exec_mode", "slave_net_timeout", "replica_net_timeout", "slave_skip_errors", "replica_skip_errors",
        "slow_query_log_file", "socket", "ssl", "super_read_only", "sync_binlog", "sync_master_info",
        "sync_relay_log", "sync_relay_log_info", "sync_source_info", "tmpdir", "transaction_read_only", "user",
        "verbose", "version", "grant_tables", "name_resolve", "slave_start", "replica_start", "log_error_services",
    }
)  # fmt: skip
"""Settings that users may not have, in both servers: what replication, fencing and durability rest on."""

DENIED_PREFIXES = (
    "gtid_", "rpl_semi_sync_", "ssl_", "tls_", "admin_ssl_", "admin_tls_", "admin_", "wsrep_", "debug",
    "loose", "skip_", "enable_", "disable_", "maximum_", "caching_sha2_password_private", "group_replication", "clone_",
    "auth_socket", "mysqlx_ssl", "unix_socket", "slave_type", "replica_type", "temp_pool", "extra_", "proxy_",
)  # fmt: skip

_WHOLE = frozenset({"general_log", "slow_query_log"})
"""Names of settings of their own, although a denied one's name begins so."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def refusal(name: str, value: str, denied: frozenset[str] = DENIED_COMMON) -> str | None:
    """Why a user may not set ``name`` to ``value``; None: they may (whether the server knows it, only it can say).

    Names are given with underscores. The servers take unambiguous beginnings of names for the names: so none that a
    denied name begins with either.
    """
    if not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a setting"
    short = name not in _WHOLE and any(other.startswith(name) for other in denied)
    if name.startswith(DENIED_PREFIXES) or short:
        return f"{name} is set by HASite: replication and fencing rest on it"
    if len(value) > 1000 or not value.isascii() or any(ord(character) < 32 for character in value):
        return f"the value of {name} has control characters, none of ASCII's, or more than 1000"
    if any(character in value for character in "\"'\\\x7f"):
        return f"the value of {name} has a quote or a backslash"
    return None


def option_lines(values: Mapping[str, str]) -> str:
    """Of an option file. Raises ValueError for a value that can't be written there."""
    for name, value in values.items():
        if any(ord(character) < 32 or character in '"\\' for character in value):
            raise ValueError(f"the value of {name} can't be written")
    return "".join(f'{name} = "{value}"\n' for name, value in values.items())


def quoted(text: str) -> str:
    """A string literal of SQL, in a session whose sql_mode is empty."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''").replace("\0", "") + "'"


def server_ids(names: Iterable[str]) -> dict[str, int]:
    """A server_id for each member: 1 to 2^32-2, of its name alone unless two would have the same."""
    given: dict[str, int] = {}
    for name in sorted(names):
        number = zlib.crc32(name.encode()) % (2**32 - 2) + 1
        while number in given.values():
            number = number % (2**32 - 2) + 1
        given[name] = number
    return given


@dataclass(frozen=True, order=True)
class Reign:
    """A row of ``hasite.epoch``. ``begins``: how many transactions the history had before it."""

    epoch: int
    holder: str
    server: int
    begins: int


@dataclass(frozen=True)
class History:
    """A server's, as far as it goes. ``offset``: how many transactions it has; ``gtids``: which, where names tell.

    ``writable``: it takes writes.
    """

    reigns: tuple[Reign, ...] = ()
    offset: int = 0
    writable: bool = False
    gtids: str = ""

    @property
    def epoch(self) -> int:
        """Of the newest reign; 0: none."""
        return self.reigns[-1].epoch if self.reigns else 0

    def end(self, reign: Reign) -> int:
        """How many transactions there are up to the end of ``reign``."""
        later = [other.begins for other in self.reigns if other.epoch > reign.epoch]
        return later[0] if later else self.offset


def fork(own: History, theirs: History) -> int | None:
    """The number of transactions after which ``own`` has what ``theirs`` lacks; None: it has nothing of the kind."""
    common = [reign for reign in own.reigns if reign in theirs.reigns]
    if not common:
        return 0 if own.offset and own.reigns else None
    last = common[-1]
    end = min(own.end(last), theirs.end(last))
    return None if own.offset <= end and own.reigns[-1] == last else end


@dataclass(frozen=True)
class Lonely:
    """What a server has that its upstream, of the history ``theirs``, lacks: everything ``after`` so many transactions.

    ``reason``: what showed it.
    """

    after: int
    theirs: History
    reason: str


@dataclass(frozen=True)
class Source:
    """Of a standby: what it is set to receive from. ``sql_errno``, ``io_errno``: 0 when all is well."""

    host: str
    io: Literal["Yes", "No", "Connecting"]
    sql: bool
    received: str
    io_errno: int = 0
    io_error: str = ""
    sql_errno: int = 0
    sql_error: str = ""
    behind: float | None = None


@dataclass(frozen=True)
class Look:
    """What a server said of itself. ``applied``, ``received``: numbers of transactions of its history.

    ``acknowledging``: it answers a semi-synchronous primary; ``awaiting``: how many answers it waits for as one.
    ``replicas``: server_id of those registered; ``sending``: addresses that receive; ``caught_up``: those of them that
    were sent everything; ``waiting``: for how many seconds a commit has waited for an answer.
    """

    read_only: bool
    gtid: str
    applied: int
    received: int
    reign: Reign | None
    source: Source | None
    acknowledging: bool = False
    awaiting: int = 0
    replicas: tuple[int, ...] = ()
    sending: frozenset[str] = frozenset()
    caught_up: frozenset[str] = frozenset()
    waiting: int = 0


@dataclass(frozen=True)
class Place:
    """Where programs and the server's own things are, as far as the guard's layout does not say.

    ``binaries``: the folders of the server and of its tools. ``extra``: options that come last of all, for tests.
    """

    configuration: Path
    binaries: tuple[Path, Path] = (Path("/usr/sbin"), Path("/usr/bin"))
    sockets: Path = Path("/run/mysqld")
    user: str = "mysql"
    listen: str = "*"
    port: int = 3306
    copy_port: int = COPY_PORT
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def socket(self) -> Path:
        """Where the distribution's own clients look as well."""
        return self.sockets / "mysqld.sock"


def kept(settings: Settings, denied: frozenset[str]) -> dict[str, str]:
    """The user's settings, without those that are refused (the API refuses them first, with the reason)."""
    return {n: v for n, v in settings.engine_settings.items() if refusal(n, v, denied) is None}


def number(row: Mapping[str, Any], name: str) -> int:
    """A column that may be missing or NULL."""
    return int(row.get(name) or 0)
