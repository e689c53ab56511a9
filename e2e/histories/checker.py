"""What a history must not contain. Pure: from operations to violations.

The rules and what each would mean:

- ``lost``: an acknowledged append is missing from the final read. A write was lost.
- ``diverged``: of two reads of one key, neither is a prefix of the other, or what was read is not there in the end. Two
  histories were served.
- ``resurrected``: an append that was refused is found. A refusal was a lie.
- ``invented``: a value is found that nobody appended, or twice.
- ``two primaries``: two nodes acknowledged in one epoch.
- ``epoch went back``: an operation that began after another had been acknowledged in a newer epoch was acknowledged in
  an older one. The reigns of two primaries overlapped.
- ``money``: the total of all accounts is not what it was.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from e2e.histories.operations import Operation


@dataclass(frozen=True)
class Violation:
    """``rule`` is one of those above."""

    rule: str
    detail: str


def check(history: Sequence[Operation], final: Mapping[int, Sequence[int]], total: int) -> list[Violation]:
    """All violations. ``final``: every list after all faults are over; ``total``: the sum of all accounts.

    Raises ValueError for a history in which nothing was acknowledged: it would prove nothing.
    """
    acknowledged = [op for op in history if op.outcome == "ok"]
    if not any(op.kind == "append" for op in acknowledged):
        raise ValueError("no append was acknowledged: nothing was tested")
    return [
        *_lost(acknowledged, final),
        *_diverged(acknowledged, final),
        *_refused_or_invented(history, final),
        *_two_primaries(acknowledged),
        *_epochs(acknowledged),
        *_money(acknowledged, total),
    ]


def _lost(acknowledged: Sequence[Operation], final: Mapping[int, Sequence[int]]) -> list[Violation]:
    present = {key: set(values) for key, values in final.items()}
    return [
        Violation("lost", f"{op.value} of key {op.key}, acknowledged by {op.node} in epoch {op.epoch}")
        for op in acknowledged
        if op.kind == "append" and op.value not in present.get(op.key, ())
    ]


def _diverged(acknowledged: Sequence[Operation], final: Mapping[int, Sequence[int]]) -> list[Violation]:
    """Sorted by length, each must be a prefix of the next, and the longest of what is there in the end."""
    reads: dict[int, set[tuple[int, ...]]] = {}
    for op in acknowledged:
        if op.kind == "read":
            reads.setdefault(op.key, set()).add(op.found)
    chains = [(key, [*sorted(found, key=len), tuple(final.get(key, ()))]) for key, found in reads.items()]
    return [
        Violation("diverged", f"key {key}: {_tail(shorter)} is no prefix of {_tail(longer)}")
        for key, chain in chains
        for shorter, longer in pairwise(chain)
        if longer[: len(shorter)] != shorter
    ]


def _refused_or_invented(history: Sequence[Operation], final: Mapping[int, Sequence[int]]) -> list[Violation]:
    appends = {op.value: op for op in history if op.kind == "append"}
    found: list[Violation] = []
    reads = [(op.key, op.found) for op in history if op.kind == "read" and op.outcome == "ok"]
    for key, values in {*reads, *((key, tuple(values)) for key, values in final.items())}:
        for value, times in Counter(values).items():
            append = appends.get(value)
            if append is None or append.key != key or times > 1:
                found.append(Violation("invented", f"{value} in key {key}, {times} times"))
            elif append.outcome == "failed":
                found.append(Violation("resurrected", f"{value} in key {key}: {append.error}"))
    return found


def _two_primaries(acknowledged: Sequence[Operation]) -> list[Violation]:
    nodes: dict[int, set[str]] = {}
    for op in _writes(acknowledged):
        nodes.setdefault(op.epoch, set()).add(op.node)
    return [
        Violation("two primaries", f"epoch {epoch}: {', '.join(sorted(names))}")
        for epoch, names in sorted(nodes.items())
        if len(names) > 1
    ]


def _epochs(acknowledged: Sequence[Operation]) -> list[Violation]:
    """By time of invocation, beside the newest epoch that had been acknowledged by then."""
    writes = _writes(acknowledged)
    ended = sorted(writes, key=lambda op: op.completed)
    found: list[Violation] = []
    newest, done = 0, 0
    for op in sorted(writes, key=lambda op: op.invoked):
        while done < len(ended) and ended[done].completed < op.invoked:
            newest = max(newest, ended[done].epoch)
            done += 1
        if op.epoch < newest:
            detail = f"{op.value} acknowledged by {op.node} in epoch {op.epoch}, begun after one in epoch {newest}"
            found.append(Violation("epoch went back", detail))
    return found


def _writes(acknowledged: Sequence[Operation]) -> list[Operation]:
    return [op for op in acknowledged if op.kind in ("append", "transfer") and op.node]


def _money(acknowledged: Sequence[Operation], total: int) -> list[Violation]:
    return [
        Violation("money", f"{op.node} said {op.value}, not {total}")
        for op in acknowledged
        if op.kind == "sum" and op.value != total
    ]


def _tail(values: Sequence[int]) -> str:
    return f"[{len(values)} values, last {list(values[-3:])}]"
