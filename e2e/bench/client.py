"""What a measurement of a database needs at the client's place: the local proxy, and the writers behind it."""

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hasite.guard.health import PORT as HEALTH_PORT
from hasite.plan.proxies import DatabaseMember, DatabaseProxyModel
from hasite.proxies.haproxy_database import HOST, render_database
from hasite.proxies.haproxy_render import Layout

from e2e.bench.writer import Attempt
from e2e.histories.stores import Server
from e2e.site import Stage, eventually
from e2e.world.world import ROOT

PLACE = "client"


def app_proxy(members: Sequence[tuple[str, str]], port: int, folder: Path) -> str:
    """The configuration that HASite gives to app servers, for these names and addresses."""
    model = DatabaseProxyModel(
        "bench", PLACE, tuple(DatabaseMember(*each) for each in members), port, HEALTH_PORT, "0" * 64
    )
    layout = Layout(str(folder / "haproxy.cfg"), str(folder / "admin.sock"), str(folder / "states"))
    return render_database(model, layout).decode()


@contextlib.asynccontextmanager
async def proxy(stage: Stage, config: str, port: int, folder: Path) -> AsyncIterator[None]:
    """HAProxy at the client's place while the block runs; it listens at 127.0.0.1:``port``."""
    file = folder / "haproxy.cfg"
    file.write_text(config)
    with (folder / "haproxy.log").open("wb") as log:
        process = stage.world.run_at(PLACE, ["haproxy", "-W", "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        await eventually(lambda: _listens(stage, port), 10, "HAProxy listens", 0.1)
        yield
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 5)
        except subprocess.TimeoutExpired:
            process.kill()


async def _listens(stage: Stage, port: int) -> bool:
    _, listeners = await stage.world.output_at(PLACE, "ss", "-Hltn", f"sport = {port}")
    return HOST in listeners or "*" in listeners


class Log:
    """What the writers have told so far. ``lost``: acknowledged and gone; known only after their end."""

    def __init__(self, file: Path, process: "subprocess.Popen[bytes]") -> None:
        self._file = file
        self._process = process
        self._read = 0
        self.attempts: list[Attempt] = []
        self.lost: int | None = None
        self.acknowledged = 0

    def look(self) -> list[Attempt]:
        """All attempts; those that came since the last look are read."""
        with self._file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            found = json.loads(line)
            if "missing" in found:
                self.lost, self.acknowledged = len(found["missing"]), found["acknowledged"]
            else:
                self.attempts.append(Attempt(**found))
        return self.attempts

    async def first(self, since: float, other_than: str = "", within: float = 90.0) -> Attempt:
        """The first that was begun since then and acknowledged, by another server. AssertionError: none in time."""
        found: Attempt = (
            await eventually(functools.partial(self._first, since, other_than), within, "a write is accepted", 0.05)
        )[0]
        return found

    def _first(self, since: float, other_than: str) -> Attempt | None:
        assert self._process.poll() is None, "the writers ended"
        good = (a for a in self.look() if a.node and a.node != other_than and a.began >= since)
        return min(good, key=lambda attempt: attempt.ended, default=None)

    def pause(self, before: str, since: float) -> float:
        """Seconds between the last write that ``before`` acknowledged and the first that another server did."""
        good = [a for a in self.look() if a.node and a.ended >= since]
        last = max(a.ended for a in good if a.node == before)
        return min(a.ended for a in good if a.node != before) - last


@contextlib.asynccontextmanager
async def writers(stage: Stage, engine: str, server: Server) -> AsyncIterator[Log]:
    """They write while the block runs. After it the database is to take writes again within a minute."""
    with tempfile.TemporaryDirectory(prefix="hasite-writers-") as name:
        folder = Path(name)
        about, output, words = folder / "server.json", folder / "attempts.jsonl", folder / "words"
        about.write_text(json.dumps(asdict(server)))
        argv = [sys.executable, "-m", "e2e.bench.writer", engine]
        with about.open("rb") as given, output.open("wb") as out, words.open("wb") as err:
            process = stage.world.run_at(PLACE, argv, stdin=given, stdout=out, stderr=err, cwd=ROOT)
        log = Log(output, process)
        try:
            await log.first(0.0, within=30)
            yield log
        except AssertionError as error:
            raise AssertionError(f"{error}; {words.read_text()[-500:]}; {log.attempts[-1:]}") from error
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 75)
            except subprocess.TimeoutExpired:
                process.kill()
            log.look()


def now() -> float:
    """Of the clock that the writers use too."""
    return time.monotonic()
