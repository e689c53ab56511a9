"""Domains and records."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.world.cloud import DnsRecord, NullNameServers
from tests.world.cloud_api import Api, running

RECORDS = "/domains/example.com/records"


async def with_domain(api: Api) -> None:
    await api.post("/domains", {"name": "example.com"})


@pytest.mark.parametrize("count", [2, 3])
async def test_a_new_domain_has_its_soa_and_one_ns_record_for_each_name_server(count: int) -> None:
    async with running(ns_count=count) as api:
        created = await api.post("/domains", {"name": "example.com"})
        assert created["domain"] == {"name": "example.com", "ttl": 1800, "zone_file": None}
        records = (await api.get(RECORDS))["domain_records"]
        assert [(r["type"], r["name"], r["data"]) for r in records] == [
            ("SOA", "@", "1800"),
            *(("NS", "@", f"ns{number}.digitalocean.com") for number in range(1, count + 1)),
        ]


async def test_a_listing_of_domains_shows_their_zone_files() -> None:
    async with running() as api:
        await api.post("/domains", {"name": "example.com", "ip_address": "192.0.2.10"})
        [domain] = (await api.get("/domains"))["domains"]
        assert domain["ttl"] == 1800
        assert "example.com. 1800 IN NS ns1.digitalocean.com.\n" in domain["zone_file"]
        assert "example.com. 1800 IN A 192.0.2.10\n" in domain["zone_file"]


async def test_a_domain_that_is_taken_is_refused() -> None:
    async with running() as api:
        await with_domain(api)
        api.cloud.state.taken_domains.add("example.org")
        for name in ("example.com", "example.org"):
            assert (await api.call("POST", "/domains", {"name": name})).status == 422


async def test_each_change_publishes_the_whole_zone() -> None:
    name_servers = NullNameServers()
    async with running(name_servers=name_servers) as api:
        await with_domain(api)
        record = (await api.post(RECORDS, {"type": "A", "name": "www", "data": "192.0.2.10", "ttl": 30}))[
            "domain_record"
        ]
        await api.cloud.settle()
        assert name_servers.zones["example.com"][-1] == DnsRecord("www", "A", "192.0.2.10", 30)
        await api.call("PUT", f"{RECORDS}/{record['id']}", {"data": "192.0.2.11"})
        await api.cloud.settle()
        assert name_servers.zones["example.com"][-1] == DnsRecord("www", "A", "192.0.2.11", 30)
        await api.call("DELETE", f"{RECORDS}/{record['id']}")
        await api.cloud.settle()
        assert [record.type for record in name_servers.zones["example.com"]] == ["NS", "NS"]
        await api.call("DELETE", "/domains/example.com")
        await api.cloud.settle()
        assert name_servers.zones == {}


@pytest.mark.parametrize(
    ("body", "published"),
    [
        ({"type": "AAAA", "name": "@", "data": "2001:db8::1"}, DnsRecord("@", "AAAA", "2001:db8::1", 1800)),
        ({"type": "CNAME", "name": "www", "data": "@"}, DnsRecord("www", "CNAME", "example.com.", 1800)),
        ({"type": "TXT", "name": "_hasite.www", "data": "owner=1"}, DnsRecord("_hasite.www", "TXT", "owner=1", 1800)),
        ({"type": "MX", "data": "mx.example.org.", "priority": 5}, DnsRecord("@", "MX", "mx.example.org.", 1800, 5)),
        (
            {"type": "SRV", "name": "_sip._tcp", "data": "sip.example.org.", "priority": 1, "weight": 2, "port": 5060},
            DnsRecord("_sip._tcp", "SRV", "2 5060 sip.example.org.", 1800, 1),
        ),
        (
            {"type": "CAA", "data": "letsencrypt.org.", "flags": 0, "tag": "issue"},
            DnsRecord("@", "CAA", '0 issue "letsencrypt.org"', 1800),
        ),
    ],
)
async def test_a_record_reaches_the_name_servers_in_their_form(body: dict[str, Any], published: DnsRecord) -> None:
    name_servers = NullNameServers()
    async with running(name_servers=name_servers) as api:
        await with_domain(api)
        await api.post(RECORDS, body)
        await api.cloud.settle()
        assert name_servers.zones["example.com"][-1] == published


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"ttl": 29}, "record ttl must be greater than 30"),
        (
            {"name": "www.example.com."},
            "Name is invalid; use a name relative to the domain, or @ for the domain itself.",
        ),
        ({"name": "a b"}, "Name is invalid; use a name relative to the domain, or @ for the domain itself."),
        ({"data": "192.0.2"}, "IP address did not match IPv4 format (e.g. 127.0.0.1)."),
        ({"type": "AAAA"}, "IP address did not match IPv6 format (e.g. 2001:db8::ff00:42:8329)."),
        ({"type": "WKS"}, "Type is invalid: WKS"),
        ({"type": "CNAME", "data": "example.org"}, "Data needs to end with a dot (.)"),
        (
            {"type": "CNAME", "data": "example.org.", "name": "@"},
            "CNAME records cannot share a name with other records",
        ),
        ({"type": "MX", "data": "mx.example.org."}, "Priority can't be blank"),
        ({"type": "TXT", "data": "two\nlines"}, "Data is invalid"),
    ],
)
async def test_a_wrong_record_is_refused(body: dict[str, Any], message: str) -> None:
    async with running() as api:
        await with_domain(api)
        answer = await api.call("POST", RECORDS, {"type": "A", "name": "www", "data": "192.0.2.10"} | body)
        assert (answer.status, answer.message) == (422, message)
        assert (await api.get(RECORDS))["meta"]["total"] == 3


async def test_no_record_shares_its_name_with_a_cname() -> None:
    async with running() as api:
        await with_domain(api)
        await api.post(RECORDS, {"type": "CNAME", "name": "www", "data": "example.org."})
        answer = await api.call("POST", RECORDS, {"type": "A", "name": "www", "data": "192.0.2.10"})
        assert answer.message == "CNAME records cannot share a name with other records"


async def test_a_record_can_exist_twice() -> None:
    async with running() as api:
        await with_domain(api)
        for _ in range(2):
            await api.post(RECORDS, {"type": "A", "name": "www", "data": "192.0.2.10"})
        assert len((await api.get(RECORDS, name="www.example.com", type="A"))["domain_records"]) == 2


async def test_a_name_with_the_domain_in_it_is_taken_as_relative() -> None:
    async with running() as api:
        await with_domain(api)
        await api.post(RECORDS, {"type": "A", "name": "www.example.com", "data": "192.0.2.10"})
        assert (await api.get(RECORDS, name="www.example.com"))["domain_records"] == []
        assert len((await api.get(RECORDS, name="www.example.com.example.com"))["domain_records"]) == 1


async def test_changing_only_the_ttl_of_a_cname_is_refused_as_the_provider_does() -> None:
    async with running() as api:
        await with_domain(api)
        body = {"type": "CNAME", "name": "www", "data": "example.org."}
        record = (await api.post(RECORDS, body))["domain_record"]
        assert record["data"] == "example.org"
        answer = await api.call("PATCH", f"{RECORDS}/{record['id']}", {"ttl": 60})
        assert answer.message == "Data needs to end with a dot (.)"
        answer = await api.call("PATCH", f"{RECORDS}/{record['id']}", {"ttl": 60, "data": "example.org."})
        assert answer.body["domain_record"]["ttl"] == 60


async def test_the_soa_record_stays() -> None:
    async with running() as api:
        await with_domain(api)
        [soa] = (await api.get(RECORDS, type="SOA"))["domain_records"]
        assert (await api.call("DELETE", f"{RECORDS}/{soa['id']}")).status == 422


async def test_a_record_that_outlives_its_droplet_is_recorded_as_a_violation_once() -> None:
    async with running() as api:
        droplet = await api.droplet()
        address = droplet["networks"]["v4"][0]["ip_address"]
        await with_domain(api)
        await api.post(RECORDS, {"type": "A", "name": "www", "data": address})
        await api.post(RECORDS, {"type": "A", "name": "elsewhere", "data": "203.0.113.99"})
        assert api.cloud.violations == []
        await api.call("DELETE", f"/droplets/{droplet['id']}")
        await api.call("DELETE", "/tags/none")
        found = [(each.kind, each.detail) for each in api.cloud.violations]
        assert found == [("dangling-record", f"www.example.com A {address}")]
        assert api.cloud.dangling_records() == [f"www.example.com A {address}"]
