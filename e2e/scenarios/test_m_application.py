"""A real application, Django's admin, on a site with a database at two datacentres, of which the one that holds the
primary goes dark and comes back: visitors stay logged in, and nothing that they made is lost."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest_asyncio

from e2e import figures
from e2e.application import LOGIN, SITE_ENVIRONMENT, VISITORS, Application, Diary, visitors
from e2e.database import Databases
from e2e.site import Stage, eventually, manifest
from e2e.world.cloud.state import Droplet

NAME = "office"
DOMAIN = f"{NAME}.example.com"

WRITES_AGAIN = 10.0
"""Seconds, at worst, from the power loss to the first write through a load balancer: the database's 8, and the checks
of the load balancer that finds its app well again."""

CUT = 5.0
"""Seconds until a client that waits for a lost primary's answer is told that there will be none."""

SWITCHOVER_PAUSE = 5.0

WAIT_FOR_THE_END = """
import os, time, psycopg2
connection = psycopg2.connect(os.environ["DATABASE_URL"])
try:
    connection.cursor().execute("SELECT pg_sleep(60)")
except psycopg2.OperationalError:
    print(time.monotonic())
"""

HEALTH = {"path": LOGIN, "interval": "1s", "timeout": "1s"}


@dataclass(frozen=True)
class Office:
    """The site, its database, what runs on it, and what its visitors have done so far."""

    stage: Stage
    database: Databases
    application: Application
    diaries: list[Diary] = field(default_factory=list)

    async def until_ready(self, within: float) -> float:
        """Both. Seconds that it took."""
        began = time.monotonic()
        await self.database.until_ready(within)
        await self.stage.until_ready(NAME, within)
        return time.monotonic() - began

    async def run(self, server: Droplet, *argv: str) -> str:
        """What a command prints in a unit like the app's: without rights, with what systemd made of its files."""
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--property=DynamicUser=yes"]
        unit += [f"--property=EnvironmentFile={path}" for path in ("/etc/hasite/database.env", SITE_ENVIRONMENT)]
        return await self.stage.on(server, *unit, *argv)

    async def ask(self, server: Droplet, variable: str, statement: str) -> list[list[object]]:
        """Rows, as the app would get them through one of the URLs."""
        code = "import json, os, sys, psycopg2; c = psycopg2.connect(os.environ[sys.argv[1]]); q = c.cursor();"
        code += "q.execute(sys.argv[2]); print(json.dumps(q.fetchall()))"
        out = await self.run(server, "/usr/bin/python3", "-I", "-c", code, variable, statement)
        rows: list[list[object]] = json.loads(out)
        return rows

    async def led_to(self, server: Droplet, variable: str = "DATABASE_URL") -> str:
        """The address of the member that an app server's connections of this URL come to."""
        ((address,),) = await self.ask(server, variable, "SELECT host(inet_server_addr())")
        return str(address)

    async def groups(self, server: Droplet) -> set[str]:
        """The names of all that visitors made."""
        return {str(name) for (name,) in await self.ask(server, "DATABASE_URL_DIRECT", "SELECT name FROM auth_group")}

    async def app(self, location: str) -> Droplet:
        """A location's only app server."""
        (found,) = await self.stage.droplets(NAME, "app", location)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def _office(stage: Stage) -> AsyncIterator[Office]:
    made = Office(stage, Databases(stage, f"{NAME}-data", "postgresql"), Application())
    await made.database.apply(durability="synchronous", degradedWrites="allow")
    site = manifest(NAME, database={"name": made.database.name, "database": "shop", "user": "shop"})
    site["spec"]["app"] |= {
        "healthCheck": HEALTH,
        "userData": made.application.user_data(),
        "progressDeadline": "5m",
    }
    await stage.apply(site)
    yield made
    await stage.world.restore()
    await stage.delete(NAME)
    await made.database.delete()


@pytest_asyncio.fixture(loop_scope="package")
async def office(_office: Office) -> Office:
    """Ready: a load balancer, an app server and a member of the database at each of two locations."""
    await _office.until_ready(300)
    return _office


async def members(office: Office) -> dict[str, str]:
    """Addresses by location."""
    found = (await office.database.members()).values()
    return {office.stage.location(each): each.public_ipv4 for each in found}


