"""One question to one authoritative server, and what its answer says."""

import asyncio
import time

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.rdatatype import RdataType
from dns.rdtypes.txtbase import TXTBase

from hasite.plan.world import Unknown

TIMEOUT = 1.0  # seconds for one question, over UDP and TCP together
RESEND_AFTER = 0.35  # seconds after which a datagram is taken for lost
PAYLOAD = 1232  # bytes: what passes every path unfragmented (DNS flag day 2020)


class Silent(Unknown):
    """No answer came: the server, or the way to it, is not there."""


async def question(address: str, port: int, name: dns.name.Name, rdtype: RdataType) -> frozenset[str] | Unknown:
    """The data of this name and type at this server. UDP, sent again once; TCP when the answer was truncated."""
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=PAYLOAD, flags=0)
    try:
        async with asyncio.timeout(TIMEOUT):
            response = await _exchange(query, address, port)
    except (TimeoutError, dns.exception.Timeout):
        return Silent(f"{address} gave no answer within {TIMEOUT:g} s")
    except OSError as error:
        return Silent(f"{address} can't be reached: {error.strerror or error}")
    except (dns.exception.DNSException, EOFError) as error:
        return Unknown(f"{address} gave an answer that can't be read: {error or type(error).__name__}")
    said = reading(response, name, rdtype)
    return Unknown(f"{address} {said.why}") if isinstance(said, Unknown) else said


def reading(response: dns.message.Message, name: dns.name.Name, rdtype: RdataType) -> frozenset[str] | Unknown:
    """The data in a response. Empty only when an authoritative server says that there are none (RFC 2308 section 2)."""
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Unknown(f"answers {dns.rcode.to_text(rcode)}")
    if not response.flags & dns.flags.AA:
        return Unknown("is not authoritative")
    data: set[str] = set()
    for rrset in response.answer:
        if rrset.name == name and rrset.rdtype == dns.rdatatype.CNAME:
            return Unknown("answers with an alias (CNAME)")
        if rrset.name == name and rrset.rdtype == rdtype:
            data |= {_text(rdata) for rdata in rrset}
    return frozenset(data)


async def _exchange(query: dns.message.Message, address: str, port: int) -> dns.message.Message:
    began = time.monotonic()
    try:
        try:
            return await _udp(query, address, port, RESEND_AFTER)
        except dns.exception.Timeout:
            return await _udp(query, address, port, TIMEOUT - (time.monotonic() - began))
    except dns.message.Truncated:
        return await dns.asyncquery.tcp(query, address, TIMEOUT, port)


async def _udp(query: dns.message.Message, address: str, port: int, patience: float) -> dns.message.Message:
    return await dns.asyncquery.udp(
        query, address, patience, port, ignore_unexpected=True, ignore_errors=True, raise_on_truncation=True
    )


def _text(rdata: object) -> str:
    """A record's data; of a TXT the strings joined, without quotes (RFC 7208 section 3.3 reads them so).

    Anybody may write a TXT record, and it may come to be shown: U+FFFD stands for what can't be printed.
    """
    if isinstance(rdata, TXTBase):
        said = b"".join(rdata.strings).decode("utf-8", errors="replace")
        return "".join(char if char.isprintable() else "\ufffd" for char in said)
    return str(rdata)
