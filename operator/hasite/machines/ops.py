"""What reconcilers do with a machine, as one object that tests can replace."""

from typing import Protocol

from hasite.machines import hostkeys, observe
from hasite.machines.base import Session
from hasite.plan.world import MachineView


class Operations(Protocol):
    """The interface of ``MachineOps``, for its fakes."""

    async def observe(self, session: Session, now: float) -> MachineView:
        """How far the machine's bootstrap has come; ``now`` in Unix seconds."""
        ...

    async def stage_host_key(self, session: Session) -> str:
        """Makes a new host key on the machine unless it is there, and returns its public half."""
        ...

    async def activate_host_key(self, session: Session) -> None:
        """Makes the staged key the only one. The caller has recorded it, and cloud-init has ended."""
        ...


class MachineOps:
    """On real machines."""

    async def observe(self, session: Session, now: float) -> MachineView:
        """See ``observe.observe_machine``."""
        return await observe.observe_machine(session, now)

    async def stage_host_key(self, session: Session) -> str:
        """See ``hostkeys.stage_host_key``."""
        return await hostkeys.stage_host_key(session)

    async def activate_host_key(self, session: Session) -> None:
        """See ``hostkeys.activate_host_key``."""
        await hostkeys.activate_host_key(session)
