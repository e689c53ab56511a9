"""`python -m e2e.histories.client`: one client for some time; every operation is a line of JSON on stdout.

The server comes as JSON on stdin, so that no password is in an argument. Values are unique by the client's number.
"""

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from e2e.histories.operations import Operation, dump
from e2e.histories.stores import ACCOUNTS, Refused, Said, Server, Store, Uncertain, store

Outcome = Literal["ok", "failed", "unknown"]


class Client:
    """Connects anew after whatever it was not certain of."""

    def __init__(self, number: int, engine: str, server: Server, keys: int) -> None:
        self.number = number
        self._engine = engine
        self._server = server
        self._keys = keys
        self._chance = random.Random(number)
        self._next = number * 1_000_000
        self._store: Store | None = None

    def once(self) -> Operation:
        """One operation of a mix: half appends, a quarter reads, the rest money."""
        key, dice = self._chance.randrange(self._keys), self._chance.random()
        if dice < 0.5:
            self._next += 1
            value = self._next
            return self._do("append", lambda s: ({}, s.append(key, value)), key=key, value=value)
        if dice < 0.75:
            return self._do("read", lambda s: _found(s, key), key=key)
        if dice < 0.9:
            source, target = self._chance.sample(range(ACCOUNTS), 2)
            return self._do("transfer", lambda s: ({}, s.transfer(source, target, 1)))
        return self._do("sum", _sum)

    def _do(self, kind: Any, act: Callable[[Store], tuple[dict[str, Any], Said]], **about: Any) -> Operation:
        invoked = time.monotonic()
        outcome: Outcome = "ok"
        error, said = "", Said("", 0)
        try:
            if self._store is None:
                self._store = store(self._engine, self._server)
            more, said = act(self._store)
            about |= more
        except Refused as refused:
            outcome, error = "failed", str(refused)
        except Uncertain as uncertain:
            outcome, error = "unknown", str(uncertain)
        if outcome != "ok" and self._store is not None:
            self._store.close()
            self._store = None
        completed = time.monotonic()
        name = f"client-{self.number}"
        return Operation(
            name, kind, outcome, invoked, completed, node=said.node, epoch=said.epoch, error=error, **about
        )


def _found(connected: Store, key: int) -> tuple[dict[str, Any], Said]:
    found, said = connected.read(key)
    return {"found": found}, said


def _sum(connected: Store) -> tuple[dict[str, Any], Said]:
    total, said = connected.total()
    return {"value": total}, said


def main(argv: Sequence[str] | None = None) -> None:
    """Until the time is over, or SIGTERM: the operation that is under way is told in any case."""
    parser = argparse.ArgumentParser(prog="python -m e2e.histories.client", description=__doc__)
    parser.add_argument("engine", choices=("postgresql", "mysql", "mariadb"))
    parser.add_argument("--number", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two operations")
    options = parser.parse_args(argv)
    server = json.loads(sys.stdin.read())
    client = Client(options.number, options.engine, Server(**{**server, "hosts": tuple(server["hosts"])}), options.keys)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    end = time.monotonic() + options.seconds
    while time.monotonic() < end and not ended.is_set():
        print(dump(client.once()), flush=True)
        ended.wait(options.pause)


if __name__ == "__main__":
    main()
