"""Starts the guard on a member, and ends it."""

import asyncio
import gc
import hashlib
import logging
import signal
import sys

from hasite.guard.agent import Agent, VoteLost
from hasite.guard.backuprun import where_of
from hasite.guard.engines import make
from hasite.guard.engines.base import Engine, Layout, Service
from hasite.guard.health import PORT as PAGES
from hasite.guard.model import Settings
from hasite.guard.priority import prefer
from hasite.guard.service import SystemdService
from hasite.guard.storage import DamagedVote, read_settings
from hasite.guard.transport import PORT

log = logging.getLogger("hasite")


def run() -> int:
    """The exit status: 1 means that a person must look, and the log says at what."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for level, mark in ((logging.CRITICAL, "<2>"), (logging.ERROR, "<3>"), (logging.WARNING, "<4>")):
        logging.addLevelName(level, mark)
    logging.getLogger().handlers[0].setFormatter(_Journal())
    prefer(1)
    layout = Layout()
    try:
        settings = read_settings(layout.settings)
        asyncio.run(serve(settings, layout))
    except (DamagedVote, VoteLost, OSError, ValueError) as error:
        log.critical("the guard can't go on: %s", error)
        return 1
    return 0


async def serve(settings: Settings, layout: Layout) -> None:
    """Until SIGTERM or SIGINT, and what this member reigns over is handed over; SIGHUP reads the settings again."""
    held = server(settings, layout)
    where = where_of(settings, layout) if held is not None else None
    agent = Agent(settings, layout, held, address_of=lambda m: (m.address, PORT), version=version(), where=where)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.leave)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    gc.collect()
    gc.freeze()
    await agent.run(("", PORT), ("", PAGES))


def server(settings: Settings, layout: Layout) -> tuple[Engine, Service] | None:
    """None for a witness."""
    if any(member.witness for member in settings.membership.members if member.name == settings.name):
        return None
    service = SystemdService()
    return make(settings, layout, service), service


def version() -> str:
    """Of the file that runs, as the operator computes it of what it delivers."""
    try:
        with open(sys.argv[0], "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:12]
    except OSError:
        return ""


class _Journal(logging.Formatter):
    """journald reads the level from a mark at the beginning of the line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record; further lines of it get no mark."""
        mark = "<6>" if record.levelno < logging.WARNING else record.levelname
        return f"{mark}{record.name}: {super().format(record)}"
