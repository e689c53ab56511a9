"""What is done to a member of a database, as one object that tests can replace."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from hasite.databases import delivery
from hasite.databases.certificates import Authority
from hasite.databases.declare import DECLARE, Declaration, Server
from hasite.databases.parcel import NO_SECRETS, parcel_of
from hasite.guard.model import Settings
from hasite.machines.base import Session
from hasite.plan.world import GuardView


@dataclass(frozen=True)
class Goods:
    """What a member's parcel is made from, at ``now`` (Unix seconds)."""

    settings: Settings
    authority: Authority
    now: float
    secrets: bytes = field(default=NO_SECRETS, repr=False)


class MemberOperations(Protocol):
    """The interface of ``MemberOps``, for its fakes. Errors: Transient, Permanent."""

    async def observe(self, session: Session) -> GuardView:
        """What was delivered, and whether it runs."""
        ...

    async def deliver(self, session: Session, goods: Goods, *, restart: bool) -> None:
        """Guard, units, certificate and settings; idempotent."""
        ...

    async def declare(self, engine: str, server: Server, declaration: Declaration) -> None:
        """Users and databases, on the primary; idempotent."""
        ...


class MemberOps:
    """On real machines and servers."""

    async def observe(self, session: Session) -> GuardView:
        """See ``delivery.observe_guard``."""
        return await delivery.observe_guard(session)

    async def deliver(self, session: Session, goods: Goods, *, restart: bool) -> None:
        """See ``delivery.deliver``."""
        parcel = await parcel_of(session, goods.settings, goods.authority, goods.now, goods.secrets)
        await delivery.deliver(session, parcel, restart=restart)

    async def declare(self, engine: str, server: Server, declaration: Declaration) -> None:
        """See ``declare``. In a thread: the libraries block."""
        await asyncio.to_thread(DECLARE[engine], server, declaration)
