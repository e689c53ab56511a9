"""Zone files of the local world's name servers."""

import dns.rdatatype
import dns.zone
import pytest

from e2e.world.cloud.backend import DnsRecord
from e2e.world.zonefile import render_zone

NS = DnsRecord("@", "NS", "ns1.digitalocean.com.", 1800)


def parsed(*records: DnsRecord) -> dict[tuple[str, str], tuple[int, set[str]]]:
    zone = dns.zone.from_text(render_zone("example.com", (NS, *records), 7), origin="example.com", relativize=False)
    return {
        (name.to_text(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, {item.to_text() for item in rdataset})
        for name, rdataset in zone.iterate_rdatasets()
    }


@pytest.mark.parametrize(
    ("record", "name", "data"),
    [
        (DnsRecord("@", "A", "192.0.2.1", 30), "example.com.", "192.0.2.1"),
        (DnsRecord("shop", "AAAA", "2001:db8::1", 30), "shop.example.com.", "2001:db8::1"),
        (DnsRecord("*.w", "CNAME", "shop.example.com.", 30), "*.w.example.com.", "shop.example.com."),
        (DnsRecord("@", "MX", "mail.example.com.", 30, 10), "example.com.", "10 mail.example.com."),
        (DnsRecord("_x._tcp", "SRV", "5 80 a.example.com.", 30, 1), "_x._tcp.example.com.", "1 5 80 a.example.com."),
        (DnsRecord("@", "CAA", '0 issue "ca.example"', 30), "example.com.", '0 issue "ca.example"'),
        (DnsRecord("t", "TXT", 'a "b"; c\\d', 30), "t.example.com.", r'"a \"b\"; c\\d"'),
        (DnsRecord("t", "TXT", "one\ntwo", 30), "t.example.com.", r'"one\010two"'),
        (DnsRecord("t", "TXT", "x" * 300, 30), "t.example.com.", f'"{"x" * 255}" "{"x" * 45}"'),
    ],
)
def test_a_record_of_the_provider_is_served_as_it_was_meant(record: DnsRecord, name: str, data: str) -> None:
    assert parsed(record)[name, record.type] == (30, {data})


def test_records_of_one_name_and_type_are_one_set() -> None:
    both = parsed(DnsRecord("shop", "A", "192.0.2.1", 30), DnsRecord("shop", "A", "192.0.2.2", 30))
    assert both["shop.example.com.", "A"] == (30, {"192.0.2.1", "192.0.2.2"})


def test_the_soa_carries_the_serial_and_is_the_only_one() -> None:
    _, soa = parsed(DnsRecord("@", "SOA", "1800", 1800))["example.com.", "SOA"]
    assert soa == {"ns1.digitalocean.com. hostmaster.example.com. 7 10800 3600 604800 1800"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (DnsRecord("shop", "A", "192.0.2.1\nevil A 192.0.2.2", 30), "not one line"),
        (DnsRecord("shop", "A", "192.0.2.256", 30), "not a DNS record"),
        (DnsRecord("x" * 64, "A", "192.0.2.1", 30), "not a DNS record"),
    ],
)
def test_what_can_not_be_a_record_is_refused(record: DnsRecord, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_zone("example.com", (record,), 1)
