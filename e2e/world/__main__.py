"""`python -m e2e.world`: a local world to try the operator in, without an account. `--help` says how."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from e2e.world.machines import clean, run_directory
from e2e.world.server import READY, serve_world, wait_until_gone
from e2e.world.world import ROOT, call

PORT = 16443


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.world", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the world in the background, with two operators")
    commands.add_parser("serve", help="the same in the foreground")
    commands.add_parser("down", help="take everything away, also what a crashed world left")
    commands.add_parser("info", help="paths, names, droplets")
    drop = commands.add_parser("drop", help="a datacentre goes dark")
    drop.add_argument("location")
    drop.add_argument("--how", choices=("power", "cut", "in", "out"), default="power")
    restore = commands.add_parser("restore", help="it comes back")
    restore.add_argument("location", nargs="?")
    for name, text in (
        ("kill", "a droplet loses its power"),
        ("fill-disk", "its disk is full"),
        ("free-disk", "again not"),
    ):
        commands.add_parser(name, help=text).add_argument("droplet")
    commands.add_parser("loss", help="lose packets").add_argument("percent", type=float)
    arguments = vars(parser.parse_args(argv))
    return asyncio.run(_run(arguments.pop("command"), arguments))


async def _run(command: str, arguments: dict[str, object]) -> int:
    directory = run_directory()
    match command:
        case "serve":
            await serve_world(directory, lambda text: print(text, flush=True), PORT)
        case "up":
            return _up(directory)
        case "down":
            await _down(directory)
        case _:
            try:
                answer = await call(directory, command, **arguments)
            except (OSError, RuntimeError) as error:
                print(f"{command}: {error}", file=sys.stderr)
                return 1
            if answer:
                print(json.dumps(answer, indent=2))
    return 0


def _up(directory: Path) -> int:
    """Shows the progress of the world's process until it is ready."""
    log = directory.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "e2e.world", "serve"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(os.environ),
        )
    shown = 0
    while not (directory / READY).exists():
        text = log.read_text(errors="replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if process.poll() is not None:
            print(f"the world did not start; its log is {log}", file=sys.stderr)
            return 1
        time.sleep(0.2)
    print(log.read_text(errors="replace")[shown:], end="", flush=True)
    return 0


async def _down(directory: Path) -> None:
    try:
        await call(directory, "stop")
        await wait_until_gone(directory)
    except (OSError, RuntimeError):
        pass  # no world answers: what it left is cleaned all the same
    await clean(directory)
    directory.with_suffix(".log").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
