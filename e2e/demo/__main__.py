"""`python -m e2e.demo warm | up | watch`: what `make warm`, `make demo` and `make watch` call."""

import argparse
import asyncio
import subprocess
import sys

from e2e.controlplane.toolchain import BuildError
from e2e.demo.warm import warm


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("warm", help="fill the cache: control plane, machine image, package archive")
    commands.add_parser("up", help="start the local world and the example site, and wait until it is ready")
    watch = commands.add_parser("watch", help="live view of the site")
    watch.add_argument("--rate", type=float, default=20.0, help="requests a second")
    watch.add_argument("--seconds", type=float, help="stop after this many seconds")
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except BuildError as error:
        print(error, file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"{error}\n{error.stderr or ''}", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "warm":
        warm()
        return 0
    # The libraries for these are large: `warm` starts without them.
    if options.command == "up":
        from e2e.demo.up import up

        return asyncio.run(up())
    from e2e.demo.watch import watch

    return asyncio.run(watch(options.rate, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
