"""The kubectl plugin: ``kubectl hasite status NAME``, ``plan NAME``, and for databases ``switchover`` and ``promote``.

It reads and, for the last two, patches the resources and nothing else: whoever may do that with ``kubectl`` may use it,
and no provider's token is needed.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Model
from hasite.cli import orders
from hasite.cli.cluster import connect, current_namespace, kubeconfig_path
from hasite.cli.overview import Overview, database_overview, overview
from hasite.cli.printable import printable, printable_in, printable_json
from hasite.cli.tree import Style, coloured, lines, plain, plan_tree, status_tree
from hasite.errors import HasiteError, Permanent
from hasite.kube.base import Kube

__all__ = ["main"]

SITES = ("hasite", "hasites", "has")
POOLS = ("loadbalancerpool", "loadbalancerpools", "lbp")
DATABASES = ("replicateddatabase", "replicateddatabases", "rdb")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 1 when the object is not there or the API server does not answer."""
    options = _parser().parse_args(argv)
    try:
        print(asyncio.run(_answer(options)))
    except HasiteError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-n", "--namespace", help="default: that of the context")
    shared.add_argument("--kubeconfig", metavar="FILE", help="default: KUBECONFIG, then ~/.kube/config")
    shared.add_argument("--context", help="default: the current one")
    reading = argparse.ArgumentParser(add_help=False, parents=[shared])
    reading.add_argument("name", metavar="NAME", help="of a HASite; or lbp/NAME, rdb/NAME")
    reading.add_argument("-o", "--output", choices=("tree", "json"), default="tree")
    reading.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    ordering = argparse.ArgumentParser(add_help=False, parents=[shared])
    ordering.add_argument("name", metavar="NAME", help="of a ReplicatedDatabase")
    ordering.add_argument("--location", required=True, help="where the primary is to be")
    parser = argparse.ArgumentParser(
        prog="kubectl hasite", description="What HASite has made, and what it is about to do."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", parents=[reading], help="everything below a site, as a tree")
    commands.add_parser(
        "plan", parents=[reading], help="the steps of the latest plan, refusals, and what is waited for"
    )
    commands.add_parser(
        "switchover", parents=[ordering], help="move a database's primary; loses nothing, or is refused"
    )
    promote = commands.add_parser("promote", parents=[ordering], help="make a member primary, also when there is none")
    promote.add_argument(
        "--accept-data-loss", action="store_true", help="even if the newest writes may be missing at that location"
    )
    return parser


async def _answer(options: argparse.Namespace) -> str:
    path = kubeconfig_path(options.kubeconfig)
    namespace = options.namespace or current_namespace(path, options.context)
    async with connect(path, options.context) as kube:
        if options.command in ("switchover", "promote"):
            return printable(await give_order(kube, options, namespace))
        seen = await look(kube, options.name, namespace)
    return show(seen, options.command, options.output, _style(options.color), time.time())


async def look(kube: Kube, name: str, namespace: str) -> Overview:
    """``NAME``, ``hasites/NAME``, ``lbp/NAME`` or ``rdb/NAME``. Raises Permanent when it is not there."""
    kind, _, rest = name.rpartition("/")
    if kind.lower() in POOLS:
        pool = await kube.get(LoadBalancerPool, namespace, rest)
        if pool is None:
            raise Permanent(f'loadbalancerpools.hasite.dev "{rest}" not found in namespace {namespace}')
        return overview(None, pool)
    if kind.lower() in DATABASES:
        return database_overview(await find_database(kube, rest, namespace))
    if kind and kind.lower() not in SITES:
        raise Permanent(f"{kind} is no kind of HASite: give NAME, hasites/NAME, lbp/NAME or rdb/NAME")
    site = await kube.get(HASite, namespace, rest)
    if site is None:
        raise Permanent(f'hasites.hasite.dev "{rest}" not found in namespace {namespace}')
    return overview(site, await kube.get(LoadBalancerPool, namespace, rest))


async def give_order(kube: Kube, options: argparse.Namespace, namespace: str) -> str:
    """What to tell the person. Raises Permanent when it can't be meant, Conflict when somebody else was faster."""
    kind, _, name = options.name.rpartition("/")
    if kind and kind.lower() not in DATABASES:
        raise Permanent(f"{kind} is no database: give NAME or rdb/NAME")
    database = await find_database(kube, name, namespace)
    if options.command == "switchover":
        return await orders.switchover(kube, database, options.location)
    return await orders.promote(kube, database, options.location, accept_data_loss=options.accept_data_loss)


async def find_database(kube: Kube, name: str, namespace: str) -> ReplicatedDatabase:
    """Raises Permanent when it is not there."""
    database = await kube.get(ReplicatedDatabase, namespace, name)
    if database is None:
        raise Permanent(f'replicateddatabases.hasite.dev "{name}" not found in namespace {namespace}')
    return database


def show(seen: Overview, command: str, output: str, style: Style, now: float) -> str:
    """The text to print. The only escape sequences in it are those of ``style``."""
    if output == "json":
        whole = _json(seen)
        shown = whole if command == "status" else {"parts": whole["parts"]}
        return printable_json(json.dumps(shown, indent=2, ensure_ascii=False))
    seen = printable_in(seen)
    return "\n".join(lines(status_tree(seen, now, style) if command == "status" else plan_tree(seen, style)))


def _json(seen: Overview) -> dict[str, Any]:
    whole = asdict(seen)
    for part, shown in zip(seen.parts, whole["parts"], strict=True):
        shown["waiting_for"] = part.waiting_for
    return {key: _plain(value) for key, value in whole.items()}


def _plain(value: Any) -> Any:
    """Keys in camelCase, like those of the resources."""
    if isinstance(value, Model):
        return value.wire()
    if isinstance(value, dict):
        return {_camel(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _style(wish: str) -> Style:
    """Colours only where a person looks, and never against https://no-color.org."""
    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return coloured if wish == "always" or (wish == "auto" and terminal) else plain


if __name__ == "__main__":
    sys.exit(main())
