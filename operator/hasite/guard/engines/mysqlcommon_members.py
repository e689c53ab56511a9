"""Who is who in a ring of servers, and what tells one member's configuration from another's. Pure.

A member that was copied afresh is another server to the rest, an *incarnation*: it must not give the numbers of
transactions that it lost out again, and must not take those of before that come back to it for its own.
"""

import re
import zlib
from collections.abc import Collection, Iterable

from hasite.guard.model import Settings
from hasite.guard.ring import INCREMENT, members_of, numbers

_INCARNATIONS = 256
_MOST = 2**24 - 2


def bases(names: Collection[str]) -> dict[str, int]:
    """The upper 24 bits of each member's server_id: of its name alone, unless two would have the same."""
    given: dict[str, int] = {}
    for name in sorted(names):
        number = zlib.crc32(name.encode()) % _MOST + 1
        while number in given.values():
            number = number % _MOST + 1
        given[name] = number
    return given


def server_id(settings: Settings, incarnation: int) -> int:
    """Of this member."""
    names = {*members_of(settings.membership), settings.name}
    return bases(names)[settings.name] * _INCARNATIONS + incarnation % _INCARNATIONS


def writer_of(settings: Settings, number: int) -> str:
    """Whose server_id this is; empty: of nobody who takes part."""
    names = {*members_of(settings.membership), settings.name}
    return next((name for name, base in bases(names).items() if base == number // _INCARNATIONS), "")


def options(settings: Settings, incarnation: int) -> dict[str, str]:
    """For both servers; none of a member that is not of a ring."""
    if not settings.ring:
        return {}
    names = (*members_of(settings.membership), settings.name)
    return {
        "server_id": str(server_id(settings, incarnation)),
        "auto_increment_increment": str(INCREMENT),
        "auto_increment_offset": str(numbers(tuple(dict.fromkeys(names)))[settings.name]),
    }


_ROW = re.compile(r"^### (?:(INSERT|UPDATE|DELETE) |(SET|WHERE)$|  @)")
_COMMENT = re.compile(r"/\*.*?\*/")
_LONGEST = 400


def first_row(lines: Iterable[str]) -> str:
    """The first row's statement, in one line, of what a tool wrote about a transaction in comments."""
    words: list[str] = []
    for line in lines:
        if not _ROW.match(line):
            continue
        if words and line.startswith(("### INSERT", "### UPDATE", "### DELETE")):
            break
        words.append(_COMMENT.sub("", line[4:]).strip())
    return " ".join(words)[:_LONGEST]
