"""mariadb-backup with real MariaDB servers, to a folder and to a bucket: what was backed up is what comes back."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hasite.guard import backuprun
from hasite.guard.backup import Backup, Restore, Target
from hasite.guard.backupfiles import backup_folder, backup_job, credentials_file
from hasite.guard.backupjob import Result, Where
from hasite.guard.engines import mariadb_restored
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon_sql import Session
from hasite.guard.model import Database

from tests.databases import backup_lab
from tests.databases.mysql_lab import Lab, Node, available, primary, standby
from tests.databases.test_mariadb import SERVER, has, make, streaming

pytestmark = [
    pytest.mark.skipif(not available(SERVER), reason="needs mariadb-server, mariadb-backup, and to be root"),
    pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed"),
    pytest.mark.timeout(180),
]

NAME = "orders-1a2b3c4d"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab("mariadb", make)
    yield made
    await made.close()


@pytest.fixture
def folder() -> Iterator[Target]:
    if Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev:
        pytest.skip("no two file systems here")
    path = Path("/dev/shm/hasite-backups")
    path.mkdir(exist_ok=True)
    yield Target(path=str(path))
    shutil.rmtree(path)


@pytest.fixture
def bucket(lab: Lab) -> Iterator[backup_lab.Bucket]:
    if backup_lab.s3_missing():
        pytest.skip(backup_lab.s3_missing())
    with backup_lab.bucket(lab.root / "s3") as made:
        yield made


def where_of(node: Node) -> Where:
    place, work = node.place, str(backup_folder(node.layout))
    return Where(str(node.layout.data), work, str(place.binaries[0]), str(place.sockets), place.port, place.user)


async def backup(lab: Lab, node: Node, target: Target, secrets: dict[str, str] | None = None) -> Result:
    settings = lab.settings(node.member.name, (node.member,))
    settings = replace(settings, backup=Backup("0 3 * * *", 2, target, NAME))
    credentials_file(node.layout).write_text(json.dumps({"backup": secrets or {}}))
    return await backuprun.run(backup_job(settings, node.layout, where_of(node), full=True), limit=120)


async def restore(lab: Lab, node: Node, plan: Restore, secrets: dict[str, str] | None = None) -> None:
    """A new database, in its first epoch."""
    members = tuple(each.member for each in lab.nodes.values())
    settings = replace(lab.settings(node.member.name, members), restore=plan, bootstrap=node.member.name)
    credentials_file(node.layout).write_text(json.dumps({"restore": secrets or {}}))
    node.driver.configure(settings)
    await backuprun.prepare(settings, node.layout, where_of(node))
    await node.reach(primary(1, node.member.name, create=True), seconds=60)


async def refused(lab: Lab, node: Node, plan: Restore, words: str, secrets: dict[str, str] | None = None) -> None:
    """There is no database then, and none is made."""
    with pytest.raises(EngineError, match=words):
        await restore(lab, node, plan, secrets)
    with pytest.raises(EngineError, match="nothing was restored yet"):
        await node.driver.reach(primary(1, node.member.name, create=True), None)
    assert not node.layout.data.exists()


async def begin(lab: Lab) -> tuple[Node, Node, Node]:
    """alpha, in its seventh epoch, with rows; beta follows it; gamma has nothing."""
    alpha, beta, gamma = await lab.add("alpha", "beta", "gamma")
    await alpha.reach(primary(7, "alpha", create=True))
    await alpha.ask("CREATE DATABASE shop")
    await alpha.ask("CREATE TABLE shop.t (x INT PRIMARY KEY)")
    await alpha.ask("INSERT INTO shop.t VALUES (1), (2)")
    await beta.reach(standby(7, "alpha"), alpha)
    await streaming(beta)
    return alpha, beta, gamma


async def test_a_standbys_backup_begins_a_new_database_that_others_can_follow(lab: Lab, folder: Target) -> None:
    alpha, beta, gamma = await begin(lab)
    made = await backup(lab, beta, folder)
    assert made.reason == ""
    assert made.size == (Path(folder.path) / NAME / made.label / "data.mbstream.zst").stat().st_size
    await alpha.ask("INSERT INTO shop.t VALUES (3)")

    await restore(lab, gamma, Restore(folder, "orders"))
    assert await gamma.values("SELECT x FROM shop.t ORDER BY x") == [1, 2]
    assert await gamma.values("SELECT epoch FROM hasite.epoch") == [1]
    seen = await gamma.driver.observe()
    assert seen.position is not None
    assert seen.position.epoch == 1
    await gamma.ask("INSERT INTO shop.t VALUES (4)")

    beta.service.kill()
    shutil.rmtree(beta.layout.data)
    await beta.reach(standby(1, "gamma"), gamma, seconds=60)
    await streaming(beta)
    await gamma.ask("INSERT INTO shop.t VALUES (5)")
    await has(beta, 5)
    assert await beta.values("SELECT x FROM shop.t ORDER BY x") == [1, 2, 4, 5]


async def test_what_was_restored_is_not_seen_before_the_other_databases_reigns_are_taken_out(
    lab: Lab, folder: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, _, gamma = await begin(lab)
    await backup(lab, alpha, folder)
    seen: list[Database] = []
    forget = mariadb_restored.forget

    async def watched(data: Path, hand: Session) -> None:
        seen.append(await gamma.driver.observe())
        await forget(data, hand)
        seen.append(await gamma.driver.observe())

    monkeypatch.setattr(mariadb_restored, "forget", watched)
    await restore(lab, gamma, Restore(folder, "orders"))
    before, after, *_ = seen
    assert (before.state, before.position) == ("starting", None)
    assert after.position is not None
    assert after.position.epoch == 0


async def test_a_bucket_keeps_backups_and_gives_them_back(lab: Lab, bucket: backup_lab.Bucket) -> None:
    alpha, _, gamma = await begin(lab)
    made = await backup(lab, alpha, bucket.target, bucket.credentials)
    assert made.reason == ""
    assert (bucket.folder / "hasite/test" / NAME / made.label / "backup.json").is_file()
    await restore(lab, gamma, Restore(bucket.target, NAME, made.label), bucket.credentials)
    assert await gamma.values("SELECT x FROM shop.t ORDER BY x") == [1, 2]


async def test_wrong_credentials_are_told_and_never_shown(lab: Lab, bucket: backup_lab.Bucket) -> None:
    alpha, _, gamma = await begin(lab)
    wrong = {**bucket.credentials, "secretAccessKey": "not-this-one"}
    made = await backup(lab, alpha, bucket.target, wrong)
    assert "SignatureDoesNotMatch" in made.reason
    assert "not-this-one" not in made.reason
    await refused(lab, gamma, Restore(bucket.target, "orders"), "nothing was restored", wrong)


async def test_a_damaged_backup_is_noticed_and_is_not_replaced_by_an_empty_database(lab: Lab, folder: Target) -> None:
    alpha, _, gamma = await begin(lab)
    made = await backup(lab, alpha, folder)
    data = Path(folder.path) / NAME / made.label / "data.mbstream.zst"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    await refused(lab, gamma, Restore(folder, "orders"), "is damaged")


async def test_only_so_many_are_kept_and_nothing_of_others_is_touched(lab: Lab, folder: Target) -> None:
    alpha, _, _ = await begin(lab)
    for name in ("shop-9f8e7d6c/20200101T000000Z", f"{NAME}/20200101T000000Z", f"{NAME}/notes"):
        (Path(folder.path) / name).mkdir(parents=True)
        (Path(folder.path) / name / "data.mbstream.zst").write_text("broken off")
    made = [await backup(lab, alpha, folder) for _ in range(3)]
    assert [each.reason + each.note for each in made] == [""] * 3
    labels = [each.label for each in made]
    kept = {str(path.relative_to(folder.path)) for path in Path(folder.path).glob("*/*")}  # noqa: ASYNC240
    assert kept == {"shop-9f8e7d6c/20200101T000000Z", f"{NAME}/notes", *(f"{NAME}/{label}" for label in labels[1:])}
