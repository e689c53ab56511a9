"""What many sites cost at rest: the real reconcilers, loop and provider client on simulated machines and time.

Real machines for a hundred sites don't fit on one computer; calls and CPU, which are counted here, do not need them.
"""

import asyncio
import time
from collections.abc import Awaitable, Generator
from typing import Any

from e2e.bench.figures import Figure
from e2e.world.cloud import LARGE_PLAN
from tests.scenarios.clockwork import monotonic
from tests.scenarios.universe import NAMESPACE, Universe, manifest, play, site_spec

READY_WITHIN = 1800.0


class Timed:
    """Awaits a coroutine, and counts the CPU that its own steps take, not what runs while it waits."""

    def __init__(self, work: Awaitable[Any], samples: list[float]) -> None:
        self._work = work
        self._samples = samples

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        spent, value = 0.0, None
        while True:
            began = time.process_time()
            try:
                waiting = inner.send(value)
            except StopIteration as end:
                self._samples.append(spent + time.process_time() - began)
                return end.value
            spent += time.process_time() - began
            value = yield waiting


def at_rest(sites: int, seconds: float) -> list[Figure]:
    """API calls an hour, and the CPU of one reconcile, with so many sites."""

    async def work(universe: Universe) -> tuple[int, list[float]]:
        for number in range(sites):
            spec = site_spec(domain=f"www.site-{number:03}.example")
            universe.kube.create(manifest("HASite", spec, f"site-{number:03}"))
        operator = universe.start()
        await universe.until(lambda: _ready(universe, sites), READY_WITHIN, "readiness of all sites")
        await asyncio.sleep(120)
        samples: list[float] = []
        for reconciler in operator.loop._reconcilers.values():
            _measure(reconciler, samples)
        universe.cloud.journal.clear()
        began = monotonic()
        await asyncio.sleep(seconds)
        calls = len(universe.cloud.journal)
        return round(calls * 3600 / (monotonic() - began)), samples

    calls, samples = play(work, addresses=LARGE_PLAN)
    plural = "site" if sites == 1 else "sites"
    note = f"{seconds / 60:.0f} simulated minutes"
    return [
        Figure(
            f"API calls an hour at rest, {sites} {plural}, simulated machines", "calls", (calls,), "under 200", note
        ),
        Figure(
            f"one reconcile with nothing to do, CPU, {sites} {plural}, simulated machines",
            "ms",
            tuple(1000 * s for s in samples),
            "under 5",
            "the API server in memory: add about 1.1 ms for each of the 2 or 3 objects that it reads from a real one",
        ),
    ]


def _measure(reconciler: Any, samples: list[float]) -> None:
    original = reconciler.reconcile

    async def reconcile(namespace: str, name: str) -> Any:
        return await Timed(original(namespace, name), samples)

    reconciler.reconcile = reconcile


def _ready(universe: Universe, sites: int) -> bool:
    found = [raw for key, raw in universe.kube.objects.items() if key[0] == "HASite" and key[1] == NAMESPACE]
    conditions = [c for raw in found for c in raw.get("status", {}).get("conditions", ())]
    return len(found) == sites and sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions) == sites
