"""Messages over real TLS connections on loopback."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hasite.guard.door import EACH
from hasite.guard.link import OPERATOR_CERTIFICATE, Line, Link, Tls
from hasite.guard.messages import Beat, Message, Release, Renew, Yield
from hasite.guard.model import OPERATOR, Database
from hasite.guard.transport import SILENCE, Transport
from hasite.guard.wire import LARGEST, encode

from tests.guard.pki import Authority
from tests.guard.waiting import until

AUTHORITY = Authority()


@dataclass
class End:
    """A transport with what it received."""

    transport: Transport
    tls: Tls
    port: int = 0
    received: list[Message] = field(default_factory=list)


@contextlib.asynccontextmanager
async def end(
    folder: Path,
    name: str,
    *,
    authority: Authority = AUTHORITY,
    certificate: str = "",
    listen: str | None = "127.0.0.1",
) -> AsyncIterator[End]:
    tls = authority.issue(folder / f"{name}-{certificate}", certificate or name)
    received: list[Message] = []
    made = End(Transport(name, tls, received.append), tls, received=received)
    made.port = await made.transport.start((listen, 0) if listen is not None else None)
    try:
        yield made
    finally:
        await made.transport.close()


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[End, End]]:
    async with end(folder, "a") as a, end(folder, "b") as b:
        a.transport.peers({"a": ("127.0.0.1", a.port), "b": ("127.0.0.1", b.port)})
        b.transport.peers({"a": ("127.0.0.1", a.port), "b": ("127.0.0.1", b.port)})
        await until(lambda: a.transport.connected("b") and b.transport.connected("a"))
        yield a, b


async def test_guards_find_each_other_and_talk_both_ways(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        a.transport.send("b", Renew("a", 1, 2))
        b.transport.send("a", Yield("b", 1))
        await until(lambda: a.received and b.received)
        assert (a.received, b.received) == ([Yield("b", 1)], [Renew("a", 1, 2)])


async def test_the_operator_dials_and_is_answered_on_its_own_connection(tmp_path: Path) -> None:
    async with (
        end(tmp_path, "a") as a,
        end(tmp_path, OPERATOR, certificate=OPERATOR_CERTIFICATE, listen=None) as operator,
    ):
        operator.transport.peers({"a": ("127.0.0.1", a.port)})
        await until(lambda: a.transport.connected(OPERATOR))
        a.transport.send(OPERATOR, Renew("a", 1, 1))
        await until(lambda: operator.received)
        assert operator.received == [Renew("a", 1, 1)]


async def test_a_guard_listens_on_both_families(tmp_path: Path) -> None:
    async with end(tmp_path, "a", listen="") as a, end(tmp_path, "b", listen=None) as b:
        a.transport.peers({"b": ("127.0.0.1", 1)})
        for host in ("127.0.0.1", "::1"):
            b.transport.peers({"a": (host, a.port)})
            await until(lambda: b.transport.connected("a"))
            b.transport.peers({})
            await until(lambda: not b.transport.connected("a"))


async def test_a_name_that_is_not_among_the_peers_is_refused(tmp_path: Path) -> None:
    async with end(tmp_path, "a") as a, end(tmp_path, "stranger", listen=None) as stranger:
        stranger.transport.peers({"a": ("127.0.0.1", a.port)})
        stranger.transport.send("a", Release("stranger", 1))
        await until(lambda: not a.transport.connected("stranger"))
        assert a.received == []


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    async with end(tmp_path, "a") as a, end(tmp_path / "x", "b", authority=Authority("other")) as b:
        for one in (a, b):
            one.transport.peers({"a": ("127.0.0.1", a.port), "b": ("127.0.0.1", b.port)})
        with pytest.raises(TimeoutError):
            await until(lambda: a.received or (a.transport.connected("b") and b.transport.connected("a")), 1.0)


async def test_a_server_with_another_members_certificate_is_hung_up_on(tmp_path: Path) -> None:
    async with end(tmp_path, "a", listen=None) as a, end(tmp_path, "c") as c:
        c.transport.peers({"a": ("127.0.0.1", 1)})
        a.transport.peers({"b": ("127.0.0.1", c.port)})
        with pytest.raises(TimeoutError):
            await until(lambda: a.transport.connected("b"), 0.5)


async def raw(tls: Tls, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls.context(ssl.Purpose.SERVER_AUTH), server_hostname=""
    )


@pytest.mark.parametrize(
    ("said", "text"),
    {
        "for another member": encode(Release("c", 1)),
        "something that is no message": b"hello\n",
        "a line without end": b"x" * (LARGEST + 70_000),
    }.items(),
)
async def test_a_peer_that_misspeaks_is_hung_up_on(tmp_path: Path, said: str, text: bytes) -> None:
    async with end(tmp_path, "a") as a:
        a.transport.peers({"b": ("127.0.0.1", 1), "c": ("127.0.0.1", 1)})
        reader, writer = await raw(AUTHORITY.issue(tmp_path / "b", "b"), a.port)
        writer.write(text)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(3):
                assert await reader.read() == b""
        assert a.received == [], said
        writer.close()


async def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    async with end(tmp_path, "a") as a:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(str(a.tls.ca))
        with pytest.raises(OSError):
            reader, _ = await asyncio.open_connection("127.0.0.1", a.port, ssl=context)
            async with asyncio.timeout(3):
                if await reader.read() == b"":
                    raise OSError


async def test_a_silent_connection_is_dropped_and_a_quiet_one_is_not(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        reader, writer = await raw(AUTHORITY.issue(tmp_path / "b2", "b"), a.port)
        async with asyncio.timeout(SILENCE + 2):
            while await reader.read(100):
                pass
        assert a.transport.connected("b") and b.transport.connected("a")
        writer.close()


async def test_a_guard_that_comes_back_is_found_within_a_second(tmp_path: Path) -> None:
    async with end(tmp_path, "a") as a:
        async with end(tmp_path, "b") as b:
            a.transport.peers({"b": ("127.0.0.1", b.port)})
            b.transport.peers({"a": ("127.0.0.1", a.port)})
            await until(lambda: a.transport.connected("b"))
            port = b.port
        await until(lambda: not a.transport.connected("b"))
        again = Transport("b", b.tls, b.received.append)
        await again.start(("127.0.0.1", port))
        again.peers({"a": ("127.0.0.1", a.port)})
        await until(lambda: a.transport.connected("b"), 1.0)
        await again.close()


async def test_a_new_certificate_is_taken_in_while_the_old_connections_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasite.guard.transport._LOOK", 0.1)
    async with pair(tmp_path) as (a, b):
        other = Authority("the next")
        other.issue(a.tls.ca.parent, "a")
        tls = other.issue(tmp_path / "fresh", "b")

        async def served() -> bool:
            with contextlib.suppress(OSError):
                _, writer = await raw(tls, a.port)
                writer.close()
                return True
            return False

        async with asyncio.timeout(5):
            while True:
                if await served():
                    break
                await asyncio.sleep(0.05)
        assert a.transport.connected("b") and b.transport.connected("a")


async def test_files_that_do_not_fit_leave_the_old_certificate_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hasite.guard.transport._LOOK", 0.1)
    async with end(tmp_path, "a") as a:
        a.transport.peers({"b": ("127.0.0.1", 1)})
        a.tls.key.write_bytes(b"nonsense")
        await until(lambda: "can't be used" in caplog.text)
        _, writer = await raw(AUTHORITY.issue(tmp_path / "b", "b"), a.port)
        writer.close()


class Pipe(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__({"peercert": {"subject": ((("commonName", "b"),),)}})
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def test_while_the_network_takes_no_more_only_the_newest_beat_waits() -> None:
    link = Link(lambda _: True, lambda _: None, lambda _: None)
    pipe = Pipe()
    link.connection_made(pipe)
    link.pause_writing()
    beats = [Beat("a", epoch, "a", 0.0, "standby", Database("standby")) for epoch in range(5)]
    for beat in beats:
        link.send(Line(beat))
        link.send(Line(Release("a", beat.epoch)))
    assert pipe.written == []
    link.resume_writing()
    assert pipe.written == [
        *(encode(Release("a", epoch)) for epoch in range(4)),
        encode(beats[4]),
        encode(Release("a", 4)),
    ]


async def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        transport = Transport("a", AUTHORITY.issue(tmp_path, "a"), lambda _: None)
        with pytest.raises(OSError):
            await transport.start(("127.0.0.1", taken.getsockname()[1]))


async def test_whoever_connects_and_says_nothing_keeps_nobody_else_out(tmp_path: Path) -> None:
    async with end(tmp_path, "a") as a:
        strangers = []
        for _ in range(100):
            stranger = socket.create_connection(("127.0.0.1", a.port), source_address=("127.0.0.9", 0))
            stranger.setblocking(False)
            strangers.append(stranger)
        await until(lambda: sum(hung_up(stranger) for stranger in strangers) >= 100 - EACH, 2.0)
        async with end(tmp_path, "b") as b:
            a.transport.peers({"b": ("127.0.0.1", b.port)})
            b.transport.peers({"a": ("127.0.0.1", a.port)})
            await until(lambda: a.transport.connected("b"), 2.0)
        for stranger in strangers:
            stranger.close()


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
