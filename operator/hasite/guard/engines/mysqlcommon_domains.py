"""MariaDB's positions in several domains: ``domain-server-number, …``. Pure.

In a ring each member writes in a domain of its own, in which its transactions are a sequence.
"""

from collections.abc import Mapping

Positions = Mapping[int, tuple[int, int]]
"""By domain: the number of the newest transaction, and the server that wrote it."""


def parse(text: object) -> dict[int, tuple[int, int]]:
    """Of a domain that is named twice, the greater counts. Raises ValueError."""
    found: dict[int, tuple[int, int]] = {}
    for each in str(text or "").split(","):
        if each.strip():
            domain, server, number = (int(part) for part in each.split("-"))
            found[domain] = max(found.get(domain, (0, 0)), (number, server))
    return found


def text_of(positions: Positions) -> str:
    """As the server writes it."""
    return ",".join(f"{domain}-{server}-{number}" for domain, (number, server) in sorted(positions.items()))


def union(*texts: object) -> str:
    """The newest of each domain."""
    found: dict[int, tuple[int, int]] = {}
    for text in texts:
        for domain, newest in parse(text).items():
            found[domain] = max(found.get(domain, (0, 0)), newest)
    return text_of(found)


def size(text: object) -> int:
    """How many transactions that is, if no number is left out."""
    return sum(number for number, _ in parse(text).values())


def lacking(one: object, other: object) -> str:
    """What ``one`` has and ``other`` lacks: ``domain:from-to``; empty: nothing."""
    theirs = parse(other)
    gaps = []
    for domain, (number, _) in sorted(parse(one).items()):
        had = theirs.get(domain, (0, 0))[0]
        if number > had:
            gaps.append(f"{domain}:{had + 1}-{number}")
    return ",".join(gaps)
