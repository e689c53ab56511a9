"""Small HTTP servers and a client on loopback, for the tests of proxies."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class App:
    """An app server that says its name. ``healthy`` decides its check; ``served`` counts requests that are no check."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    healthy: bool = True
    served: int = 0
    checked: int = 0
    hang_up: bool = False
    gate: asyncio.Event | None = None
    headers: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "App":
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        if "user-agent: hasite" in head.lower():
            self.checked += 1
            writer.write(_answer(200 if self.healthy else 503, "check"))
        else:
            self.served += 1
            self.headers = head.splitlines()
            if self.gate is not None:
                await self.gate.wait()
            if not self.hang_up:
                writer.write(_answer(200, self.name))
        writer.close()


def _answer(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


async def fetch(port: int, path: str = "/", method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body; (0, why) when the connection was refused or reset."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: shop.example.com\r\n{length}Connection: close\r\n\r\n".encode()
        )
        answer = (await reader.read()).decode()
        writer.close()
    except OSError as error:
        return 0, str(error)
    head, _, body = answer.partition("\r\n\r\n")
    return (int(head.split()[1]), body) if head else (0, "no answer")


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Waits until the condition holds; fails at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() > deadline:
            raise AssertionError("the condition did not become true")
        await asyncio.sleep(0.05)
