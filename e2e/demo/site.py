"""The example site in the running local world, seen as a person with its kubeconfig sees it."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasite.api import HASite, LoadBalancerPool
from hasite.kube.client import KubeClient
from hasite.kube.transport import Transport, configuration

from e2e.world.machines import run_directory
from e2e.world.world import ROOT, TOKEN, call

NAMESPACE = NAME = "shop"
EXAMPLE = ROOT / "examples" / "site.yaml"


class NoWorld(Exception):
    """No local world answers; the message says what to do."""


@dataclass(frozen=True)
class Decision:
    """One line of an operator's log that a person wants to see. ``time`` is ISO 8601 in UTC."""

    time: str
    operator: str
    text: str
    bad: bool


async def info() -> dict[str, Any]:
    """Paths and names of the running world. Raises NoWorld."""
    try:
        answer: dict[str, Any] = await call(run_directory(), "info")
    except (OSError, RuntimeError) as error:
        raise NoWorld("no local world is running: make demo") from error
    return answer


def example() -> str:
    """The example as `make demo` applies it: with the local cloud's token."""
    return EXAMPLE.read_text(encoding="utf-8").replace("replace-me", TOKEN)


@asynccontextmanager
async def client(kubeconfig: str) -> AsyncIterator[KubeClient]:
    """The API server, with the rights of the kubeconfig."""
    os.environ["KUBECONFIG"] = kubeconfig
    transport = Transport(await configuration())
    try:
        yield KubeClient(transport, "demo")
    finally:
        await transport.close()


async def look(kube: KubeClient) -> tuple[HASite | None, LoadBalancerPool | None]:
    """The site and its pool, as they are now."""
    return await kube.get(HASite, NAMESPACE, NAME), await kube.get(LoadBalancerPool, NAMESPACE, NAME)


class Decisions:
    """What the operators' logs say since the last call."""

    def __init__(self, logs: dict[str, str], from_start: bool = True) -> None:
        self._logs = {name: Path(path) for name, path in logs.items()}
        self._read = {name: 0 if from_start else path.stat().st_size for name, path in self._logs.items()}

    def new(self) -> list[Decision]:
        """The decisions since the last call, in the order of their time."""
        found: list[Decision] = []
        for name, path in self._logs.items():
            with path.open("rb") as log:
                log.seek(self._read[name])
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[name] += len(whole)
            found += [d for line in whole.splitlines() if (d := decision(name, line)) is not None]
        return sorted(found, key=lambda d: d.time)


def decision(operator: str, line: bytes) -> Decision | None:
    """None for a line that is no decision: a detail, or not JSON."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    text = str(entry.get("message", ""))
    bad = entry.get("level") in ("warning", "error", "critical")
    for lead in ("step done: ", "step failed: "):
        if text.startswith(lead):
            return Decision(str(entry["time"]), operator, text.removeprefix(lead), bad)
    if bad or text.startswith(("leading as", "told to end")):
        return Decision(str(entry["time"]), operator, text, bad)
    return None
