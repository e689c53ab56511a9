"""Visitors of the site: run inside the namespace of the local world's client, `python -m e2e.demo.visitor DOMAIN`.

Each request asks an authoritative server for the name's addresses (no cache, so that DNS is seen as it is), tries them
in random order with one second to connect, as a browser does, and becomes one JSON line on standard output. Another
line every half second says what each server answers.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 5.0
QUERY_SECONDS = 0.5
LOOK_EVERY = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain")
    parser.add_argument("--server", action="append", required=True, help="address of an authoritative server")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    options = parser.parse_args(argv)
    asyncio.run(_visit(options.domain, options.server, options.rate))
    return 0


async def _visit(domain: str, servers: Sequence[str], rate: float) -> None:
    """Starts requests on time, however slow the answers are."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_watch_names(domain, servers))
        begun, number = time.monotonic(), 0
        while True:
            tasks.create_task(_request(domain, servers))
            number += 1
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))


async def _watch_names(domain: str, servers: Sequence[str]) -> None:
    while True:
        answers = await asyncio.gather(*(resolve(domain, server) for server in servers))
        _tell({"names": dict(zip(servers, answers, strict=True))})
        await asyncio.sleep(LOOK_EVERY)


async def resolve(domain: str, server: str) -> list[str] | None:
    """The name's addresses by one server, IPv4 first; None when it does not answer."""
    try:
        answers = await asyncio.gather(*(_ask(domain, server, kind) for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)))
    except (OSError, dns.exception.DNSException):
        return None
    return [address for found in answers for address in sorted(found)]


async def _ask(domain: str, server: str, kind: dns.rdatatype.RdataType) -> list[str]:
    answer = await dns.asyncquery.udp(dns.message.make_query(domain, kind), server, timeout=QUERY_SECONDS)
    return [str(item) for rrset in answer.answer for item in rrset if item.rdtype == kind]


async def _request(domain: str, servers: Sequence[str]) -> None:
    begun = time.monotonic()
    addresses: list[str] | None = None
    for server in random.sample(servers, len(servers)):
        addresses = await resolve(domain, server)
        if addresses is not None:
            break
    found = random.sample(addresses or [], len(addresses or []))
    outcome: dict[str, object] = {"ok": False, "why": "no address"}
    for tries, address in enumerate(found, 1):
        outcome = await _get(domain, address) | {"address": address, "tries": tries}
        if outcome["ok"] or "served" in outcome:
            break
    _tell(outcome | {"ms": round((time.monotonic() - begun) * 1000)})


async def _get(domain: str, address: str) -> dict[str, object]:
    """One GET on a connection of its own. An answer of any status has key `served`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address, 80)
        writer.write(f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(ANSWER_SECONDS):
            head = (await reader.read()).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    except (OSError, TimeoutError) as error:
        return {"ok": False, "why": type(error).__name__}
    finally:
        if writer is not None:
            writer.close()
    if not head[0]:
        return {"ok": False, "why": "connection closed"}
    status = head[0].split(" ")[1]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return {"ok": status == "200", "why": f"HTTP {status}", "served": fields.get("x-served-by", "")}


def _tell(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
