"""The values of ``model`` and ``messages`` as JSON, strictly: what does not fit its type is refused, never guessed.

A message is one line. A field that a reader does not know is ignored, and one that a writer did not know has its
default, so that guards of two releases can talk during an upgrade; a rule that both must keep needs a new message.
"""

import json
from collections.abc import Callable, Hashable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hasite.guard.messages import Message

LARGEST = 256 * 1024
"""Bytes of the longest line that is read."""

_LARGEST_INTEGER = 1 << 64
_PLAIN = frozenset({str, int, float, bool, NoneType})
_MESSAGES: dict[str, type] = {kind.__name__: kind for kind in get_args(Message)}

T = TypeVar("T")
_Reader = Callable[[Any, str], Any]


class WireError(ValueError):
    """What was read is not what it should be; the text names the field."""


def encode(message: Message) -> bytes:
    """One line, with its end."""
    return json.dumps({"type": type(message).__name__, **dump(message)}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises WireError."""
    value = parse(line)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise WireError("a message is an object with a type")
    kind = _MESSAGES.get(value["type"])
    if kind is None:
        raise WireError(f"unknown message {value['type'][:40]!r}")
    message: Message = load(kind, value)
    return message


def parse(text: bytes) -> Any:
    """JSON without NaN and infinities. Raises WireError."""
    if len(text) > LARGEST:
        raise WireError(f"longer than {LARGEST} bytes")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None


def dump(value: Any) -> Any:
    """A dataclass as plain JSON values; sets are sorted, so that equal values have equal texts."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is frozenset:
        return sorted(value)
    if kind is tuple:
        return [dump(item) for item in value]
    return {name: dump(getattr(value, name)) for name in _names(kind)} if is_dataclass(kind) else value


def load(kind: type[T], value: Any) -> T:
    """The opposite of ``dump``. Raises WireError."""
    reader: _Reader = _reader(cast(Hashable, kind))
    loaded: T = reader(value, kind.__name__)
    return loaded


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _no_constant(name: str) -> Any:
    raise WireError(f"{name} is not a number")


@cache
def _reader(kind: Any) -> _Reader:
    """How a type is read; the types of ``model`` and ``messages`` are made of these few."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _record(kind)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return _optional(_reader(inner))
    if origin is Literal:
        return _one_of(arguments)
    if origin in (tuple, frozenset):
        return _sequence(origin, _reader(arguments[0]))
    if origin is dict:
        return _mapping
    return _SCALARS[kind]


def _record(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise WireError(f"{where}: not an object")
        if missing := needed - value.keys():
            raise WireError(f"{where}: without {', '.join(sorted(missing))}")
        known = {name: reader(value[name], f"{where}.{name}") for name, reader in readers.items() if name in value}
        return kind(**known)

    return read


def _optional(inner: _Reader) -> _Reader:
    return lambda value, where: None if value is None else inner(value, where)


def _one_of(choices: tuple[Any, ...]) -> _Reader:
    def read(value: Any, where: str) -> Any:
        if value not in choices or not isinstance(value, str):
            raise WireError(f"{where}: none of {', '.join(choices)}")
        return value

    return read


def _sequence(make: Any, inner: _Reader) -> _Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise WireError(f"{where}: not a list")
        return make(inner(item, where) for item in value)

    return read


def _mapping(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WireError(f"{where}: not an object")
    return {key: _text(item, f"{where}.{key}") for key, item in value.items()}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise WireError(f"{where}: not a text")
    return value


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise WireError(f"{where}: neither true nor false")
    return value


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= _LARGEST_INTEGER:
        raise WireError(f"{where}: not an integer of 64 bits")
    return value


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
        raise WireError(f"{where}: not a number")
    return float(value)


_SCALARS: dict[Any, _Reader] = {str: _text, bool: _truth, int: _integer, float: _number}
