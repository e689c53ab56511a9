"""HAProxy itself on an app server, on loopback: where it leads connections, and when it cuts them."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hasite.errors import Permanent
from hasite.machines.base import Result
from hasite.plan.connection import Environment
from hasite.plan.proxies import DatabaseMember, DatabaseProxyModel
from hasite.proxies.base import Delivered
from hasite.proxies.haproxy_database import render_database

from tests.contract.database_lab import ENVIRONMENT, DatabaseLab, database_lab
from tests.contract.local_machine import LocalSession
from tests.contract.web import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="HAProxy changes its user")

SOON = 1.5
"""Seconds: two checks, half a second and a fifth apart, on a machine that does other things too."""


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DatabaseLab]:
    async with database_lab(tmp_path) as made:
        yield made


async def serving(lab: DatabaseLab) -> None:
    """Delivered; a is the primary and b its replica, and the proxy knows it."""
    lab.a.role, lab.b.role = "primary", "replica"
    assert await lab.deliver() == Delivered()
    await eventually(lambda: lab.leads("a"))
    await eventually(lambda: lab.leads("b", 1))


@needs_root
async def test_connections_go_to_the_primary_and_on_the_next_port_to_replicas(lab: DatabaseLab) -> None:
    await serving(lab)
    assert {(await lab.connect()).leads_to for _ in range(10)} == {"a"}
    assert {(await lab.connect(1)).leads_to for _ in range(10)} == {"b"}


@needs_root
async def test_of_several_that_take_writes_the_near_one_is_led_to_and_others_only_while_it_is_not_there(
    lab: DatabaseLab,
) -> None:
    lab.a.role, lab.b.role = "primary", "primary"
    near = replace(lab.model(), members=(DatabaseMember("a", lab.a.host), DatabaseMember("b", lab.b.host, backup=True)))
    await lab.proxy.equip(lab.local, ENVIRONMENT)
    assert await lab.proxy.deliver(lab.local, lab.proxy.render(near), ("lease", 1)) == Delivered()
    await eventually(lambda: lab.leads("a"))
    assert {(await lab.connect()).leads_to for _ in range(10)} == {"a"}
    old = await lab.connect()
    lab.a.role = ""
    assert await old.cut() < SOON
    await eventually(lambda: lab.leads("b"), SOON)
    away = await lab.connect()
    lab.a.role = "primary"
    await eventually(lambda: lab.leads("a"), 2 * SOON)
    assert await away.cut() < SOON, "it goes home"


@needs_root
async def test_old_connections_are_cut_and_new_ones_led_elsewhere_when_the_primary_changes(lab: DatabaseLab) -> None:
    await serving(lab)
    old, reading = await lab.connect(), await lab.connect(1)
    lab.a.role, lab.b.role = "", "primary"
    assert await old.cut() < SOON
    await eventually(lambda: lab.leads("b"), SOON)
    assert await reading.cut() < SOON


@needs_root
async def test_connections_to_a_primary_whose_guard_is_silent_are_cut(lab: DatabaseLab) -> None:
    await serving(lab)
    old = await lab.connect()
    lab.a.role = None
    assert await old.cut() < 3.0
    assert (await lab.connect()).leads_to == ""


@needs_root
async def test_without_a_primary_a_connection_is_refused_at_once(lab: DatabaseLab) -> None:
    lab.a.role = lab.b.role = "replica"
    assert await lab.deliver() == Delivered()
    await eventually(lambda: lab.leads("a", 1))
    assert (await lab.connect()).leads_to == ""


@needs_root
async def test_reads_go_to_the_primary_while_there_is_no_replica(lab: DatabaseLab) -> None:
    await serving(lab)
    lab.b.role = ""
    await eventually(lambda: lab.leads("a", 1), SOON)


@needs_root
async def test_a_reload_knows_the_primary_at_once_and_keeps_connections(lab: DatabaseLab) -> None:
    await serving(lab)
    kept = await lab.connect()
    assert await lab.deliver(lab.a) == Delivered()
    assert (await lab.connect()).leads_to == "a"
    before = lab.a.echoes
    kept.writer.write(b"still here\n")

    async def echoed() -> bool:
        return lab.a.echoes > before

    await eventually(echoed)


@needs_root
async def test_a_configuration_is_in_force_only_with_the_files_beside_it(lab: DatabaseLab) -> None:
    await serving(lab)
    assert (await lab.observe()).config_sha256 is not None
    other = Environment(ENVIRONMENT.file + b"X=1\n", ENVIRONMENT.authority)
    await lab.proxy.equip(lab.local, other)
    assert (await lab.observe()).config_sha256 is None
    await lab.proxy.equip(lab.local, ENVIRONMENT)
    assert (await lab.observe()).config_sha256 is not None


@needs_root
@pytest.mark.parametrize("damage", ["rm {}", "chmod 644 {}", "echo >>{}", "chown 1 {}"])
async def test_a_damaged_environment_file_is_found_and_put_right(lab: DatabaseLab, damage: str) -> None:
    await serving(lab)
    await lab.local.run(damage.format(lab.files.environment))
    assert (await lab.observe()).config_sha256 is None
    assert await lab.deliver() == Delivered()
    assert (await lab.observe()).config_sha256 is not None


@needs_root
async def test_only_root_reads_the_environment_file_and_everybody_the_certificate(lab: DatabaseLab) -> None:
    await lab.proxy.equip(lab.local, ENVIRONMENT)
    held = [await lab.local.read(path) for path in (lab.files.environment, lab.files.authority)]
    assert held == [ENVIRONMENT.file, ENVIRONMENT.authority]
    folder = lab.files.environment.rpartition("/")[0]
    seen = await lab.local.run(f"cd {folder}; stat -c '%n %a %u' . *")
    assert seen.stdout.splitlines() == [". 755 0", "database-ca.crt 644 0", "database.env 600 0"]


@dataclass
class BreaksOff:
    """A session whose stdin ends early."""

    local: LocalSession
    host_key: str = ""

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 10.0) -> Result:  # noqa: ASYNC109
        return await self.local.run(command, stdin=stdin[: len(stdin) // 2], timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)


async def test_a_transfer_that_broke_off_replaces_nothing(lab: DatabaseLab) -> None:
    await lab.proxy.equip(lab.local, ENVIRONMENT)
    with pytest.raises(Permanent, match="broke off"):
        await lab.proxy.equip(BreaksOff(lab.local), Environment(b"x" * 100, b"y"))
    assert await lab.local.read(lab.files.environment) == ENVIRONMENT.file


MODEL = DatabaseProxyModel("app-1", "new-york", (DatabaseMember("a", "192.0.2.1"),), 5432, 7432, "0" * 64)
HOSTILE: dict[str, DatabaseProxyModel] = {
    "a line break in a member's name": replace(MODEL, members=(DatabaseMember("a\n  bind :80", "192.0.2.1"),)),
    "a word after a member's name": replace(MODEL, members=(DatabaseMember("a check", "192.0.2.1"),)),
    "a host name for an address": replace(MODEL, members=(DatabaseMember("a", "localhost"),)),
    "an address with more": replace(MODEL, members=(DatabaseMember("a", "192.0.2.1:22 check"),)),
    "a member twice": replace(MODEL, members=MODEL.members * 2),
    "a line break in the server's name": replace(MODEL, name="app\nglobal"),
    "a location that ends the comment": replace(MODEL, location="x\nfrontend y"),
    "a hash that is none": replace(MODEL, environment_sha256="0\n"),
    "a port too high": replace(MODEL, port=65535),
    "no port": replace(MODEL, health_port=0),
}


@pytest.mark.parametrize("model", HOSTILE.values(), ids=HOSTILE)
def test_no_configuration_is_made_from(model: DatabaseProxyModel) -> None:
    with pytest.raises(Permanent) as refused:
        render_database(model)
    assert refused.value.reason == "UnsafeValue"


def test_members_are_written_in_one_order_whatever_order_they_come_in() -> None:
    two = (DatabaseMember("a", "192.0.2.1"), DatabaseMember("b", "2001:db8::1"))
    assert render_database(replace(MODEL, members=two)) == render_database(replace(MODEL, members=two[::-1]))
    assert b"server b [2001:db8::1]:5432" in render_database(replace(MODEL, members=two))


def test_another_environment_file_is_another_configuration() -> None:
    assert render_database(MODEL) != render_database(replace(MODEL, environment_sha256="1" * 64))
