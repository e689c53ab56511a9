"""The peer: Patroni with etcd on machines of the same world. Pure: what is put on them, and what its settings are.

What it needs is downloaded for a measurement, into the cache; nothing of HASite depends on it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.world.machines.cache import built_once, cache_directory
from e2e.world.world import ROOT

VERSION = "4.1.4"
MACHINE_PYTHON = "3.11"
"""Debian 12's: compiled parts are for that one."""

FOLDER = "/opt/patroni"
ETCD = "/opt/hasite-controlplane"
PORT, REST_PORT, ETCD_PORT, ETCD_PEER_PORT = 5432, 8008, 2379, 2380
SCOPE = "peer"


@dataclass(frozen=True)
class Timing:
    """Patroni's dynamic settings, and how HAProxy's checks go with them."""

    name: str
    ttl: int
    loop_wait: int
    retry_timeout: int
    checks: str

    @property
    def dynamic(self) -> Mapping[str, int]:
        """As Patroni names them."""
        return {"ttl": self.ttl, "loop_wait": self.loop_wait, "retry_timeout": self.retry_timeout}

    def __str__(self) -> str:
        return f"{self.name} (ttl {self.ttl}, loop_wait {self.loop_wait}, retry_timeout {self.retry_timeout})"


DEFAULTS = Timing("defaults", 30, 10, 10, "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions")
"""Of its manual and of its sample haproxy.cfg."""

TIGHTEST = Timing(
    "tightest",
    20,
    1,
    3,
    "inter 500ms fastinter 200ms downinter 200ms rise 1 fall 2 on-marked-down shutdown-sessions",
)
"""The least that Patroni's patroni/config.py takes for each; checks as often as HASite's own proxy makes them."""


@dataclass(frozen=True)
class Node:
    """A member of the peer."""

    name: str
    address: str


@dataclass(frozen=True)
class Passwords:
    """Of its three users."""

    superuser: str
    replication: str
    rewind: str


def program() -> Path:
    """Patroni's folder in the cache, with all that it needs in Python but psycopg2, which is Debian's.

    Raises CalledProcessError with uv's words in ``stderr``.
    """

    def install(folder: Path) -> None:
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--quiet", "--target", str(folder), "--python-version", MACHINE_PYTHON]
        subprocess.run([*command, f"patroni[etcd3]=={VERSION}"], check=True, capture_output=True, text=True, cwd=ROOT)

    return built_once(cache_directory() / "patroni" / f"{VERSION}-python{MACHINE_PYTHON}", install)


def user_data(version: str) -> str:
    """PostgreSQL's packages, and no server that runs by itself. JSON is YAML."""
    files = [{"path": "/etc/postgresql-common/createcluster.d/bench.conf", "content": "create_main_cluster = false\n"}]
    mask = ["ln", "-sfn", "/dev/null", "/etc/systemd/system/postgresql.service"]
    packages = [f"postgresql-{version}", "python3-psycopg2"]
    return "#cloud-config\n" + json.dumps({"bootcmd": [mask], "write_files": files, "packages": packages})


def settings(node: Node, etcd: Sequence[Node], version: str, passwords: Passwords, timing: Timing) -> str:
    """patroni.yml, after its manual's sample. JSON is YAML.

    Synchronous mode, not strict: as ``degradedWrites: allow``. No watchdog: these machines have no such device.
    """
    hba = [
        "local all all peer",
        "hostssl replication replicator all scram-sha-256",
        "hostssl all all all scram-sha-256",
    ]
    users = {
        "superuser": {"username": "postgres", "password": passwords.superuser},
        "replication": {"username": "replicator", "password": passwords.replication},
        "rewind": {"username": "rewinder", "password": passwords.rewind},
    }
    snakeoil = {
        "ssl": "on",
        "ssl_cert_file": "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        "ssl_key_file": "/etc/ssl/private/ssl-cert-snakeoil.key",
        "password_encryption": "scram-sha-256",
    }
    document = {
        "scope": SCOPE,
        "name": node.name,
        "restapi": {"listen": f"0.0.0.0:{REST_PORT}", "connect_address": f"{node.address}:{REST_PORT}"},
        "etcd3": {"hosts": [f"{each.address}:{ETCD_PORT}" for each in etcd]},
        "bootstrap": {
            "dcs": {
                **timing.dynamic,
                "maximum_lag_on_failover": 1048576,
                "synchronous_mode": True,
                "postgresql": {"use_pg_rewind": True, "use_slots": True},
            },
            "initdb": [{"encoding": "UTF8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": f"0.0.0.0:{PORT}",
            "connect_address": f"{node.address}:{PORT}",
            "data_dir": "/var/lib/postgresql/peer",
            "bin_dir": f"/usr/lib/postgresql/{version}/bin",
            "pgpass": "/var/lib/postgresql/peer.pgpass",
            "authentication": users,
            "pg_hba": hba,
            "parameters": {**snakeoil, "unix_socket_directories": "/var/run/postgresql"},
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
        },
        "watchdog": {"mode": "off"},
    }
    return json.dumps(document, indent=1)


def etcd_arguments(node: Node, etcd: Sequence[Node], folder: str) -> list[str]:
    """One of three members, which sync to disk."""
    cluster = ",".join(f"{each.name}=http://{each.address}:{ETCD_PEER_PORT}" for each in etcd)
    return [
        "etcd",
        f"--name={node.name}",
        f"--data-dir={folder}",
        f"--listen-client-urls=http://{node.address}:{ETCD_PORT}",
        f"--listen-peer-urls=http://{node.address}:{ETCD_PEER_PORT}",
        f"--initial-cluster={cluster}",
    ]


def units(node: Node, etcd: Sequence[Node]) -> dict[str, str]:
    """By name: both start with the machine."""
    command = " ".join([ETCD, *etcd_arguments(node, etcd, "/var/lib/etcd")])
    return {
        "etcd.service": _unit("Type=exec", command, "root", "After=network.target"),
        "patroni.service": _unit(
            "Type=exec\nKillMode=process\nTimeoutSec=30",
            "/usr/bin/python3 -m patroni /etc/patroni.yml",
            "postgres",
            "After=network.target etcd.service",
        ),
    }


def _unit(kind: str, command: str, user: str, order: str) -> str:
    """``KillMode`` as in the unit of Patroni's documentation."""
    return f"""[Unit]
{order}
StartLimitIntervalSec=0

[Service]
{kind}
User={user}
Environment=PYTHONPATH={FOLDER}
ExecStart={command}
Restart=always
RestartSec=1
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


def haproxy(nodes: Sequence[Node], timing: Timing, port: int) -> str:
    """Patroni's sample haproxy.cfg, for an app's own machine."""
    servers = "".join(
        f"    server {each.name} {each.address}:{PORT} maxconn 100 check port {REST_PORT}\n" for each in nodes
    )
    return f"""global
    maxconn 100

defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s

listen primary
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server {timing.checks}
{servers}"""
