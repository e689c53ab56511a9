"""An old PostgreSQL primary with a gigabyte of data comes back from a history of its own: how long, and for what.

Two servers on this machine's loopback, each with its driver as a guard has it; their data are on a memory file system,
as those of the world's machines are.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hasite.guard.engines import postgresql_return
from hasite.guard.engines.postgresql_server import Server, Tools

from e2e.bench.figures import Figure
from e2e.bench.losses import Keep, say
from tests.databases.postgresql_lab import VERSION, Lab, Node, missing, sync

DIVERGED_MEGABYTES = 100
ROWS_A_MEGABYTE = 1000
WITHIN = 600.0

FILL = "INSERT INTO fill SELECT n, repeat(md5(n::text), 30) FROM generate_series(%s::int, %s::int) n"
COPYING = ("pg_rewind", "pg_basebackup")


async def rewinds(runs: int, megabytes: int, keep: Keep) -> None:
    """RuntimeError when this machine can't run servers."""
    if words := missing():
        raise RuntimeError(words)
    times: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    for run in range(runs):
        watch = Stopwatch()
        took, size = await _rewind(megabytes, watch)
        times.append(took)
        for name, seconds in watch.seconds.items():
            phases[name].append(seconds)
        say(f"rewind {run + 1} of {runs}: {took:.1f} s: {watch}")
        note = ", ".join(f"{name} {sum(each) / len(each):.1f}" for name, each in phases.items())
        name = f"PostgreSQL {VERSION}: old primary, {size}, diverged by {DIVERGED_MEGABYTES} MB, back as a standby"
        keep(Figure(name, "s", tuple(times), "under 30", f"by pg_rewind; of it, means in s: {note}"))


class Stopwatch:
    """Seconds by phase of a driver's work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs."""
        with contextlib.ExitStack() as stack:
            for owner, name, phase in (
                (Server, "start", "start and recovery"),
                (postgresql_return, "save", "saving what it alone had"),
                (Server, "recover_alone", "recovery alone"),
                (Tools, "run", ""),
            ):
                stack.enter_context(self._timed(owner, name, phase))
            yield

    @contextlib.contextmanager
    def _timed(self, owner: Any, name: str, phase: str) -> Iterator[None]:
        """``phase`` "": by the name of the program that is run, of those that copy data."""
        original = getattr(owner, name)

        async def timed(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return await original(*arguments, **options)
            finally:
                if what := phase or (arguments[1] if arguments[1] in COPYING else ""):
                    self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - began

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)


async def _rewind(megabytes: int, watch: Stopwatch) -> tuple[float, str]:
    """Seconds from the first push towards the new primary until the stream lives; and what the database holds."""
    lab = Lab.open("ab", shared_buffers="128MB")
    try:
        a, b = lab.nodes.values()
        await a.be("primary", epoch=1, create=True, sync=sync(1, "a", 0))
        await b.be("standby", a, WITHIN, epoch=1)
        a.sql("CREATE TABLE fill (id int PRIMARY KEY, words text NOT NULL)")
        await _fill(a, 0, megabytes)
        await b.seen(lambda database: database.streaming and database.drained, WITHIN)
        size = str(a.sql("SELECT pg_size_pretty(pg_database_size('postgres'))")[0][0])
        await b.be("frozen", within=WITHIN, epoch=1)
        await _fill(a, megabytes, DIVERGED_MEGABYTES)
        a.engine.kill()
        await b.be("primary", within=WITHIN, epoch=2, sync=sync(2, "b", 0))
        await _fill(b, megabytes, DIVERGED_MEGABYTES // 2)
        inode = (a.layout.data / "PG_VERSION").stat().st_ino
        began = time.monotonic()
        with watch.running():
            await a.be("standby", b, WITHIN, epoch=2)
            await a.seen(lambda database: database.streaming, WITHIN)
        took = time.monotonic() - began
        assert (a.layout.data / "PG_VERSION").stat().st_ino == inode, "it was copied afresh, not rewound"
        return took, size
    finally:
        await lab.close()


async def _fill(node: Node, start: int, megabytes: int) -> None:
    """In pieces, so that checkpoints come as they would."""
    step = 50
    for piece in range(start, start + megabytes, step):
        first, last = piece * ROWS_A_MEGABYTE + 1, min(piece + step, start + megabytes) * ROWS_A_MEGABYTE
        await asyncio.to_thread(node.sql, FILL, (first, last))
