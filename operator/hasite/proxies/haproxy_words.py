"""The words of a HAProxy configuration: each is held to a strict pattern, and what does not match is refused.

Nothing is quoted because nothing that would need it may pass. Every function raises ``Permanent`` (reason
``UnsafeValue``).
"""

import ipaddress
import math
import re
from collections import Counter

from hasite.errors import Permanent

MAX_SECONDS = 3600.0

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"/[A-Za-z0-9._~!&*+,=:@%/?-]{0,1023}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def socket_address(where: Address, number: int) -> str:
    """An address and a port, as HAProxy writes them."""
    return f"{where}:{number}" if where.version == 4 else f"[{where}]:{number}"


def address(what: str, value: str) -> Address:
    """An IP address without a scope."""
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise unsafe(f"{what} address", value) from None
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None:
        raise unsafe(f"{what} address", value)
    return found


def name(what: str, value: str) -> str:
    """A host name, or the name of a server."""
    return _matching(what, value, _NAME)


def domain(value: str) -> str:
    """A domain name."""
    return _matching("domain", value, _DOMAIN)


def path(value: str) -> str:
    """A path that HAProxy reads as one literal word: no blank, quote, backslash, dollar, hash or control character."""
    return _matching("check path", value, _PATH)


def digest(what: str, value: str) -> str:
    """A SHA-256 in hexadecimal."""
    return _matching(what, value, _DIGEST)


def _matching(what: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise unsafe(what, value)
    return value


def milliseconds(what: str, seconds: float) -> str:
    """A time, given in seconds."""
    if not (math.isfinite(seconds) and 0.001 <= seconds <= MAX_SECONDS):
        raise unsafe(f"{what} (seconds)", seconds)
    return f"{round(seconds * 1000)}ms"


def port(value: int) -> int:
    """1 to 65535."""
    if isinstance(value, bool) or not 1 <= value <= 65535:
        raise unsafe("port", value)
    return value


def count(what: str, value: int) -> int:
    """1 to 100."""
    if isinstance(value, bool) or not 1 <= value <= 100:
        raise unsafe(what, value)
    return value


def distinct(what: str, values: list[str]) -> None:
    """No value twice."""
    for value in sorted(value for value, times in Counter(values).items() if times > 1):
        raise Permanent(f"the {what} {value[:100]!r} occurs twice", reason="UnsafeValue")


def unsafe(what: str, value: object) -> Permanent:
    """The refusal of a value."""
    shown = repr(value)
    return Permanent(
        f"the {what} {shown if len(shown) <= 100 else shown[:97] + '...'} cannot be written into a configuration",
        reason="UnsafeValue",
    )
