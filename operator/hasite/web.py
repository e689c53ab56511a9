"""The three pages that a cluster asks for: ``/healthz``, ``/readyz``, ``/metrics``."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from hasite.metrics import Metrics

Check = Callable[[], str | None]
"""None when all is well, else what is missing."""

Page = Callable[[web.Request], Awaitable[web.Response]]

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class WebServer:
    """That it answers at all shows that the event loop, in which everything runs, is alive."""

    def __init__(self, metrics: Metrics, alive: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        app = web.Application()
        app.router.add_get("/healthz", _report(alive))
        app.router.add_get("/readyz", _report(ready))
        app.router.add_get("/metrics", _exposition(metrics))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> int:
        """Returns the port: ``port`` 0 takes a free one. Raises OSError when it is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Ends open requests within a second."""
        await self._runner.cleanup()


def _report(checks: Mapping[str, Check]) -> Page:
    async def page(_: web.Request) -> web.Response:
        results = {name: check() for name, check in checks.items()}
        lines = [f"{name}: {problem or 'ok'}\n" for name, problem in results.items()]
        return web.Response(status=503 if any(results.values()) else 200, text="".join(lines))

    return page


def _exposition(metrics: Metrics) -> Page:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": _CONTENT_TYPE})

    return page
