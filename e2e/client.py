"""Visitors of a website, as one process: `python -m e2e.client shop.example.com --server 203.0.113.53 …`.

Each request is a new connection by one of several households, each with a resolver of its own that keeps an answer for
its TTL. The addresses are tried in random order with one second to connect, as a browser does. A request has failed
when every address failed, or when the answer was an error or came only in part. One line of JSON a request goes to the
standard output, until SIGTERM.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import dns.rrset

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""A GET that gets no answer on an open connection is tried again at the next address after this."""

QUERY_SECONDS = 0.5
HOUSEHOLDS = 5


class Failed(Exception):
    """The request failed for good; the message says why."""


class NextAddress(Exception):
    """Nothing of an answer came from this address."""


@dataclass
class Resolver:
    """A cache for one name. OSError when no server answers."""

    name: str
    servers: Sequence[str]
    addresses: tuple[str, ...] = ()
    until: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def resolve(self) -> tuple[str, ...]:
        """The name's addresses of both families, at most as old as their TTL."""
        async with self._lock:
            if time.monotonic() >= self.until:
                self.addresses, ttl = await self._ask()
                self.until = time.monotonic() + ttl
            return self.addresses

    async def _ask(self) -> tuple[tuple[str, ...], float]:
        why = "no name servers"
        for server in random.sample(self.servers, len(self.servers)):
            try:
                sets = [rrset for family in ("A", "AAAA") for rrset in await self._query(server, family)]
            except (OSError, dns.exception.DNSException) as error:
                why = f"{server}: {type(error).__name__}"
                continue
            if sets:
                return tuple(str(item) for rrset in sets for item in rrset), float(min(rrset.ttl for rrset in sets))
            why = f"{server}: no address"
        raise Failed(f"the name leads nowhere: {why}")

    async def _query(self, server: str, family: str) -> list[dns.rrset.RRset]:
        query = dns.message.make_query(self.name, family)
        answer = await dns.asyncquery.udp(query, server, timeout=QUERY_SECONDS)
        return [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.from_text(family)]


@dataclass(frozen=True)
class Request:
    """How one request went. ``tried``: address and what it did, for each before the last. Times in seconds."""

    at: float
    seconds: float
    ok: bool
    address: str = ""
    served_by: str = ""
    why: str = ""
    tried: tuple[str, ...] = ()


async def visit(resolver: Resolver) -> Request:
    """One request, from the name to the whole answer."""
    at, started = time.time(), time.monotonic()
    tried: list[str] = []
    address = ""
    try:
        addresses = await resolver.resolve()
        for address in random.sample(addresses, len(addresses)):
            try:
                served_by = await fetch(address, resolver.name)
            except NextAddress as error:
                tried.append(f"{address}: {error}")
                continue
            return Request(at, time.monotonic() - started, True, address, served_by, "", tuple(tried))
        raise Failed("every address failed")
    except Failed as error:
        return Request(at, time.monotonic() - started, False, address, "", str(error), tuple(tried))


async def fetch(address: str, host: str, port: int = 80) -> str:
    """Who answered a GET of /. Raises NextAddress when nothing came, Failed for an error or half an answer."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        raise NextAddress("no connection in time") from None
    except OSError as error:
        raise NextAddress(f"no connection: {error.strerror or error}") from None
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return await _answer(reader)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> str:
    raw, why = b"", ""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while chunk := await reader.read(65536):
                raw += chunk
    except TimeoutError:
        why = "no end of the answer in time"
    except OSError as error:
        why = str(error)
    if not raw:
        raise NextAddress(why or "the connection was closed without an answer")
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    status = lines[0].split(" ", 2)[1:2]
    if status != ["200"]:
        raise Failed(f"answered {lines[0]!r}")
    if why or len(body) != int(fields.get("content-length", "-1")):
        raise Failed(f"only a part of the answer came: {why or len(body)}")
    return fields.get("x-served-by", "")


async def visitors(name: str, servers: Sequence[str], rate: float) -> None:
    """Sends requests at an even rate, whatever becomes of them, and waits for those under way at the end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    households = [Resolver(name, servers) for _ in range(HOUSEHOLDS)]
    under_way: set[asyncio.Task[None]] = set()
    due, count = time.monotonic(), 0
    while not stop.is_set():
        task = asyncio.create_task(_write(households[count % HOUSEHOLDS]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        count, due = count + 1, due + 1 / rate
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
        except TimeoutError:
            continue
    await asyncio.gather(*under_way)


async def _write(resolver: Resolver) -> None:
    request = await visit(resolver)
    sys.stdout.write(json.dumps(request.__dict__) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Summary:
    """What came of all requests. ``second_tries``: those that another address than the first one answered."""

    requests: int
    failed: tuple[Request, ...]
    second_tries: int
    by_machine: Counter[str]
    longest: float

    def __str__(self) -> str:
        failures = "".join(f"\n  {r.at:.2f} {r.why} {list(r.tried)}" for r in self.failed[:20])
        return (
            f"{self.requests} requests, {len(self.failed)} failed, {self.second_tries} answered by a second address, "
            f"longest {self.longest:.2f} s, by {dict(self.by_machine)}{failures}"
        )


def summarise(lines: Iterable[str]) -> Summary:
    """The summary of a client's output."""
    requests = [Request(**{**json.loads(line), "tried": tuple(json.loads(line)["tried"])}) for line in lines]
    return Summary(
        len(requests),
        tuple(r for r in requests if not r.ok),
        sum(r.ok and bool(r.tried) for r in requests),
        Counter(r.served_by for r in requests if r.ok),
        max((r.seconds for r in requests), default=0.0),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.client", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--server", action="append", required=True, help="an authoritative name server's address")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    arguments = parser.parse_args(argv)
    asyncio.run(visitors(arguments.name, arguments.server, arguments.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
