"""The answers of DigitalOcean's API that are no success, in our own terms.

What its API says is shown to people: ``telling`` makes it fit for that, in every error of this provider.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from hasite.errors import Conflict, HasiteError, Permanent, RateLimited, Transient, Unauthorized, Unclear, Unreachable
from hasite.machines.words import plain

LONGEST_WAIT = 3600.0
DEFAULT_WAIT = 60.0
BUSY_WAIT = 5.0  # seconds: what a pending event on a droplet takes, about
MOST_WORDS = 500  # characters: an error is told with what was tried in front of it, in a condition of 1024


class Effect(Enum):
    """What becomes of it when a request is sent again."""

    READ = "read"
    WRITE = "write"  # idempotent: the second one finds it done
    CREATE = "create"  # the second one makes a second thing


class Gone(Conflict):
    """The API says that the object is not there, in its own words: a proxy's 404, say, is none."""


def refusal(what: str, effect: Effect, status: int, body: object, retry_after: float) -> HasiteError:  # noqa: PLR0911
    """The error for an answer of this ``status``, which is no success. ``retry_after`` is for a 429, in seconds."""
    said = _message(body) or f"HTTP {status}"
    text = telling(what, said)
    match status:
        case 401 | 403:
            return Unauthorized(text)
        case 404 if _id(body) == "not_found":
            return Gone(text)
        case 429:
            return RateLimited(text, retry_after)
        case 422 if "pending event" in said.lower():
            return Transient(text, BUSY_WAIT)
        case 408 | 404:
            return no_answer(what, effect, said)
        case _ if 400 <= status < 500:
            return Permanent(text, reason="InvalidRequest")
        case _ if effect is Effect.CREATE:
            return Unclear(text)
        case _:
            return Transient(text)


def no_answer(what: str, effect: Effect, why: str, *, sent: bool = True) -> HasiteError:
    """The error for a request that has no answer one could read. ``sent``: it may have reached the other side."""
    if effect is Effect.CREATE and sent:
        return Unclear(telling(what, why))
    return Unreachable(telling(what, why))


def telling(what: str, words: str) -> str:
    """The text of an error: our name of the operation, then the other side's words as one short line."""
    return f"{what}: {plain(words, MOST_WORDS)}"


def seconds_to_wait(headers: Mapping[str, str], wall_clock: float) -> float:
    """How long a 429 asks to wait: ``Retry-After``, else until ``RateLimit-Reset`` (Unix seconds); 1 s to an hour."""
    wait = _number(headers.get("retry-after"))
    if wait is None:
        reset = _number(headers.get("ratelimit-reset"))
        wait = DEFAULT_WAIT if reset is None else reset - wall_clock
    return min(max(wait, 1.0), LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _field(body: object, name: str) -> str:
    value: Any = body.get(name) if isinstance(body, Mapping) else None
    return value if isinstance(value, str) else ""


def _id(body: object) -> str:
    return _field(body, "id")


def _message(body: object) -> str:
    return _field(body, "message") or _field(body, "error")
