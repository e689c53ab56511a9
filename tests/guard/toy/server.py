"""The server: ``python -I -S server.py FOLDER PORT NAME``. Its history is ``FOLDER/log``: lines of epoch and value.

On its port, a line is a request. ``WRITE value`` is answered ``OK epoch`` once as many standbys as wanted have it, or
``READONLY``. ``FOLLOW name length digest`` begins a stream from that length on, or is answered ``DIVERGED``.
On ``FOLDER/control``, a Unix socket, a line of JSON is an order of the driver's, answered by how the server is.
It starts as a standby that follows nobody.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
from typing import Any


class Server:
    """One history; ``offset`` is its number of lines."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name
        self.lines: list[bytes] = []
        with contextlib.suppress(FileNotFoundError), open(f"{folder}/log", "rb") as file:
            self.lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        self.file = open(f"{folder}/log", "ab", buffering=0)  # noqa: SIM115
        self.primary = False
        self.eligible: list[str] = []
        self.required = 0
        self.acknowledged: dict[str, int] = {}
        self.changed = asyncio.Condition()
        self.upstream: dict[str, Any] | None = None
        self.streaming = self.diverged = False
        self.following: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int:
        return int(self.lines[-1].split(b" ")[0]) if self.lines else 0

    def digest(self, length: int) -> str:
        return hashlib.sha256(b"".join(self.lines[:length])).hexdigest()

    async def append(self, line: bytes) -> None:
        self.file.write(line)
        self.lines.append(line)
        async with self.changed:
            self.changed.notify_all()

    def confirmed(self, length: int) -> bool:
        able = [name for name, had in self.acknowledged.items() if had >= length and name in self.eligible]
        return len(able) >= self.required

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                word, *rest = line.decode().split()
                if word == "FOLLOW":
                    await self.stream(reader, writer, rest)
                    break
                writer.write(await self.write(rest[0]))
                await writer.drain()
        writer.close()

    async def write(self, value: str) -> bytes:
        if not self.primary:
            return b"READONLY\n"
        epoch = self.epoch
        await self.append(f"{epoch} {value}\n".encode())
        length = len(self.lines)
        async with self.changed:
            await self.changed.wait_for(lambda: self.confirmed(length))
        return f"OK {epoch}\n".encode()

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: list[str]) -> None:
        name, sent, digest = rest[0], int(rest[1]), rest[2]
        if sent > len(self.lines) or self.digest(sent) != digest:
            writer.write(b"DIVERGED\n")
            return
        writer.write(b"STREAM\n")
        self.acknowledged[name] = sent
        listening = asyncio.ensure_future(self.listen(reader, name))
        try:
            while not listening.done():
                fresh = self.lines[sent:]
                writer.write(b"".join(fresh))
                sent += len(fresh)
                async with self.changed:
                    self.changed.notify_all()
                    if sent == len(self.lines):
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self.changed.wait(), 0.2)
        finally:
            listening.cancel()
            self.acknowledged.pop(name, None)

    async def listen(self, reader: asyncio.StreamReader, name: str) -> None:
        while line := await reader.readline():
            self.acknowledged[name] = int(line)
            async with self.changed:
                self.changed.notify_all()

    async def follow(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.receive()
            self.streaming = False
            await asyncio.sleep(0.1)

    async def receive(self) -> None:
        assert self.upstream is not None
        reader, writer = await asyncio.open_connection(self.upstream["host"], self.upstream["port"])
        try:
            length = len(self.lines)
            writer.write(f"FOLLOW {self.name} {length} {self.digest(length)}\n".encode())
            self.diverged = await reader.readline() == b"DIVERGED\n"
            self.streaming = not self.diverged
            while self.streaming:
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    break
                await self.append(line)
                writer.write(f"{len(self.lines)}\n".encode())
        finally:
            writer.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            match order["do"]:
                case "follow":
                    await self.follow_nobody()
                    self.upstream = order["upstream"]
                    if self.upstream is not None:
                        self.following = asyncio.ensure_future(self.follow())
                case "lead":
                    await self.follow_nobody()
                    self.eligible, self.required = order["eligible"], order["required"]
                    if not self.primary:
                        await self.append(f"{order['epoch']} reign-of-{self.name}\n".encode())
                        self.primary = True
            writer.write(json.dumps(self.look()).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def follow_nobody(self) -> None:
        if self.following is not None:
            self.following.cancel()
            await asyncio.wait({self.following})
        self.following = self.upstream = None
        self.streaming = self.diverged = False

    def look(self) -> dict[str, Any]:
        return {
            "primary": self.primary,
            "epoch": self.epoch,
            "offset": len(self.lines),
            "upstream": self.upstream and self.upstream["name"],
            "streaming": self.streaming,
            "diverged": self.diverged,
            "followers": [name for name, had in self.acknowledged.items() if had >= len(self.lines) - 5],
        }


async def main(folder: str, port: int, name: str) -> None:
    server = Server(folder, name)
    await asyncio.start_server(server.client, "127.0.0.1", port)
    with contextlib.suppress(FileNotFoundError):
        import os

        os.unlink(f"{folder}/control")
    await asyncio.start_unix_server(server.control, f"{folder}/control")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
