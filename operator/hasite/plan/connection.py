"""How apps and people reach a database: URLs, the environment file of app servers, Secrets, and who is let in. Pure."""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hasite.api.common import API_VERSION
from hasite.api.hasite import DatabaseUse, HASite
from hasite.api.replicateddatabase import Access, ReplicatedDatabase
from hasite.plan.databaseworld import SERVER_PORTS
from hasite.plan.names import Owner, role_tag
from hasite.plan.proxies import DatabaseMember
from hasite.plan.steps import Refusal, Wait

LOCAL = "127.0.0.1"
"""Where the proxy on an app server listens: on the server's own port for the primary, on the next one for replicas."""

ENVIRONMENT_PATH = "/etc/hasite/database.env"
NOTICES_DEATH = "keepalives_idle=2&keepalives_interval=1&keepalives_count=3&tcp_user_timeout=5000"
"""A server that loses its power while it owes an answer never says so: libpq would wait for two hours."""

AUTHORITY_PATH = "/etc/hasite/database-ca.crt"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""The bytes that stand for themselves anywhere in a URL (RFC 3986, 2.3)."""

_SHELL_ESCAPED = '"\\`$'
"""What a backslash goes before within double quotes: to a shell, and to systemd's EnvironmentFile=."""


@dataclass(frozen=True)
class Connection:
    """One user's way to one database. ``members``: all with data, by name. ``near``: by location, its members, when
    each app is to be led to those of its own."""

    engine: str
    members: tuple[DatabaseMember, ...]
    database: str
    user: str
    password: str = field(repr=False)
    near: Mapping[str, Collection[str]] | None = None

    @property
    def port(self) -> int:
        """The servers' port."""
        return SERVER_PORTS[self.engine]


@dataclass(frozen=True)
class Environment:
    """What an app server is given beside its proxy: the environment file, and the certificate to know members by."""

    file: bytes = field(repr=False)
    authority: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of both, one after the other. It may be shown: the file holds a word that only the operator can make."""
        return hashlib.sha256(self.file + self.authority).hexdigest()


def connection_of(use: DatabaseUse, database: ReplicatedDatabase, password: str | None) -> Connection | Refusal | Wait:
    """``password`` None: its Secret holds none."""
    where = f"ReplicatedDatabase {use.name}"
    if refusal := _refusal(use, database, where, password or ""):
        return refusal
    if password is None:
        return Wait(f"there is no password for user {use.user} of {where} yet", 2.0)
    members = data_members(database)
    if not members:
        return Wait(f"{where} is being made", 2.0)
    near = _near(database) if database.spec.write_routing == "local" else None
    return Connection(database.spec.engine, members, use.database, use.user, password, near)


def _near(database: ReplicatedDatabase) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for member in database.status.membership.members if database.status.membership else ():
        if not member.witness:
            found.setdefault(member.location, []).append(member.name)
    return found


def members_for(connection: Connection, location: str) -> tuple[DatabaseMember, ...]:
    """As an app server at this location is led to them. Where no member stands, all are alike."""
    near = (connection.near or {}).get(location)
    if not near:
        return connection.members
    return tuple(replace(member, backup=member.name not in near) for member in connection.members)


def _refusal(use: DatabaseUse, database: ReplicatedDatabase, where: str, password: str) -> Refusal | None:
    if use.database not in {each.name for each in database.spec.databases}:
        return Refusal("DatabaseNotDeclared", f"spec.database.database: {where} has no database {use.database}")
    if use.user not in {each.name for each in database.spec.users}:
        return Refusal("DatabaseUserNotDeclared", f"spec.database.user: {where} has no user {use.user}")
    if any(ord(character) < 32 or ord(character) == 127 for character in password):
        words = f"the password of user {use.user} of {where} holds a line break or another control character"
        return Refusal("PasswordUnusable", words)
    return None


def data_members(database: ReplicatedDatabase) -> tuple[DatabaseMember, ...]:
    """Who takes part at present, witnesses aside, by name."""
    membership = database.status.membership
    members = membership.members if membership else ()
    able = (DatabaseMember(m.name, m.address) for m in members if not m.witness and m.address)
    return tuple(sorted(able, key=lambda member: member.name))


def environment_of(connection: Connection, authority: bytes, key: bytes) -> Environment:
    """The same for every app server. ``key``: a secret, from which the word in the file's first line is made."""
    lines = (f"{name}={_quoted(value)}\n" for name, value in _variables(connection).items())
    body = "".join(lines).encode()
    word = hmac.new(key, body, hashlib.sha256).hexdigest()[:32]
    head = f"# Written by HASite, which puts back what is changed here by hand. {word}\n"
    return Environment(head.encode() + body, authority)


def _variables(connection: Connection) -> dict[str, str]:
    """MySQL's drivers know no common form for several hosts, so there is no direct URL for it."""
    port = connection.port
    values = {
        "DATABASE_URL": _local_url(connection, port),
        "DATABASE_REPLICA_URL": _local_url(connection, port + 1),
        "DATABASE_HOST": LOCAL,
        "DATABASE_PORT": str(port),
        "DATABASE_NAME": connection.database,
        "DATABASE_USER": connection.user,
        "DATABASE_PASSWORD": connection.password,
        "DATABASE_CA": AUTHORITY_PATH,
    }
    if connection.engine == "postgresql":
        options = f"sslmode=verify-full&sslrootcert={AUTHORITY_PATH}&connect_timeout=2&{NOTICES_DEATH}"
        values["DATABASE_URL_DIRECT"] = _many_hosts(connection, f"target_session_attrs=read-write&{options}")
    return values


