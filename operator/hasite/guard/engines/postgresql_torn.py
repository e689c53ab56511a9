"""Segments of the write-ahead log that a standby has begun anew on a newer timeline, and not received to the end.

A standby that follows a promoted primary streams the segment in which the timelines part from its beginning, into a
file of the newer timeline. When it is killed then, that file is shorter than what the older timeline's file holds;
recovery prefers the newer, and stops early: it would hide acknowledged writes, or never become consistent. Up to the
point where the timelines part both files say the same, so the shorter one of the newer timeline can go: it is streamed
again. (PostgreSQL's manual, "Continuous Archiving", "Timelines"; recovery looks for a segment in the order of the
history file, newest first.)
"""

import struct
from collections.abc import Iterator
from pathlib import Path

PAGE = 8192
_HEADER = struct.Struct("<HHIQ")
"""Magic, flags, timeline, the page's own position: the first 16 bytes of every page."""


def remove_torn(wal: Path, segment_size: int) -> tuple[str, ...]:
    """Names of the files that were taken away. ``segment_size``: bytes in a segment, from pg_controldata."""
    torn = tuple(_torn(wal, segment_size))
    for file in torn:
        file.unlink()
    return tuple(file.name for file in torn)


def _torn(wal: Path, segment_size: int) -> Iterator[Path]:
    for history in sorted(wal.glob("*.history")):
        parting = _parting(history)
        if parting is None:
            continue
        parent, position = parting
        number = position // segment_size
        newer = wal / _name(int(history.stem, 16), number, segment_size)
        older = wal / _name(parent, number, segment_size)
        if newer.exists() and older.exists():
            length = position - number * segment_size
            if is_shorter(_read(newer, length), _read(older, length), number * segment_size):
                yield newer


def is_shorter(newer: bytes, older: bytes, start: int) -> bool:
    """Whether the log in ``newer`` ends before that in ``older``, which begins with the same. ``start``: the position
    of both. When it cannot be told, no."""
    common = _first_difference(newer, older)
    if common is None:
        return False
    page = common - common % PAGE
    valid_newer, valid_older = _is_page(newer, page, start), _is_page(older, page, start)
    if valid_newer != valid_older:
        return valid_older
    end = page + PAGE
    return not any(newer[common:end]) and any(older[common:end])


def _first_difference(one: bytes, other: bytes) -> int | None:
    if one == other:
        return None
    length = min(len(one), len(other))
    for page in range(0, length, PAGE):
        if one[page : page + PAGE] != other[page : page + PAGE]:
            end = min(page + PAGE, length)
            return next((at for at in range(page, end) if one[at] != other[at]), end)
    return length


def _is_page(content: bytes, page: int, start: int) -> bool:
    """A page that was written for this place; a file that is used again holds pages of another."""
    if len(content) < page + _HEADER.size:
        return False
    magic, _, _, position = _HEADER.unpack_from(content, page)
    return bool(magic) and position == start + page


def _parting(history: Path) -> tuple[int, int] | None:
    """The parent timeline and where it was left, from the last line of a history file."""
    lines = [line.split() for line in history.read_text().splitlines() if line.strip() and line[0] != "#"]
    if not lines or len(lines[-1]) < 2 or "/" not in lines[-1][1]:
        return None
    high, low = lines[-1][1].split("/")
    return int(lines[-1][0]), (int(high, 16) << 32) + int(low, 16)


def _name(timeline: int, number: int, segment_size: int) -> str:
    each = 0x100000000 // segment_size
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def _read(file: Path, length: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(length)
