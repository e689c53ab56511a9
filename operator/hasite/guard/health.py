"""What proxies, Prometheus and people on the machine may ask the guard. Answered from memory; nothing is changed here.

HTTP for proxies (plain, without secrets): 200 or 503 for each path of ``verdicts``, and ``/metrics``. A Unix socket for
people and the operator: whatever line is said, it answers with the whole status as JSON, and hangs up.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hasite.guard.messages import Beat
from hasite.guard.model import Vote
from hasite.guard.transport import Address, bind
from hasite.guard.wire import dump

PORT = 7432

_LONGEST = 8192
_MOST = 200
_PATIENCE = 2.0


@dataclass(frozen=True)
class Status:
    """A guard at one moment. ``version``: of the guard itself; ``promotions``: since it started; ``error``: what keeps
    the server from being what it is to be. ``local``: of a ring, each app is led to its own location."""

    beat: Beat
    vote: Vote
    cluster: str
    engine: str
    version: str
    promotions: int
    connected: tuple[str, ...]
    error: str
    local: bool = False


def verdicts(beat: Beat, local: bool = False) -> dict[str, bool]:
    """What each path says. A primary is one with a lease: a proxy that hears 503 cuts its connections."""
    database = beat.database
    if beat.role == "ring":
        return _of_ring(beat, local)
    primary = beat.lease_left > 0 and beat.role == "primary" and database.state == "primary" and not database.read_only
    replica = database.state == "standby" and database.streaming
    return {"/primary": primary, "/read-write": primary, "/replica": replica, "/health": primary or replica}


def _of_ring(beat: Beat, local: bool) -> dict[str, bool]:
    """Every member takes writes; apps are led to the one with the lease, or, ``local``, to any that also receives what
    others write. Whoever has the lease is led to in any case: when all have a conflict, one must go on."""
    database = beat.database
    writable = database.state == "primary" and not database.read_only
    leads = writable and beat.lease_left > 0
    primary = leads or (writable and local and database.conflict is None)
    replica = writable and not primary and database.streaming
    return {"/primary": primary, "/read-write": primary, "/replica": replica, "/health": primary or replica}


def metrics(status: Status) -> str:
    """Prometheus' text format."""
    beat, database = status.beat, status.beat.database
    labels = f'cluster="{_quoted(status.cluster)}",member="{_quoted(beat.sender)}"'
    lines: list[str] = []

    def say(name: str, text: str, value: float | None, kind: str = "gauge") -> None:
        if value is not None:
            full = f"hasite_guard_{name}"
            lines.append(f"# HELP {full} {text}\n# TYPE {full} {kind}\n{full}{{{labels}}} {value:g}\n")

    say("epoch", "The newest epoch that this guard has granted or heard of.", beat.epoch)
    say("lease_left_seconds", "What is left of this member's lease; 0 without one.", beat.lease_left)
    leads = verdicts(beat, status.local)["/primary"]
    say("primary", "Whether this member is the primary, with a valid lease; of a local ring, one of them.", leads)
    say("conflict", "Whether what others wrote can't be applied here.", database.conflict is not None)
    say("streaming", "Whether a live stream comes in.", database.streaming)
    say("followers", "Members that stream from this one.", len(database.followers))
    say("lag_bytes", "Received and not yet replayed, or sent and not yet received.", database.lag_bytes)
    say("lag_seconds", "How far this member is behind.", database.lag_seconds)
    say("sync_required", "Members that a write waits for.", beat.sync.required if beat.sync else None)
    say("promotions_total", "Times that this member became primary.", status.promotions, "counter")
    say("peers_connected", "Guards and the operator that are connected.", len(status.connected))
    say("saved", "Copies of what this member alone had.", beat.saved_count)
    say("error", "Whether the server can't be brought to where it is to be.", bool(status.error))
    name = "hasite_guard_state"
    lines.append(f"# HELP {name} What the server is.\n# TYPE {name} gauge\n")
    lines.append(f'{name}{{{labels},state="{database.state}",role="{beat.role}"}} 1\n')
    return "".join(lines)


def status_text(status: Status) -> str:
    """JSON with the verdicts beside it."""
    value = {**dump(status), "verdicts": verdicts(status.beat, status.local)}
    return json.dumps(value, indent=1) + "\n"


class Health:
    """``look`` gives the status of the moment."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._servers: list[asyncio.Server] = []
        self._open = 0

    async def start(self, listen: Address | None, path: Path | None) -> int:
        """Returns the HTTP port: 0 takes a free one. Raises OSError."""
        port = 0
        if listen is not None:
            bound = bind(listen)
            port = int(bound.getsockname()[1])
            self._servers.append(await asyncio.start_server(self._http, sock=bound, limit=_LONGEST))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._servers.append(await asyncio.start_unix_server(self._tell, path=str(path), limit=_LONGEST))
            os.chmod(path, 0o600)
        return port

    async def close(self) -> None:
        """Takes no more questions."""
        for server in self._servers:
            server.close()

    def answer(self, line: str) -> tuple[int, str, str]:
        """Status, content type and body for a request line."""
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD", "OPTIONS"):
            return 405, "text/plain", "only GET, HEAD and OPTIONS\n"
        status = self._look()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics(status)
        verdict = verdicts(status.beat, status.local).get(path)
        if verdict is None:
            return 404, "text/plain", "not found\n"
        beat = status.beat
        return 200 if verdict else 503, "text/plain", f"{beat.sender}: {beat.database.state}, epoch {beat.epoch}\n"

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST:
                async with asyncio.timeout(_PATIENCE):
                    request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line = request.partition("\r\n")[0]
                code, kind, body = self.answer(line)
                writer.write(_response(code, kind, body.encode(), head=line.startswith("HEAD ")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_PATIENCE):
                await reader.readline()
            writer.write(status_text(self._look()).encode())
            await writer.drain()
        writer.close()


def _response(code: int, kind: str, body: bytes, *, head: bool) -> bytes:
    reason = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}[code]
    top = (
        f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return top.encode() + (b"" if head else body)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
