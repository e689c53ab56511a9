"""MariaDB's configuration as text. Pure: what the server's option file says, and what users may not say in it."""

from collections.abc import Mapping

from hasite.guard.engines.mysqlcommon import DENIED_COMMON, Place, option_lines, server_ids
from hasite.guard.engines.mysqlcommon import refusal as common_refusal
from hasite.guard.engines.mysqlcommon_flavour import Files
from hasite.guard.engines.mysqlcommon_members import options as ring_options
from hasite.guard.model import Settings

PACKAGES = ("mariadb-server", "mariadb-backup", "python3-pymysql")
"""Of Debian, on each member with a database."""

DEFAULTS: Mapping[str, str] = {
    "binlog_expire_logs_seconds": "604800",
    "character_set_server": "utf8mb4",
    "log_bin_trust_function_creators": "ON",
    "max_binlog_size": "256M",
}
"""The user's settings come over these."""

FIXED: Mapping[str, str] = {
    "read_only": "ON",  # at boot: only a promotion takes it away
    "event_scheduler": "OFF",
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "default_storage_engine": "InnoDB",
    "enforce_storage_engine": "InnoDB",  # others lose rows in a crash, whatever replication promised
    "gtid_strict_mode": "ON",
    "log_slave_updates": "ON",
    "relay_log_recovery": "ON",
    "sync_relay_log": "1",  # a standby's answer says that the transaction is on its disk
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_master_wait_no_slave": "ON",
    "rpl_semi_sync_master_timeout": "315360000000",  # ten years: there is no falling back
    "rpl_semi_sync_slave_delay_master": "ON",
    "slave_net_timeout": "2",
    "slave_exec_mode": "STRICT",
    "master_retry_count": "3",  # then its guard must begin anew, so that one that hangs does not answer for ever
    "require_secure_transport": "ON",
    "tls_version": "TLSv1.2,TLSv1.3",
    "tcp_keepalive_time": "2",
    "tcp_keepalive_interval": "1",
    "tcp_keepalive_probes": "3",
    "local_infile": "OFF",
}
"""What replication, fencing and the promises of durability rest on; comes last in the file.

Semi-synchronous replication is switched on while the server runs: one that starts with it as a standby drops
transactions from its log."""


DENIED = (
    DENIED_COMMON
    | frozenset(FIXED)
    | {"binlog_checksum", "encrypt_binlog", "log_slow_file", "strict_password_validation"}
)
"""Settings that users may not have."""


def refusal(name: str, value: str) -> str | None:
    """Why a user may not set ``name`` to ``value``; None: they may (whether the server knows it, only it can say)."""
    return common_refusal(name, value, DENIED)


def configuration(settings: Settings, files: Files, place: Place, user_settings: Mapping[str, str]) -> str:
    """The option file."""
    names = {member.name for member in settings.membership.members} | {settings.name}
    own = {
        "datadir": str(files.data),
        "socket": str(place.socket),
        "pid_file": str(place.sockets / "mysqld.pid"),
        "port": str(place.port),
        "bind_address": place.listen,
        "server_id": str(server_ids(names)[settings.name]),
        "report_host": settings.name,
        "log_bin": "binlog",
        "relay_log": "relay",
        "secure_file_priv": str(files.exchange),
        "ssl_ca": str(files.ca),
        "ssl_cert": str(files.certificate),
        "ssl_key": str(files.key),
    }
    if settings.ring:
        own |= ring_options(settings, files.incarnation)
        # A domain for each writer; and an upstream may lack what came here another way, or send what has come already.
        own |= {"gtid_domain_id": own["server_id"], "gtid_ignore_duplicates": "ON"}
    lines = "".join(option_lines(part) for part in (DEFAULTS, user_settings, FIXED, own, place.extra))
    return f"# Written by HASite's guard before each start.\n[mariadbd]\n{lines}skip_name_resolve\nskip_slave_start\n"


def unit_file(version: str) -> str:
    """The server's systemd unit."""
    return f"""[Unit]
Description=MariaDB {version}, started by HASite's guard alone
After=network.target

[Service]
Type=exec
User=mysql
Group=mysql
ExecStart=/usr/sbin/mariadbd --defaults-file=/var/lib/hasite/mariadb.cnf
RuntimeDirectory=mysqld
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0007
TimeoutStopSec=60
Restart=no
OOMScoreAdjust=-900
LimitNOFILE=65536
"""
