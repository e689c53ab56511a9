"""`python -m e2e.bench`: measures, prints a table, and writes it into docs/performance.md."""

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from e2e.bench import databases
from e2e.bench.figures import Figure, as_table, packet_loss, site_figures
from e2e.bench.memory import memory
from e2e.bench.scale import at_rest
from e2e.world.world import ROOT

RESULTS = ROOT / "build" / "bench.json"
PARTS = ("site", "scale", "memory", "loss", "databases", *databases.PARTS)
PAGE = ROOT / "docs" / "performance.md"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.add_argument("--runs", type=int, help="failovers: of a site 10, of a database 20 of each kind")
    parser.add_argument("--rest", type=float, default=300.0, help="seconds at rest")
    parser.add_argument("--loss-minutes", type=float, default=5.0, help="minutes of packet loss; 0: none")
    parser.add_argument("--scale-minutes", type=float, default=20.0, help="simulated minutes with 100 sites")
    parser.add_argument("--memory-sites", type=int, default=100, help="sites of the operator whose memory is measured")
    parser.add_argument("--memory-interval", default="1s", help="of their probes; the default takes most of a core")
    parser.add_argument("--peer-runs", type=int, default=5, help="failovers of Patroni, of each kind and timing")
    parser.add_argument("--switchovers", type=int, default=10, help="of each engine")
    parser.add_argument("--pairs", type=int, default=5, help="of runs with and without guard and proxy")
    parser.add_argument("--rewinds", type=int, default=3, help="of an old primary with a gigabyte")
    parser.add_argument("--engine", action="append", choices=databases.ENGINES, help="of databases; all by default")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, help="parts; databases: all that come after it in this list"
    )
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    options = parser.parse_args(argv)
    # As a console's interrupt: the world is taken down, and what was measured so far has been kept.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    parts = set(options.only or ("site", "scale", "memory", "loss", "databases"))
    if "site" in parts:
        _keep(asyncio.run(site_figures(options.runs or 10, options.rest)))
    if "scale" in parts:
        _keep([*at_rest(1, 3600), *at_rest(100, options.scale_minutes * 60)])
    if "memory" in parts:
        _keep(asyncio.run(memory(options.memory_sites, options.rest, options.memory_interval)))
    if "loss" in parts and options.loss_minutes:
        _keep(asyncio.run(packet_loss(options.loss_minutes * 60, 5.0)))
    good = True
    try:
        if of_databases := parts & {"databases", *databases.PARTS}:
            good = databases.measure(_of_databases(options, of_databases), lambda figure: _keep([figure]))
    except KeyboardInterrupt:
        good = False
    finally:
        kept = _keep([])
        print(as_table(kept))
        if options.page:
            _write_page(kept)
    return 0 if good else 1


def _of_databases(options: argparse.Namespace, parts: Collection[str]) -> databases.Options:
    return databases.Options(
        parts=databases.PARTS if "databases" in parts else parts,
        engines=tuple(options.engine or databases.ENGINES),
        runs=options.runs or 20,
        switchovers=options.switchovers,
        peer_runs=options.peer_runs,
        rest_seconds=min(options.rest, 60.0),
        pairs=options.pairs,
        rewind_runs=options.rewinds,
    )


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
