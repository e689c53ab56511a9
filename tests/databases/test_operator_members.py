"""What a member is born with, what it is given, and what is kept in Secrets."""

import json
import subprocess
from typing import Any, cast

import pytest
import yaml
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.bootstrap import packages_of, user_data_of
from hasite.databases.certificates import new_authority
from hasite.databases.declare import Declaration
from hasite.databases.delivery import File, Parcel, install_script, observe_guard
from hasite.databases.parcel import parcel_of, version_of
from hasite.databases.secrets import authority_of, declaration_of
from hasite.errors import Permanent
from hasite.guard.model import Member, Membership, Settings
from hasite.machines.base import Result, Session
from hasite.machines.bootstrap import validate_user_data
from hasite.plan.databaseworld import Version
from hasite.plan.world import GuardView, Unknown

from tests.fakes.kube import FakeKube
from tests.plan.database_build import database

NOW = 1_800_000_000.0
AUTHORITY = new_authority("HASite default/shop", NOW)


class Machine:
    """A session that answers by the beginning of a command."""

    host_key = ""

    def __init__(self, **answers: Result) -> None:
        self.answers = answers

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        first = command.split(maxsplit=1)[0]
        return self.answers.get(first, Result(1, "", "no such thing"))


def session(**answers: Result) -> Session:
    return cast(Session, Machine(**answers))


def spec(**changes: Any) -> Any:
    return database(**changes).spec


# Born.


@pytest.mark.parametrize(
    ("changes", "packages"),
    [
        ({"engine": "postgresql", "version": "15"}, ("postgresql-15", "python3-psycopg2", "pgbackrest")),
        (
            {"engine": "mariadb", "version": "10.11"},
            ("mariadb-server", "mariadb-backup", "python3-pymysql", "rclone", "zstd"),
        ),
        ({"engine": "mysql", "version": "8.4"}, ("mysql-server", "python3-pymysql")),
    ],
)
def test_packages_are_those_of_the_engine_and_of_the_guards_driver(
    changes: dict[str, Any], packages: tuple[str, ...]
) -> None:
    assert packages_of(spec(**changes)) == packages


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysql"])
def test_no_server_of_the_distribution_starts_by_itself(engine: str) -> None:
    text = user_data_of(spec(engine=engine))
    assert validate_user_data(text) is None
    commands = yaml.safe_load(text)["bootcmd"]
    assert commands == [["ln", "-sfn", "/dev/null", f"/etc/systemd/system/{engine}.service"]]


def test_no_default_cluster_of_postgresql_is_made() -> None:
    (file,) = yaml.safe_load(user_data_of(spec()))["write_files"]
    assert file["path"].startswith("/etc/postgresql-common/createcluster.d/")
    assert file["content"] == "create_main_cluster = false\n"


def test_packages_may_come_from_another_source_with_its_keys_and_pins() -> None:
    source = "deb https://repo.example.com/apt trixie main"
    installation = {
        "sources": [source],
        "keys": ["mQ==", "LS0tLS1CRUdJTiBQR1A="],
        "pins": [{"packages": "mysql-*", "pin": "origin repo.example.com", "priority": 990}],
    }
    text = user_data_of(spec(engine="mysql", installation=installation))
    files = {f["path"]: f for f in yaml.safe_load(text)["write_files"]}
    assert files["/etc/apt/sources.list.d/hasite.list"]["content"] == f"{source}\n"
    wanted = "Package: mysql-*\nPin: origin repo.example.com\nPin-Priority: 990\n"
    assert files["/etc/apt/preferences.d/hasite"]["content"] == wanted
    assert {"/etc/apt/trusted.gpg.d/hasite-0.gpg", "/etc/apt/trusted.gpg.d/hasite-1.asc"} <= files.keys()


# Given.


