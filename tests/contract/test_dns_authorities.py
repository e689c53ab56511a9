"""The authoritative servers as asked: the reading of answers by table, the rest against a real Knot on loopback."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hasite.dns import delegations
from hasite.dns.authorities import DnsAuthorities, without_dead_family
from hasite.dns.delegations import Delegations, Servers
from hasite.dns.queries import Silent, reading
from hasite.plan.world import Answer, Unknown

ZONE, NAME, OWNER = "example.test", "shop.example.test", "_hasite.shop.example.test"
KNOTD = shutil.which("knotd") or shutil.which("knotd", path="/usr/sbin")
needs_knot = pytest.mark.skipif(KNOTD is None, reason="knotd is not installed (apt-get install knot)")


def response(*answers: str, rcode: int = dns.rcode.NOERROR, aa: bool = True) -> dns.message.Message:
    made = dns.message.make_response(dns.message.make_query(NAME, "A"))
    made.set_rcode(dns.rcode.Rcode(rcode))
    made.flags |= dns.flags.AA if aa else 0
    for text in answers:
        name, rdtype, *data = text.split(" ", 2)
        made.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", rdtype, *data))
    return made


@pytest.mark.parametrize(
    ("case", "message", "rdtype", "expected"),
    [
        ("an address", response(f"{NAME} A 192.0.2.1"), RdataType.A, {"192.0.2.1"}),
        ("the case of a name does not matter", response(f"{NAME.upper()} A 192.0.2.1"), RdataType.A, {"192.0.2.1"}),
        ("a text in two strings", response(f'{NAME} TXT "own" "er"'), RdataType.TXT, {"owner"}),
        ("a text with a terminal escape", response(f'{NAME} TXT "a\\027[2Jb"'), RdataType.TXT, {"a\ufffd[2Jb"}),
        ("no data", response(), RdataType.A, set()),
        ("no such name", response(rcode=dns.rcode.NXDOMAIN), RdataType.A, set()),
        ("another name's data", response(f"other.{ZONE} A 192.0.2.1"), RdataType.A, set()),
        ("an alias", response(f"{NAME} CNAME other.{ZONE}."), RdataType.A, None),
        ("a lame server", response(f"{NAME} A 192.0.2.1", aa=False), RdataType.A, None),
        ("a referral", response(aa=False), RdataType.A, None),
        ("no such name, from a cache", response(rcode=dns.rcode.NXDOMAIN, aa=False), RdataType.A, None),
        ("refused", response(rcode=dns.rcode.REFUSED), RdataType.A, None),
        ("failed", response(rcode=dns.rcode.SERVFAIL), RdataType.A, None),
    ],
)
def test_only_an_authoritative_answer_says_anything(
    case: str, message: dns.message.Message, rdtype: RdataType, expected: set[str] | None
) -> None:
    said = reading(message, dns.name.from_text(NAME), rdtype)
    assert isinstance(said, Unknown) if expected is None else said == frozenset(expected), case


GOOD, SILENT, LAME = Answer(frozenset({"192.0.2.1"})), Silent("no answer"), Unknown("is not authoritative")
TWO = {"ns1": ("192.0.2.53", "2001:db8::53"), "ns2": ("198.51.100.53", "2001:db8:1::53")}
ONLY_SIX = {"ns1": ("192.0.2.53",), "ns2": ("2001:db8:1::53",)}


@pytest.mark.parametrize(
    ("case", "servers", "said", "kept"),
    [
        ("no IPv6 here", TWO, [GOOD, SILENT, GOOD, SILENT], ["192.0.2.53", "198.51.100.53"]),
        ("no IPv6 here and one server down", TWO, [GOOD, SILENT, SILENT, SILENT], ["192.0.2.53", "198.51.100.53"]),
        ("one address of IPv6 is silent", TWO, [GOOD, GOOD, GOOD, SILENT], None),
        ("IPv6 answers, badly", TWO, [GOOD, LAME, GOOD, LAME], None),
        ("nobody answers", TWO, [SILENT, SILENT, SILENT, SILENT], None),
        ("a server has IPv6 only", ONLY_SIX, [GOOD, SILENT], None),
        ("no IPv4 here", TWO, [SILENT, GOOD, SILENT, GOOD], ["2001:db8:1::53", "2001:db8::53"]),
    ],
)
def test_a_family_is_left_out_only_when_it_is_dead_and_hides_no_server(
    case: str, servers: dict[str, tuple[str, ...]], said: list[Answer | Unknown], kept: list[str] | None
) -> None:
    addresses = [address for found in servers.values() for address in found]
    result = without_dead_family(servers, dict(zip(addresses, said, strict=True)))
    assert sorted(result) == sorted(kept or addresses), case


def free_port(*addresses: str) -> int:
    """A port that is free at all addresses, for UDP and TCP."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server((addresses[0], 0)))
            port: int = first.getsockname()[1]
            try:
                for address in addresses:
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((address, port))
                    if address != addresses[0]:
                        stack.enter_context(socket.create_server((address, port)))
            except OSError:
                continue
            return port


