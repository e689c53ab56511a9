"""How apps and people reach a database: what they are told, and who is let in."""

import base64
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hasite.api.hasite import DatabaseUse
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.connection import (
    Connection,
    Environment,
    access_of,
    connection_of,
    connection_secrets,
    data_members,
    differs,
    environment_of,
)
from hasite.plan.names import role_tag
from hasite.plan.proxies import DatabaseMember
from hasite.plan.steps import Refusal, Wait
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from tests.plan.build import SITE, site
from tests.plan.database_build import AMSTERDAM, BOTH, DATABASE, FRANKFURT, NEW_YORK, database, member, reigning

AUTHORITY, KEY = b"-----BEGIN CERTIFICATE-----\n", b"the authority's key"
USE = DatabaseUse(name="shop", database="shop", user="shop")
DECLARED: dict[str, Any] = {"databases": [{"name": "shop", "owner": "shop"}], "users": [{"name": "shop"}]}
MEMBERS = (DatabaseMember("a", "192.0.2.1"), DatabaseMember("b", "2001:db8::2"))
NASTY = "p@ss:/?#[]w%rd \"quoted\" 'single' \\ `id` $HOME é"

PASSWORDS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1)


def connection(engine: str = "postgresql", password: str = "secret", **more: Any) -> Connection:
    values: dict[str, Any] = {"members": MEMBERS, "database": "shop", "user": "shop", **more}
    return Connection(engine, password=password, **values)


def environment(of: Connection) -> Environment:
    return environment_of(of, AUTHORITY, KEY)


def variables(of: Connection) -> dict[str, str]:
    """As systemd and a shell read them."""
    found: dict[str, str] = {}
    for line in environment(of).file.decode().splitlines()[1:]:
        name, _, value = line.partition("=")
        assert (value[0], value[-1]) == ('"', '"')
        found[name] = re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
    return found


REFUSED: dict[str, tuple[DatabaseUse, ReplicatedDatabase, str | None, Refusal | Wait]] = {
    "a database that is not declared": (
        USE.model_copy(update={"database": "other"}),
        reigning(**DECLARED),
        "secret",
        Refusal("DatabaseNotDeclared", "spec.database.database: ReplicatedDatabase shop has no database other"),
    ),
    "a user that is not declared": (
        USE.model_copy(update={"user": "other"}),
        reigning(**DECLARED),
        "secret",
        Refusal("DatabaseUserNotDeclared", "spec.database.user: ReplicatedDatabase shop has no user other"),
    ),
    "a password with a line break": (
        USE,
        reigning(**DECLARED),
        "secret\n",
        Refusal(
            "PasswordUnusable",
            "the password of user shop of ReplicatedDatabase shop holds a line break or another control character",
        ),
    ),
    "a password that is not there yet": (
        USE,
        reigning(**DECLARED),
        None,
        Wait("there is no password for user shop of ReplicatedDatabase shop yet", 2.0),
    ),
    "a database that is being made": (
        USE,
        database(**DECLARED),
        "secret",
        Wait("ReplicatedDatabase shop is being made", 2.0),
    ),
}


@pytest.mark.parametrize(("use", "of", "password", "expected"), REFUSED.values(), ids=REFUSED)
def test_there_is_no_way_with(
    use: DatabaseUse, of: ReplicatedDatabase, password: str | None, expected: Refusal | Wait
) -> None:
    assert connection_of(use, of, password) == expected


def test_the_way_leads_to_all_members_with_data() -> None:
    of = reigning(
        records=[member(NEW_YORK, 0), member(AMSTERDAM, 1), member(FRANKFURT, 2, role="witness")],
        witness={"location": FRANKFURT, "region": "fra1"},
        **DECLARED,
    )
    found = connection_of(USE, of, "secret")
    assert isinstance(found, Connection)
    assert {m.address for m in found.members} == {"192.0.2.10", "198.51.100.11"}
    assert found.members == tuple(sorted(data_members(of), key=lambda m: m.name))


