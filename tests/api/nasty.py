"""What a string of a custom resource must never hold, since it may come to stand in a configuration file."""

from collections.abc import Sequence
from typing import Final

from tests.api.cases import TABLE

NASTY: Final = ["\n", "\r", "\t", "\x00", '"', "'", "`", "{", "}", "#", "\\", "$", ";", " ", "\u2028", "a" * 10_000]
MAY_HOLD: Final = {
    "spec.parameters{}": "`$; \u2028",
    "spec.installation.sources[]": " ",
    "spec.installation.pins[].packages": " ",
}
"""Database settings are quoted by whoever writes them; what could end the quotes or the line is refused."""

STRINGS: Final = [(kind, case) for kind, case in TABLE if case.keyword == "pattern"]
"""Each string of a spec that is free within a pattern, with an accepted value."""


def injections(where: str) -> Sequence[str]:
    """What must be refused at the field when it stands behind an accepted value."""
    return [nasty for nasty in NASTY if nasty not in MAY_HOLD.get(where, "")]
