"""A local DigitalOcean: its HTTP API, version 2, over machines of our own, or over none at all.

`Cloud` holds one account. With the default backends it is an API simulator without machines; with a hypervisor
and name servers from the world its droplets are real. The state is in memory and is lost with the process.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from aiohttp import web

from . import api, control
from .addresses import DEFAULT_PLAN, LARGE_PLAN, Addresses, RegionAddresses
from .audit import Auditor, dangling_records
from .backend import (
    DnsRecord,
    FirewallRule,
    Hypervisor,
    MachineSpec,
    NameServers,
    NullHypervisor,
    NullNameServers,
)
from .core import CORE, Core, Timing, furnish
from .faults import Access, Faults, Kind
from .journal import Call, Hook, Journal, Violation
from .limits import DEFAULT_LIMITS, UNLIMITED, Meter, RateLimits
from .pipeline import AUDITOR, passage
from .serving import Server, serve_app
from .state import State

__all__ = [
    "DEFAULT_PLAN",
    "LARGE_PLAN",
    "UNLIMITED",
    "Call",
    "Cloud",
    "DnsRecord",
    "FirewallRule",
    "Hypervisor",
    "Kind",
    "MachineSpec",
    "NameServers",
    "NullHypervisor",
    "NullNameServers",
    "RateLimits",
    "Server",
    "Violation",
    "serve",
]

DEFAULT_TOKENS: Mapping[str, str] = {"local-token": "read-write"}


class Cloud:
    """One account with its API. `app` may be served on several sockets.

    `boot_delay`, `tag_delay` and `action_delay` are seconds of the clock `now`: until a droplet may be active,
    until its tags show in listings, until any other action may be completed.
    """

    def __init__(
        self,
        *,
        tokens: Mapping[str, str] = DEFAULT_TOKENS,
        hypervisor: Hypervisor | None = None,
        name_servers: NameServers | None = None,
        now: Callable[[], float] = time.time,
        boot_delay: float = 0.0,
        tag_delay: float = 0.0,
        action_delay: float = 0.0,
        ns_count: int = 2,
        limits: RateLimits = DEFAULT_LIMITS,
        addresses: Mapping[str, RegionAddresses] = DEFAULT_PLAN,
        reuse_addresses_at_once: bool = False,
    ) -> None:
        access = cast("dict[str, Access]", dict(tokens))
        pools = Addresses(addresses, reuse_at_once=reuse_addresses_at_once)
        self.core = Core(
            state=State(),
            hypervisor=hypervisor or NullHypervisor(),
            name_servers=name_servers or NullNameServers(),
            now=now,
            timing=Timing(boot_delay, tag_delay, action_delay),
            addresses=pools,
            tokens=access,
            faults=Faults(now, access),
            meter=Meter(limits),
            ns_names=tuple(f"ns{number}.digitalocean.com" for number in range(1, ns_count + 1)),
        )
        furnish(self.core.state, pools, now())
        self.app = web.Application(middlewares=[control.refusals, passage])
        self.app[CORE] = self.core
        self.app[AUDITOR] = Auditor(self.core)
        self.app.add_routes([*api.routes(), *control.routes])

    @property
    def state(self) -> State:
        """The account's resources."""
        return self.core.state

    @property
    def faults(self) -> Faults:
        """Trouble on command."""
        return self.core.faults

    @property
    def journal(self) -> Journal:
        """The calls so far."""
        return self.core.journal

    @property
    def violations(self) -> list[Violation]:
        """What a careful client never does or lets happen."""
        return self.core.violations

    @property
    def on_request(self) -> Hook | None:
        """Called (and awaited, if need be) right before and right after the work of each admitted request.

        When it returns False the connection is reset: before, as if the request had never arrived; after, with the
        work done and no answer sent.
        """
        return self.core.on_request

    @on_request.setter
    def on_request(self, hook: Hook | None) -> None:
        self.core.on_request = hook

    def dangling_records(self) -> list[str]:
        """The records that lead to an address of this cloud which nobody holds now."""
        return dangling_records(self.core)

    def machine_stopped(self, machine: int) -> None:
        """Tell the cloud that a machine powered itself off: its droplet is off."""
        self.core.state.droplets[machine].powered = False

    async def settle(self) -> None:
        """Wait until the machines and name servers have been told everything."""
        await self.core.settle()


async def serve(
    cloud: Cloud, sockets: Sequence[socket.socket] | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Server:
    """Serve a cloud on listening sockets, or on a new one at host and port (0: any free port)."""
    return await serve_app(cloud.app, sockets, host, port)