async def test_the_app_servers_are_led_to_the_primary_and_to_the_replica(office: Office) -> None:
    primary = (await office.database.primary()).public_ipv4
    (replica,) = set((await members(office)).values()) - {primary}
    for server in await office.stage.droplets(NAME, "app"):
        assert await office.led_to(server) == primary
        assert await office.led_to(server, "DATABASE_URL_DIRECT") == primary
        assert await office.led_to(server, "DATABASE_REPLICA_URL") == replica


async def test_all_its_migrations_are_applied_and_its_superuser_is_there_once(office: Office) -> None:
    for server in await office.stage.droplets(NAME, "app"):
        await office.run(server, "/usr/bin/django-admin", "migrate", "--check")
        assert await office.ask(server, "DATABASE_URL", "SELECT username FROM auth_user") == [["keeper"]]


async def test_visitors_stay_logged_in_and_lose_nothing_through_a_drop_and_a_return(office: Office) -> None:
    stage, before = office.stage, await office.database.primary()
    dark, addresses = stage.location(before), await members(office)
    (other,) = set(addresses) - {dark}
    survivor = await office.app(other)
    balancers = {a for d in await stage.droplets(NAME, "lb", dark) for a in (d.public_ipv4, d.public_ipv6)}
    async with visitors(stage, DOMAIN, office.application) as diary:
        waiting = asyncio.create_task(office.run(survivor, "/usr/bin/python3", "-I", "-c", WAIT_FOR_THE_END))
        await asyncio.sleep(5)
        began = time.monotonic()
        await stage.world.drop(dark)
        dropped = time.monotonic()
        await office.database.until_primary(before.name)
        await eventually(lambda: _is_led(office, survivor, addresses[other]), 20, "the app server follows the primary")
        await asyncio.sleep(10)
        mended = time.monotonic()
        await stage.world.restore()
        await office.until_ready(180)
        back = time.monotonic()
        await asyncio.sleep(5)
    took = diary.of("write", since=began)[0].ended - began
    figures.record("Django: power of the primary's location lost, until a visitor's write is done", took, WRITES_AGAIN)
    figures.record("Django: a query of the lost primary ends with an error", float(await waiting) - began, CUT)
    figures.record("Django: power is back, until all is Ready", back - mended)
    # Nobody but its visitor can end a request that was under way through a load balancer that lost its power.
    assert not [act for act in diary.hung if act.address not in balancers or act.began > dropped], diary.hung
    assert diary.of("write", since=back), "visitors write after the return"
    await check(office, diary)
    for server in await stage.droplets(NAME, "app"):
        assert await office.led_to(server) == addresses[other]
        assert await office.led_to(server, "DATABASE_REPLICA_URL") == addresses[dark]


async def test_a_planned_switchover_is_a_short_pause_for_visitors(office: Office) -> None:
    before, addresses = await office.database.primary(), await members(office)
    (target,) = set(addresses) - {office.stage.location(before)}
    async with visitors(office.stage, DOMAIN, office.application) as diary:
        await asyncio.sleep(2)
        await office.database.patch({"primaryLocation": target})
        await office.database.until_primary(before.name)
        await asyncio.sleep(5)
        await office.until_ready(60)
    ends = [act.ended for act in diary.of("write")]
    pause = max(later - earlier for earlier, later in itertools.pairwise(ends))
    figures.record("Django: planned switchover, pause of visitors' writes", pause, SWITCHOVER_PAUSE)
    assert not diary.hung
    await check(office, diary)
    for server in await office.stage.droplets(NAME, "app"):
        assert await office.led_to(server) == addresses[target]


async def _is_led(office: Office, server: Droplet, address: str) -> bool:
    try:
        return await office.led_to(server) == address
    except AssertionError:
        return False


async def check(office: Office, diary: Diary) -> None:
    """One session for each visitor all the while, and every group that was ever acknowledged is there, seen from both
    sides, with its line in the admin's own log."""
    assert not diary.lost, diary.lost[:10]
    assert len(diary.of("login")) == VISITORS
    office.diaries.append(diary)
    acknowledged = {act.name for each in office.diaries for act in each.of("write")}
    attempted = {act.name for each in office.diaries for act in each.acts if act.kind == "write"}
    for server in await office.stage.droplets(NAME, "app"):
        there = await office.groups(server)
        assert acknowledged <= there <= attempted
        logged = "SELECT object_repr FROM django_admin_log WHERE action_flag = 1"
        assert {str(name) for (name,) in await office.ask(server, "DATABASE_URL", logged)} == there
