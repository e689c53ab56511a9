"""PostgreSQL's configuration as text. Pure: what the server's files say, and what users may not say in them.

The files lie outside the data folder, so that neither a base backup nor a rewind brings another member's. Three parts,
the later wins: defaults, the user's settings, what replication and fencing rest on; a file of its own for what changes
with the role.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hasite.guard.model import OPERATOR, SyncRecord

REPLICATION_USER = "hasite_replication"
OPERATOR_USER = "hasite_operator"
OPERATOR_CERTIFICATE = "hasite-operator"
"""The common name that the operator's certificate carries."""

DEFAULTS: Mapping[str, str] = {
    "client_connection_check_interval": "2s",
    "log_checkpoints": "on",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "max_connections": "100",
    "max_slot_wal_keep_size": "2GB",
    "wal_compression": "on",
    "wal_keep_size": "128MB",  # pg_rewind copies all of it
}
"""The user's settings come over these. A slot of a member that is away may not fill the disk: it is given up at
``max_slot_wal_keep_size``, and the member copies afresh."""

ALL_LOG = "1TB"
"""A ``wal_keep_size`` with which no checkpoint gives up any of the log."""

FIXED: Mapping[str, str] = {
    "synchronous_commit": "on",
    "fsync": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "wal_log_hints": "on",  # pg_rewind's condition, whatever became of the checksums
    "hot_standby": "on",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "recovery_target_timeline": "latest",
    "restart_after_crash": "off",  # recovery would show what no standby has confirmed: the guard restarts it
    "wal_sender_timeout": "3s",
    "wal_receiver_timeout": "2s",  # the receiver asks for a sign of life after half of it
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "50ms",  # a standby turns to another upstream so quickly
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
    "ssl": "on",
    "ssl_min_protocol_version": "TLSv1.2",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_destination": "stderr",
    "default_transaction_read_only": "off",
    "archive_mode": "on",  # from the first start, for it can't change while the server runs
}
"""What replication, fencing and the promises of durability rest on; comes last in the file."""

DENIED: frozenset[str] = frozenset(FIXED) | {
    "allow_alter_system",
    "allow_in_place_tablespaces",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "dynamic_library_path",
    "event_source",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "ignore_system_indexes",
    "in_hot_standby",
    "krb_server_keyfile",
    "lc_messages",
    "listen_addresses",
    "local_preload_libraries",
    "log_directory",
    "log_filename",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "restore_command",
    "session_preload_libraries",
    "session_replication_role",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_ciphers",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
    "ssl_passphrase_command",
    "stats_temp_directory",
    "summarize_wal",
    "synchronized_standby_slots",
    "synchronous_standby_names",
    "sync_replication_slots",
    "transaction_read_only",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_consistency_checking",
    "zero_damaged_pages",
}
"""Settings that users may not give; besides these, ``recovery_…`` and whatever ``refusal`` says of a value."""

LIBRARIES = frozenset({"auto_explain", "pg_prewarm", "pg_stat_statements", "pgaudit", "pg_cron", "timescaledb"})
"""What ``shared_preload_libraries`` may name: any other would be code of the user's choice in the server."""

GREATEST: Mapping[str, tuple[str, int]] = {
    "max_connections": ("max_connections setting", 100),
    "max_worker_processes": ("max_worker_processes setting", 8),
    "max_prepared_transactions": ("max_prepared_xacts setting", 0),
    "max_locks_per_transaction": ("max_locks_per_xact setting", 64),
}
"""Settings that a standby must not have smaller than its primary had: their names in pg_controldata, their defaults."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")


def refusal(name: str, value: str) -> str | None:
    """Why a user may not set ``name`` to ``value``; None: they may (whether the server knows it, only it can say)."""
    plain = name.lower()
    if not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a setting"
    if plain in DENIED or plain.startswith("recovery_"):
        return f"{name} is set by HASite: replication and fencing rest on it"
    if len(value) > 1000 or any(ord(character) < 32 for character in value):
        return f"the value of {name} has control characters, or more than 1000 of any"
    if plain == "max_slot_wal_keep_size" and value.strip().startswith("-"):
        return "max_slot_wal_keep_size needs a bound: a member that is away would fill the disk"
    if plain == "shared_preload_libraries":
        named = {library.strip() for library in value.split(",") if library.strip()}
        if unknown := sorted(named - LIBRARIES):
            return f"shared_preload_libraries may not name {', '.join(unknown)}"
    return None


def quoted(value: str) -> str:
    """For a configuration file, in which a backslash escapes. Raises ValueError for what can't be written there."""
    if any(ord(character) < 32 for character in value):
        raise ValueError("a setting's value has a control character")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def assignments(values: Mapping[str, str]) -> str:
    """Lines of a configuration file."""
    return "".join(f"{name} = {quoted(value)}\n" for name, value in values.items())


def conninfo(values: Mapping[str, str]) -> str:
    """A libpq connection string."""
    return " ".join(
        f"{name}='{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'"
        for name, value in values.items()
    )