def test_an_app_is_led_to_the_proxy_on_its_own_machine() -> None:
    told = variables(connection())
    expected = "postgresql://shop:secret@127.0.0.1:{}/shop?sslmode=verify-ca&sslrootcert=/etc/hasite/database-ca.crt"
    assert told["DATABASE_URL"] == expected.format(5432)
    assert told["DATABASE_REPLICA_URL"] == expected.format(5433)
    parts = {name: told[f"DATABASE_{name}"] for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD", "CA")}
    assert list(parts.values()) == ["127.0.0.1", "5432", "shop", "shop", "secret", "/etc/hasite/database-ca.crt"]


def test_a_driver_that_follows_the_primary_itself_is_told_all_members() -> None:
    direct = conninfo_to_dict(variables(connection())["DATABASE_URL_DIRECT"])
    assert (direct["host"], direct["port"]) == ("192.0.2.1,2001:db8::2", "5432,5432")
    assert (direct["target_session_attrs"], direct["sslmode"]) == ("read-write", "verify-full")


@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_mysql_has_no_url_of_several_hosts(engine: str) -> None:
    told = variables(connection(engine))
    assert told["DATABASE_URL"] == "mysql://shop:secret@127.0.0.1:3306/shop?ssl-ca=/etc/hasite/database-ca.crt"
    assert ":3307/" in told["DATABASE_REPLICA_URL"]
    assert "DATABASE_URL_DIRECT" not in told


@given(PASSWORDS)
def test_any_password_arrives_by_url_and_by_itself(password: str) -> None:
    told = variables(connection(password=password))
    assert told["DATABASE_PASSWORD"] == password
    assert conninfo_to_dict(told["DATABASE_URL"])["password"] == password
    url = urlsplit(variables(connection("mysql", password))["DATABASE_URL"])
    assert unquote(url.password or "") == password
    assert (url.hostname, url.port) == ("127.0.0.1", 3306)


def test_a_shell_reads_the_environment_file_as_it_is_meant(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(environment(connection(password=NASTY)).file)
    script = f'. {tmp_path}/env; printf %s "$DATABASE_PASSWORD"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode() == NASTY


def test_the_environment_file_is_the_same_for_the_same_and_another_for_anything_else() -> None:
    assert environment(connection()) == environment(connection())
    others = [connection(password="other"), connection(members=MEMBERS[:1]), connection(database="x")]
    assert environment(connection()).sha256 not in {environment(each).sha256 for each in others}
    assert environment_of(connection(), b"another authority", KEY).sha256 != environment(connection()).sha256


def test_the_hash_of_the_environment_file_helps_nobody_to_guess_a_password() -> None:
    assert environment_of(connection(), AUTHORITY, b"another key").sha256 != environment(connection()).sha256


def test_no_password_is_shown_by_accident() -> None:
    assert "secret" not in repr((connection(), environment(connection())))


# Secrets.


def secrets(of: ReplicatedDatabase, passwords: Mapping[str, str], primary: str = "") -> dict[str, dict[str, str]]:
    manifests = connection_secrets(of, passwords, AUTHORITY, primary or data_members(of)[0].name)
    return {m["metadata"]["name"]: {k: base64.b64decode(v).decode() for k, v in m["data"].items()} for m in manifests}


def test_the_secret_of_a_database_has_what_an_app_or_a_person_needs() -> None:
    of = reigning(**DECLARED)
    primary = next(m for m in data_members(of) if m.address.startswith("198"))
    held = secrets(of, {"shop": "secret"}, primary.name)["shop-connection"]
    hosts = ",".join(m.address for m in data_members(of))
    assert held == {
        "type": "postgresql",
        "host": "198.51.100.11",
        "hosts": hosts,
        "port": "5432",
        "username": "shop",
        "password": "secret",
        "database": "shop",
        "uri": held["uri"],
        "replica-uri": held["replica-uri"],
        "ca.crt": AUTHORITY.decode(),
    }
    assert conninfo_to_dict(held["uri"]) == {
        "host": hosts,
        "port": "5432,5432",
        "user": "shop",
        "password": "secret",
        "dbname": "shop",
        "target_session_attrs": "read-write",
        "sslmode": "require",
        "connect_timeout": "2",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "5000",
    }
    assert conninfo_to_dict(held["replica-uri"])["target_session_attrs"] == "prefer-standby"


def test_the_secret_of_a_mysql_database_leads_to_the_primary_and_to_another_member() -> None:
    of = reigning(engine="mariadb", version="10.11", **DECLARED)
    held = secrets(of, {"shop": "secret"})["shop-connection"]
    assert urlsplit(held["uri"]).hostname == held["host"] == data_members(of)[0].address
    assert urlsplit(held["replica-uri"]).hostname == data_members(of)[1].address
    assert parse_qs(urlsplit(held["uri"]).query) == {"ssl-mode": ["REQUIRED"]}


def test_a_single_member_is_its_own_replica() -> None:
    held = secrets(reigning((NEW_YORK,), engine="mysql", **DECLARED), {"shop": "secret"})["shop-connection"]
    assert held["replica-uri"] == held["uri"]


NAMES: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "one database": ([("shop", "shop")], ["shop-connection"]),
    "others by their owner": ([("shop", "shop"), ("blog", "blog")], ["shop-connection", "shop-connection-blog"]),
    "two of one owner": (
        [("shop", "shop"), ("b", "web"), ("c", "web")],
        ["shop-connection", "shop-connection-web", "shop-connection-web-c"],
    ),
    "an underscore": ([("shop", "shop"), ("b", "web_app")], ["shop-connection", "shop-connection-web-app"]),
}


@pytest.mark.parametrize(("declared", "names"), NAMES.values(), ids=NAMES)
def test_secrets_are_called_by(declared: list[tuple[str, str]], names: list[str]) -> None:
    of = reigning(
        databases=[{"name": name, "owner": owner} for name, owner in declared],
        users=[{"name": owner} for owner in {o for _, o in declared}],
    )
    assert list(secrets(of, {owner: "secret" for _, owner in declared})) == names


WORDS = st.from_regex(r"[a-z_][a-z0-9_]{0,4}", fullmatch=True)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=8))
def test_every_secret_has_a_name_of_its_own_that_kubernetes_takes(declared: list[tuple[str, str]]) -> None:
    unique = {database: owner for database, owner in declared}
    of = reigning(
        databases=[{"name": name, "owner": owner} for name, owner in unique.items()],
        users=[{"name": owner} for owner in set(unique.values())],
    )
    names = list(secrets(of, dict.fromkeys(unique.values(), "secret")))
    assert len(names) == len(unique)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


