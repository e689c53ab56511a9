"""`python -m e2e.bench`: measures, prints a table, and writes it into docs/performance.md."""

import argparse
import asyncio
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.bench.figures import Figure, as_table, packet_loss, site_figures
from e2e.bench.memory import memory
from e2e.bench.scale import at_rest
from e2e.world.world import ROOT

RESULTS = ROOT / "build" / "bench.json"
PAGE = ROOT / "docs" / "performance.md"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="failovers")
    parser.add_argument("--rest", type=float, default=300.0, help="seconds at rest")
    parser.add_argument("--loss-minutes", type=float, default=5.0, help="minutes of packet loss; 0: none")
    parser.add_argument("--scale-minutes", type=float, default=20.0, help="simulated minutes with 100 sites")
    parser.add_argument("--memory-sites", type=int, default=100, help="sites of the operator whose memory is measured")
    parser.add_argument("--memory-interval", default="1s", help="of their probes; the default takes most of a core")
    parser.add_argument("--only", choices=("site", "scale", "memory", "loss"), help="one part")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    options = parser.parse_args(argv)
    figures: list[Figure] = []
    if options.only in (None, "site"):
        figures += asyncio.run(site_figures(options.runs, options.rest))
    if options.only in (None, "scale"):
        figures += [*at_rest(1, 3600), *at_rest(100, options.scale_minutes * 60)]
    if options.only in (None, "memory"):
        figures += asyncio.run(memory(options.memory_sites, options.rest, options.memory_interval))
    if options.only in (None, "loss") and options.loss_minutes:
        figures += asyncio.run(packet_loss(options.loss_minutes * 60, 5.0))
    kept = _keep(figures)
    print(as_table(kept))
    if options.page:
        _write_page(kept)
    return 0


def _keep(figures: Sequence[Figure]) -> list[Figure]:
    """New figures replace those of the same name; the others of earlier runs stay."""
    known = {}
    if RESULTS.exists():
        known = {f["name"]: Figure(**{**f, "samples": tuple(f["samples"])}) for f in json.loads(RESULTS.read_text())}
    known |= {f.name: f for f in figures}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([f.as_json() for f in known.values()], indent=1))
    return list(known.values())


def _write_page(figures: Sequence[Figure]) -> None:
    page = PAGE.read_text()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    machine = f"{os.cpu_count()} cores, {_memory_gib():.0f} GiB, {system}"
    block = f"<!-- figures -->\nMachine: {machine}.\n\n{as_table(figures)}\n<!-- /figures -->"
    PAGE.write_text(re.sub(r"<!-- figures -->.*<!-- /figures -->", lambda _: block, page, flags=re.DOTALL))


def _memory_gib() -> float:
    line = Path("/proc/meminfo").read_text().splitlines()[0]
    return int(line.split()[1]) / 1024 / 1024


if __name__ == "__main__":
    sys.exit(main())
