"""Every constraint of the three kinds, with a value that it accepts and one that it refuses.

One table for the fast suite (the models and the generated schemas) and for the real API server.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.api.case import GONE, Case, number, reference, slug, span, under

HEALTH_CHECK: Final = [
    Case("path", "pattern", "/health/live?deep=1&quick=%20", "/'; reload"),
    Case("path", "maxLength", "/" + "a" * 255, "/" + "a" * 256),
    *span("interval", "250ms", "1m", "60s", "61s"),
    *span("timeout", "100ms", "1m", "100ms", "99ms"),
    *number("rise", 1, 20),
    *number("fall", 1, 20),
    Case(
        "",
        "timeout must not be longer than interval",
        {"interval": "1s", "timeout": "1000ms"},
        {"interval": "1s", "timeout": "1001ms"},
    ),
]
FAILURE_DETECTION: Final = [
    *span("interval", "250ms", "1m", "1m", "1m1s"),
    *span("timeout", "100ms", "1m", "100ms", "99ms"),
    *number("failureThreshold", 1, 60),
    *number("recoveryThreshold", 1, 60),
    *span("holdDown", "0s", "1h", "0s", "1h1s"),
    Case(
        "",
        "timeout must not be longer than interval",
        {"interval": "250ms", "timeout": "250ms"},
        {"interval": "250ms", "timeout": "251ms"},
    ),
]
LONGEST_NAME: Final = ".".join(["a" * 63] * 3 + ["a" * 53])
"""With ``_hasite.`` before it a name of 253 characters, the most that DNS can carry."""
DNS: Final = [
    Case("zone", "pattern", "example.com", "example.com."),
    Case("zone", "maxLength", "example.com", f"{LONGEST_NAME}a"),
    Case("ttlSeconds", "minimum", 30, 29),
    Case("ttlSeconds", "maximum", 86400, 86401),
    Case("degradedTtlSeconds", "minimum", 30, 29),
    Case("degradedTtlSeconds", "maximum", 60, 86401),
    Case(
        "",
        "degradedTtlSeconds must not exceed ttlSeconds",
        {"ttlSeconds": 60, "degradedTtlSeconds": 60},
        {"ttlSeconds": 60, "degradedTtlSeconds": 61},
    ),
    Case("", "zone is immutable once it is set", {"zone": "example.com"}, {}, before={"zone": "example.com"}),
    Case(
        "",
        "zone is immutable once it is set",
        {"zone": "example.com"},
        {"zone": "shop.example.com"},
        before={"zone": "example.com"},
    ),
]
TIER: Final = [
    Case("engine", "enum", "haproxy", "squid"),
    *number("replicasPerLocation", 1, 10),
    *slug("size", "so1_5-2vcpu-16gb"),
    *slug("image", "debian-12-x64"),
    Case("routing", "enum", "PreferLocal", "Nearest"),
]
PUBLISHED: Final = [
    Case("domain", "required", "shop.example.com", GONE),
    Case("domain", "pattern", "xn--caf-dma.example.com", "Shop.example.com"),
    Case("domain", "maxLength", LONGEST_NAME, f"{LONGEST_NAME}a"),
    Case("domain", "this field is immutable", "a.example.com", "b.example.com", before="a.example.com"),
    Case("managementPolicy", "enum", "Observe", "observe"),
    Case("deletionPolicy", "enum", "Retain", "Orphan"),
    Case(
        "",
        "dns.zone must be the domain itself or a parent of it",
        {"domain": "shop.example.com", "dns": {"zone": "example.com"}},
        {"domain": "shopexample.com", "dns": {"zone": "example.com"}},
    ),
    *under("dns", DNS),
    *under("failureDetection", FAILURE_DETECTION),
]


def placed(**more: Any) -> list[dict[str, Any]]:
    """Two locations."""
    return [{"name": "a", "region": "nyc3", **more}, {"name": "b", "region": "ams3", **more}]


LOCATIONS: Final = [
    Case("locations", "required", placed(), GONE),
    Case("locations", "minItems", placed()[1:], []),
    Case(
        "locations",
        "maxItems",
        [{"name": "abcdefghi"[n], "region": f"nyc{n}"} for n in range(8) if n != 2] + [{"name": "x", "region": "nyc8"}],
        [{"name": "abcdefghi"[n], "region": f"nyc{n}"} for n in range(9)],
    ),
    Case("locations", "duplicate", placed(), [{"name": "a", "region": "nyc3"}, {"name": "a", "region": "ams3"}]),
    Case(
        "locations",
        "each region may be named once",
        placed(),
        [{"name": "a", "region": "nyc3"}, {"name": "b", "region": "nyc3"}],
    ),
    Case("locations[0].name", "required", "a", GONE),
    Case("locations[0].name", "pattern", "new-york", "New York"),
    Case("locations[0].name", "maxLength", "a" * 20, "a" * 21),
    Case("locations[0].region", "required", "sgp1", GONE),
    Case("locations[0].region", "pattern", "sfo2", "sfo"),
    Case("locations[0].region", "maxLength", "nyc10", "nyc100"),
    Case("locations[0].region", "region is immutable: add a location and take this one away", "nyc3", "nyc1", "nyc3"),
]
CREDENTIALS: Final = reference("credentialsRef")

APP: Final = [
    Case("", "required", {"port": 80, "image": "1"}, GONE),
    Case("port", "required", 80, GONE),
    *number("port", 1, 65535),
    *number("replicasPerLocation", 1, 50),
    *under("healthCheck", HEALTH_CHECK),
    *slug("size", "s-1vcpu-1gb"),
    *slug("image", "123456789"),
    Case("userData", "maxLength", "#!/bin/sh\n".ljust(49152, ":"), "#!/bin/sh\n".ljust(49153, ":")),
    Case("userData", "userData must begin with #cloud-config or #!", "#!/bin/sh\n", "packages: [nginx]\n"),
    Case(
        "userData",
        "userData must not exceed 49152 bytes",
        "#cloud-config\n# " + "é" * 24500,
        "#cloud-config\n# " + "é" * 24600,
    ),
    Case(
        "",
        "an app needs userData, or the ID of a snapshot as its image",
        {"port": 80, "image": "123456789"},
        {"port": 80, "image": "debian-12-x64"},
    ),
    *span("drain", "0s", "10m", "0s", "10m1s"),
    *span("progressDeadline", "1m", "24h", "24h", "59s"),
]
SITE: Final = [
    *PUBLISHED,
    *CREDENTIALS,
    *LOCATIONS,
    *under("loadBalancers", TIER),
    *under("app", APP),
    Case("database.name", "required", "shop", GONE),
    Case("database.name", "pattern", "shop.orders-2", "Shop"),
    Case("database.name", "maxLength", "a" * 253, "a" * 254),
    Case("database.database", "required", "shop", GONE),
    Case("database.database", "pattern", "shop_2", "shop-2"),
    Case("database.database", "maxLength", "d" * 63, "d" * 64),
    Case("database.user", "required", "shop", GONE),
    Case("database.user", "pattern", "_shop", "shop; --"),
    Case("database.user", "maxLength", "u" * 32, "u" * 33),
]


def server(number: int) -> dict[str, Any]:
    """An app server of a pool."""
    return {"name": f"s{number}", "location": "a", "address": f"192.0.2.{number % 250}"}


SERVER: Final = [
    Case("name", "required", "s", GONE),
    Case("name", "pattern", "s-1", "s 1"),
    Case("name", "maxLength", "s" * 63, "s" * 64),
    Case("location", "required", "elsewhere", GONE),
    Case("location", "pattern", "else-where", "else where"),
    Case("location", "maxLength", "a" * 20, "a" * 21),
    Case("address", "required", "192.0.2.1", GONE),
    *[
        case
        for path in ("address", "privateAddress")
        for case in (
            Case(path, "pattern", "2001:db8::1", "host"),
            Case(path, "maxLength", "192.0.2.255", "0" * 46),
            Case(
                path,
                "must be an IPv4 or IPv6 address",
                "192.0.2.255",
                "192.0.2.256",
                also_refused_by_the_model=True,
            ),
        )
    ],
    Case("state", "enum", "Draining", "Off"),
]
POOL: Final = [
    *PUBLISHED,
    *CREDENTIALS,
    *LOCATIONS,
    *TIER,
    Case("backends", "required", {"port": 80}, GONE),
    Case("backends.port", "required", 80, GONE),
    *number("backends.port", 1, 65535),
    *under("backends.healthCheck", HEALTH_CHECK),
    *span("backends.drain", "0s", "10m", "10m", "10m1s"),
    Case("backends.servers", "maxItems", [server(n) for n in range(500)], [server(n) for n in range(501)]),
    Case("backends.servers", "duplicate", [server(1), server(2)], [server(1), server(1)]),
    *under("backends.servers[0]", SERVER),
]

PIN: Final = {"packages": "*", "pin": "release a=unstable", "priority": 100}
APT_LINE: Final = "deb https://repo.example.com/apt bookworm main"
INSTALLATION: Final = [
    Case("installation.sources", "maxItems", [APT_LINE] * 10, [APT_LINE] * 11),
    Case("installation.sources[0]", "pattern", "deb [signed-by=/a.gpg trusted=yes] http://e/ ./", "http://e ./"),
    Case("installation.sources[0]", "maxLength", f"deb {'a' * 506} b", f"deb {'a' * 507} b"),
    Case("installation.keys", "maxItems", ["mQ=="] * 5, ["mQ=="] * 6),
    Case("installation.keys[0]", "pattern", "mQ==", "-----BEGIN"),
    Case("installation.keys[0]", "maxLength", "m" * 16384, "m" * 16385),
    Case("installation.pins", "maxItems", [PIN] * 20, [PIN] * 21),
    Case("installation.pins[0].packages", "required", "mysql-*", GONE),
    Case("installation.pins[0].packages", "pattern", "mysql-* libstdc++6", "MySQL"),
    Case("installation.pins[0].packages", "maxLength", "m" * 512, "m" * 513),
    Case("installation.pins[0].pin", "required", "origin repo.example.com", GONE),
    Case("installation.pins[0].pin", "pattern", "release a=unstable,n=sid", "a=unstable"),
    Case("installation.pins[0].pin", "maxLength", f"origin {'a' * 121}", f"origin {'a' * 122}"),
    Case("installation.pins[0].priority", "required", 990, GONE),
    *number("installation.pins[0].priority", -1, 1001),
]

AVAILABLE: Final = (
    "the distribution must have this version: postgresql 15 or mariadb 10.11 (debian-12-x64), postgresql 17 or "
    "mariadb 11.8 (debian-13-x64); anything else needs an image and an installation"
)


def packaged(engine: str, version: str, **changes: Any) -> dict[str, Any]:
    """From the distribution's own packages."""
    return {"engine": engine, "version": version, "image": GONE, "installation": GONE, **changes}


