"""What guards are told of backups, and what their words come to in status, condition and Events."""

from dataclasses import replace
from typing import Any

import pytest
from hasite.api.databasebackup import BackupPlan, BackupStatus, Bootstrap
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.backup import Outcome, Restore, Target, Task, Word
from hasite.guard.cron import unstamp
from hasite.guard.messages import Beat
from hasite.guard.model import Database
from hasite.plan import databasebackup as backups
from hasite.plan.database import plan_database
from hasite.plan.databaseworld import DatabaseWorld

from tests.plan.database_build import database, world

AT = "2026-11-24T03:00:00Z"
NOW = unstamp(AT) + 9 * 3600.0
STORE = {
    "endpoint": "https://store.example.com",
    "bucket": "backups",
    "prefix": "p",
    "credentialsRef": {"name": "store"},
}
PLAN = BackupPlan.model_validate({"schedule": "0 3 * * *", "retention": 3, "target": {"s3": STORE}})


def asked(**changes: Any) -> ReplicatedDatabase:
    return database(**{"backup": PLAN, **changes})


def outcome(reason: str = "", *, slot: int = 0, note: str = "") -> Outcome:
    began = unstamp(AT) + slot
    return Outcome(Task(began, 1, "b", 3), began, 42.4, "" if reason else "label", 10**6, reason, note)


def says(word: Word | None, now: float = NOW) -> DatabaseWorld:
    beat = Beat("a", 3, "a", 1.0, "primary", Database("primary"), backup=word)
    return replace(world(asked()), now=now, beats={"a": beat})


def condition(word: Word | None, now: float = NOW, known: BackupStatus | None = None) -> tuple[str, str, str]:
    before = asked()
    before = before.model_copy(update={"status": before.status.model_copy(update={"backup": known})})
    seen = says(word, now)
    (found,) = backups.backed_up(before, seen, backups.backup_status(before, seen))
    return found.status, found.reason, found.message


REMEMBERED = BackupStatus(last_successful=AT, label="old", duration_seconds=60)


@pytest.mark.parametrize(
    ("word", "now", "known", "expected"),
    [
        pytest.param(None, NOW, None, ("False", "NoBackupYet", "no backup was made yet"), id="nothing is known"),
        pytest.param(Word(good=outcome()), NOW, None, ("True", "BackedUp", f"label of {AT}"), id="a good one"),
        pytest.param(
            Word(good=outcome(note="old backups can't be removed")),
            NOW,
            None,
            ("True", "BackedUp", f"label of {AT}; old backups can't be removed"),
            id="a good one with a note",
        ),
        pytest.param(
            Word(good=outcome(), bad=outcome("no space", slot=60)),
            NOW,
            None,
            ("False", "BackupFailed", "at 2026-11-24T03:01:00Z: no space"),
            id="the newest failed",
        ),
        pytest.param(
            Word(good=outcome(slot=60), bad=outcome("no space")),
            NOW,
            None,
            ("True", "BackedUp", "label of 2026-11-24T03:01:00Z"),
            id="a failure that was mended",
        ),
        pytest.param(
            Word(good=outcome(), archiving="ERROR: no"), NOW, None, ("False", "ArchivingFails", "ERROR: no"), id="log"
        ),
        pytest.param(
            None, NOW, REMEMBERED, ("True", "BackedUp", f"old of {AT}"), id="silent guards: what is remembered"
        ),
        pytest.param(
            None,
            NOW + 2 * 86400,
            REMEMBERED,
            ("False", "TooOld", f"the last good backup, old, is of {AT}"),
            id="older than two periods",
        ),
    ],
)
def test_the_condition_backed_up(
    word: Word | None, now: float, known: BackupStatus | None, expected: tuple[str, str, str]
) -> None:
    assert condition(word, now, known) == expected


def test_a_database_without_backups_has_neither_status_nor_condition() -> None:
    plain = database()
    assert backups.backup_status(plain, says(None)) is None
    assert backups.backed_up(plain, says(None), None) == ()


def test_status_says_which_backup_how_large_and_how_long() -> None:
    status = backups.backup_status(asked(), says(Word(good=outcome(), bad=outcome("no space", slot=60))))
    assert status == BackupStatus(
        repository=backups.repository_of(asked()),
        last_successful=AT,
        label="label",
        member="b",
        size_bytes=10**6,
        duration_seconds=42,
        last_failure="2026-11-24T03:01:00Z",
        reason="no space",
    )


def test_each_outcome_is_told_once() -> None:
    after = backups.backup_status(asked(), says(Word(good=outcome(), bad=outcome("no space", slot=60))))
    told = [(each.kind, each.reason, each.text) for each in backups.backup_happenings(None, after)]
    assert told == [
        ("Warning", "BackupFailed", "the backup of 2026-11-24T03:01:00Z failed: no space"),
        ("Normal", "BackedUp", "label was made by b: 1.0 MB in 42 s"),
    ]
    assert backups.backup_happenings(after, after) == ()


def test_two_databases_of_one_name_have_places_of_their_own() -> None:
    one, other = asked(), asked().model_copy(deep=True)
    other.metadata["uid"] = "11111111-2222-3333-4444-555555555555"
    assert backups.repository_of(one) != backups.repository_of(other)
    assert backups.repository_of(other) == f"{other.name}-11111111"


def source(**changes: object) -> Bootstrap:
    asked_for = {"target": {"s3": STORE}, "name": "orders", **changes}
    return Bootstrap.model_validate({"fromBackup": asked_for})


def test_a_new_database_is_never_told_to_make_an_empty_one_in_place_of_its_backup() -> None:
    wanted = database(bootstrap=source(pointInTime="2026-11-24T03:00:00Z"))
    target = Target(endpoint="https://store.example.com", bucket="backups", region="us-east-1", prefix="p")
    expected = Restore(target, "orders", "latest", "2026-11-24T03:00:00Z")
    assert backups.restore_of(wanted) == expected
    made = wanted.model_copy(update={"status": wanted.status.model_copy(update={"made": True})})
    assert backups.restore_of(made) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "mysql", "version": "8.4", "image": "ubuntu-24-04-x64"}, "mysql is not carried out yet"),
        ({"engine": "mariadb", "version": "10.11", "topology": "PrimaryPrimary"}, "not for topology PrimaryPrimary"),
    ],
)
def test_what_can_t_begin_with_a_backup_does_not_begin_at_all(changes: dict[str, Any], words: str) -> None:
    wanted = database(bootstrap=source(), **changes)
    plan = plan_database(wanted, world(wanted))
    assert plan.steps == ()
    (refusal,) = plan.refusals
    assert refusal.reason == "NotSupported"
    assert words in refusal.message


@pytest.mark.parametrize(
    ("word", "made", "expected"),
    [
        (None, False, ("False", "Restoring", "the member is not there yet")),
        (Word(restoring="a backup is being restored"), False, ("False", "Restoring", "a backup is being restored")),
        (
            Word(restoring="nothing was restored: no", failed=True),
            False,
            ("False", "RestoreFailed", "nothing was restored: no"),
        ),
        (None, True, ("True", "Restored", "")),
    ],
)
def test_the_condition_restored(word: Word | None, made: bool, expected: tuple[str, str, str]) -> None:
    wanted = database(bootstrap=source())
    wanted = wanted.model_copy(update={"status": wanted.status.model_copy(update={"made": made})})
    (found,) = backups.restoration(wanted, says(word))
    assert (found.status, found.reason, found.message) == expected