def zone_file(servers: dict[str, str], *records: str) -> str:
    lines = [f"{ZONE}. 60 SOA ns1.{ZONE}. hostmaster.{ZONE}. 1 3600 600 86400 60"]
    for name, address in servers.items():
        lines += [f"{ZONE}. 60 NS {name}.{ZONE}.", f"{name}.{ZONE}. 60 A {address}"]
    return "\n".join([*lines, *records, ""])


class Knot:
    """A knotd process of its own in a directory of its own."""

    def __init__(self, directory: Path, address: str, port: int, zone: str, origin: str) -> None:
        self.address, self.port, self.origin = address, port, origin
        directory.mkdir()
        (directory / "zone").write_text(zone)
        (directory / "knot.conf").write_text(
            f"server:\n  rundir: {directory}\n  listen: {address}@{port}\n"
            f"database:\n  storage: {directory}\n"
            f"log:\n  - target: stderr\n    any: error\n"
            f"zone:\n  - domain: {origin}\n    file: {directory}/zone\n    journal-content: none\n"
        )
        assert KNOTD is not None
        self.process = subprocess.Popen([KNOTD, "-c", str(directory / "knot.conf")])
        self._wait()

    def _wait(self) -> None:
        query, deadline = dns.message.make_query(self.origin, "SOA"), time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "knotd ended"
            with contextlib.suppress(Exception):
                if dns.query.udp(query, self.address, 0.2, self.port).answer:
                    return
        raise AssertionError("knotd did not answer")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def knot(directory: Path, address: str, port: int, zone: str, origin: str = ZONE) -> Iterator[Knot]:
    server = Knot(directory, address, port, zone, origin)
    try:
        yield server
    finally:
        server.stop()


FIRST, SECOND = "127.0.0.11", "127.0.0.12"
RECORDS = (
    f"{NAME}. 60 A 192.0.2.1",
    f"{NAME}. 60 A 198.51.100.1",
    f"{NAME}. 60 AAAA 2001:db8::1",
    f'{OWNER}. 60 TXT "owner=uid:1"',
)
EVERYTHING = Answer(frozenset({"192.0.2.1", "198.51.100.1", "2001:db8::1"}), frozenset({"owner=uid:1"}))


@needs_knot
async def test_every_server_is_asked_itself_for_addresses_and_owner(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)
    servers = {"ns1": FIRST, "ns2": SECOND}
    behind = zone_file(servers, RECORDS[0], RECORDS[3])
    with (
        knot(tmp_path / "1", FIRST, port, zone_file(servers, *RECORDS)),
        knot(tmp_path / "2", SECOND, port, behind),
    ):
        authorities = DnsAuthorities([f"{FIRST}:{port}"], port=port)
        assert await authorities.ask(ZONE, NAME, OWNER) == {
            FIRST: EVERYTHING,
            SECOND: Answer(frozenset({"192.0.2.1"}), frozenset({"owner=uid:1"})),
        }
        nothing = Answer(frozenset(), frozenset())
        assert await authorities.ask(f"{ZONE}.", f"none.{ZONE}.", f"none.{ZONE}") == {FIRST: nothing, SECOND: nothing}


@needs_knot
async def test_a_truncated_answer_is_asked_for_again_over_tcp(tmp_path: Path) -> None:
    port = free_port(FIRST)
    many = [f"{NAME}. 60 A 192.0.2.{number}" for number in range(1, 200)]
    with knot(tmp_path / "1", FIRST, port, zone_file({"ns1": FIRST}, *many)):
        said = await DnsAuthorities([f"{FIRST}:{port}"], port=port).ask(ZONE, NAME, OWNER)
    answer = said[FIRST]
    assert isinstance(answer, Answer)
    assert len(answer.addresses) == 199


