"""Work that is not left half done when who waits for it is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Not cancelled half-way, but finished before the cancellation goes on: ``work`` ends soon, or with the server."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """For what waits for the disk. When it is cancelled, ``work`` has ended all the same."""
    return await to_the_end(asyncio.to_thread(work, *arguments))
