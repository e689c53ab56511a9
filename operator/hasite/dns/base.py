"""The interface of a DNS provider, and of asking the authoritative servers what they really say."""

from collections.abc import Mapping
from typing import Protocol

from hasite.plan.world import Answer, DnsRecord, Unknown, ZoneView


class DnsProvider(Protocol):
    """Zones and records at one provider. Errors as for ``clouds.base.Cloud``."""

    async def zones(self, max_age: float) -> Mapping[str, str]:
        """Zone name → its zone file, for all zones, no older than ``max_age`` seconds. A hint, not a fact."""
        ...

    async def records(self, zone: str, max_age: float) -> ZoneView:
        """All records, by a read of every page that began at most ``max_age`` seconds ago, and after the last write to
        this zone by this client; None only for a definite 404. Raises on a short read. Who asks at the same time
        shares one read."""
        ...

    async def create_zone(self, zone: str) -> None:
        """Without an address of its own. ``Unclear`` when it may have been done."""
        ...

    async def destroy_zone(self, zone: str) -> None:
        """With all its records. One that is already gone is a success."""
        ...

    async def create_record(self, zone: str, record: DnsRecord) -> DnsRecord:
        """``Unclear`` when it may have been done."""
        ...

    async def update_record(self, zone: str, record: DnsRecord) -> None:
        """Replaces the record with this ID. One that is gone is a ``Conflict``."""
        ...

    async def delete_record(self, zone: str, record_id: int) -> None:
        """One that is already gone is a success."""
        ...


class Authorities(Protocol):
    """Asks the servers themselves (RFC 1034 section 4.2.2), never a cache."""

    async def ask(self, zone: str, name: str, owner_name: str) -> Mapping[str, Answer | Unknown]:
        """Server address → what it answers for A and AAAA of ``name`` and TXT of ``owner_name``. All are asked at once.

        A server that gives no answer within 1 s (UDP, then TCP) is Unknown. An empty mapping never comes back:
        when not even the server's names can be learnt, one entry tells why.
        """
        ...