@asynccontextmanager
async def mute(address: str, port: int) -> AsyncIterator[None]:
    """A server that takes questions and answers none."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(address, port))
    try:
        yield
    finally:
        transport.close()


@needs_knot
async def test_a_server_that_does_not_answer_is_unknown_after_a_second_and_delays_no_other(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)
    zone = zone_file({"ns1": FIRST, "ns2": SECOND}, *RECORDS)
    with knot(tmp_path / "1", FIRST, port, zone):
        authorities = DnsAuthorities([f"{FIRST}:{port}"], port=port)
        async with mute(SECOND, port):
            began = time.monotonic()
            said = await authorities.ask(ZONE, NAME, OWNER)
            assert time.monotonic() - began < 2.5
        assert said[FIRST] == EVERYTHING
        assert isinstance(said[SECOND], Unknown)


@needs_knot
async def test_a_server_that_does_not_serve_the_zone_is_unknown(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)
    zone = zone_file({"ns1": FIRST, "ns2": SECOND}, *RECORDS)
    other = "other.test. 60 SOA ns1.other.test. hostmaster.other.test. 1 3600 600 86400 60\nother.test. 60 NS x.test.\n"
    with knot(tmp_path / "1", FIRST, port, zone), knot(tmp_path / "2", SECOND, port, other, origin="other.test"):
        said = await DnsAuthorities([f"{FIRST}:{port}"], port=port).ask(ZONE, NAME, OWNER)
    assert said[FIRST] == EVERYTHING
    refused = said[SECOND]
    assert isinstance(refused, Unknown)
    assert "REFUSED" in refused.why


@needs_knot
async def test_servers_that_were_learnt_are_still_asked_when_the_resolver_fails(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)
    zone = zone_file({"ns1": SECOND}, *RECORDS)
    now = 0.0
    with knot(tmp_path / "2", SECOND, port, zone):
        with knot(tmp_path / "1", FIRST, port, zone):
            authorities = DnsAuthorities([f"{FIRST}:{port}"], port=port, clock=lambda: now)
            assert await authorities.ask(ZONE, NAME, OWNER) == {SECOND: EVERYTHING}
        now = 3600.0
        assert await authorities.ask(ZONE, NAME, OWNER) == {SECOND: EVERYTHING}


async def test_a_zone_whose_servers_cannot_be_learnt_says_why() -> None:
    port = free_port(FIRST)
    said = await DnsAuthorities([f"{FIRST}:{port}"], port=port).ask(ZONE, NAME, OWNER)
    assert list(said) == [ZONE]
    why = said[ZONE]
    assert isinstance(why, Unknown)
    assert ZONE in why.why


@needs_knot
async def test_a_server_without_an_address_stands_there_by_its_name(tmp_path: Path) -> None:
    port = free_port(FIRST)
    zone = zone_file({"ns1": FIRST}, *RECORDS, f"{ZONE}. 60 NS gone.{ZONE}.")
    with knot(tmp_path / "1", FIRST, port, zone):
        said = await DnsAuthorities([f"{FIRST}:{port}"], port=port).ask(ZONE, NAME, OWNER)
    assert said[FIRST] == EVERYTHING
    assert isinstance(said[f"gone.{ZONE}"], Unknown)


LONG = ".".join(["a" * 63] * 3 + ["a" * 53])


@pytest.mark.parametrize(("name", "owner"), [(NAME, f"_hasite.b{LONG}"), ("a..b", OWNER), ("a" * 64, OWNER)])
async def test_a_name_that_dns_cannot_carry_is_unknown(name: str, owner: str) -> None:
    said = await DnsAuthorities(["127.0.0.1:1"]).ask(ZONE, name, owner)
    assert list(said) == [ZONE]
    assert isinstance(said[ZONE], Unknown)


async def test_only_the_zones_that_were_asked_for_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegations, "MAX_ZONES", 3)
    asked: list[str] = []

    async def look_up(self: Delegations, zone: str, known: Servers) -> Servers:
        asked.append(zone)
        return {"ns1": (FIRST,)}

    monkeypatch.setattr(Delegations, "_look_up", look_up)
    known = Delegations(["127.0.0.1:1"], lambda: 0.0)
    for zone in ("a", "b", "c", "a", "d", "a", "b"):
        assert await known.servers(zone) == {"ns1": (FIRST,)}
    assert asked == ["a", "b", "c", "d", "b"]
