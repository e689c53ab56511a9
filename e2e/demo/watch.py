"""`make watch`: visitors inside the local world, and a live view of what they meet and of what the operator decides."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from hasite.errors import HasiteError
from hasite.kube.client import KubeClient
from rich.console import Console
from rich.live import Live

from e2e.demo.site import Decisions, NoWorld, client, info, look
from e2e.demo.view import Scene, clock, draw, is_good
from e2e.world.network import SITES, run_in
from e2e.world.world import ROOT

REDRAW = 0.25
STORY_LINES = 60
QUIET_SECONDS = 5.0

Known = dict[str, tuple[str, str]]
"""Status and reason of each condition."""

SETTLED = ("Reconciling",)
"""Conditions whose every change would only be noise beside the decisions."""


async def watch(rate: float, seconds: float | None = None) -> int:
    """Until Ctrl-C, or for so many seconds. The exit status: 1 when there is no world, or a request failed."""
    try:
        world = await info()
    except NoWorld as error:
        print(error, file=sys.stderr)
        return 1
    scene = Scene(rate=rate)
    visitor = _start_visitor(world["client"], rate)
    console = Console()
    try:
        async with client(world["kubeconfig"]) as kube:
            work = asyncio.gather(_count(scene, visitor), _follow(scene, kube, Decisions(world["logs"])))
            with Live(console=console, screen=True, auto_refresh=False) as live:
                end = time.monotonic() + (seconds or float("inf"))
                while time.monotonic() < end and not work.done():
                    live.update(draw(scene, time.time(), console.height), refresh=True)
                    await asyncio.sleep(REDRAW)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
    finally:
        visitor.kill()
        visitor.wait()
    print(f"{scene.tally.requests} requests, {scene.tally.failures} failed")
    return int(scene.tally.failures > 0)


def _start_visitor(namespace: str, rate: float) -> subprocess.Popen[Any]:
    servers = [word for site in ("dns1", "dns2") for word in ("--server", SITES[site].ipv4)]
    command = [sys.executable, "-m", "e2e.demo.visitor", "shop.example.com", "--rate", str(rate), *servers]
    return run_in(namespace, command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


async def _count(scene: Scene, visitor: subprocess.Popen[Any]) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader),
        visitor.stdout,
    )
    while line := await reader.readline():
        scene.tally.add(json.loads(line))


async def _follow(scene: Scene, kube: KubeClient, decisions: Decisions) -> None:
    """Looks at the resources and the operators' logs twice a second."""
    before: Known = {}
    bumps = (0, 0.0)
    while True:
        try:
            scene.site, scene.pool = await look(kube)
            scene.trouble = ""
        except HasiteError as error:
            scene.trouble = str(error)
        for made in decisions.new():
            scene.story.append((clock(made.time), made.text, "red" if made.bad else ""))
        before = _tell_changes(scene, before)
        bumps = _tell_bumps(scene, bumps)
        del scene.story[:-STORY_LINES]
        await asyncio.sleep(0.5)


def _tell_changes(scene: Scene, before: Known) -> Known:
    conditions = scene.site.status.conditions if scene.site else ()
    now: Known = {c.type: (c.status, c.reason) for c in conditions if c.type not in SETTLED}
    at = clock(datetime.now(UTC).isoformat())
    for condition in conditions:
        kind = condition.type
        if before and kind in now and now[kind] != before.get(kind):
            style = "bold green" if is_good(condition) else "bold red"
            scene.story.append((at, f"{kind} {condition.status}: {condition.reason}. {condition.message}", style))
    return now


def _tell_bumps(scene: Scene, known: tuple[int, float]) -> tuple[int, float]:
    """A line when visitors begin to meet a dead address. `known`: how often they have, and when the last time was."""
    met, last = known
    now = time.monotonic()
    if scene.tally.second_tries == met:
        return known
    if now - last > QUIET_SECONDS:
        at = clock(datetime.now(UTC).isoformat())
        scene.story.append((at, "visitors: an address does not answer, on to the next one", "yellow"))
    return scene.tally.second_tries, now
