"""Which begun segments of a newer timeline are taken away before a standby starts."""

import struct
from pathlib import Path

import pytest
from hasite.guard.engines.postgresql_torn import PAGE, is_shorter, remove_torn

SIZE = 16 * PAGE
START = SIZE


def log(pages: float, of: int = 1, start: int = START) -> bytes:
    """So many pages of log, the last one in part."""
    whole = b"".join(
        struct.pack("<HHIQ", 0xD110, 0, of, start + number * PAGE) + bytes([number % 200 + 1]) * (PAGE - 16)
        for number in range(16)
    )
    return whole[: int(pages * PAGE)].ljust(SIZE, b"\0")


STALE = log(16, start=7 * SIZE)
"""A file that is used again: full of another place's pages."""

CASES = [
    ("the same", log(5), log(5), False),
    ("the newer ends a page earlier", log(2), log(5), True),
    ("the newer ends within a page", log(4.5), log(5), True),
    ("the newer has more", log(5), log(2), False),
    ("the newer has more within a page", log(5), log(4.5), False),
    ("the newer goes on in a used file", log(2)[: 2 * PAGE] + STALE[2 * PAGE :], log(5), True),
    ("the older goes on in a used file", log(5), log(2)[: 2 * PAGE] + STALE[2 * PAGE :], False),
    ("the newer is empty", b"", log(5), True),
]


@pytest.mark.parametrize(("newer", "older", "shorter"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_newer_file_is_shorter(newer: bytes, older: bytes, shorter: bool) -> None:
    assert is_shorter(newer[: 5 * PAGE], older[: 5 * PAGE], START) is shorter


def test_only_the_torn_file_of_the_segment_where_the_timelines_part_goes(tmp_path: Path) -> None:
    (tmp_path / "00000002.history").write_text(f"1\t0/{START + 5 * PAGE:X}\tno recovery target specified\n")
    (tmp_path / "000000010000000000000001").write_bytes(log(5))
    (tmp_path / "000000020000000000000001").write_bytes(log(2))
    (tmp_path / "000000010000000000000002").write_bytes(log(2))
    assert remove_torn(tmp_path, SIZE) == ("000000020000000000000001",)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000000010000000000000001",
        "000000010000000000000002",
        "00000002.history",
    ]


def test_a_history_that_says_nothing_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "00000002.history").write_text("# nothing\n")
    (tmp_path / "000000020000000000000001").write_bytes(log(2))
    assert remove_torn(tmp_path, SIZE) == ()
