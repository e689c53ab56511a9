"""`make demo`: the world, the example in it, and what to try then."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hasite.api import HASite, LoadBalancerPool
from hasite.kube.client import KubeClient

from e2e.demo.site import NAME, NAMESPACE, Decisions, NoWorld, client, example, info, look
from e2e.demo.warm import say
from e2e.world.machines import run_directory
from e2e.world.world import ROOT

READY_WITHIN = 300.0
POLL = 0.25


async def up() -> int:
    """The exit status: 0 once the site is Ready."""
    started = time.monotonic()
    try:
        world = await info()
    except NoWorld:
        command = [sys.executable, "-m", "e2e.world", "up"]
        if (await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)).returncode:
            return 1
        world = await info()
    say(f"applying examples/site.yaml to namespace {NAMESPACE}")
    decisions = Decisions(world["logs"])
    decisions.new()
    apply = [*world["kubectl"], "apply", "-f", "-"]
    await asyncio.to_thread(subprocess.run, apply, input=example(), text=True, check=True)
    applied = time.monotonic()
    async with client(world["kubeconfig"]) as kube:
        if not await _wait(kube, decisions):
            print(f"not Ready after {READY_WITHIN:.0f} s: kubectl hasite status {NAME} -n {NAMESPACE}", file=sys.stderr)
            return 1
        say(f"Ready {time.monotonic() - applied:.1f} s after apply, {time.monotonic() - started:.1f} s after the start")
        site, _ = await look(kube)
    address = site.status.published.partition(",")[0] if site else ""
    _print_what_to_try(world, _environment(world), address)
    return 0


async def _wait(kube: KubeClient, decisions: Decisions) -> bool:
    """Shows each decision and each change of the site's state until it is Ready; False when that takes too long."""
    shown = ""
    try:
        async with asyncio.timeout(READY_WITHIN):
            while True:
                for decision in decisions.new():
                    say(f"  {'!' if decision.bad else '·'} {decision.text[:150]}")
                site, pool = await look(kube)
                text, ready = state(site, pool)
                if text != shown:
                    say(text)
                    shown = text
                if ready:
                    return True
                await asyncio.sleep(POLL)
    except TimeoutError:
        return False


def state(site: HASite | None, pool: LoadBalancerPool | None) -> tuple[str, bool]:
    """One line of how far the site is, and whether it is Ready by what its spec asks for now."""
    if site is None or site.status.observed_generation < site.generation:
        return "hasite/shop: the operator has not looked at it yet", False
    status = site.status
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    reason = f"{ready.status} ({ready.reason})" if ready else "Unknown"
    published = status.published or "nothing yet"
    text = (
        f"hasite/{site.name}: Ready {reason}, locations {status.locations_ready}, load balancers "
        f"{status.load_balancers_ready}, apps {status.apps_ready}, DNS leads to {published}"
    )
    return text, ready is not None and ready.status == "True"


def _environment(world: dict[str, Any]) -> Path:
    """A file to source: KUBECONFIG, and kubectl with its plugin for a machine that has neither."""
    tools = run_directory() / "bin"
    tools.mkdir(exist_ok=True)
    programs = {"kubectl": world["kubectl"][0], "kubectl-hasite": str(Path(sys.executable).with_name("kubectl-hasite"))}
    for name, program in programs.items():
        link = tools / name
        link.unlink(missing_ok=True)
        link.symlink_to(shutil.which(program) or program)
    file = run_directory() / "env"
    file.write_text(f"export KUBECONFIG={world['kubeconfig']}\nexport PATH={tools}:$PATH\n")
    return file


def _print_what_to_try(world: dict[str, Any], environment: Path, address: str) -> None:
    at_client = f"ip netns exec {world['client']}"
    print(
        f"""
The site is up, at two datacentres. To try, in another terminal:

  cd {os.getcwd()}
  make watch                           live view: requests by location, DNS answers, the operator's decisions
  make demo-drop LOCATION=new-york     a datacentre goes dark (HOW=power; cut, in, out cut its network instead)
  make demo-restore                    it comes back

  . {environment}             kubectl and its plugin for this world
  kubectl get hasites -A -w
  kubectl hasite status shop -n shop   everything below the site, as a tree
  kubectl hasite plan shop -n shop     what the operator is about to do, and what it refuses to
  kubectl describe hasites shop -n shop
  {at_client} kdig +short shop.example.com @203.0.113.53
  {at_client} curl -s --resolve '*:80:{address}' http://shop.example.com/

To stop, and leave nothing behind: make down
"""
    )
