"""MySQL's configuration as text. Pure: what the server's option file says, and what users may not say in it."""

from collections.abc import Mapping

from hasite.guard.engines.mysqlcommon import DENIED_COMMON, Place, option_lines, server_ids
from hasite.guard.engines.mysqlcommon import refusal as common_refusal
from hasite.guard.engines.mysqlcommon_flavour import Files
from hasite.guard.engines.mysqlcommon_members import options as ring_options
from hasite.guard.model import Settings

PACKAGES = ("mysql-server", "python3-pymysql")
"""Of the distribution or of MySQL's own archive, on each member with a database."""

DEFAULTS: Mapping[str, str] = {
    "binlog_expire_logs_seconds": "604800",
    "character_set_server": "utf8mb4",
    "log_bin_trust_function_creators": "ON",
    "max_binlog_size": "256M",
    "mysqlx": "OFF",
}
"""The user's settings come over these."""

FIXED: Mapping[str, str] = {
    "super_read_only": "ON",  # at boot: only a promotion takes it away
    "read_only": "ON",
    "event_scheduler": "OFF",
    "persisted_globals_load": "OFF",  # nothing that was said to the server outlives it
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "binlog_row_image": "FULL",
    "default_storage_engine": "InnoDB",
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "log_replica_updates": "ON",
    "relay_log_recovery": "OFF",  # it would throw away what was acknowledged to the source; see mysql.py
    "sync_relay_log": "1",  # a standby's answer says that the transaction is on its disk
    "relay_log_purge": "ON",
    "replica_preserve_commit_order": "ON",
    "replica_exec_mode": "STRICT",
    "replica_net_timeout": "2",
    "rpl_semi_sync_source_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_source_wait_no_replica": "ON",
    "rpl_semi_sync_source_timeout": "4294967295",  # 49 days, the most there is; a guard's pulse comes before
    "require_secure_transport": "ON",
    "tls_version": "TLSv1.2,TLSv1.3",
    "local_infile": "OFF",
}
"""What replication, fencing and the promises of durability rest on; comes last in the file.

Semi-synchronous replication is switched on while the server runs."""

DENIED = (
    DENIED_COMMON
    | frozenset(FIXED)
    | {
        "binlog_transaction_dependency_history_size",
        "create_admin_listener_thread",
        "default_authentication_plugin",
        "enforce_gtid_consistency",
        "innodb_redo_log_encrypt",
        "mandatory_roles",
        "offline_mode",
        "partial_revokes",
        "persisted_globals_load",
        "persist_only_admin_x509_subject",
        "replica_preserve_commit_order",
        "require_row_format",
        "server_uuid",
        "source_verify_checksum",
        "super_read_only",
    }
)
"""Settings that users may not have."""

PLUGINS = "auth_socket.so;semisync_source.so;semisync_replica.so;mysql_clone.so"


APPARMOR = """/var/lib/hasite/ r,
/var/lib/hasite/** rwkl,
/run/mysqld/** rwk,
"""
"""For ``/etc/apparmor.d/local/usr.sbin.mysqld``, where a distribution confines the server (Ubuntu does)."""


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
    own |= ring_options(settings, files.incarnation)
    lines = "".join(option_lines(part) for part in (DEFAULTS, user_settings, FIXED, own, place.extra))
    return (
        "# Written by HASite's guard before each start.\n[mysqld]\n"
        f'plugin_load_add = "{PLUGINS}"\n{lines}skip_name_resolve\nskip_replica_start\n'
    )


def unit_file(version: str) -> str:
    """The server's systemd unit."""
    return f"""[Unit]
Description=MySQL {version}, started by HASite's guard alone
After=network.target

[Service]
Type=exec
User=mysql
Group=mysql
ExecStart=/usr/sbin/mysqld --defaults-file=/var/lib/hasite/mysql.cnf
RuntimeDirectory=mysqld
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0007
TimeoutStopSec=60
Restart=no
OOMScoreAdjust=-900
LimitNOFILE=65536
"""
