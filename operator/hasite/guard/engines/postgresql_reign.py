"""Becoming a primary, being one, and leaving nothing of it behind."""

import asyncio
import json
from collections.abc import Mapping

from hasite.guard.engines import postgresql_settings as configuration
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_server import Server
from hasite.guard.engines.postgresql_settings import slot_name
from hasite.guard.engines.threads import in_thread, to_the_end
from hasite.guard.model import Desired, Settings

_GUESTS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND usename <> ALL (ARRAY[current_user::text, %s, %s])"
)


class Reign:
    """Of one server. The server must run; for ``begin`` as a frozen standby."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def begin(self, desired: Desired, settings: Settings) -> None:
        """Promotes the server, and writes the epoch before anybody else can write.

        Whom it waits for is said before: on a standby that has no effect, and so the promise holds from the first
        write on. Clients are kept out, and those that are connected are cut off, until the epoch is written: a write
        that came before would belong to the reign before, and be counted as older than it is.
        """
        hands, files = self._server.hands, self._server.files
        await in_thread(files.admit, False)
        await self._assume(desired, settings)
        await self._see_guests_off()
        position = await hands.value("SELECT (pg_last_wal_replay_lsn() - '0/0')::int8")
        await in_thread(files.write, files.reign, json.dumps({"epoch": desired.epoch, "position": position}) + "\n")
        await hands.value("SELECT pg_promote(false)")
        await self._until_promoted()
        await self._write_epoch(desired.epoch, settings.name)
        await self._server.admit(clients=True)

    async def keep(self, desired: Desired, settings: Settings) -> None:
        """What a primary must be: in this epoch, waiting for whom it must, with a slot for each other member."""
        await self._assume(desired, settings)
        await self._write_epoch(desired.epoch, settings.name)
        await to_the_end(self._server.admit(clients=True))
        others = (member.name for member in settings.membership.members if not member.witness)
        await self._slots(frozenset(slot_name(name) for name in others if name != settings.name))

    async def end(self) -> None:
        """A standby's slots would only keep log on it."""
        await self._slots(frozenset())
        if self._server.files.reign.exists():
            await in_thread(self._server.files.reign.unlink, True)

    async def _assume(self, desired: Desired, settings: Settings) -> None:
        role = self._role(desired, settings)
        await self._server.assume(role)
        if role["synchronous_standby_names"]:
            await self._server.arm()

    def _role(self, desired: Desired, settings: Settings) -> Mapping[str, str]:
        """``hasite.epoch`` tells every session in which reign it is."""
        names = configuration.standby_names(desired.sync, settings.name)
        return {
            "primary_conninfo": "",
            "primary_slot_name": "",
            "synchronous_standby_names": names,
            "hasite.epoch": str(desired.epoch),
        }

    async def _see_guests_off(self) -> None:
        users = (configuration.REPLICATION_USER, configuration.OPERATOR_USER)
        for _ in range(30):
            if not await self._server.hands.value(_GUESTS, users):
                return
            await asyncio.sleep(0.01)

    async def _until_promoted(self) -> None:
        end = asyncio.get_running_loop().time() + 30.0
        while await self._server.hands.value("SELECT pg_is_in_recovery()"):
            if asyncio.get_running_loop().time() > end:
                raise EngineError("the promotion does not end")
            await asyncio.sleep(0.005)

    async def _write_epoch(self, epoch: int, name: str) -> None:
        """The guard's sessions don't wait for standbys."""
        await self._server.hands.fetch(
            "INSERT INTO hasite.epoch (epoch, holder, lsn) SELECT %s, %s, pg_current_wal_insert_lsn() "
            "WHERE NOT EXISTS (SELECT FROM hasite.epoch WHERE epoch >= %s)",
            (epoch, name, epoch),
        )

    async def _slots(self, wanted: frozenset[str]) -> None:
        """One that was given up (its member was away for too long) is made anew: that member copies afresh."""
        hands = self._server.hands
        rows = await hands.fetch("SELECT slot_name, active, wal_status = 'lost' FROM pg_replication_slots")
        ours = {name: (active, lost) for name, active, lost in rows if name.startswith("hasite_")}
        for name, (active, lost) in ours.items():
            if not active and (lost or name not in wanted):
                await hands.fetch("SELECT pg_drop_replication_slot(%s)", (name,))
        for name in wanted:
            if name not in ours or (ours[name][1] and not ours[name][0]):
                await hands.fetch("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
