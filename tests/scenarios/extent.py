"""How much of the matrices is run: all of it when ``HASITE_MATRIX`` is set, some of it in the fast suite."""

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

FULL = bool(os.environ.get("HASITE_MATRIX"))


def sample(everything: Iterable[T], every: int, first: int = 0) -> Sequence[T]:
    """Every so many-th of them in the fast suite."""
    return list(everything)[first :: 1 if FULL else every]
