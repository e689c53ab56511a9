"""MySQL's sets of transactions: ``uuid[:tag]:1-5:7, …``. Pure."""

import re
from collections.abc import Iterable

Intervals = dict[str, list[tuple[int, int]]]

_INTERVAL = re.compile(r"(\d+)(?:-(\d+))?")


def parse(text: str) -> Intervals:
    """By source. Raises ValueError."""
    found: Intervals = {}
    for part in text.replace("\n", "").split(","):
        uuid, *rest = (piece.strip() for piece in part.split(":"))
        source = uuid.lower()
        for piece in rest:
            if match := _INTERVAL.fullmatch(piece):
                found.setdefault(source, []).append((int(match[1]), int(match[2] or match[1])))
            elif piece.replace("_", "").isalnum():
                source = f"{uuid.lower()}:{piece.lower()}"
            else:
                raise ValueError(f"{piece!r} is no part of a set of transactions")
    return {source: _merged(intervals) for source, intervals in found.items()}


def size(texts: Iterable[str]) -> int:
    """How many transactions are in the union."""
    union: Intervals = {}
    for text in texts:
        for source, intervals in parse(text).items():
            union.setdefault(source, []).extend(intervals)
    return sum(last - first + 1 for intervals in union.values() for first, last in _merged(intervals))


def difference(one: str, other: str) -> str:
    """What ``one`` has and ``other`` lacks; empty: nothing."""
    lacking = []
    theirs = parse(other)
    for source, intervals in sorted(parse(one).items()):
        left = [gap for interval in intervals for gap in _without(interval, theirs.get(source, []))]
        if left:
            lacking.append(source + "".join(f":{a}" if a == b else f":{a}-{b}" for a, b in left))
    return ",".join(lacking)


def _merged(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _without(interval: tuple[int, int], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    first, last = interval
    gaps = []
    for start, end in taken:
        if end < first or start > last:
            continue
        if start > first:
            gaps.append((first, start - 1))
        first = end + 1
    return [*gaps, (first, last)] if first <= last else gaps
