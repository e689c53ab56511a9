"""A constraint with a value that it accepts and one that it refuses, and short forms for common ones."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

GONE: Final = object()
"""In place of a value: the field is left out."""

WORDS: Final[Mapping[str, str]] = {
    "required": "Required value",
    "pattern": "should match",
    "maxLength": "Too long",
    "minimum": "should be greater than or equal to",
    "maximum": "should be less than or equal to",
    "enum": "Unsupported value",
    "minItems": "should have at least",
    "maxItems": "must have at most",
    "maxProperties": "must have at most",
    "duplicate": "Duplicate value",
}
"""What the API server says, for each keyword of a schema; a CEL rule says its own message."""


@dataclass(frozen=True)
class Case:
    """One constraint at one field. `path` is relative to spec. `before`: what the field held before an update."""

    path: str
    keyword: str
    accepted: Any
    rejected: Any
    before: Any = field(default=GONE)
    also_refused_by_the_model: bool | None = None
    """Rules of CEL are the API server's alone, but for those that the model holds too."""

    @property
    def words(self) -> str:
        """What the refusal must say."""
        return WORDS.get(self.keyword, self.keyword)

    @property
    def is_rule(self) -> bool:
        """Whether it is a CEL rule; `keyword` is its message then."""
        return self.keyword not in WORDS

    @property
    def model_refuses(self) -> bool:
        """Whether the pydantic models refuse it as well. They take two items of one key: only the API server merges."""
        if self.also_refused_by_the_model is not None:
            return self.also_refused_by_the_model
        return not self.is_rule and self.keyword != "duplicate"

    @property
    def where(self) -> str:
        """The path with indices and keys taken out, as a walk over the schema gives it."""
        return re.sub(r"\{\w+\}", "{}", re.sub(r"\[\d+\]", "[]", f"spec.{self.path}" if self.path else "spec"))

    @property
    def reported(self) -> str:
        """The path as the API server writes it."""
        return re.sub(r"\{(\w+)\}", r".\1", f"spec.{self.path}" if self.path else "spec")


def under(prefix: str, cases: Iterable[Case]) -> list[Case]:
    """The same cases with the fields below `prefix`."""
    return [replace(case, path=f"{prefix}.{case.path}" if case.path else prefix) for case in cases]


def span(path: str, low: str, high: str, accepted: str, rejected: str) -> list[Case]:
    """A duration."""
    return [
        Case(path, "pattern", accepted, "1.5s"),
        Case(path, "maxLength", accepted, "1s1s1s1s1s1s1s1s1s1s1s"),
        Case(path, f"must be between {low} and {high}", accepted, rejected, also_refused_by_the_model=True),
    ]


def number(path: str, low: int, high: int) -> list[Case]:
    """A whole number with bounds."""
    return [Case(path, "minimum", low, low - 1), Case(path, "maximum", high, high + 1)]


def reference(path: str, required: bool = True) -> list[Case]:
    """A reference to an object in the same namespace."""
    name = f"{path}.name"
    return [
        *([Case(path, "required", {"name": "a"}, GONE)] if required else []),
        Case(name, "required", "a", GONE),
        Case(name, "pattern", "token.of-mine", "Token"),
        Case(name, "maxLength", "a" * 253, "a" * 254),
    ]


def slug(path: str, accepted: str) -> list[Case]:
    """The provider's name for a size or an image."""
    return [Case(path, "pattern", accepted, "a b"), Case(path, "maxLength", "a" * 64, "a" * 65)]