BUCKET: Final = {
    "endpoint": "https://store.example.com",
    "bucket": "shop-backups",
    "region": "us-east-1",
    "prefix": "hasite",
    "credentialsRef": {"name": "store"},
}
FROM: Final = {"target": {"s3": BUCKET}, "name": "orders"}
RESTORED: Final = {"fromBackup": FROM}
SCHEDULES_REFUSED: Final = (
    "60 3 * * *",
    "0 24 * * *",
    "0 3 32 * *",
    "0 3 * 13 *",
    "0 3 * * 8",
    "0 3 * * mon",
    "@daily",
)
TARGET: Final = [
    Case("", "give s3 or path", {"path": "/mnt/backups"}, {}),
    Case("path", "pattern", "/mnt/back-ups/a.b", "/mnt/../etc"),
    Case("path", "maxLength", "/" + "a" * 199, "/" + "a" * 200),
    Case("s3.endpoint", "required", "https://store.example.com", GONE),
    Case("s3.endpoint", "pattern", "https://10.0.0.1:9000", "http://store.example.com"),
    Case("s3.endpoint", "maxLength", "https://" + "a" * 247, "https://" + "a" * 248),
    Case("s3.bucket", "required", "shop-backups", GONE),
    Case("s3.bucket", "pattern", "shop.backups-2", "Shop/../x"),
    Case("s3.bucket", "maxLength", "a" * 63, "a" * 64),
    Case("s3.region", "pattern", "eu-central-1", "eu central"),
    Case("s3.region", "maxLength", "a" * 40, "a" * 41),
    Case("s3.prefix", "pattern", "hasite/shop_1", "../shop"),
    Case("s3.prefix", "maxLength", "a" * 200, "a" * 201),
    *under("s3", reference("credentialsRef")),
]
BACKUP: Final = [
    Case("backup.schedule", "required", "0 3 * * *", GONE),
    *[Case("backup.schedule", "pattern", "*/15,7 0-5/2 1,15 * 7", refused) for refused in SCHEDULES_REFUSED],
    Case("backup.schedule", "maxLength", "1 2 3 4 5" + ",5" * 45, "1 2 3 4 5" + ",5" * 46),
    *number("backup.retention", 1, 100),
    Case("backup.target", "required", {"s3": BUCKET}, GONE),
    *under("backup.target", TARGET),
    Case("bootstrap", "this field is immutable", RESTORED, {"fromBackup": {**FROM, "name": "b"}}, before=RESTORED),
    Case("", "bootstrap is immutable", {}, {"bootstrap": GONE}, before={}),
    Case("bootstrap.fromBackup", "required", FROM, GONE),
    Case("bootstrap.fromBackup.target", "required", {"s3": BUCKET}, GONE),
    *under("bootstrap.fromBackup.target", TARGET),
    Case("bootstrap.fromBackup.name", "required", "orders", GONE),
    Case("bootstrap.fromBackup.name", "pattern", "orders.eu-1a2b3c4d", "orders; --"),
    Case("bootstrap.fromBackup.name", "maxLength", "a" * 63, "a" * 254),
    Case("bootstrap.fromBackup.backup", "pattern", "20261124-030000F_20261125-030000I", "../x"),
    Case("bootstrap.fromBackup.backup", "maxLength", "a" * 64, "a" * 65),
    Case("bootstrap.fromBackup.pointInTime", "pattern", "2026-11-24T13:00:00.25Z", "yesterday"),
    Case("bootstrap.fromBackup.pointInTime", "maxLength", "2026-11-24T13:00:00Z", "2026-11-24T13:00:00.1234567890Z"),
    Case(
        "",
        "pointInTime is for postgresql",
        {"engine": "mariadb"},
        {"engine": "mariadb", "bootstrap": {"fromBackup": {**FROM, "pointInTime": "2026-11-24T13:00:00Z"}}},
    ),
]
DATABASE: Final = [
    *CREDENTIALS,
    *LOCATIONS,
    *BACKUP,
    *number("locations[0].members", 1, 5),
    Case("engine", "required", "mariadb", GONE),
    Case("engine", "enum", "mariadb", "oracle"),
    Case("engine", "this field is immutable", "postgresql", "mariadb", before="postgresql"),
    Case("version", "required", "17", GONE),
    Case("version", "pattern", "10.11", "latest"),
    Case("version", "maxLength", "12345678", "123456789"),
    Case("version", "this field is immutable", "17", "15", before="17"),
    Case("topology", "enum", "PrimaryReplica", "Ring"),
    Case("topology", "this field is immutable", "PrimaryReplica", "PrimaryPrimary", before="PrimaryReplica"),
    Case("durability", "enum", "asynchronous", "none"),
    *span("maximumLag", "0s", "1h", "0s", "1h1s"),
    *span("failover.ttl", "2s", "1m", "2s", "1999ms"),
    Case("failover", "ttl is immutable", {"ttl": "3s"}, {"ttl": "4s"}, before={"ttl": "3s"}),
    *span("progressDeadline", "1m", "24h", "24h", "59s"),
    Case("degradedWrites", "enum", "allow", "maybe"),
    Case("managementPolicy", "enum", "Observe", "Watch"),
    Case("deletionPolicy", "enum", "Delete", "Keep"),
    *slug("size", "s-1vcpu-2gb"),
    *slug("image", "123456789"),
    Case("access.cidrs", "maxItems", ["192.0.2.0/24"] * 50, ["192.0.2.0/24"] * 51),
    Case("access.cidrs[0]", "pattern", "2001:db8::/32", "192.0.2.0"),
    Case("access.cidrs[0]", "maxLength", "0" * 45 + "/128", "0" * 46 + "/128"),
    Case("access.tags", "maxItems", ["t"] * 5, ["t"] * 6),
    Case("access.tags[0]", "pattern", "hasite:app:1", "an app"),
    Case("access.tags[0]", "maxLength", "t" * 255, "t" * 256),
    *INSTALLATION,
    Case("promote.location", "required", "a", GONE),
    Case("promote.location", "pattern", "b", "B"),
    Case("promote.location", "maxLength", "a", "a" * 21),
    Case("promote.epoch", "required", 1, GONE),
    *number("promote.epoch", 1, 2**53),
    Case(
        "databases",
        "maxItems",
        [{"name": f"d{n}", "owner": "owner"} for n in range(50)],
        [{"name": f"d{n}", "owner": "owner"} for n in range(51)],
    ),
    Case("databases", "duplicate", [{"name": "d", "owner": "owner"}], [{"name": "d", "owner": "owner"}] * 2),
    Case("databases[0].name", "this database's name is kept for the system", "sys_2", "sys"),
    Case("databases[0].name", "required", "d", GONE),
    Case("databases[0].name", "pattern", "shop_2", "shop-2"),
    Case("databases[0].name", "maxLength", "d" * 63, "d" * 64),
    Case("databases[0].owner", "required", "owner", GONE),
    Case("databases[0].owner", "pattern", "owner", "owner; --"),
    Case("databases[0].owner", "maxLength", "owner", "o" * 33),
    Case(
        "users",
        "maxItems",
        [{"name": "owner"}] + [{"name": f"u{n}"} for n in range(49)],
        [{"name": f"u{n}"} for n in range(51)],
    ),
    Case("users", "duplicate", [{"name": "owner"}], [{"name": "owner"}] * 2),
    Case("users[1].name", "this user's name is kept for the system", "reader", "hasite_operator"),
    Case("users[1].name", "required", "reader", GONE),
    Case("users[1].name", "pattern", "_reader", "Reader"),
    Case("users[1].name", "maxLength", "u" * 32, "u" * 33),
    *reference("users[1].passwordRef", required=False),
    Case("parameters", "maxProperties", {f"p{n}": "1" for n in range(100)}, {f"p{n}": "1" for n in range(101)}),
    Case("parameters", "a parameter's name must be a word in lower case", {"auto_explain.log": "1"}, {"a\nb": "1"}),
    Case("parameters{work_mem}", "pattern", "64MB, 16 kB", "64MB\nport=1"),
    Case("parameters{work_mem}", "maxLength", "1" * 256, "1" * 257),
    Case("primaryLocation", "pattern", "a", "A"),
    Case("primaryLocation", "maxLength", "b", "a" * 21),
    Case(
        "witness",
        "a location's region is immutable: name another location",
        {"location": "d", "region": "lon1"},
        {"location": "c", "region": "lon1"},
        before={"location": "c", "region": "fra1"},
    ),
    Case("witness.location", "required", "c", GONE),
    Case("witness.location", "pattern", "third-one", "third one"),
    Case("witness.location", "maxLength", "c" * 20, "c" * 21),
    Case("witness.region", "required", "fra1", GONE),
    Case("witness.region", "pattern", "fra1", "FRA1"),
    Case("witness.region", "maxLength", "fra10", "fra100"),
    Case("writeRouting", "enum", "single", "random"),
    Case(
        "",
        "PrimaryPrimary is for mysql and mariadb",
        {"engine": "mariadb", "topology": "PrimaryPrimary", "durability": "asynchronous"},
        {"engine": "postgresql", "topology": "PrimaryPrimary", "durability": "asynchronous"},
    ),
    Case(
        "",
        "PrimaryPrimary needs durability asynchronous: no member waits for another before it acknowledges a write",
        {"engine": "mariadb", "topology": "PrimaryPrimary", "durability": "asynchronous"},
        {"engine": "mariadb", "topology": "PrimaryPrimary", "durability": "synchronous"},
    ),
    Case(
        "",
        "PrimaryPrimary: at most 8 members in all",
        {
            "engine": "mariadb",
            "topology": "PrimaryPrimary",
            "durability": "asynchronous",
            "locations": placed(members=4),
        },
        {
            "engine": "mariadb",
            "topology": "PrimaryPrimary",
            "durability": "asynchronous",
            "locations": placed(members=5),
        },
    ),
    Case(
        "",
        "writeRouting local needs topology PrimaryPrimary",
        {"engine": "mariadb", "topology": "PrimaryPrimary", "durability": "asynchronous", "writeRouting": "local"},
        {"engine": "mariadb", "topology": "PrimaryReplica", "writeRouting": "local"},
    ),
    Case("", "primaryLocation must be one of locations", {"primaryLocation": "b"}, {"primaryLocation": "c"}),
    Case(
        "",
        "promote.location must be one of locations",
        {"promote": {"location": "b", "epoch": 1}},
        {"promote": {"location": "c", "epoch": 1}},
    ),
    *[
        Case("", AVAILABLE, accepted, rejected)
        for accepted, rejected in (
            (packaged("postgresql", "15"), packaged("postgresql", "16")),
            (packaged("postgresql", "17", image="debian-13-x64"), packaged("postgresql", "17", image="debian-12-x64")),
            (packaged("mariadb", "10.11"), packaged("mysql", "8.4")),
            (packaged("mysql", "8.4", image="ubuntu-24-04-x64"), {"engine": "mysql", "image": GONE}),
        )
    ],
    *[
        Case(
            "",
            "the witness must stand in a location and region of its own",
            {"witness": {"location": "c", "region": "fra1"}},
            {"witness": taken},
        )
        for taken in ({"location": "c", "region": "nyc3"}, {"location": "a", "region": "fra1"})
    ],
    Case(
        "",
        "each database's owner must be one of users",
        {"databases": [{"name": "d", "owner": "reader"}]},
        {"databases": [{"name": "d", "owner": "nobody"}]},
    ),
]


