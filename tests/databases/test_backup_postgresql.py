"""pgBackRest with real PostgreSQL servers: what was backed up is what comes back, in a database of its own."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hasite.guard import backup_postgresql as tool
from hasite.guard import backuprun
from hasite.guard.backup import Backup, Restore, Target
from hasite.guard.backupfiles import backup_folder, backup_job, credentials_file
from hasite.guard.backupjob import Result, Where
from hasite.guard.engines.base import EngineError

from tests.databases import backup_lab
from tests.databases.postgresql_lab import Lab, Node, missing, sync, until

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not shutil.which("pgbackrest"), reason="pgbackrest is not installed"),
    pytest.mark.timeout(180),
]

NAME = "orders-1a2b3c4d"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab.open("ab")
    yield made
    await made.close()


@pytest.fixture
def folder(lab: Lab) -> Iterator[Target]:
    """A mounted folder: on another disk than the databases."""
    path = Path(tempfile.mkdtemp(prefix="hasite-backups-"))
    path.chmod(0o777)
    if path.stat().st_dev == lab.folder.stat().st_dev:
        pytest.skip("no two file systems here")
    yield Target(path=str(path))
    shutil.rmtree(path)


@pytest.fixture
def bucket(lab: Lab) -> Iterator[backup_lab.Bucket]:
    if backup_lab.s3_missing():
        pytest.skip(backup_lab.s3_missing())
    with backup_lab.bucket(lab.folder / "s3") as made:
        yield made


def where_of(node: Node) -> Where:
    place, work = node.place, str(backup_folder(node.layout))
    return Where(str(node.layout.data), work, str(place.binaries), str(place.sockets), place.port, place.user)


def backs_up(node: Node, target: Target, secrets: dict[str, str] | None = None) -> None:
    """As the operator tells it."""
    node.settings = replace(node.settings, backup=Backup("0 3 * * *", 2, target, NAME))
    credentials_file(node.layout).write_text(json.dumps({"backup": secrets or {}}))
    node.engine.configure(node.settings)
    tool.install(backup_job(node.settings, node.layout, where_of(node), full=True))


async def restore(node: Node, plan: Restore, secrets: dict[str, str] | None = None) -> None:
    """A new database, in its first epoch."""
    node.settings = replace(node.settings, restore=plan, bootstrap=node.name)
    credentials_file(node.layout).write_text(json.dumps({"restore": secrets or {}}))
    node.engine.configure(node.settings)
    assert backuprun.pending(node.settings, node.layout)
    await backuprun.prepare(node.settings, node.layout, where_of(node))
    assert not backuprun.pending(node.settings, node.layout)
    await node.be("primary", epoch=1, sync=sync(1, node.name, 0), create=True, within=60)


async def refused(node: Node, plan: Restore, words: str, secrets: dict[str, str] | None = None) -> None:
    """There is no database then, and none is made."""
    with pytest.raises(EngineError, match=words):
        await restore(node, plan, secrets)
    with pytest.raises(EngineError, match="nothing was restored yet"):
        await node.be("primary", epoch=1, sync=sync(1, node.name, 0), create=True)
    assert not node.layout.data.exists()


async def backup(node: Node, *, full: bool = True) -> Result:
    return await backuprun.run(backup_job(node.settings, node.layout, where_of(node), full=full), limit=120)


async def primary(lab: Lab, target: Target, secrets: dict[str, str] | None = None) -> Node:
    node = lab.nodes["a"]
    backs_up(node, target, secrets)
    await node.be("primary", epoch=7, sync=sync(7, "a", 0), create=True)
    node.sql("CREATE TABLE orders (n int PRIMARY KEY)")
    node.sql("INSERT INTO orders SELECT generate_series(1, 100)")
    return node


def rows(node: Node) -> list[int]:
    return [n for (n,) in node.sql("SELECT n FROM orders ORDER BY n")]


async def archived(node: Node) -> None:
    """What was written until now is in the archive."""
    (name,) = node.sql("SELECT pg_walfile_name(pg_switch_wal())")[0]
    newest = f"SELECT coalesce(last_archived_wal, '') >= '{name}' FROM pg_stat_archiver"  # none on a new server
    await until(lambda: node.sql(newest)[0][0], "archived", within=30)


async def test_a_new_database_begins_with_what_was_backed_up_and_archived(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    made = await backup(a)
    assert made.reason == ""
    assert made.label.endswith("F")
    assert made.size > 1000
    a.sql("INSERT INTO orders VALUES (101)")
    await archived(a)

    b = lab.nodes["b"]
    await restore(b, Restore(folder, "orders"))
    assert rows(b) == list(range(1, 102))
    assert b.sql("SELECT epoch, holder FROM hasite.epoch") == [(1, "b")]
    b.sql("INSERT INTO orders VALUES (200)")


async def test_a_label_is_that_backup_and_a_moment_is_that_moment(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    first = await backup(a)
    a.sql("INSERT INTO orders VALUES (101)")
    a.sql("SELECT pg_sleep(1.1)")  # pgBackRest compares whole seconds with the end of the backup
    (moment,) = a.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")[0]
    a.sql("SELECT pg_sleep(0.01)")
    a.sql("DELETE FROM orders")
    await archived(a)
    second = await backup(a, full=False)
    assert second.reason == ""
    assert second.label.startswith(first.label + "_")

    b = lab.nodes["b"]
    await restore(b, Restore(folder, NAME, first.label))
    assert rows(b) == list(range(1, 101))

    await b.be("stopped", epoch=1)
    shutil.rmtree(b.layout.data)
    await restore(b, Restore(folder, NAME, "latest", moment))
    assert rows(b) == list(range(1, 102))


async def test_a_bucket_keeps_backups_and_gives_them_back(lab: Lab, bucket: backup_lab.Bucket) -> None:
    a = await primary(lab, bucket.target, bucket.credentials)
    made = await backup(a)
    assert made.reason == ""
    assert (bucket.folder / "hasite/test/backup" / NAME / made.label).is_dir()
    b = lab.nodes["b"]
    await restore(b, Restore(bucket.target, "orders"), bucket.credentials)
    assert rows(b) == list(range(1, 101))


async def test_wrong_credentials_are_told_and_never_shown(lab: Lab, bucket: backup_lab.Bucket) -> None:
    wrong = {**bucket.credentials, "secretAccessKey": "not-this-one"}
    a = await primary(lab, bucket.target, wrong)
    made = await backup(a)
    assert "SignatureDoesNotMatch" in made.reason or "403" in made.reason
    assert "not-this-one" not in made.reason
    b = lab.nodes["b"]
    await refused(b, Restore(bucket.target, "orders"), "nothing was restored: pgbackrest", wrong)


async def test_a_damaged_backup_is_noticed_and_is_not_replaced_by_an_empty_database(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    made = await backup(a)
    for bundle in (Path(folder.path) / "backup" / NAME / made.label / "bundle").iterdir():
        damage(bundle)
    b = lab.nodes["b"]
    await refused(b, Restore(folder, "orders"), "nothing was restored")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) // 3 * 2, 4096):
        content[at] ^= 0xFF
    path.write_bytes(content)


async def test_a_backup_that_is_not_there_is_told_with_what_is(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    made = await backup(a)
    b = lab.nodes["b"]
    for plan, words in (
        (Restore(folder, "shop"), f"there are no backups of 'shop', but of {NAME}"),
        (Restore(folder, "orders", "20200101-000000F"), f"no backup '20200101-000000F'; it has {made.label}"),
    ):
        await refused(b, plan, words)


async def test_archiving_goes_on_with_the_next_primary(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    b = lab.nodes["b"]
    assert (await backup(a)).reason == ""
    backs_up(b, folder)
    await b.be("standby", a, epoch=7)
    await b.seen(lambda database: database.streaming)
    a.engine.kill()
    await b.be("primary", epoch=8, sync=sync(8, "b", 0))
    b.sql("INSERT INTO orders VALUES (101)")
    await archived(b)
    made = await backup(b, full=False)
    assert made.reason == ""
    assert made.label.endswith("I")
    assert tool.archiving(backup_folder(b.layout)) == ""


async def test_a_folder_on_the_databases_own_disk_is_no_backup(lab: Lab) -> None:
    path = lab.folder / "forgotten"
    path.mkdir()
    made = await backup(await primary(lab, Target(path=str(path))))
    assert made.reason == f"{path} is on the database's own disk on this member: is it mounted?"
    assert list(path.iterdir()) == []


async def test_only_so_many_are_kept(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    labels = [(await backup(a)).label for _ in range(3)]
    kept = {path.name for path in (Path(folder.path) / "backup" / NAME).glob("20*")}
    assert kept == set(labels[1:])


async def test_a_target_that_is_away_is_told_and_the_log_waits(lab: Lab, folder: Target) -> None:
    a = await primary(lab, folder)
    assert (await backup(a)).reason == ""
    shutil.move(folder.path, folder.path + ".away")
    a.sql("INSERT INTO orders VALUES (101)")
    a.sql("SELECT pg_switch_wal()")
    await until(lambda: tool.archiving(backup_folder(a.layout)) != "", "a complaint", within=30)
    assert "archive.info" in tool.archiving(backup_folder(a.layout))
    shutil.move(folder.path + ".away", folder.path)
    await until(lambda: tool.archiving(backup_folder(a.layout)) == "", "archived after all", within=90)


async def test_what_is_let_go_is_noted_until_a_full_backup(
    lab: Lab, folder: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await primary(lab, folder)
    assert (await backup(a)).reason == ""
    monkeypatch.setattr(tool, "QUEUE", "1KiB")
    tool.install(backup_job(a.settings, a.layout, where_of(a), full=True))
    shutil.move(folder.path, folder.path + ".away")
    a.sql("INSERT INTO orders VALUES (101)")
    await archived(a)  # as PostgreSQL was told
    shutil.move(folder.path + ".away", folder.path)
    gap = backup_folder(a.layout) / tool.GAP
    assert gap.exists()
    assert (await backup(a)).reason == ""
    assert not gap.exists()
