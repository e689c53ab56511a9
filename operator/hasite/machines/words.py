"""What a machine says, made fit for a status, a log and a terminal."""

MAX_WORDS = 1000
"""Characters, as many as a condition's message should hold."""


def plain(text: str, limit: int = MAX_WORDS) -> str:
    """One line of printable text. Line breaks and tabs become blanks; escapes, bidi and control characters go.

    A machine may be in foreign hands, and a terminal obeys what it is shown.
    """
    kept = (char if char.isprintable() else " " if char.isspace() else "" for char in text[: 4 * limit])
    return "".join(kept).strip()[:limit]
