"""Backups that the members make by themselves, into a real S3 server, and a new database that begins with one."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import figures
from e2e.database import Databases
from e2e.objectstore import ObjectStore, serving
from e2e.site import NAMESPACE, Stage, eventually
from e2e.world.network.topology import SITES

BUCKET = "backups"
PORT = 9000
EVERY_MINUTE = "* * * * *"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def store(stage: Stage, tmp_path_factory: Any) -> AsyncIterator[ObjectStore]:
    """At a place of the internet that no datacentre's loss concerns."""
    folder: Path = tmp_path_factory.mktemp("store")

    def start(command: Any, **popen: Any) -> Any:
        return stage.world.run_at("archive", command, **popen)

    with serving(folder, SITES["archive"].ipv4, PORT, BUCKET, start) as made:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store", "namespace": NAMESPACE},
            "stringData": made.credentials,
        }
        await stage.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        yield made


def target(store: ObjectStore) -> dict[str, Any]:
    """As a user names it."""
    bucket = {"endpoint": store.endpoint, "bucket": BUCKET, "prefix": "e2e", "credentialsRef": {"name": "store"}}
    return {"s3": bucket}


async def backup_after(database: Databases, label: str, within: float) -> Mapping[str, Any]:
    """The status of the next good backup."""

    async def made() -> Mapping[str, Any] | None:
        found = (await database.status()).get("backup") or {}
        return found if found.get("label", label) != label else None

    found: Mapping[str, Any] = (await eventually(made, within, f"a backup after {label!r}", 1.0))[0]
    return found


async def rows_before_a_loss(source: Databases) -> tuple[str, Mapping[int, tuple[int, ...]]]:
    """Of clients that write until the primary's location is lost, and after it; and a backup that was made before."""
    stage = source.stage
    async with source.clients(2, each=False) as history:
        first = (await backup_after(source, "", 240))["label"]
        assert (await source.condition("BackedUp"))["status"] == "True"
        before = await source.primary()
        await stage.world.drop(stage.location(before))
        await source.until_primary(before.name)
        await asyncio.sleep(3)
    assert not history.violations
    return first, history.final


async def later_backup(source: Databases, label: str) -> None:
    """One that was begun after the clients' last row: not the next, which may have begun before."""
    second = await backup_after(source, label, 300)
    third = await backup_after(source, second["label"], 240)
    lost = source.stage.location
    assert lost((await source.members())[third["member"]]) == lost(await source.primary())
    figures.note(f"{source.engine}: a backup of a small database, seconds", third["durationSeconds"])


async def begins_with(source: Databases, store: ObjectStore, rows: Mapping[int, tuple[int, ...]]) -> None:
    """A database of its own, elsewhere, with the rows of the first, and its own user's password."""
    copy = Databases(source.stage, f"copy-{source.engine}", source.engine)
    bootstrap = {"fromBackup": {"target": target(store), "name": source.name}}
    await copy.apply(degradedWrites="allow", locations=["frankfurt"], bootstrap=bootstrap)
    try:
        await copy.until_ready(300)
        assert (await copy.condition("Restored"))["status"] == "True"
        assert (await copy.status())["epoch"] == 1
        assert await copy.final() == rows
    finally:
        await copy.delete()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
async def test_backups_go_on_when_the_primary_is_lost_and_a_new_database_begins_with_one(
    stage: Stage, store: ObjectStore, engine: str
) -> None:
    source = Databases(stage, f"source-{engine}", engine)
    backup = {"schedule": EVERY_MINUTE, "retention": 2, "target": target(store)}
    try:
        await source.apply(degradedWrites="allow", backup=backup)
        await source.until_ready(300)
        first, rows = await rows_before_a_loss(source)
        await later_backup(source, first)
        await begins_with(source, store, rows)
    finally:
        await stage.world.restore()
        await source.delete()
