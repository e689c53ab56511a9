"""Zones as text: what the simulated provider publishes, in the form of an RFC 1035 zone file. Pure."""

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.zone

from e2e.world.cloud.backend import DnsRecord

SOA = "ns1.digitalocean.com. hostmaster.{zone} {serial} 10800 3600 604800 1800"
STRING_LENGTH = 255


def render_zone(zone: str, records: tuple[DnsRecord, ...], serial: int) -> str:
    """The zone file. An SOA is always made here, with this serial, whatever `records` says about one.

    Raises ValueError, which says which, when one of `records` cannot be a DNS record.
    """
    origin = dns.name.from_text(zone)
    rendered = dns.zone.Zone(origin, relativize=False)
    soa = SOA.format(zone=origin.to_text(), serial=serial)
    _add(rendered, origin, 1800, dns.rdata.from_text("IN", "SOA", soa))
    for record in records:
        if record.type != "SOA":
            try:
                name = dns.name.from_text(record.name, origin) if record.name != "@" else origin
                _add(rendered, name, record.ttl, _rdata(record, origin))
            except dns.exception.DNSException as error:
                raise ValueError(f"not a DNS record ({error}): {record}") from error
    return rendered.to_text(relativize=False) + "\n"


def _add(zone: dns.zone.Zone, name: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata) -> None:
    zone.find_rdataset(name, rdata.rdtype, create=True).add(rdata, ttl)


def _rdata(record: DnsRecord, origin: dns.name.Name) -> dns.rdata.Rdata:
    if record.type == "TXT":
        # The bare text, not its presentation form: quotes and line breaks in it are data.
        text = record.data.encode()
        strings = [text[at : at + STRING_LENGTH] for at in range(0, len(text), STRING_LENGTH)] or [b""]
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
    if not record.data.isprintable():
        raise ValueError(f"not one line of printable text: {record}")
    priority = f"{record.priority or 0} " if record.type in {"MX", "SRV"} else ""
    return dns.rdata.from_text("IN", record.type, f"{priority}{record.data}", origin=origin, relativize=False)