def settings(version: int = 1, witness: bool = False) -> Settings:
    me = Member("shop-a", "new-york", "192.0.2.10", witness)
    membership = Membership(version, (me,), ("shop-a",))
    return Settings(
        "uid", "shop-a", "postgresql", "15", "PrimaryReplica", "synchronous", False, 5.0, membership=membership
    )


async def test_a_member_without_a_certificate_gets_one_with_its_key() -> None:
    parcel = await parcel_of(session(), settings(), AUTHORITY, NOW)
    secret = {path for path, file in parcel.files.items() if file.secret}
    assert secret == {"/etc/hasite/tls/key.pem"}
    assert "/etc/hasite/tls/cert.pem" in parcel.files
    assert parcel.group == "postgres"


def held_of(parcel: Parcel, key_of: Parcel | None = None) -> str:
    """What the machine says of the certificate and the key that it has."""
    certificate = parcel.files["/etc/hasite/tls/cert.pem"].content
    command = ["openssl", "pkey", "-pubout"]
    key = (key_of or parcel).files["/etc/hasite/tls/key.pem"].content
    public = subprocess.run(command, input=key, capture_output=True, check=True).stdout
    return certificate.decode() + "and its key:\n" + public.decode()


async def test_a_good_certificate_beside_another_ones_key_is_replaced() -> None:
    first, other = [await parcel_of(session(), settings(), AUTHORITY, NOW) for _ in range(2)]
    again = await parcel_of(session(test=Result(0, held_of(first, other), "")), settings(), AUTHORITY, NOW + 60)
    assert {"/etc/hasite/tls/key.pem", "/etc/hasite/tls/cert.pem"} <= again.files.keys()


async def test_a_member_with_a_good_certificate_keeps_it() -> None:
    first = await parcel_of(session(), settings(), AUTHORITY, NOW)
    held = Result(0, held_of(first), "")
    again = await parcel_of(session(test=held), settings(), AUTHORITY, NOW + 60)
    assert not {"/etc/hasite/tls/key.pem", "/etc/hasite/tls/cert.pem"} & again.files.keys()


async def test_a_witness_has_no_group_of_a_server() -> None:
    assert (await parcel_of(session(), settings(witness=True), AUTHORITY, NOW)).group == "root"


def test_new_settings_are_another_version_of_the_settings_alone() -> None:
    one, other = (version_of(settings(number), AUTHORITY, NOW) for number in (1, 2))
    assert one.program == other.program
    assert one.settings != other.settings
    assert version_of(settings(), AUTHORITY, NOW + 1) == one


async def test_credentials_of_backups_are_for_root_alone_and_make_another_version() -> None:
    secrets = b'{"backup": {"secretAccessKey": "hush"}}'
    made = await parcel_of(session(), settings(), AUTHORITY, NOW, secrets)
    held = made.files["/etc/hasite/backup.json"]
    assert (held.content, held.mode, held.secret) == (secrets, 0o600, False)
    assert "hush" not in repr(made)
    plain = await parcel_of(session(), settings(), AUTHORITY, NOW)
    assert plain.version.program == made.version.program
    assert plain.version.settings != made.version.settings


def parcel() -> Parcel:
    files = {"/etc/hasite/guard.json": File(b"{}", mode=0o600), "/etc/hasite/tls/key.pem": File(b"key", secret=True)}
    return Parcel(files, Version("p", "s"), "postgres")


def test_the_script_is_one_that_a_shell_reads_and_marks_last_what_it_did() -> None:
    for restart in (False, True):
        script = install_script(parcel(), restart)
        assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0
        lines = script.splitlines()
        (mark,) = [n for n, line in enumerate(lines) if "/etc/hasite/delivered" in line and "printf" in line]
        assert all(n < mark for n, line in enumerate(lines) if "systemctl" in line)
        assert ("restart" in script) is restart


def test_the_key_is_for_root_and_the_servers_group_alone() -> None:
    script = install_script(parcel(), restart=False)
    assert "chown root:postgres" in script
    assert "chmod 640" in script
    assert script.count("chmod 600") == 1


