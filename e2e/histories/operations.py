"""One operation of one client, as a value and as a line of JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Operation:
    """``invoked``, ``completed``: seconds of one monotonic clock that all clients share.

    ``append`` puts ``value`` (unique in the whole history) at the end of the list ``key``; ``read`` finds ``found``
    there; ``transfer`` moves money between accounts; ``sum`` finds their total in ``value``. ``unknown``: it may have
    happened or not, or may still happen. ``node`` and ``epoch``: who answered, and in which reign it said it was.
    """

    client: str
    kind: Literal["append", "read", "transfer", "sum"]
    outcome: Literal["ok", "failed", "unknown"]
    invoked: float
    completed: float
    key: int = 0
    value: int = 0
    found: tuple[int, ...] = ()
    node: str = ""
    epoch: int = 0
    error: str = ""


def dump(operation: Operation) -> str:
    """One line."""
    return json.dumps(asdict(operation))


def load(lines: Iterable[str]) -> Iterator[Operation]:
    """Lines that are no operations (a client's last words) are passed over only when empty."""
    for line in lines:
        if line.strip():
            values = json.loads(line)
            yield Operation(**{**values, "found": tuple(values["found"])})
