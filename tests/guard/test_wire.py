"""Messages, settings and votes as JSON."""

import json
import string
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import hypothesis
import pytest
from hasite.guard.messages import Beat, Message, Renew
from hasite.guard.model import Database, Settings, Vote
from hasite.guard.wire import LARGEST, WireError, decode, dump, encode, load, parse
from hypothesis import given
from hypothesis import strategies as st

KINDS = get_args(Message)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(int, st.integers(min_value=-(1 << 63), max_value=1 << 63))
st.register_type_strategy(float, NUMBERS)
st.register_type_strategy(str, st.text(alphabet=string.printable + "é\u2028", max_size=12))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@hypothesis.settings(deadline=None)
@given(data=st.data())
def test_every_message_comes_back_as_it_was_sent(kind: Any, data: st.DataObject) -> None:
    message = data.draw(st.from_type(kind))
    line = encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize("kind", [Settings, Vote])
@hypothesis.settings(deadline=None)
@given(data=st.data())
def test_settings_and_votes_come_back_as_they_were_written(kind: Any, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    assert load(kind, parse(json.dumps(dump(value)).encode())) == value


GOOD: dict[str, Any] = {"type": "Renew", "sender": "a", "epoch": 3, "sequence": 9, "sync": None}


@pytest.mark.parametrize(
    ("wrong", "change"),
    {
        "not an integer": {"epoch": "3"},
        "a truth value is no integer": {"epoch": True},
        "a number with a fraction is no epoch": {"epoch": 3.5},
        "an integer beyond 64 bits": {"epoch": 1 << 70},
        "not a text": {"sender": 1},
        "an unknown kind": {"type": "Shout"},
        "a kind that is no text": {"type": ["Renew"]},
        "a record that is a list": {"sync": []},
        "a record without its fields": {"sync": {"epoch": 1}},
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_that_does_not_fit_its_type_is_refused(wrong: str, change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"type":"Renew"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        decode(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    line = encode(Beat("a", 1, "a", 1.5, "primary", Database("primary"))).replace(b"1.5", number.encode())
    with pytest.raises(WireError):
        decode(line)


def test_a_word_outside_its_list_is_refused() -> None:
    line = encode(Beat("a", 1, "a", 1.5, "primary", Database("primary"))).replace(b'"primary"', b'"king"')
    with pytest.raises(WireError, match="role"):
        decode(line)


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(WireError, match="longer"):
        decode(encode(Renew("a" * LARGEST, 1, 1)))


def test_a_field_of_a_later_release_is_ignored() -> None:
    assert decode(json.dumps({**GOOD, "colour": "red"}).encode()) == Renew("a", 3, 9)


def test_every_field_of_every_message_has_a_type_that_can_be_read() -> None:
    for kind in KINDS:
        assert is_dataclass(kind)
        assert fields(kind)[0].name == "sender"