@pytest.mark.parametrize(
    ("why", "said", "seen"),
    [
        ("nothing there", ["{}", "inactive inactive", ""], GuardView("", "", False, False)),
        (
            "all well",
            ['{"program": "p", "settings": "s"}', "active active", "enabled enabled"],
            GuardView("p", "s", True, True),
        ),
        ("it starts", ["{}", "activating active", "enabled enabled"], GuardView("", "", True, True)),
        ("the fuse is dead", ["{}", "active failed", "enabled enabled"], GuardView("", "", False, True)),
        ("not at boot", ["{}", "active active", "enabled disabled"], GuardView("", "", True, False)),
        ("a damaged mark", ["{", "active active", "enabled enabled"], GuardView("", "", True, True)),
    ],
)
async def test_what_is_seen_of_a_guard(why: str, said: list[str], seen: GuardView) -> None:
    machine = session(export=Result(0, "\n".join(said) + "\n", ""))
    assert await observe_guard(machine) == seen, why


# Kept.


async def test_the_authority_is_made_once() -> None:
    kube, of = FakeKube(), database()
    assert await authority_of(kube, of, NOW, make=False) is None
    made = await authority_of(kube, of, NOW, make=True)
    assert made is not None
    assert await authority_of(kube, of, NOW, make=True) == made


async def test_a_secret_of_the_name_that_holds_no_authority_is_refused() -> None:
    kube = FakeKube()
    kube.put_secret("default", "shop-ca", {"token": "x"})
    with pytest.raises(Permanent, match="has no keys"):
        await authority_of(kube, database(), NOW, make=True)


def with_users(*users: dict[str, Any], **more: Any) -> ReplicatedDatabase:
    return database(users=list(users), databases=[{"name": "shop", "owner": "shop"}], **more)


async def test_a_password_is_generated_once_and_a_new_user_leaves_those_of_others() -> None:
    kube = FakeKube()
    first = await declaration_of(kube, with_users({"name": "shop"}), make=True)
    both = await declaration_of(kube, with_users({"name": "shop"}, {"name": "reader"}), make=True)
    assert isinstance(first, Declaration) and isinstance(both, Declaration)
    assert both.passwords["shop"] == first.passwords["shop"]
    assert len(both.passwords["reader"]) >= 32
    assert both.owners == {"shop": "shop"}


async def test_passwords_go_with_the_database_only_if_the_data_do() -> None:
    for policy, owned in (("Retain", False), ("Delete", True)):
        kube = FakeKube()
        await declaration_of(kube, with_users({"name": "shop"}, deletionPolicy=policy), make=True)
        assert ("ownerReferences" in kube.objects["Secret", "default", "shop-users"]["metadata"]) is owned


async def test_a_password_that_a_user_keeps_is_read_and_one_that_is_missing_is_said_to_be() -> None:
    kube = FakeKube()
    of = with_users({"name": "shop", "passwordRef": {"name": "mine"}})
    missing = await declaration_of(kube, of, make=True)
    assert isinstance(missing, Unknown) and "Secret mine has no key `password`" in missing.why
    kube.put_secret("default", "mine", {"password": "hunter2"})
    found = await declaration_of(kube, of, make=True)
    assert isinstance(found, Declaration) and found.passwords == {"shop": "hunter2"}


def test_a_digest_changes_with_a_password_and_does_not_tell_it() -> None:
    one, other = Declaration({"shop": "a"}, {}), Declaration({"shop": "b"}, {})
    assert one.digest(b"key") != other.digest(b"key")
    assert one.digest(b"key") != one.digest(b"another")
    assert "hunter2" not in repr(Declaration({"shop": "hunter2"}, {}))


async def test_an_observing_operator_makes_no_secrets() -> None:
    kube = FakeKube()
    assert isinstance(await declaration_of(kube, with_users({"name": "shop"}), make=False), Unknown)
    assert json.dumps(kube.writes) == "[]"