def _spec(**changes: Any) -> dict[str, Any]:
    return {"credentialsRef": {"name": "digitalocean"}, "locations": placed(), **changes}


_USE: Final = {"name": "shop", "database": "shop", "user": "shop"}
_APP = {"port": 8080, "userData": "#!/bin/sh\n", "healthCheck": {}}
_DATABASE: Final[dict[str, Any]] = _spec(
    engine="postgresql",
    version="17",
    databases=[{"name": "shop", "owner": "owner"}],
    users=[{"name": "owner"}, {"name": "reader", "passwordRef": {"name": "reader"}}],
    parameters={},
    access={"cidrs": ["192.0.2.0/24"], "tags": ["web"]},
    promote={"location": "b", "epoch": 7},
    image="debian-13-x64",
    installation={"sources": [APT_LINE], "keys": ["mQ=="], "pins": [PIN]},
    witness={"location": "c", "region": "fra1"},
    backup={"schedule": "0 3 * * *", "target": {"s3": {**BUCKET, "credentialsRef": {"name": "store"}}}},
    bootstrap=RESTORED,
)
BASE: Final[Mapping[str, dict[str, Any]]] = {
    "HASite": _spec(domain="shop.example.com", app=_APP, database=_USE, dns={}),
    "LoadBalancerPool": _spec(domain="shop.example.com", backends={"port": 8080, "servers": [server(1)]}, dns={}),
    "ReplicatedDatabase": _DATABASE,
}
"""A spec of each kind that is accepted, with every optional part that has constraints."""

