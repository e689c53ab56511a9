"""One client per token, whoever asks for it: so that its rate limit is counted once and its listings are read once."""

import hashlib
import time
from collections.abc import Callable

from hasite.clouds.digitalocean import ENDPOINT, DigitalOcean
from hasite.clouds.metrics import ApiMetrics


class Accounts:
    """Clients by the hash of their token. What ``get`` returns is not to be kept: ``close_unused`` ends it."""

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

    def get(self, token: str) -> DigitalOcean:
        """The client of this token."""
        key = hashlib.sha256(token.encode()).hexdigest()
        self._used[key] = self._clock()
        if key not in self._clients:
            self._clients[key] = DigitalOcean(token, self._endpoint, clock=self._clock, metrics=self._metrics)
        return self._clients[key]

    @property
    def rate_limit_remaining(self) -> int | None:
        """Of the token that has the fewest calls left; None when there is no client."""
        return min((client.rate_limit_remaining for client in self._clients.values()), default=None)

    async def close_unused(self, idle: float = 900.0) -> None:
        """Close the clients that nobody asked for in the last ``idle`` seconds: longer than any reconcile takes."""
        oldest = self._clock() - idle
        for key in [key for key, used in self._used.items() if used < oldest]:
            del self._used[key]
            await self._clients.pop(key).close()

    async def close(self) -> None:
        """Close all."""
        await self.close_unused(idle=-1.0)
