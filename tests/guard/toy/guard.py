"""A guard of a toy cluster: ``python -m tests.guard.toy.guard ROOT``, told the rest by ``ROOT/toy.json``."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from hasite.guard.agent import Agent
from hasite.guard.engines.base import Layout
from hasite.guard.storage import read_settings

from tests.guard.toy.engine import ToyEngine, ToyService


def layout_of(root: Path) -> Layout:
    """Everything of one member below one folder."""
    return Layout(root / "data", root / "saved", root / "vote.json", root / "guard.json", root / "tls", root / "run")


async def main(root: Path) -> None:
    """Until SIGTERM, and what follows from it."""
    told = json.loads((root / "toy.json").read_text())
    layout, name = layout_of(root), told["name"]
    settings = read_settings(layout.settings)
    servers = {member: ports["server"] for member, ports in told["ports"].items()}
    service = ToyService(layout, servers[name], name, told["group"])
    witness = any(member.witness for member in settings.membership.members if member.name == name)
    server = None if witness else (ToyEngine(layout, service, name, servers), service)
    agent = Agent(
        settings, layout, server, address_of=lambda member: ("127.0.0.1", told["ports"][member.name]["guard"])
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, agent.reload)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.leave)
    own = told["ports"][name]
    await agent.run(("127.0.0.1", own["guard"]), ("127.0.0.1", own["pages"]))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(Path(sys.argv[1])))
