"""MariaDB's and MySQL's drivers where no server runs: files, what is saved, and a server that does not start."""

import asyncio
import json
import pwd
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hasite.guard import storage
from hasite.guard.engines import mariadb, mariadb_logs, mysql
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.mysqlcommon import History, Lonely, Place, Reign
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.engines.mysqlcommon_flavour import Files
from hasite.guard.model import Desired, Member, Membership, Settings

from tests.databases.mysql_lab import available


def has_user() -> bool:
    try:
        return available("/") and bool(pwd.getpwnam("mysql"))
    except KeyError:
        return False


pytestmark = pytest.mark.skipif(not has_user(), reason="needs the user mysql, and to be root")

MEMBERS = Membership(1, (Member("a", "x", "127.0.0.1"), Member("b", "y", "127.0.0.2")), ("a", "b", "operator"))
SETTINGS = Settings(
    "shop", "b", "mariadb", "10.11", "PrimaryReplica", "synchronous", False, 5.0, MEMBERS,
    engine_settings={"max_connections": "10"},
)  # fmt: skip
OWN = History((Reign(5, "b", 1, 10),), 200, gtids="0e0f4c1e-0000-0000-0000-000000000001:1-200")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "data" / "mysql").mkdir(parents=True)
    (tmp_path / "tls").mkdir()
    layout = Layout(data=tmp_path / "data", saved=tmp_path / "saved", run=tmp_path, tls=tmp_path / "tls")
    for path in (layout.ca, layout.certificate, layout.key):
        path.write_text(path.name)
    return layout


@pytest.fixture
def files(layout: Layout) -> Files:
    return Files(layout, Place(layout.run / "server.cnf"))


def test_what_was_saved_counts_once_it_is_whole(files: Files, layout: Layout) -> None:
    into = files.save_into(5)
    assert storage.saved(layout.saved) == ()
    files.seal(into, {"after": "x"})
    (told,) = storage.saved(layout.saved)
    assert json.loads((Path(told) / "saved.json").read_text()) == {"after": "x"}
    assert files.already(after="x")


def test_what_an_earlier_try_left_half_done_does_not_pile_up(files: Files, layout: Layout) -> None:
    for _ in range(3):
        (files.save_into(5) / "transactions.sql").write_text("half")
    assert len(list(layout.saved.iterdir())) == 1


def test_what_is_no_database_is_put_aside(files: Files, layout: Layout) -> None:
    (layout.data / "mysql").rmdir()
    (layout.data / "ibdata1").write_text("rows")
    files.tidy()
    assert not layout.data.exists()
    (told,) = storage.saved(layout.saved)
    assert (Path(told) / "ibdata1").read_text() == "rows"


async def test_a_large_folder_is_deleted_beside_the_guards_work(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_: time.sleep(0.3))
    deleting = asyncio.create_task(files.begin())
    began = time.monotonic()
    await asyncio.sleep(0.01)
    assert time.monotonic() - began < 0.2
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    assert time.monotonic() - began >= 0.3, "another push would find it deleted while it writes"


class Hand:
    """Answers what saving asks."""

    async def row(self, _: str) -> dict[str, Any]:
        return {"gtid": "0-1-200"}

    async def rows(self, _: str) -> list[dict[str, Any]]:
        return [{"Log_name": "binlog.000001"}]


@pytest.mark.parametrize(("module", "reader"), [(mariadb, mariadb_logs), (mysql, mysql)])
async def test_a_log_that_can_not_be_read_is_kept_as_it_is(
    module: Any, reader: Any, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(*_: Any, **__: Any) -> str:
        raise EngineError("mysqlbinlog: Event invalid")

    monkeypatch.setattr(reader, "run", unreadable)
    (layout.data / "binlog.000001").write_bytes(b"events")
    server = module.Server(SETTINGS, layout, Place(layout.run / "server.cnf"))
    for _ in range(3):
        await server.save(Hand(), OWN, Lonely(118, History(), "it parted"))
    (told,) = storage.saved(layout.saved)
    assert (Path(told) / "binlog.000001").read_bytes() == b"events"
    summary = json.loads((Path(told) / "saved.json").read_text())
    assert (summary["complete"], summary["remarks"]) == (False, ["mysqlbinlog: Event invalid"])


# --- a server that does not start


class Service:
    """Nothing ever runs."""

    async def start(self) -> None:
        raise EngineError("Can't start server: Bind on TCP/IP port: Address already in use")

    async def stop(self) -> None: ...

    def pids(self) -> tuple[int, ...]:
        return ()

    def kill(self) -> None: ...


class Copying(mariadb.Server):
    """Notes what is asked of it."""

    plain: list[bool]
    copies = 0

    async def prepare(self, *, plain: bool) -> None:
        self.plain.append(plain)

    async def copy(self, upstream: Member) -> None:
        self.copies += 1
        (await self.files.begin() / "mysql").mkdir()


async def push(driver: Driver, times: int) -> str:
    said = ""
    for _ in range(times):
        try:
            await driver.reach(Desired("standby", 5, "a"), MEMBERS.members[0])
        except EngineError as error:
            said = str(error)
    return said


async def test_a_server_that_does_not_start_is_copied_afresh_once(layout: Layout) -> None:
    server = Copying(SETTINGS, layout, Place(layout.run / "server.cnf"))
    server.plain = []
    driver = Driver(SETTINGS, layout, Service(), server)
    said = await push(driver, 20)
    assert server.copies == 1
    assert "Address already in use" in said
    seen = await driver.observe()
    assert (seen.state, "Address already in use" in seen.detail) == ("failed", True)


async def test_the_users_settings_are_blamed_before_the_data(layout: Layout) -> None:
    server = Copying(SETTINGS, layout, Place(layout.run / "server.cnf"))
    server.plain = []
    await push(Driver(SETTINGS, layout, Service(), server), 2)
    assert (server.plain, server.copies) == ([False, False], 0)
    server.plain.clear()
    await push(Driver(SETTINGS, layout, Service(), server), 3)
    assert server.plain[:3] == [False, False, True]
