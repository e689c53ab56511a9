"""An event loop whose clock stands still while anything runs, and jumps to the next timer when nothing does.

A scenario of minutes runs in milliseconds, and the same scenario runs the same way every time.
"""

import asyncio
import random
import selectors
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""Unix time at which every simulated world begins."""


MOST_ROUNDS = 10
"""Of cancellations: a task may begin others while it ends."""


class Deadlock(BaseException):
    """Nothing will ever happen again: every task waits for another one."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting for a timer it moves the clock there. Not epoll: a forked process gets a copy of its own."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self.now += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """For work that touches no socket, file or thread."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._jump.now


def now() -> float:
    """Simulated Unix time."""
    return EPOCH + asyncio.get_running_loop().time()


def monotonic() -> float:
    """In place of ``time.monotonic``."""
    return asyncio.get_running_loop().time()


def run(work: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """Runs to the end in a loop of its own, with the module ``random`` seeded."""
    random.seed(seed)
    loop = SimulatedLoop()
    loop.set_exception_handler(_only_surprises)
    try:
        return loop.run_until_complete(work)
    finally:
        end(loop)


def _only_surprises(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The tasks of a killed process end with its end, and nobody asks them how."""
    if isinstance(context.get("exception"), Exception):
        loop.default_exception_handler(context)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Gives up what still runs, with nothing left half-way for the garbage collector to end."""
    for _ in range(MOST_ROUNDS):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        with suppress(Deadlock):
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
