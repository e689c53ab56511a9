"""DigitalOcean's DNS driver against the simulated API, over loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hasite.clouds.digitalocean import DigitalOcean
from hasite.dns.accounts import DnsAccounts
from hasite.dns.digitalocean import DigitalOceanDns
from hasite.errors import Conflict, Permanent, Transient, Unclear
from hasite.plan.world import DnsRecord

from e2e.world.cloud import UNLIMITED, Cloud, Kind, serve

ZONE = "example.com"
A = DnsRecord("A", "shop", "192.0.2.10", 60)


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Cloud, DigitalOceanDns]]:
    cloud = Cloud(limits=UNLIMITED)
    server = await serve(cloud)
    account = DigitalOcean("local-token", server.url)
    try:
        yield cloud, DnsAccounts().get(account)
    finally:
        await account.close()
        await server.close()


async def records(dns: DigitalOceanDns, *types: str) -> tuple[DnsRecord, ...]:
    view = await dns.records(ZONE, 0.0)
    assert view.records is not None
    return tuple(record for record in view.records if record.type in types)


async def test_a_zone_that_is_not_there_has_no_records_at_all() -> None:
    async with world() as (_, dns):
        assert (await dns.records(ZONE, 0.0)).records is None


async def test_a_new_zone_has_name_servers_and_no_address() -> None:
    async with world() as (_, dns):
        await dns.create_zone(ZONE)
        assert {record.name for record in await records(dns, "NS")} == {"@"}
        assert await records(dns, "A", "AAAA") == ()


async def test_a_record_is_made_changed_and_deleted_by_its_id() -> None:
    async with world() as (_, dns):
        await dns.create_zone(ZONE)
        made = await dns.create_record(ZONE, A)
        assert made.id > 0
        assert replace(made, id=0) == A
        assert await records(dns, "A") == (made,)
        await dns.update_record(ZONE, replace(made, ttl=300, data="192.0.2.11"))
        assert await records(dns, "A") == (replace(made, ttl=300, data="192.0.2.11"),)
        await dns.delete_record(ZONE, made.id)
        await dns.delete_record(ZONE, made.id)
        assert await records(dns, "A") == ()


@pytest.mark.parametrize(
    "record",
    [
        DnsRecord("A", "@", "192.0.2.10", 60),
        DnsRecord("AAAA", "shop", "2001:db8::10", 60),
        DnsRecord("TXT", "_hasite.shop", 'owner=uid:1; note="x"', 60),
    ],
)
async def test_records_of_every_type_that_we_write_come_back_as_they_were(record: DnsRecord) -> None:
    async with world() as (_, dns):
        await dns.create_zone(ZONE)
        made = await dns.create_record(ZONE, record)
        assert await records(dns, record.type) == (made,)
        assert replace(made, id=0) == record


async def test_a_record_whose_create_answered_500_after_the_work_is_unclear_and_found_by_a_read() -> None:
    async with world() as (cloud, dns):
        await dns.create_zone(ZONE)
        path = f"/v2/domains/{ZONE}/records"
        cloud.faults.fail(Kind.ERROR_AFTER, method="POST", path=path)
        with pytest.raises(Unclear):
            await dns.create_record(ZONE, A)
        assert len(await records(dns, "A")) == 1
        assert [call.path for call in cloud.journal.writes()].count(path) == 1


async def test_all_pages_of_the_records_are_read_and_a_missing_one_fails_the_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hasite.clouds.transport.PER_PAGE", 3)
    async with world() as (cloud, dns):
        await dns.create_zone(ZONE)
        for number in range(7):
            await dns.create_record(ZONE, replace(A, data=f"192.0.2.{number + 1}"))
        assert len(await records(dns, "A")) == 7
        cloud.faults.fail(Kind.UNAVAILABLE, path=f"/v2/domains/{ZONE}/records", page=2)
        with pytest.raises(Transient):
            await dns.records(ZONE, 0.0)


async def test_a_read_of_a_zone_serves_all_who_ask_for_none_younger_and_no_other_zone() -> None:
    async with world() as (cloud, dns):
        await dns.create_zone(ZONE)
        await dns.create_zone("example.org")
        cloud.journal.clear()
        views = await asyncio.gather(*(dns.records(ZONE, 3600.0) for _ in range(5)))
        assert len(cloud.journal) == 1
        assert await dns.records(ZONE, 3600.0) == views[0]
        assert (await dns.records("example.org", 3600.0)).zone == "example.org"
        assert len(cloud.journal) == 2
        await dns.records(ZONE, 0.0)
        assert len(cloud.journal) == 3


async def test_no_read_of_a_zone_is_used_after_a_write_of_ours_to_it() -> None:
    async with world() as (cloud, dns):
        assert (await dns.records(ZONE, 3600.0)).records is None
        await dns.create_zone(ZONE)
        await dns.create_zone("example.org")
        await dns.records("example.org", 3600.0)
        made = await dns.create_record(ZONE, A)
        changes: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: dns.update_record(ZONE, replace(made, ttl=300)),
            lambda: dns.delete_record(ZONE, made.id),
            lambda: dns.create_record(ZONE, A),
            lambda: dns.destroy_zone(ZONE),
        )
        for change in changes:
            before = await dns.records(ZONE, 3600.0)
            await change()
            assert await dns.records(ZONE, 3600.0) != before
        cloud.journal.clear()
        await dns.records("example.org", 3600.0)
        assert not len(cloud.journal)


async def test_a_write_that_failed_may_have_been_done_so_the_zone_is_read_again() -> None:
    async with world() as (cloud, dns):
        await dns.create_zone(ZONE)
        await dns.records(ZONE, 3600.0)
        cloud.faults.fail(Kind.ERROR_AFTER, method="POST", path=f"/v2/domains/{ZONE}/records")
        with pytest.raises(Unclear):
            await dns.create_record(ZONE, A)
        view = await dns.records(ZONE, 3600.0)
        assert view.records is not None
        assert [replace(record, id=0) for record in view.records if record.type == "A"] == [A]


async def test_the_zones_of_the_account_come_with_their_files_in_one_call_for_all_who_ask() -> None:
    async with world() as (cloud, dns):
        await dns.create_zone(ZONE)
        await dns.create_record(ZONE, A)
        cloud.journal.clear()
        zones = await dns.zones(3600.0)
        await dns.zones(3600.0)
        assert "192.0.2.10" in zones[ZONE]
        assert len(cloud.journal) == 1


async def test_a_write_is_seen_by_the_next_look_at_the_zones() -> None:
    async with world() as (_, dns):
        assert await dns.zones(3600.0) == {}
        await dns.create_zone(ZONE)
        assert list(await dns.zones(3600.0)) == [ZONE]
        await dns.create_record(ZONE, A)
        assert "192.0.2.10" in (await dns.zones(3600.0))[ZONE]
        await dns.destroy_zone(ZONE)
        await dns.destroy_zone(ZONE)
        assert await dns.zones(3600.0) == {}


async def test_what_the_api_refuses_is_permanent_and_what_is_gone_asks_for_another_look() -> None:
    async with world() as (_, dns):
        await dns.create_zone(ZONE)
        with pytest.raises(Permanent):
            await dns.create_record(ZONE, replace(A, ttl=5))
        with pytest.raises(Permanent):
            await dns.create_zone(ZONE)
        with pytest.raises(Conflict):
            await dns.update_record(ZONE, replace(A, id=12345))


async def test_the_dns_of_an_account_is_one() -> None:
    account = DigitalOcean("token", "http://127.0.0.1:1")
    accounts = DnsAccounts()
    assert accounts.get(account) is accounts.get(account)
    await account.close()
