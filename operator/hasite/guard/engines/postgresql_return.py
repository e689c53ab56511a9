"""An old primary comes back: what it alone had is saved, and its data are made to be the others' again."""

import json
from contextlib import suppress
from datetime import UTC, datetime

from hasite.guard.engines import postgresql_copy as copy
from hasite.guard.engines import postgresql_kin as kin
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_saved import Divergence, keep_unread, save
from hasite.guard.engines.postgresql_server import Server, notation
from hasite.guard.engines.postgresql_sql import NotAnswering
from hasite.guard.engines.threads import in_thread
from hasite.guard.model import Member


class Return:
    """Of the server of member ``name``."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name

    async def diverged(self, own: kin.Own, other: kin.Upstream, source: Member | None) -> bool:
        """The server runs frozen. Afterwards it is down, and its data are rewound to ``source``'s (True), or unusable.

        pg_rewind finds nothing to do where the newest timelines have the same number, whatever came before.
        """
        start = self._fork(own, other)
        found = Divergence(
            member=self._name,
            epoch=max(own.epochs, default=0),
            saved_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            timeline=own.timeline,
            from_lsn=notation(start),
            to_lsn=notation(own.end),
            bytes=own.end - start,
        )
        await save(self._server, found, start, own.end)
        await self._server.stop()
        files = self._server.files
        await in_thread(files.reign.unlink, True)
        if source is None or own.timeline == other.timelines[-1][0]:
            await in_thread(files.write, files.unusable, "diverged, and not to be rewound\n")
            return False
        try:
            await copy.rewind(self._server, source)
            return True
        except NotAnswering:
            raise
        except EngineError as error:
            await in_thread(files.write, files.unusable, f"{error}\n")
            return False

    async def unread(self) -> None:
        """A server that was promoted, and now does not even start: its log is kept before a copy replaces its data."""
        files = self._server.files
        if not (files.present and files.reign.exists()):
            return
        reign = json.loads(files.reign.read_text())
        found = Divergence(
            member=self._name,
            epoch=int(reign["epoch"]),
            saved_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            timeline=0,
            from_lsn=notation(int(reign["position"])),
            to_lsn="",
            bytes=0,
            complete=False,
            remarks=["the server did not start: its whole log since it was promoted is here, unread"],
        )
        await in_thread(keep_unread, self._server, found)
        await in_thread(files.reign.unlink, True)

    async def foreign(self) -> None:
        """The data of another database are set apart."""
        await self._server.stop()
        saved = self._server.files.layout.saved
        await copy.set_apart(self._server, saved / f"foreign-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")

    def _fork(self, own: kin.Own, other: kin.Upstream) -> int:
        """Where the histories part; when their timelines don't show it, no later than that."""
        found = kin.fork(own.timelines(), other.timelines)
        if found is None:
            shared = [lsn for epoch, lsn in other.epochs.items() if epoch in own.epochs]
            found = max(shared, default=0)
            with suppress(FileNotFoundError):
                found = max(found, int(json.loads(self._server.files.reign.read_text())["position"]))
        return min(found, own.end)
