"""The watch over names: no record may lead to an address of this cloud that nobody holds."""

from __future__ import annotations

from .core import Core
from .journal import Violation
from .zones import fully_qualified


def dangling_records(core: Core) -> list[str]:
    """The A and AAAA records at addresses that no droplet and no assigned reserved IP holds, as "name type data"."""
    held: set[str] = set()
    for droplet in core.state.droplets.values():
        if not droplet.deleting:
            held.update(droplet.addresses())
    held.update(ip.ip for ip in core.state.reserved_ips.values() if ip.droplet is not None)
    return [
        f"{fully_qualified(domain, record.name)} {record.type} {record.data}"
        for domain in core.state.domains.values()
        for record in domain.records.values()
        if record.type in ("A", "AAAA") and record.data not in held and core.addresses.is_public(record.data)
    ]


class Auditor:
    """Records each dangling record once, on the token whose write brought it about."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen: set[str] = set()

    def look(self, token: str) -> None:
        """Look at the account after a write."""
        dangling = set(dangling_records(self._core))
        for detail in sorted(dangling - self._seen):
            self._core.violations.append(Violation(self._core.now(), "dangling-record", detail, token))
        self._seen = dangling
