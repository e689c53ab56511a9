"""`python -m e2e.world.cloud`: the API simulator without machines, for a look with curl or doctl."""

from __future__ import annotations

import argparse
import asyncio

from . import LARGE_PLAN, Cloud, serve


async def _run(options: argparse.Namespace) -> None:
    cloud = Cloud(
        tokens={options.token: "read-write"},
        boot_delay=options.boot_delay,
        tag_delay=options.tag_delay,
        addresses=LARGE_PLAN,
    )
    server = await serve(cloud, port=options.port)
    print(f"{server.url}/v2 answers to the token {options.token}; its faults are under {server.url}/_world", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.close()


def main() -> None:
    """Serve on loopback until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--token", default="local-token")
    parser.add_argument("--boot-delay", type=float, default=5.0, help="seconds until a droplet is active")
    parser.add_argument("--tag-delay", type=float, default=1.0, help="seconds until its tags show")
    try:
        asyncio.run(_run(parser.parse_args()))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