def _local_url(connection: Connection, port: int) -> str:
    """The authority vouches for this database's members alone, so that its signature is proof enough."""
    if connection.engine == "postgresql":
        return _url(connection, f"{LOCAL}:{port}", f"sslmode=verify-ca&sslrootcert={AUTHORITY_PATH}")
    return _url(connection, f"{LOCAL}:{port}", f"ssl-ca={AUTHORITY_PATH}")


def _many_hosts(connection: Connection, options: str) -> str:
    return _url(connection, ",".join(_host(m.address, connection.port) for m in connection.members), options)


def _url(connection: Connection, hosts: str, options: str) -> str:
    scheme = "postgresql" if connection.engine == "postgresql" else "mysql"
    login = f"{percent_encoded(connection.user)}:{percent_encoded(connection.password)}"
    return f"{scheme}://{login}@{hosts}/{percent_encoded(connection.database)}?{options}"


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"


def percent_encoded(text: str) -> str:
    """For any place in a URL."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())


def _quoted(value: str) -> str:
    """A value without control characters, as systemd's EnvironmentFile= and a shell both read it."""
    return '"' + "".join(f"\\{c}" if c in _SHELL_ESCAPED else c for c in value) + '"'


def connection_secrets(
    database: ReplicatedDatabase, passwords: Mapping[str, str], authority: bytes, primary: str
) -> tuple[dict[str, Any], ...]:
    """A Secret for each declared database, as its owner: ``NAME-connection`` for the first, then
    ``NAME-connection-USER``. None before there has been a ``primary``, whose name this is.

    Under ``deletionPolicy: Retain`` they stay like the users' passwords, for the database serves on.
    """
    members = data_members(database)
    if primary not in {member.name for member in members}:
        return ()
    manifests: list[dict[str, Any]] = []
    taken: set[str] = set()
    for each in database.spec.databases:
        name = _secret_name(database.name, each.owner, each.name, taken)
        taken.add(name)
        if each.owner in passwords:
            connection = Connection(database.spec.engine, members, each.name, each.owner, passwords[each.owner])
            manifests.append(_manifest(database, name, _secret_data(connection, primary, authority)))
    return tuple(manifests)


def differs(manifest: Mapping[str, Any], held: Mapping[str, bytes] | None) -> bool:
    """Whether a Secret has to be written: ``held`` is what it holds now, None when it is not there."""
    return held is None or {k: base64.b64encode(v).decode() for k, v in held.items()} != manifest["data"]


def _secret_data(connection: Connection, primary: str, authority: bytes) -> dict[str, bytes]:
    """Names as the Service Binding specification has them, where it has one."""
    host = next(m.address for m in connection.members if m.name == primary)
    others = [m.address for m in connection.members if m.name != primary]
    values = {
        "type": connection.engine,
        "host": host,
        "hosts": ",".join(m.address for m in connection.members),
        "port": str(connection.port),
        "username": connection.user,
        "password": connection.password,
        "database": connection.database,
    }
    if connection.engine == "postgresql":
        options = f"sslmode=require&connect_timeout=2&{NOTICES_DEATH}"
        values["uri"] = _many_hosts(connection, f"target_session_attrs=read-write&{options}")
        values["replica-uri"] = _many_hosts(connection, f"target_session_attrs=prefer-standby&{options}")
    else:
        values["uri"] = _url(connection, _host(host, connection.port), "ssl-mode=REQUIRED")
        values["replica-uri"] = _url(connection, _host([*others, host][0], connection.port), "ssl-mode=REQUIRED")
    return {key: value.encode() for key, value in values.items()} | {"ca.crt": authority}


def _secret_name(stem: str, user: str, database: str, taken: Collection[str]) -> str:
    """Unique, and a name that Kubernetes takes: an underscore becomes a hyphen, and no name ends with one."""
    name = f"{stem}-connection" if not taken else f"{stem}-connection-{_slug(user)}"
    if name in taken:
        name = f"{name}-{_slug(database)}"
    return f"{name}-{_short(user, database)}" if name in taken else name


def _slug(name: str) -> str:
    plain = name.replace("_", "-")
    return plain if plain.strip("-") == plain else f"{plain.strip('-')}-{_short(name)}".lstrip("-")


def _short(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:6]


def _manifest(database: ReplicatedDatabase, name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": database.namespace}
    if database.spec.deletion_policy == "Delete":
        reference = {"apiVersion": API_VERSION, "kind": database.KIND, "name": database.name, "uid": database.uid}
        metadata["ownerReferences"] = [reference]
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def access_of(database: ReplicatedDatabase, sites: Sequence[HASite]) -> Access:
    """Who may connect: whom the spec names, and the app servers of the sites that use it. A site that is being deleted
    keeps its access: its app servers serve until the end."""
    users = [s for s in sites if s.namespace == database.namespace and uses(s, database.name)]
    tags = {role_tag(Owner(site.uid, site.namespace, site.name), "app") for site in users}
    access = database.spec.access
    return access.model_copy(update={"tags": (*access.tags, *sorted(tags - set(access.tags)))})


def uses(site: HASite, database: str) -> bool:
    """Whether the site's apps use the database of this name."""
    return site.spec.database is not None and site.spec.database.name == database
