"""Counts what the visitors met, second by second."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30
"""How far back the view looks."""


@dataclass
class Tally:
    """`entries`: requests by the address they entered at; `served`: by the app server that answered."""

    requests: int = 0
    failures: int = 0
    second_tries: int = 0
    slowest_ms: int = 0
    last_failure: str = ""
    names: dict[str, list[str] | None] = field(default_factory=dict)
    _seconds: deque[tuple[int, Counter[str]]] = field(default_factory=lambda: deque(maxlen=SECONDS + 1))

    def add(self, line: dict[str, Any], now: float | None = None) -> None:
        """One line of a visitor."""
        if "names" in line:
            self.names = line["names"]
            return
        self.requests += 1
        self.slowest_ms = max(self.slowest_ms, line.get("ms", 0))
        counter = self._counter(int(time.time() if now is None else now))
        if not line["ok"]:
            self.failures += 1
            self.last_failure = str(line["why"])
            counter["failed"] += 1
            return
        if line["tries"] > 1:
            self.second_tries += 1
            counter["second try"] += 1
        counter[f"entry {line['address']}"] += 1
        counter[f"server {line['served']}"] += 1

    def _counter(self, second: int) -> Counter[str]:
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        return self._seconds[-1][1]

    def history(self, key: str, now: float | None = None) -> list[int]:
        """Events a second, oldest first, up to the last whole second."""
        last = int(time.time() if now is None else now) - 1
        known = dict(self._seconds)
        return [known[s][key] if s in known else 0 for s in range(last - SECONDS + 1, last + 1)]
