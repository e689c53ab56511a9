"""The operator's own probes, against real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from hasite.machines.base import Target
from hasite.reconcilers.watch import Watcher, WatchTarget

from tests.fakes.machines import FakeMachines, FakeWorld

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]

OWNER = ("LoadBalancerPool", "shop", "shop")


async def ok(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


@asynccontextmanager
async def probing(answer: Answer, limit: float = 0.8) -> AsyncIterator[Watcher]:
    connections = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answer(connections, writer)

    async def observe(*_: object) -> object:
        raise AssertionError("no machine is reached here")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    watcher = Watcher(FakeMachines(FakeWorld()), observe, lambda *_: None, probe_port=port)  # type: ignore[arg-type]
    machine = Target("lb", "127.0.0.1", ())
    watcher.follow(OWNER, [WatchTarget(machine, None, ("127.0.0.1",), interval=0.1, timeout=limit)])
    try:
        yield watcher
    finally:
        await watcher.close()
        server.close()


async def verdict(watcher: Watcher, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while (probe := watcher.probe("127.0.0.1")) is None or probe.up is not wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_two_lost_connections_of_three_do_not_make_a_probe_fail() -> None:
    async def every_third(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 3 == 0:
            await ok(writer)

    async with probing(every_third) as watcher:
        await verdict(watcher, True)
        probe = watcher.probe("127.0.0.1")
        assert probe is not None
        assert probe.failing_since is None


async def test_an_address_that_never_answers_is_down_within_three_patiences() -> None:
    async def never(number: int, writer: asyncio.StreamWriter) -> None:
        pass

    loop = asyncio.get_running_loop()
    async with probing(never, 0.2) as watcher:
        began = loop.time()
        await verdict(watcher, False)
        assert loop.time() - began < 3 * 0.2 + 1.0


async def test_a_bad_answer_counts_at_once() -> None:
    async def broken(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    async with probing(broken, 30.0) as watcher:
        began = loop.time()
        await verdict(watcher, False)
        assert loop.time() - began < 7.5  # a quarter of the patience, when a second connection would be opened
        probe = watcher.probe("127.0.0.1")
        assert probe is not None
        assert probe.detail == "answered 503"
