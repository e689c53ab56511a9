"""Words of others, made harmless for a terminal: messages in a status may quote what a machine or a provider said.

Nothing is left out, so that nobody can hide words from the reader either.
"""

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from pydantic import BaseModel

T = TypeVar("T")

_NOT_ASCII_IN_JSON = re.compile(r"[^ -~\n]")


def printable(text: str) -> str:
    """One line. Any white space becomes a space, and a character that may move the cursor, start an escape sequence,
    change the direction of the script or be invisible is spelled out, as ``\\x1b``."""
    return "".join(c if c.isprintable() else " " if c.isspace() else _spelled(c) for c in text)


def printable_in(value: T) -> T:
    """The same value with every string in it made printable. Enters data classes, models, tuples and lists."""
    return cast(T, _each(value))


def printable_json(document: str) -> str:
    """The same JSON document, with such characters as JSON's own escapes: a program reads what was there."""
    return _NOT_ASCII_IN_JSON.sub(lambda found: found[0] if found[0].isprintable() else _json(found[0]), document)


def _each(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(item) for item in value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _each(getattr(value, name)) for name in type(value).model_fields})
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _each(getattr(value, field.name)) for field in fields(value)})
    return value


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json(character: str) -> str:
    """RFC 8259: beyond the Basic Multilingual Plane as a pair of surrogates."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
