"""What is written for pgBackRest and rclone, whatever credentials are like, and what is told of their words."""

from pathlib import Path

import pytest
from hasite.guard import backup_postgresql as postgresql
from hasite.guard.backup import Target
from hasite.guard.backup_mariadb import Store
from hasite.guard.backup_postgresql import chosen, configuration, goal, script
from hasite.guard.backupjob import Job, JobError, Where, clean, last_words
from hypothesis import given
from hypothesis import strategies as st

WHERE = Where("/var/lib/hasite/data", "/var/lib/hasite/backup", "/bin", "/run/sockets", 5432, "postgres")
BUCKET = Target(endpoint="https://store.example.com:9000", bucket="shop", region="eu-1", prefix="hasite/e2e")


def job(target: Target = BUCKET, **changes: object) -> Job:
    values: dict[str, object] = {
        "kind": "backup",
        "engine": "postgresql",
        "version": "15",
        "where": WHERE,
        "target": target,
        "repository": "orders-1a2b3c4d",
        "credentials": {"accessKeyId": "key", "secretAccessKey": "secret"},
        "retention": 3,
    }
    return Job(**{**values, **changes})  # type: ignore[arg-type]


def test_the_configuration_for_a_bucket() -> None:
    lines = configuration(job()).splitlines()
    for line in (
        "repo1-type=s3",
        "repo1-path=/hasite/e2e",
        "repo1-s3-endpoint=store.example.com:9000",
        "repo1-s3-bucket=shop",
        "repo1-s3-key-secret=secret",
        "repo1-retention-full=3",
        "archive-push-queue-max=2GiB",
        "[orders-1a2b3c4d]",
        "pg1-path=/var/lib/hasite/data",
    ):
        assert line in lines


def test_the_configuration_for_a_folder_has_no_credentials() -> None:
    text = configuration(job(Target(path="/mnt/backups")))
    assert "repo1-path=/mnt/backups" in text
    assert "secret" not in text


@given(st.text(min_size=1))
def test_no_credential_becomes_a_line_of_its_own(secret: str) -> None:
    of = job(credentials={"accessKeyId": "key", "secretAccessKey": secret})
    try:
        text = configuration(of)
    except ValueError:
        return
    expected = configuration(job(credentials={"accessKeyId": "key", "secretAccessKey": "x"}))
    assert [line.split("=", 1)[0] for line in text.split("\n")] == [
        line.split("=", 1)[0] for line in expected.split("\n")
    ]
    assert f"repo1-s3-key-secret={secret}\n" in text


@pytest.mark.parametrize("secret", ["", "a\nrepo1-path=/etc", " a", "a\0", "a\r"])
def test_a_credential_that_can_t_be_written_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="repo1-s3-key-secret"):
        configuration(job(credentials={"accessKeyId": "key", "secretAccessKey": secret}))


def test_the_archive_script_notes_what_was_let_go() -> None:
    text = script(job())
    assert '--stanza=orders-1a2b3c4d archive-push "$1"' in text
    assert "dropped WAL file" in text
    assert text.rstrip().endswith("exit $status")
    assert "secret" not in text


def test_rclone_s_credentials_are_in_its_environment_alone() -> None:
    store = Store(job(engine="mariadb"))
    assert store.environment["RCLONE_CONFIG_TARGET_SECRET_ACCESS_KEY"] == "secret"
    assert "secret" not in " ".join(store.command("rcat", "orders-1a2b3c4d/x"))
    assert store.command("cat", "x")[-1] == "target:shop/hasite/e2e/x"


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        ("orders", ["orders-1a2b3c4d"], "orders-1a2b3c4d"),
        ("orders-1a2b3c4d", ["orders-1a2b3c4d", "orders-99999999"], "orders-1a2b3c4d"),
        ("orders", ["orders-eu-1a2b3c4d", "orders-1a2b3c4d"], "orders-1a2b3c4d"),
    ],
)
def test_whose_backups_are_meant(wanted: str, names: list[str], found: str) -> None:
    assert chosen(wanted, names) == found


@pytest.mark.parametrize(
    ("wanted", "names", "words"),
    [
        ("orders", ["orders-1a2b3c4d", "orders-99999999"], "may be any of orders-1a2b3c4d, orders-99999999"),
        ("orders", ["shop-1a2b3c4d"], "no backups of 'orders', but of shop-1a2b3c4d"),
        ("orders", [], "no backups of 'orders'$"),
    ],
)
def test_what_is_not_clear_is_not_guessed(wanted: str, names: list[str], words: str) -> None:
    with pytest.raises(JobError, match=words):
        chosen(wanted, names)


@pytest.mark.parametrize(
    ("label", "until", "options"),
    [
        ("latest", "", []),
        ("20260101-000000F", "", ["--set=20260101-000000F", "--type=immediate", "--target-action=promote"]),
        (
            "latest",
            "2026-11-24T13:00:00Z",
            ["--type=time", "--target=2026-11-24 13:00:00.000000+00", "--target-action=promote"],
        ),
    ],
)
def test_how_far_is_restored(label: str, until: str, options: list[str]) -> None:
    assert goal(job(label=label, until=until)) == options


def test_the_last_error_is_told_with_what_follows_it_and_without_secrets() -> None:
    said = "INFO: a\nERROR: [1]: first\nINFO: b\nERROR: [2]: no\n  key=secret\n"
    assert clean(last_words(said), {"secretAccessKey": "secret"}) == "ERROR: [2]: no / key=…"


def test_an_s3_server_s_answer_is_told_in_its_words() -> None:
    said = "ERROR: [103]: HTTP request failed with 403\n<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
    assert clean(said, {}) == "ERROR: [103]: HTTP request failed with 403 AccessDenied: No."


def test_nothing_said_is_all_well(tmp_path: Path) -> None:
    assert postgresql.archiving(tmp_path) == ""
