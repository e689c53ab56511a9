"""The life of a droplet below the API: its machine is made, switched, taken away, one call at a time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from . import filtering, views
from .backend import MachineSpec
from .core import Core
from .state import Action, Droplet, ReservedIp

logger = logging.getLogger(__name__)


def spec_of(droplet: Droplet) -> MachineSpec:
    """The machine behind a droplet."""
    return MachineSpec(
        id=droplet.id,
        name=droplet.name,
        region=droplet.region,
        image=views.hypervisor_image(droplet.image),
        size=droplet.size,
        public_ipv4=droplet.public_ipv4,
        private_ipv4=droplet.private_ipv4,
        public_ipv6=droplet.public_ipv6,
        user_data=droplet.user_data,
        ssh_keys=droplet.ssh_keys,
    )


def boot(core: Core, droplet: Droplet) -> None:
    """Begin to create the machine; the droplet becomes active once its firewall is in force."""

    async def work() -> None:
        await core.hypervisor.create(spec_of(droplet))
        droplet.machine = True
        await filtering.bring_up_to_date(core)

    core.spawn(carry_out(core, droplet, droplet.create, work))


def switch(core: Core, droplet: Droplet, action: Action, *, steps: tuple[tuple[bool, bool], ...]) -> None:
    """Carry out power steps, each given as (on, hard)."""

    async def work() -> None:
        for on, hard in steps:
            await core.hypervisor.power(droplet.id, on, hard=hard)
            droplet.powered = on

    core.spawn(carry_out(core, droplet, action, work))


def rebuild(core: Core, droplet: Droplet, action: Action) -> None:
    """Begin to replace the machine by a fresh one with the same addresses."""

    async def work() -> None:
        await core.hypervisor.destroy(droplet.id)
        core.filters.pop(droplet.id, None)
        await core.hypervisor.create(spec_of(droplet))
        droplet.powered = True
        filtering.changed(core)
        await filtering.bring_up_to_date(core)
        for reserved in core.state.reserved_ips_of(droplet.id):
            await core.hypervisor.assign_reserved_ip(reserved.ip, droplet.id)

    core.spawn(carry_out(core, droplet, action, work))


def assign(core: Core, reserved: ReservedIp, droplet: Droplet | None, action: Action) -> None:
    """Lead a reserved IP to a droplet's machine, or to nobody."""

    async def work() -> None:
        reserved.droplet = None if droplet is None else droplet.id
        await core.hypervisor.assign_reserved_ip(reserved.ip, reserved.droplet)

    core.spawn(carry_out(core, droplet, action, work))


def destroy(core: Core, droplet: Droplet) -> None:
    """Begin to take a droplet away; it leaves the listings, and its addresses go back, when the machine is gone."""
    droplet.deleting = True
    core.spawn(_destroy(core, droplet))


async def carry_out(core: Core, droplet: Droplet | None, action: Action, work: Callable[[], Awaitable[None]]) -> None:
    """Do an action's work, in its turn for this droplet, and record its end."""
    lock = core.machine_lock(droplet.id if droplet else 0)
    async with lock:
        try:
            await work()
        except Exception:
            logger.exception("action %s %s on %s failed", action.id, action.type, action.resource_id)
            action.errored = True
        action.done_at = core.now()


async def _destroy(core: Core, droplet: Droplet) -> None:
    async with core.machine_lock(droplet.id):
        try:
            for reserved in core.state.reserved_ips_of(droplet.id):
                reserved.droplet = None
                await core.hypervisor.assign_reserved_ip(reserved.ip, None)
            if droplet.machine:
                await core.hypervisor.destroy(droplet.id)
        except Exception:
            logger.exception("droplet %s was not destroyed", droplet.id)
            droplet.deleting = False
            return
        _forget(core, droplet)
    await filtering.bring_up_to_date(core)


def _forget(core: Core, droplet: Droplet) -> None:
    state, addresses = core.state, core.addresses
    state.droplets.pop(droplet.id)
    core.filters.pop(droplet.id, None)
    for firewall in state.firewalls.values():
        firewall.droplet_ids = [id_ for id_ in firewall.droplet_ids if id_ != droplet.id]
    addresses.public[droplet.region].give_back(droplet.public_ipv4)
    addresses.private[droplet.vpc].give_back(droplet.private_ipv4)
    if droplet.public_ipv6 is not None:
        addresses.ipv6[droplet.region].give_back(droplet.public_ipv6)
    filtering.changed(core)
