"""What HAProxy says on its stats socket, parsed."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from hasite.errors import Transient
from hasite.machines.words import plain
from hasite.plan.world import ServerView
from hasite.proxies.haproxy_render import PEERS

SHOW_STATISTICS = "show stat -1 5 -1"
"""Frontends (1) and servers (4), without the backends' sums."""

_UNCHECKED = ("", "INI", "UNK")


@dataclass(frozen=True)
class Statistics:
    """Servers by name, peers by address. A peer that no check has seen yet is absent; such a server is not up."""

    servers: Mapping[str, ServerView] = field(default_factory=dict)
    peers: Mapping[str, bool] = field(default_factory=dict)
    sessions: int = 0


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Around the reading of what a machine said: ``Transient`` for what is missing or is no number."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, csv.Error) as error:
        raise Transient(f"{what} could not be read: {plain(str(error), 200)}") from error


def parse_statistics(text: str) -> Statistics:
    """The answer to ``SHOW_STATISTICS``. Columns are found by their names, for they grow with HAProxy's versions.

    Raises ``Transient`` for an answer that can't be read.
    """
    start = text.find("# pxname")
    if start < 0:
        return Statistics()
    with readable("the statistics of HAProxy"):
        return _statistics(text[start + 2 :])


def _statistics(table: str) -> Statistics:
    servers: dict[str, ServerView] = {}
    peers: dict[str, bool] = {}
    sessions = 0
    for row in csv.DictReader(io.StringIO(table)):
        if row["svname"] == "FRONTEND":
            sessions += _count(row["scur"])
        elif row["svname"]:
            checked = (row["check_status"] or "").removeprefix("* ") not in _UNCHECKED
            up = checked and (row["status"] or "").startswith(("UP", "DRAIN"))
            if row["pxname"] == PEERS:
                peers |= {_host(row["addr"] or ""): up} if checked else {}
            else:
                servers[row["svname"]] = ServerView(up, _count(row["scur"]) + _count(row["qcur"]))
    return Statistics(servers, peers, sessions)


def parse_info(text: str) -> Mapping[str, str]:
    """``Key: value`` lines of ``show info``."""
    pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {key: value.strip() for key, value in pairs}


def _count(text: str | None) -> int:
    count = int(text or 0)
    if not 0 <= count < 1 << 63:
        raise ValueError(f"{text!r} is no count")
    return count


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
