"""`python -m e2e.world.machines prepare [IMAGE …]`: fill the cache. `… clean`: take a left-over world away."""

import asyncio
import sys

from e2e.world.machines import SUITES, clean, ensure_archive, run_directory


def main(arguments: list[str]) -> int:
    """Run one of the two commands; returns the exit status."""
    match arguments:
        case ["prepare", *slugs] if set(slugs) <= set(SUITES):
            for slug in slugs or ["debian-12-x64"]:
                print(ensure_archive(slug))
        case ["clean"]:
            asyncio.run(clean(run_directory()))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


sys.exit(main(sys.argv[1:]))
