"""DNS zones: what a record may be, the zone file that listings show, and publication to the name servers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Callable, Mapping

from .backend import DnsRecord
from .core import Core
from .rest import ApiError, unprocessable
from .state import Domain, Record

DEFAULT_TTL = 1800
SMALLEST_TTL = 30
RETRY_PAUSES = (0.1, 0.5, 2.0)  # seconds between attempts to publish a zone

logger = logging.getLogger(__name__)

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
RECORD_NAME = re.compile(rf"@|\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
DOMAIN_NAME = re.compile(rf"(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?")


def new_domain(core: Core, name: str, address: str | None) -> Domain:
    """A zone with its SOA and NS records, and an A record at its apex when an address is given."""
    domain = Domain(name, DEFAULT_TTL, serial=int(core.now()))
    firsts = [("SOA", str(DEFAULT_TTL)), *(("NS", server) for server in core.ns_names)]
    if address is not None:
        firsts.append(("A", address))
    for kind, data in firsts:
        record = Record(core.state.next_id("record"), kind, "@", data, DEFAULT_TTL)
        domain.records[record.id] = record
    return domain


def checked(domain: Domain, record: Record) -> Record:
    """The record as it is stored (host names without the final dot); raises ApiError 422."""
    if not isinstance(record.ttl, int) or record.ttl < SMALLEST_TTL:
        raise unprocessable(f"record ttl must be greater than {SMALLEST_TTL}")
    if not RECORD_NAME.fullmatch(record.name) or len(f"{record.name}.{domain.name}") > 253:
        raise unprocessable("Name is invalid; use a name relative to the domain, or @ for the domain itself.")
    if record.type not in _CHECKS:
        raise unprocessable(f"Type is invalid: {record.type}")
    record.data = _CHECKS[record.type](record)
    _refuse_name_conflict(domain, record)
    return record


def _refuse_name_conflict(domain: Domain, record: Record) -> None:
    same_name = [r for r in domain.records.values() if r.name == record.name and r.id != record.id]
    if (record.type == "CNAME" and same_name) or any(other.type == "CNAME" for other in same_name):
        raise unprocessable("CNAME records cannot share a name with other records")


def _ip(version: int) -> Callable[[Record], str]:
    def check(record: Record) -> str:
        try:
            address = ipaddress.ip_address(record.data)
        except ValueError:
            address = None
        if address is None or address.version != version:
            raise unprocessable(
                "IP address did not match IPv4 format (e.g. 127.0.0.1)."
                if version == 4
                else "IP \
address did not match IPv6 format (e.g. 2001:db8::ff00:42:8329)."
            )
        return record.data

    return check


def _host(record: Record) -> str:
    if record.data == "@":
        return record.data
    if not record.data.endswith("."):
        raise unprocessable("Data needs to end with a dot (.)")
    return record.data.removesuffix(".")


def _text(record: Record) -> str:
    if not record.data or len(record.data) > 4096 or not record.data.isprintable():
        raise unprocessable("Data is invalid")
    return record.data


def _mail(record: Record) -> str:
    _require(record, "priority")
    return _host(record)


def _service(record: Record) -> str:
    for field in ("priority", "port", "weight"):
        _require(record, field)
    return _host(record)


def _authority(record: Record) -> str:
    for field in ("flags", "tag"):
        _require(record, field)
    if record.tag not in ("issue", "issuewild", "iodef"):
        raise unprocessable("Tag must be one of issue, issuewild, iodef")
    return _text(record) if record.tag == "iodef" else _host(record)


def _require(record: Record, field: str) -> None:
    if getattr(record, field) is None:
        raise unprocessable(f"{field.capitalize()} can't be blank")


_CHECKS: Mapping[str, Callable[[Record], str]] = {
    "A": _ip(4),
    "AAAA": _ip(6),
    "CNAME": _host,
    "NS": _host,
    "MX": _mail,
    "SRV": _service,
    "TXT": _text,
    "CAA": _authority,
}


def fully_qualified(domain: Domain, name: str) -> str:
    """The record's whole name, without the final dot."""
    return domain.name if name == "@" else f"{name}.{domain.name}"


def to_dns(domain: Domain, record: Record) -> DnsRecord:
    """The record in the form that name servers take."""
    data = record.data
    if record.type in ("CNAME", "NS", "MX", "SRV"):
        data = f"{domain.name if data == '@' else data}."
    if record.type == "SRV":
        data = f"{record.weight} {record.port} {data}"
    if record.type == "CAA":
        data = f'{record.flags} {record.tag} "{data}"'
    return DnsRecord(record.name, record.type, data, record.ttl, record.priority)


def zone_file(domain: Domain) -> str:
    """The zone file of a listing."""
    lines = [f"$ORIGIN {domain.name}.", f"$TTL {domain.ttl}"]
    soa = f"hostmaster.{domain.name}. {domain.serial} 10800 3600 604800 {domain.ttl}"
    primary = next((r.data for r in domain.records.values() if r.type == "NS" and r.name == "@"), domain.name)
    lines.append(f"{domain.name}. IN SOA {primary}. {soa}")
    for record in domain.records.values():
        if record.type != "SOA":
            dns = to_dns(domain, record)
            data = f'"{dns.data}"' if dns.type == "TXT" else dns.data
            priority = f"{dns.priority} " if dns.priority is not None else ""
            lines.append(f"{fully_qualified(domain, dns.name)}. {dns.ttl} IN {dns.type} {priority}{data}")
    return "\n".join(lines) + "\n"


def publish_soon(core: Core, domain: Domain) -> None:
    """Hand the zone to the name servers after the answer was sent; changes that come together go together."""
    domain.serial += 1
    core.spawn(_publish(core, domain, domain.serial))


async def _publish(core: Core, domain: Domain, serial: int) -> None:
    async with core.zone_locks[domain.name]:
        if domain.serial != serial or core.state.domains.get(domain.name) is not domain:
            return  # a later change brings the whole zone
        records = tuple(to_dns(domain, record) for record in domain.records.values() if record.type != "SOA")
        for pause in RETRY_PAUSES:
            try:
                return await core.name_servers.publish(domain.name, records)
            except Exception:
                logger.exception("zone %s was not published", domain.name)
                await asyncio.sleep(pause)
        await core.name_servers.publish(domain.name, records)


def remove_soon(core: Core, name: str) -> None:
    """Take the zone from the name servers after the answer was sent."""

    async def work() -> None:
        async with core.zone_locks[name]:
            if name not in core.state.domains:
                await core.name_servers.remove(name)

    core.spawn(work())


def already_taken(name: str) -> ApiError:
    """422 for a domain that is in this account or in another one."""
    return unprocessable(f"domain '{name}': name already exists")
