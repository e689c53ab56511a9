"""What a member's droplet is born with: the server's packages, and no server that runs. Pure."""

import base64
import textwrap

import yaml

from hasite.api.replicateddatabase import Installation, ReplicatedDatabaseSpec

_UNITS = {
    "postgresql": ("postgresql.service",),
    "mariadb": ("mariadb.service",),
    "mysql": ("mysql.service",),
}
"""The distribution's own units. Masked before the packages come: only the guard starts a server."""

_MASKED = "/etc/systemd/system"

_NO_DEFAULT_CLUSTER = {
    "path": "/etc/postgresql-common/createcluster.d/hasite.conf",
    "content": "create_main_cluster = false\n",
}


def packages_of(spec: ReplicatedDatabaseSpec) -> tuple[str, ...]:
    """What the bootstrap installs on a member; a witness needs nothing but Python. The tools for backups come with it:
    who wants backups later need not roll the members."""
    match spec.engine:
        case "postgresql":
            return (f"postgresql-{spec.version}", "python3-psycopg2", "pgbackrest")
        case "mariadb":
            return ("mariadb-server", "mariadb-backup", "python3-pymysql", "rclone", "zstd")
        case "mysql":
            return ("mysql-server", "python3-pymysql")


def user_data_of(spec: ReplicatedDatabaseSpec) -> str:
    """Our part of the user data beside the packages: ``bootcmd`` and ``write_files`` run before they are installed."""
    files = [_NO_DEFAULT_CLUSTER] if spec.engine == "postgresql" else []
    if spec.installation is not None:
        files += _apt_files(spec.installation)
    document: dict[str, object] = {
        # Not by systemctl: its reload of systemd, so early in a boot, can leave jobs waiting for ever.
        "bootcmd": [["ln", "-sfn", "/dev/null", f"{_MASKED}/{unit}"] for unit in _UNITS[spec.engine]]
    }
    if files:
        document["write_files"] = files
    return "#cloud-config\n" + yaml.safe_dump(document, sort_keys=True)


def _apt_files(installation: Installation) -> list[dict[str, str]]:
    """apt takes a key in /etc/apt/trusted.gpg.d by its suffix: .asc is armoured, .gpg is not."""
    files = []
    if installation.sources:
        files.append({"path": "/etc/apt/sources.list.d/hasite.list", "content": _lines(installation.sources)})
    if installation.pins:
        pins = (f"Package: {p.packages}\nPin: {p.pin}\nPin-Priority: {p.priority}\n" for p in installation.pins)
        files.append({"path": "/etc/apt/preferences.d/hasite", "content": "\n".join(pins)})
    for number, key in enumerate(installation.keys):
        armoured = base64.b64decode(key + "=" * (-len(key) % 4), validate=False).startswith(b"-----")
        path = f"/etc/apt/trusted.gpg.d/hasite-{number}.{'asc' if armoured else 'gpg'}"
        files.append({"path": path, "content": "\n".join(textwrap.wrap(key, 76)), "encoding": "b64"})
    return files


def _lines(lines: tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in lines)