CASES: Final[Mapping[str, list[Case]]] = {"HASite": SITE, "LoadBalancerPool": POOL, "ReplicatedDatabase": DATABASE}
"""The table, by kind."""


def manifest(kind: str, spec: Mapping[str, Any], name: str = "case", namespace: str = "default") -> dict[str, Any]:
    """A whole object."""
    return {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": dict(spec),
    }


def spec_with(kind: str, path: str, value: Any) -> dict[str, Any]:
    """The accepted spec of the kind with another value at the path; at "" its fields are laid over the spec."""
    spec: dict[str, Any] = copy.deepcopy(BASE[kind])
    if not path:
        return {name: each for name, each in {**spec, **value}.items() if each is not GONE}
    *steps, last = [int(step) if step.isdigit() else step for step in re.findall(r"\w+", path)]
    node: Any = spec
    for step in steps:
        node = node[step] if isinstance(step, int) else node.setdefault(step, {})
    if value is not GONE:
        node[last] = value
    elif last in node:
        del node[last]
    return spec


TABLE: Final = [(kind, case) for kind, cases in CASES.items() for case in cases]


def titles(rows: Sequence[tuple[str, Case]]) -> list[str]:
    """The rows' names in a test report."""
    return [f"{kind}-{case.where}-{case.keyword}" for kind, case in rows]