def test_there_is_no_secret_before_the_first_primary() -> None:
    assert connection_secrets(reigning(**DECLARED), {"shop": "secret"}, AUTHORITY, "") == ()


@pytest.mark.parametrize(("policy", "owned"), [("Delete", True), ("Retain", False)])
def test_a_secret_goes_with_a_database_whose_data_go(policy: str, owned: bool) -> None:
    of = reigning(deletionPolicy=policy, **DECLARED)
    (manifest,) = connection_secrets(of, {"shop": "secret"}, AUTHORITY, data_members(of)[0].name)
    owners = manifest["metadata"].get("ownerReferences", [])
    assert [each["uid"] for each in owners] == ([DATABASE.uid] if owned else [])


def test_a_secret_is_written_when_it_is_absent_or_holds_something_else() -> None:
    of = reigning(**DECLARED)
    (manifest,) = connection_secrets(of, {"shop": "secret"}, AUTHORITY, data_members(of)[0].name)
    held = {key: base64.b64decode(value) for key, value in manifest["data"].items()}
    assert differs(manifest, None)
    assert differs(manifest, held | {"host": b"192.0.2.99"})
    assert not differs(manifest, held)


# Access.


def test_a_site_that_uses_the_database_is_let_in_and_no_other() -> None:
    of = reigning(access={"cidrs": ["192.0.2.0/24"], "tags": ["web"]}, **DECLARED)
    using = site(BOTH, database={"name": "shop", "database": "shop", "user": "shop"})
    other = site(BOTH, database={"name": "orders", "database": "shop", "user": "shop"})
    elsewhere = using.model_copy(update={"metadata": {**using.metadata, "namespace": "other"}})
    assert access_of(of, [using]).tags == ("web", role_tag(SITE, "app"))
    assert access_of(of, [site(), other, elsewhere]) == of.spec.access
    assert access_of(of, [using, using]).cidrs == ("192.0.2.0/24",)
