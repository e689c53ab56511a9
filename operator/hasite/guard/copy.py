"""A stream of a member's data to another member, for engines whose own tools bring no transport of their own.

TLS on both sides with the cluster's certificates, as between guards. The asker sends one JSON line; the source answers
with frames, each a length of four bytes and so many bytes; a frame of length 0 ends the data, and a last JSON line says
whether it is whole. A stream that merely stops is never taken for a whole one.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path

from hasite.guard.door import Door, bind
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.link import Tls, identity

FRAME = 1 << 18
SILENCE = 60.0
"""Seconds without a byte after which either side gives up."""

Produce = Callable[[str], AsyncGenerator[bytes, None]]
Admitted = Callable[[str], bool]


def _tls(layout: Layout) -> Tls:
    return Tls(layout.ca, layout.certificate, layout.key)


def peer(writer: asyncio.StreamWriter) -> str:
    """Whom the other side's certificate names; empty: nobody."""
    return identity(writer.get_extra_info("peercert"))


class CopyServer:
    """Gives copies to members, one at a time. ``produce``: the bytes for a kind of copy, raising EngineError."""

    def __init__(self, layout: Layout, address: tuple[str | None, int], produce: Produce, admitted: Admitted) -> None:
        self._layout, self._address = layout, address
        self._produce, self._admitted = produce, admitted
        self._busy = asyncio.Lock()
        self._door: Door | None = None
        self._context: ssl.SSLContext | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises OSError when the port is taken or a certificate is missing."""
        host, port = self._address
        self._context = _tls(self._layout).context(ssl.Purpose.CLIENT_AUTH)
        self._door = Door(bind((host or "", port)), self._context, self._protocol)
        self._door.open()

    def renew(self) -> None:
        """A new certificate is for those who come from now on. Raises OSError when it can't be used."""
        if self._context is not None:
            self._context.load_cert_chain(str(self._layout.certificate), str(self._layout.key))

    def _protocol(self) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=1 << 16), self._serve)

    async def close(self) -> None:
        """Cuts copies that are under way."""
        if self._door is not None:
            self._door.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._clients.add(task)
        try:
            with suppress(OSError, TimeoutError, ValueError):
                await self._answer(reader, writer)
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(10):
            asked = json.loads(await reader.readline())
        verdict: dict[str, object] = {"whole": True}
        if not self._admitted(peer(writer)):
            verdict = {"whole": False, "reason": f"{peer(writer)!r} is no member"}
        elif self._busy.locked():
            verdict = {"whole": False, "reason": "another copy is under way"}
        else:
            async with self._busy:
                try:
                    await self._send(writer, self._produce(str(asked["copy"])))
                except EngineError as error:
                    verdict = {"whole": False, "reason": str(error)}
        writer.write((0).to_bytes(4, "big") + json.dumps(verdict).encode() + b"\n")
        async with asyncio.timeout(SILENCE):
            await writer.drain()
            await reader.read(1)  # until the other side has it and leaves

    async def _send(self, writer: asyncio.StreamWriter, parts: AsyncGenerator[bytes, None]) -> None:
        async with aclosing(parts):
            async for part in parts:
                writer.write(len(part).to_bytes(4, "big") + part)
                async with asyncio.timeout(SILENCE):
                    await writer.drain()


async def receive(
    layout: Layout, source: tuple[str, str, int], kind: str, take: Callable[[bytes], Awaitable[None]]
) -> int:
    """Gives each part of a copy to ``take``; how many bytes it was. ``source``: name, address, port.

    Raises EngineError, with the source's reason when it gave one; what was taken until then is worth nothing.
    """
    name, address, port = source
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                address, port, ssl=_tls(layout).context(ssl.Purpose.SERVER_AUTH), server_hostname=name, limit=FRAME
            )
    except (OSError, TimeoutError) as error:
        raise EngineError(f"no copy from {name}: {error or 'no answer'}") from None
    try:
        if peer(writer) != name:
            raise EngineError(f"no copy from {name}: {address} is {peer(writer)!r}")
        writer.write(json.dumps({"copy": kind}).encode() + b"\n")
        return await _frames(reader, take)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        raise EngineError(f"the copy from {name} broke off: {error or 'silence'}") from None
    finally:
        writer.transport.abort()


async def _frames(reader: asyncio.StreamReader, take: Callable[[bytes], Awaitable[None]]) -> int:
    taken = 0
    while True:
        async with asyncio.timeout(SILENCE):
            size = int.from_bytes(await reader.readexactly(4), "big")
            if size > FRAME:
                raise ValueError("a frame is too long")
            part = await reader.readexactly(size)
        if not size:
            verdict = json.loads(await reader.readline())
            if verdict.get("whole") is not True:
                raise EngineError(f"the source gave no copy: {verdict.get('reason', 'without a reason')}")
            return taken
        await take(part)
        taken += size


async def output(command: list[str], journal: Path) -> AsyncGenerator[bytes, None]:
    """What a program writes; its words go to ``journal``. Raises EngineError when it fails. Ends with its reader."""
    with journal.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=words, limit=FRAME
        )
        try:
            assert process.stdout is not None  # noqa: S101
            while part := await process.stdout.read(FRAME):
                yield part
            if await process.wait():
                said = (await asyncio.to_thread(journal.read_text, errors="replace")).strip().splitlines()
                raise EngineError(f"{command[0]}: {said[-1] if said else process.returncode}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
