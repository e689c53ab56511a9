"""One function a figure. Each returns rows: what was measured, unit, samples, aim."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from e2e.bench.lab import Lab, example_site, lab


@dataclass(frozen=True)
class Figure:
    """``samples`` in ``unit``; ``note`` says what a reader must know of how they were taken."""

    name: str
    unit: str
    samples: tuple[float, ...]
    aim: str
    note: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


async def site_figures(runs: int, rest_seconds: float) -> list[Figure]:
    """Everything that one world with one site can tell, in one go."""
    figures: list[Figure] = []
    async with lab(example_site()) as made:
        figures += await start(made)
        figures += await rest(made, rest_seconds)
        figures += await failover(made, runs)
    return figures


async def start(made: Lab) -> list[Figure]:
    """apply → Ready, beside the slowest droplet's own time from its creation to the end of cloud-init."""
    await made.apply()
    took = await made.ready()
    boots: list[float] = []
    for droplet in made.world.cloud.state.droplets.values():
        _, text = await made.world.machines.exec(
            droplet.id, ["cat", "/run/cloud-init/result.json", "/run/cloud-init/status.json"]
        )
        _, ended = await made.world.machines.exec(droplet.id, ["stat", "-c", "%.3Y", "/run/cloud-init/result.json"])
        boots.append(float(ended.replace(",", ".")) - droplet.created_at)
        assert json.JSONDecoder().raw_decode(text)[0] is not None
    slowest = max(boots)
    return [
        Figure("apply → Ready, 2 load balancers and 4 apps", "s", (took,), "at most 1.3 times the slowest boot"),
        Figure("slowest droplet, from its creation to the end of cloud-init", "s", (slowest,), ""),
        Figure("apply → Ready ÷ slowest droplet's boot", "", (took / slowest,), "1.3"),
    ]


async def rest(made: Lab, seconds: float) -> list[Figure]:
    """A site with nothing to do."""
    await _settled(made)
    journal = made.world.cloud.journal
    calls, cpu, reconciles, began = len(journal), made.cpu_seconds(), await _reconciles(made), time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    calls, cpu = len(journal) - calls, made.cpu_seconds() - cpu
    reconciles = await _reconciles(made) - reconciles
    note = f"over {passed:.0f} s"
    return [
        Figure("API calls an hour at rest, 1 site", "calls", (calls * 3600 / passed,), "under 200", note),
        Figure("CPU of the operator at rest, probes and SSH included", "% of a core", (100 * cpu / passed,), "", note),
        Figure("reconciles a minute at rest", "", (reconciles * 60 / passed,), "", note),
        Figure("resident memory of the operator, 1 site", "MiB", (made.resident_mib(),), "under 120"),
    ]


async def _settled(made: Lab) -> None:
    """Until no reconcile is due at once any more: two readings five seconds apart are nearly the same."""
    async with asyncio.timeout(120):
        while True:
            before = await _reconciles(made)
            await asyncio.sleep(5)
            if await _reconciles(made) - before <= 2:
                return


async def _reconciles(made: Lab) -> float:
    return await made.metric("hasite_reconcile_total")


async def failover(made: Lab, runs: int) -> list[Figure]:
    """Power of a whole region cut → its addresses gone from both authoritative servers, the two locations by turns."""
    times: list[float] = []
    back: list[float] = []
    for run in range(runs):
        location = ("new-york", "amsterdam")[run % 2]
        doomed = (await made.addresses())[location]
        began = time.monotonic()
        await made.world.drop(location)
        async with asyncio.timeout(60):
            while any(doomed & answers for answers in await made.published()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        times.append(time.monotonic() - began)
        began = time.monotonic()
        await made.world.restore(location)
        async with asyncio.timeout(180):
            while not all(doomed <= answers for answers in await made.published()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        back.append(time.monotonic() - began)
        await made.ready()
        print(f"  run {run + 1}: gone after {times[-1]:.2f} s, back after {back[-1]:.1f} s", flush=True)
    return [
        Figure(
            "datacentre lost → its addresses gone from every authoritative server",
            "s",
            tuple(times),
            "median under 4, worst under 6",
            "power of all machines of a region cut; A and AAAA, both name servers",
        ),
        Figure("power back → its addresses published again, no hold-down", "s", tuple(back), "", "boot included"),
    ]


async def packet_loss(seconds: float, percent: float) -> list[Figure]:
    """Withdrawals while every link loses packets: each one is false."""
    async with lab(example_site()) as made:
        await made.apply()
        await made.ready()
        before = await made.metric("hasite_withdrawals_total")
        await made.world.network.loss(percent)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(min(30.0, seconds))
            so_far = await made.metric("hasite_withdrawals_total") - before
            print(f"  {time.monotonic() - began:.0f} s: {so_far:.0f} withdrawals", flush=True)
        false = await made.metric("hasite_withdrawals_total") - before
    name = f"false withdrawals in {seconds / 60:.0f} minutes of {percent:g} % packet loss"
    return [Figure(name, "", (false,), "0", "loss on every link, both ways")]


def as_table(figures: Sequence[Figure]) -> str:
    """Markdown: median, min, max."""
    lines = ["| figure | median | min | max | runs | unit | aim | note |", "|---|---|---|---|---|---|---|---|"]
    for figure in figures:
        ordered = sorted(figure.samples)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        cells = [figure.name, *(f"{v:.2f}" for v in (median, ordered[0], ordered[-1])), str(len(ordered))]
        lines.append("| " + " | ".join([*cells, figure.unit, figure.aim, figure.note]) + " |")
    return "\n".join(lines)
