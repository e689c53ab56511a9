"""The operator's process: ``hasite-operator run``.

Start: web server, Lease, then the watch; the reconcile loop once this process leads. End by SIGTERM: nothing new
starts, what runs stops between two steps, and the Lease is given back. End by a lost Lease: at once, since another
process may act.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, NoReturn

from hasite import logs, reconcilers
from hasite.api.common import Resource
from hasite.config import Config, ConfigError, add_flags, load
from hasite.errors import HasiteError, Permanent
from hasite.handlers import Watcher
from hasite.kube.base import Kube, Leadership
from hasite.kube.client import KINDS, KubeClient
from hasite.kube.lease import Lease, LeaseTimes, unique_identity
from hasite.kube.transport import Transport, configuration
from hasite.metrics import Metrics
from hasite.reconcilers.loop import Loop, Reconciler, Wakes
from hasite.web import WebServer

LEASE_NAME: Final = "hasite-operator"
KINDS_RETRY: Final = 2.0
"""Seconds between two looks whether the CRDs are installed."""
STOP_PATIENCE: Final = 2.5
"""Seconds for reconciles that run when the process is told to end; all of the end takes less than 5."""

Build = Callable[[Config, Kube, Leadership, Metrics, Wakes], Awaitable[Mapping[type[Resource], Reconciler]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parts:
    """What the process is made of."""

    config: Config
    transport: Transport
    kube: KubeClient
    lease: Lease
    loop: Loop
    reconcilers: dict[type[Resource], Reconciler]
    watcher: Watcher
    web: WebServer
    metrics: Metrics


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 after SIGTERM or SIGINT, 1 when the Lease was lost, 2 for a setting that can't be used."""
    parser = argparse.ArgumentParser(prog="hasite-operator", description="The HASite operator.")
    parser.add_argument("--version", action="version", version=version("hasite-operator"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_flags(commands.add_parser("run", help="run the operator"))
    try:
        config = load(parser.parse_args(argv))
    except ConfigError as error:
        print(f"hasite-operator: {error}", file=sys.stderr)
        return 2
    return start(config, reconcilers.build)


def start(config: Config, build: Build) -> int:
    """Runs the operator with the given reconcilers until it is told to end."""
    logs.configure(config.log)
    # asyncssh asks who runs it, and a container's user has no entry in passwd(5).
    os.environ.setdefault("LOGNAME", "hasite")
    try:
        return asyncio.run(_operate(config, build))
    except Permanent as error:
        _log.error("%s", error)
        return 2


async def _operate(config: Config, build: Build) -> int:
    parts = await _assemble(config)
    port = await parts.web.start(*config.listen)
    _log.info("operator %s: health checks and metrics on port %d", parts.lease.identity, port)
    told = _signals()
    leading = asyncio.create_task(parts.lease.run(), name="lease")
    work = [
        asyncio.create_task(_watch_when_known(parts), name="watch"),
        asyncio.create_task(_lead(parts, build), name="reconcile loop"),
    ]
    stop = asyncio.create_task(_told(told), name="signal")
    pending = {stop, leading, *work}
    while stop in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is leading or task.exception() is not None:
                _die(task)
    await _end(parts, leading, work)
    return 0


async def _told(event: asyncio.Event) -> None:
    await event.wait()


async def _assemble(config: Config) -> _Parts:
    metrics = Metrics()
    transport = Transport(
        await configuration(), observe=lambda label, status: metrics.api_call("kubernetes", label, status)
    )
    identity = unique_identity(config.identity)
    kube = KubeClient(transport, identity, config.watch_namespaces, event_dropped=metrics.event_dropped)
    lease = Lease(transport, (config.namespace, LEASE_NAME), identity, LeaseTimes(config.lease_duration))
    table: dict[type[Resource], Reconciler] = {}
    loop = Loop(table, lease, metrics)
    watcher = Watcher(asyncio.get_running_loop(), loop.wake, config.watch_namespaces)
    ready = {
        "watch": watcher.problem,
        "lease": lambda: None if lease.in_touch() else "the lease could not be read or renewed of late",
    }
    web = WebServer(metrics, {}, ready)
    return _Parts(config, transport, kube, lease, loop, table, watcher, web, metrics)


async def _watch_when_known(parts: _Parts) -> None:
    """kopf looks only once which kinds there are: it starts when ours are installed.

    Whether each object makes sense is its own reconcile's matter: one that doesn't must not keep all others waiting.
    """
    while True:
        try:
            for kind in KINDS:
                await parts.kube.listable(kind)
        except HasiteError as error:
            _log.warning("not watching yet: %s", error)
            await asyncio.sleep(KINDS_RETRY)
        else:
            break
    parts.watcher.start()


async def _lead(parts: _Parts, build: Build) -> None:
    """Builds the reconcilers also in a standby, which so is warm."""
    parts.metrics.leading(False)
    parts.reconcilers.update(await build(parts.config, parts.kube, parts.lease, parts.metrics, parts.loop))
    await parts.lease.acquired()
    parts.metrics.leading(True)
    await parts.loop.run()


def _signals() -> asyncio.Event:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


async def _end(parts: _Parts, leading: asyncio.Task[None], work: Sequence[asyncio.Task[None]]) -> None:
    _log.info("told to end")
    await parts.loop.stop(STOP_PATIENCE)
    for task in (leading, *work):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await parts.lease.release()
    await parts.kube.close()
    await asyncio.to_thread(parts.watcher.stop, 0.5)
    await parts.web.stop()
    await parts.transport.close()
    logs.flush()


def _die(task: asyncio.Task[None]) -> NoReturn:
    """Ends the process in this instant: no clean-up of anything that runs may touch the world any more."""
    error = None if task.cancelled() else task.exception()
    _log.critical("%s ended: the process ends", task.get_name(), exc_info=error)
    logs.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
