"""One client per token, whoever asks for it: so that its rate limit is counted once and its listings are read once."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable

from hasite.clouds.digitalocean import ENDPOINT, DigitalOcean
from hasite.clouds.metrics import ApiMetrics

_log = logging.getLogger(__name__)

IDLE = 900.0
"""Seconds for which nobody asked for a client that may be closed: longer than any reconcile takes."""


class Accounts:
    """Clients by the hash of their token. What ``get`` returns is not to be kept: it is closed when idle for long."""

    def __init__(
        self,
        endpoint: str = ENDPOINT,
        metrics: ApiMetrics | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._metrics = metrics
        self._clock = clock
        self._clients: dict[str, DigitalOcean] = {}
        self._used: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, token: str) -> DigitalOcean:
        """The client of this token. Begins to close those that are idle, so it is called within the event loop."""
        key = hashlib.sha256(token.encode()).hexdigest()
        self._used[key] = self._clock()
        self._close_idle(self._clock() - IDLE)
        if key not in self._clients:
            self._clients[key] = DigitalOcean(token, self._endpoint, clock=self._clock, metrics=self._metrics)
        return self._clients[key]

    @property
    def rate_limit_remaining(self) -> int | None:
        """Of the token that has the fewest calls left; None when there is no client."""
        return min((client.rate_limit_remaining for client in self._clients.values()), default=None)

    async def close(self) -> None:
        """Close all."""
        self._close_idle(float("inf"))
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _close_idle(self, oldest: float) -> None:
        for key in [key for key, used in self._used.items() if used < oldest]:
            del self._used[key]
            task = asyncio.create_task(self._clients.pop(key).close())
            self._closing.add(task)
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("a client that was idle could not be closed: %s", error)
