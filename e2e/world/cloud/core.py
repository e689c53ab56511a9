"""What every endpoint works with: the state, the clock, the machines below, and work that goes on in the background."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .addresses import Addresses
from .backend import FirewallRule, Hypervisor, NameServers
from .catalogue import DISTRIBUTIONS, REGIONS
from .faults import Access, Faults
from .journal import Hook, Journal, Violation
from .limits import Meter
from .rest import unprocessable
from .state import Action, Image, State, Vpc

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Delays in seconds: until a droplet is active, until its tags show, until any other action is completed."""

    boot_delay: float = 0.0
    tag_delay: float = 0.0
    action_delay: float = 0.0


@dataclass
class Core:
    """The account and its surroundings."""

    state: State
    hypervisor: Hypervisor
    name_servers: NameServers
    now: Callable[[], float]
    timing: Timing
    addresses: Addresses
    tokens: dict[str, Access]
    faults: Faults
    meter: Meter
    ns_names: tuple[str, ...]
    journal: Journal = field(default_factory=Journal)
    violations: list[Violation] = field(default_factory=list)
    on_request: Hook | None = None
    filters_wanted: int = 0
    filters_applied: int = 0
    filter_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    filters: dict[int, tuple[FirewallRule, ...] | None] = field(default_factory=dict)
    zone_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _machine_locks: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def machine_lock(self, machine: int) -> asyncio.Lock:
        """Held during each call to the hypervisor, so that the calls for one machine follow each other."""
        return self._machine_locks[machine]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with work after the answer was sent."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", exc_info=error)

    async def settle(self) -> None:
        """Wait until no background work is left."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give up background work."""
        for task in self._tasks:
            task.cancel()
        await self.settle()

    def action(self, kind: str, resource: tuple[str, int], region: str, delay: float) -> Action:
        """Begin an action on a resource, given as (type, id)."""
        now = self.now()
        resource_type, resource_id = resource
        action = Action(self.state.next_id("action"), kind, resource_id, resource_type, region, now, now + delay)
        self.state.actions[action.id] = action
        return action

    def canonical_tags(self, names: list[str], *, create: bool) -> list[str]:
        """The tags as they were first written; unknown ones are created or refused with ApiError 422."""
        tags: dict[str, None] = {}
        for name in names:
            key = name.lower()
            if key not in self.state.tags:
                if not create:
                    raise unprocessable(f"tag {name} does not exist")
                self.state.tags[key] = name
            tags[self.state.tags[key]] = None
        return list(tags)


CORE = web.AppKey("core", Core)


def furnish(state: State, addresses: Addresses, now: float) -> None:
    """Put into a new account what every account has: distribution images and a default VPC per region."""
    for image in DISTRIBUTIONS.values():
        state.images[image.id] = Image(
            image.id, image.name, image.distribution, image.slug, tuple(REGIONS), now, min_disk_size=7
        )
    for region, networks in addresses.plan.items():
        vpc = Vpc(state.next_uuid("vpc"), f"default-{region}", region, networks.private, now, default=True)
        state.vpcs[vpc.id] = vpc
        addresses.add_private(vpc.id, networks.private)


def access_of(tokens: Mapping[str, Access], token: str) -> Access | None:
    """What a token may do; None when it isn't known."""
    access = tokens.get(token)
    return None if access == "revoked" else access
