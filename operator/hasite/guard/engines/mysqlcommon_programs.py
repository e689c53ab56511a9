"""Programs, threads and what programs wrote: what MariaDB's and MySQL's drivers run beside their servers."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hasite.guard.engines.base import EngineError

T = TypeVar("T")


async def run(
    command: list[str], *, user: str | None = None, stdin: int | None = None, stdout: int | None = None
) -> str:
    """What a program wrote, unless ``stdout`` takes it. Raises EngineError with its last words.

    Cancelled: it has ended. ``user``: as whom; root without.
    """
    identity: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/nonexistent"},
        cwd="/",
        start_new_session=True,
        **identity,
    )
    try:
        said, words = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        raise
    if process.returncode:
        text = last_lines(words.decode(errors="replace")) or last_lines((said or b"").decode(errors="replace"))
        raise EngineError(f"{Path(command[0]).name}: {text or f'status {process.returncode}'}")
    return (said or b"").decode(errors="replace")


async def first_lines(command: list[str], most: int = 400) -> list[str]:
    """What a program wrote first; it is ended then."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None  # noqa: S101
        while len(lines) < most and (line := await process.stdout.readline()):
            lines.append(line.decode(errors="replace").rstrip("\n"))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return lines


async def pipe(writing: list[str], reading: list[str]) -> tuple[str | None, str | None]:
    """Runs two programs, one's output the other's input; each one's failure, None when there was none."""
    receiving, sending = os.pipe()

    async def attempt(work: Awaitable[str], *ends: int) -> str | None:
        try:
            await work
        except EngineError as error:
            return str(error)
        finally:
            for end in ends:
                os.close(end)
        return None

    return await _both(
        attempt(run(writing, stdout=sending), sending), attempt(run(reading, stdin=receiving), receiving)
    )


async def _both(first: Awaitable[str | None], second: Awaitable[str | None]) -> tuple[str | None, str | None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_as_task(each)) for each in (first, second)]
    return tasks[0].result(), tasks[1].result()


async def _as_task(work: Awaitable[str | None]) -> str | None:
    return await work


def row_counts(statements: Path) -> dict[str, int]:
    """Of which tables' rows, by the comments that the servers' tools write beside the statements."""
    rows: Counter[str] = Counter()
    with statements.open(errors="replace") as file:
        for line in file:
            if line.startswith("### ") and line.split()[1] in ("INSERT", "UPDATE", "DELETE"):
                verb, table = line.split()[1], line.split()[-1].replace("`", "")
                rows[f"{table} {verb.lower()}"] += 1
    return dict(sorted(rows.items()))


def last_lines(text: str) -> str:
    """The last errors, or else lines, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "[ERROR]" in line]
    return " / ".join((errors or lines)[-2:])[-500:]
