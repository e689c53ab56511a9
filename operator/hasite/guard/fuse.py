"""The fuse: kills the database server when its lease has run out and the guard has not stopped it.

A process of its own, so that a guard which is stopped, starved, hung or gone fences all the same. It knows no network
and no database, only a deadline (``lease``) and the processes of a unit (``cgroup``).
"""

import sys
import time

from hasite.guard import cgroup, lease
from hasite.guard.notify import Notifier
from hasite.guard.priority import prefer

POLL = 0.05
"""Seconds between two looks: part of the time that ``Timing.kill`` allows."""

_ALIVE = 1.0


def blow(path: str, groups: tuple[str, ...], now_ns: int) -> bool:
    """One look: whether the lease was over, and there was something to kill, which is dead now or dies at the next."""
    if now_ns < lease.read(path) or not cgroup.runs(groups):
        return False
    cgroup.kill(groups, patience=1.0)
    return True


def run(path: str, groups: tuple[str, ...], notifier: Notifier) -> None:
    """For ever. What goes wrong in one look is tried again in the next."""
    notifier.say("READY=1")
    said = 0.0
    while True:
        try:
            if blow(path, groups, lease.clock_ns()):
                print("<2>the lease is over: the database server was killed", file=sys.stderr, flush=True)
        except Exception as error:
            print(f"<3>the fuse: {error!r}", file=sys.stderr, flush=True)
        if time.monotonic() - said > _ALIVE:
            said = time.monotonic()
            notifier.say("WATCHDOG=1")
        time.sleep(POLL)


def main(path: str, groups: tuple[str, ...], unit: str) -> None:
    """``groups``: the folders to look in; empty: those of ``unit``, wherever this machine's systemd keeps it."""
    prefer(2)
    run(path, groups or cgroup.folders(unit), Notifier())