@dataclass(frozen=True)
class Place:
    """Where the server's own things are, as far as the guard's layout does not say."""

    configuration: Path
    binaries: Path
    sockets: Path = Path("/var/run/postgresql")
    listen: str = "*"
    port: int = 5432
    user: str = "postgres"

    @property
    def file(self) -> Path:
        """The configuration file that the server is started with."""
        return self.configuration / "postgresql.conf"

    @property
    def role(self) -> Path:
        """The part that changes with the role."""
        return self.configuration / "role.conf"


ARCHIVING: Mapping[str, str] = {"archive_timeout": "60s"}
"""With backups: a moment can be restored that is a minute old."""


def server(place: Place, name: str, user_settings: Mapping[str, str], archive: Path | None = None) -> str:
    """The configuration file. Settings that ``refusal`` refuses are left out, whoever let them through.

    ``archive``: the program that takes each file of the log; None: nobody wants them.
    """
    allowed = {key: value for key, value in user_settings.items() if refusal(key, value) is None}
    folder = place.configuration
    ours = {
        **FIXED,
        "archive_command": f'{archive} "%p"' if archive else "/bin/true",
        "cluster_name": name,
        "listen_addresses": place.listen,
        "port": str(place.port),
        "unix_socket_directories": str(place.sockets),
        "hba_file": str(folder / "pg_hba.conf"),
        "ident_file": str(folder / "pg_ident.conf"),
        "ssl_cert_file": str(folder / "cert.pem"),
        "ssl_key_file": str(folder / "key.pem"),
        "ssl_ca_file": str(folder / "ca.pem"),
    }
    return (
        "# Written by HASite's guard: changes are overwritten.\n"
        + assignments({**DEFAULTS, **(ARCHIVING if archive else {}), **allowed})
        + assignments(ours)
        + f"include_if_exists = {quoted(str(place.role))}\n"
    )


def at_least(control: Mapping[str, str], user_settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of ``GREATEST`` for a start: the user's, or what pg_controldata says that the primary had, if more.

    Whatever else it is given, a server starts as a standby, and one with less would pause its recovery. So these can be
    raised but not lowered.
    """
    found = {}
    for name, (label, default) in GREATEST.items():
        wanted = user_settings.get(name, "")
        found[name] = str(max(int(wanted) if wanted.isdecimal() else default, int(control.get(label, "0"))))
    return found


def access(user: str, *, clients: bool) -> str:
    """pg_hba.conf. Nothing without TLS but for the machine's own. Without ``clients`` only HASite's users come in."""
    lines = [
        f"local all {user} peer map=local",
        f"hostssl replication {REPLICATION_USER} all cert map=members",
        f"hostssl postgres {REPLICATION_USER} all cert map=members",
        f"hostssl all {OPERATOR_USER} all cert map=operator",
        f"host all {user},{REPLICATION_USER},{OPERATOR_USER} all reject",
    ]
    if clients:
        lines += ["local all all scram-sha-256", "hostssl all all all scram-sha-256"]
    return "\n".join(lines) + "\n"


def identities(user: str, members: tuple[str, ...]) -> str:
    """pg_ident.conf: which operating system users and certificates may be which database users."""
    lines = [f"local root {user}", f"local {user} {user}", f"operator {OPERATOR_CERTIFICATE} {OPERATOR_USER}"]
    lines += [f'members "{member}" {REPLICATION_USER}' for member in members if member != OPERATOR]
    return "\n".join(lines) + "\n"


def standby_names(sync: SyncRecord | None, name: str) -> str:
    """synchronous_standby_names for this primary: waits for ever when fewer are there than it must wait for."""
    if sync is None or sync.required == 0:
        return ""
    others = sorted(sync.eligible - {name})
    if not others:
        return nobody(name)
    return f"ANY {sync.required} (" + ", ".join('"' + other.replace('"', '""') + '"' for other in others) + ")"


def nobody(name: str) -> str:
    """A standby's synchronous_standby_names, which has no effect on it: so whether commits wait, which only the
    checkpointer says and maybe late, is said long before this server is promoted."""
    return f'ANY 1 ("{name}/nobody")'


def slot_name(member: str) -> str:
    """The replication slot of a member: slots' names allow lower-case letters, digits and underscores, 63 at most."""
    plain = "".join(c if c.isascii() and (c.isdigit() or c.islower()) else f"_{ord(c):x}_" for c in member)
    name = f"hasite_{plain}"
    return name if len(name) <= 63 else f"{name[:54]}_{hashlib.sha256(member.encode()).hexdigest()[:8]}"


def unit_file(version: str) -> str:
    """The server's systemd unit. A stop is a fast shutdown: a smart one would let sessions commit on."""
    return f"""[Unit]
Description=PostgreSQL {version}, started by HASite's guard alone
After=network.target

[Service]
Type=exec
User=postgres
Group=postgres
ExecStart=/usr/lib/postgresql/{version}/bin/postgres -D /var/lib/hasite/data \\
    -c config_file=/var/lib/hasite/postgresql/postgresql.conf
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
KillSignal=SIGINT
TimeoutStopSec=60
Restart=no
OOMScoreAdjust=-900
Environment=PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj PG_OOM_ADJUST_VALUE=0
LimitNOFILE=65536
"""
