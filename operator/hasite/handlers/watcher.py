"""kopf, in a thread and an event loop of its own."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Final

import kopf

from hasite.handlers.handlers import Wake, build_registry

RESTART_AFTER: Final = 2.0
"""Seconds. kopf gives up when the API server stays away for longer than its own retries; the next start lists anew."""
WATCH_SECONDS: Final = 240
"""For one watch request; then it is resumed where it ended."""

_log = logging.getLogger(__name__)


def kopf_settings() -> kopf.OperatorSettings:
    """Read-only, few rights needed, and no limit that could starve an object."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Otherwise it wants to list and watch namespaces and CRDs of the whole cluster.
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 0.5
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_SECONDS + 30
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, *([1.0] * 10))
    # Its own last resort kills the process; here the main thread decides about that.
    settings.process.ultimate_exiting_timeout = None
    return settings


class Watcher:
    """Watches until it is stopped, whatever becomes of the connection. ``wake`` is called in ``loop``'s thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Wake, namespaces: Sequence[str]) -> None:
        """``namespaces`` empty: all of them."""
        self._main = loop
        self._wake = wake
        self._namespaces = tuple(namespaces)
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._stopping = threading.Event()
        self._kopf: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._ready: asyncio.Event | None = None

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def problem(self) -> str | None:
        """Why nothing is watched, or None."""
        if not self._thread.is_alive():
            return "kopf does not run"
        return None if self._ready is not None and self._ready.is_set() else "kopf starts"

    def stop(self, patience: float = 1.0) -> None:
        """Gives kopf ``patience`` seconds to end; its thread is a daemon, so the process ends anyway."""
        self._stopping.set()
        if self._kopf is not None:
            loop, stop = self._kopf
            loop.call_soon_threadsafe(stop.set)
        self._thread.join(patience)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._watch())
            except Exception as error:
                _log.warning("kopf ended: %s", error, exc_info=error)
            self._kopf = self._ready = None
            self._stopping.wait(RESTART_AFTER)

    async def _watch(self) -> None:
        stop, self._ready = asyncio.Event(), asyncio.Event()
        self._kopf = (asyncio.get_running_loop(), stop)
        await kopf.operator(
            registry=build_registry(self._wake_in_main),
            settings=kopf_settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
            stop_flag=stop,
            ready_flag=self._ready,
        )

    def _wake_in_main(self, kind: type, namespace: str, name: str, *, fresh: bool = False) -> None:
        self._main.call_soon_threadsafe(lambda: self._wake(kind, namespace, name, fresh=fresh))
