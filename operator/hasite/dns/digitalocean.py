"""DigitalOcean's DNS as a ``DnsProvider``."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from hasite.clouds.inventory import Snapshots
from hasite.clouds.refusals import Effect, Gone
from hasite.clouds.transport import Api, Json, Operation, read
from hasite.dns.base import DnsProvider
from hasite.plan.world import DnsRecord, ZoneView

LIST_ZONES = Operation("domains.list", Effect.READ, "domains")
CREATE_ZONE = Operation("domains.create", Effect.CREATE, "domain")
DESTROY_ZONE = Operation("domains.delete", Effect.WRITE)
LIST_RECORDS = Operation("domains.list_records", Effect.READ, "domain_records")
CREATE_RECORD = Operation("domains.create_record", Effect.CREATE, "domain_record")
UPDATE_RECORD = Operation("domains.update_record", Effect.WRITE, "domain_record")
DELETE_RECORD = Operation("domains.delete_record", Effect.WRITE)


class DigitalOceanDns(DnsProvider):
    """The zones of one account, over the connection of its ``DigitalOcean``. One per token: its reads are shared."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._zones = Snapshots(self._list_zones, clock)
        self._records: dict[str, Snapshots[ZoneView]] = {}

    async def zones(self, max_age: float) -> Mapping[str, str]:
        """Zone name → zone file."""
        return await self._zones.get(max_age)

    async def records(self, zone: str, max_age: float) -> ZoneView:
        """All records of a zone."""
        return await self._records_of(zone).get(max_age)

    async def create_zone(self, zone: str) -> None:
        """Without an address: the provider would make an A record of its own for it."""
        with self._changing(zone):
            await self._api.call(CREATE_ZONE, body={"name": zone})

    async def destroy_zone(self, zone: str) -> None:
        """With all its records. One that is already gone is a success."""
        with self._changing(zone):
            await self._unless_gone(DESTROY_ZONE, zone)
        self._records.pop(zone, None)

    async def create_record(self, zone: str, record: DnsRecord) -> DnsRecord:
        """One POST."""
        with self._changing(zone):
            body = await self._api.call(CREATE_RECORD, zone, body=_record_body(record))
        return read(CREATE_RECORD, _record_from, body["domain_record"])

    async def update_record(self, zone: str, record: DnsRecord) -> None:
        """Replaces the record with this ID."""
        with self._changing(zone):
            await self._api.call(UPDATE_RECORD, zone, record.id, body=_record_body(record))

    async def delete_record(self, zone: str, record_id: int) -> None:
        """One that is already gone is a success."""
        with self._changing(zone):
            await self._unless_gone(DELETE_RECORD, zone, record_id)

    def close(self) -> None:
        """Give up the refreshes that are under way; the connection belongs to somebody else."""
        self._zones.close()
        for records in self._records.values():
            records.close()

    @contextmanager
    def _changing(self, zone: str) -> Iterator[None]:
        with self._zones.changing(), self._records_of(zone).changing():
            yield

    def _records_of(self, zone: str) -> Snapshots[ZoneView]:
        if zone not in self._records:
            self._records[zone] = Snapshots(partial(self._list_records, zone), self._clock)
        return self._records[zone]

    async def _list_records(self, zone: str) -> ZoneView:
        try:
            items = await self._api.list(LIST_RECORDS, zone)
        except Gone:
            return ZoneView(zone, None)
        return ZoneView(zone, tuple(read(LIST_RECORDS, _record_from, item) for item in items))

    async def _list_zones(self) -> Mapping[str, str]:
        items = await self._api.list(LIST_ZONES)
        return dict(read(LIST_ZONES, _zone_from, item) for item in items)

    async def _unless_gone(self, operation: Operation, *keys: object) -> None:
        try:
            await self._api.call(operation, *keys)
        except Gone:
            return


def _zone_from(item: Json) -> tuple[str, str]:
    return str(item["name"]), str(item.get("zone_file") or "")


def _record_from(item: Json) -> DnsRecord:
    return DnsRecord(str(item["type"]), str(item["name"]), str(item["data"]), int(item["ttl"]), int(item["id"]))


def _record_body(record: DnsRecord) -> dict[str, object]:
    return {"type": record.type, "name": record.name, "data": record.data, "ttl": record.ttl}
