"""What runs between reconciles: probes of every load balancer, and a kept-open look at every machine.

It decides nothing: it counts, remembers what it saw last, and wakes the owner when that changed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import aiohttp

from hasite.errors import HasiteError, HostKeyMismatch
from hasite.machines.base import Machines, Session, Target
from hasite.plan.proxies import ALIVE_PATH
from hasite.plan.world import GuardView, Impostor, MachineView, Probe, ProxyView, Unknown
from hasite.proxies.base import Engine

FULL_LOOK_SECONDS = 10.0
SETTING_UP_SECONDS = 1.0
NEW_RECOVERY_THRESHOLD = 2
NEW_INTERVAL_SECONDS = 0.5
EAGER_SECONDS = 0.25
"""How often load balancers are asked for their opinion while a probe fails."""

ATTEMPTS = 3
"""Connections that one probe may open, the later ones at a quarter and a half of its patience. The kernel sends a lost
SYN again only after a second (RFC 6298, 2.1), so on a line that loses packets one connection would often look dead."""

Owner = tuple[str, str, str]
"""Kind, namespace, name."""


Observe = Callable[[Session, float], Awaitable[MachineView]]
"""``Operations.observe``."""

LookAtGuard = Callable[[Session], Awaitable[GuardView]]
"""``databases.delivery.observe_guard``."""


@dataclass(frozen=True)
class WatchTarget:
    """A machine to look at. ``engine`` is None without a proxy of ours. ``probe``: the addresses to probe, if any."""

    target: Target
    engine: Engine | None
    probe: tuple[str, ...]
    interval: float = 1.0
    timeout: float = 0.8
    failure_threshold: int = 3
    recovery_threshold: int = 5
    guard: LookAtGuard | None = None


class Watch(Protocol):
    """What the reconcilers need of it."""

    def follow(self, owner: Owner, targets: Sequence[WatchTarget]) -> None:
        """From now on just these, for this owner."""
        ...

    def machine(self, name: str) -> MachineView | Impostor | Unknown:
        """The latest look at a machine."""
        ...

    def probe(self, address: str) -> Probe | None:
        """The operator's verdict on an address."""
        ...

    def look_again(self, name: str) -> None:
        """Something was changed on the machine: look at it in full, now."""
        ...

    def retarget(self, target: Target) -> None:
        """From now on this machine shows these host keys."""
        ...


@dataclass(frozen=True)
class Streak:
    """Probes in a row with the same result. ``new``: the address was never found up, so there is no flapping yet."""

    ok: bool
    length: int = 1
    new: bool = True

    def then(self, ok: bool, up: bool | None) -> "Streak":
        """After one more probe; ``up`` is the verdict before it."""
        return Streak(ok, self.length + 1 if ok is self.ok else 1, self.new and up is not True)


def count(probe: Probe, streak: Streak, detail: str, target: WatchTarget, now: float) -> Probe:
    """The verdict after the latest probe of the streak."""
    ok = streak.ok
    failing = None if ok else (probe.failing_since or now)
    needed = target.recovery_threshold if ok else target.failure_threshold
    if ok and streak.new:
        needed = min(needed, NEW_RECOVERY_THRESHOLD)
    ok_at = now if ok else probe.ok_at
    if probe.up is not ok and streak.length >= needed:
        return Probe(ok, now, detail, failing, ok_at)
    words = probe.detail if ok or probe.up is not False else detail
    return replace(probe, failing_since=failing, detail=words, ok_at=ok_at)


class Watcher:
    """The real one. Tasks are made and ended by ``follow`` alone."""

    def __init__(
        self,
        machines: Machines,
        observe: Observe,
        wake: Callable[[Owner, bool], None],
        *,
        clock: Callable[[], float] = time.time,
        probe_port: int = 80,
    ) -> None:
        self._machines = machines
        self._observe = observe
        self._wake = wake
        self._clock = clock
        self._probe_port = probe_port
        self._targets: dict[Owner, dict[str, WatchTarget]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._views: dict[str, MachineView | Impostor | Unknown] = {}
        self._probes: dict[str, Probe] = {}
        self._poked: dict[str, asyncio.Event] = {}
        self._full: set[str] = set()
        self._http: aiohttp.ClientSession | None = None

    def follow(self, owner: Owner, targets: Sequence[WatchTarget]) -> None:
        """See ``Watch``."""
        before = self._targets.get(owner, {})
        after = {t.target.name: t for t in targets}
        self._targets[owner] = after
        for name in before.keys() - after.keys():
            self._end(f"machine {name}")
            self._views.pop(name, None)
            self._poked.pop(name, None)
            asyncio.get_running_loop().create_task(self._machines.drop(name))
        old = {a for t in before.values() for a in t.probe}
        new = {a: t.target.name for t in after.values() for a in t.probe}
        for address in old - new.keys():
            self._end(f"probe {address}")
            self._probes.pop(address, None)
        for name in after:
            self._poked.setdefault(name, asyncio.Event())
            self._start(f"machine {name}", self._look_loop, owner, name)
        for address, name in new.items():
            self._start(f"probe {address}", self._probe_loop, owner, name, address)
        if not after:
            del self._targets[owner]

    def machine(self, name: str) -> MachineView | Impostor | Unknown:
        """See ``Watch``."""
        return self._views.get(name, Unknown("it was not reached yet"))

    def probe(self, address: str) -> Probe | None:
        """See ``Watch``."""
        return self._probes.get(address)

    def look_again(self, name: str) -> None:
        """See ``Watch``."""
        self._full.add(name)
        if name in self._poked:
            self._poked[name].set()

    def retarget(self, target: Target) -> None:
        """See ``Watch``."""
        for targets in self._targets.values():
            if target.name in targets:
                targets[target.name] = replace(targets[target.name], target=target)

    async def close(self) -> None:
        """Ends everything."""
        for key in list(self._tasks):
            self._end(key)
        if self._http is not None:
            await self._http.close()

    def _start(self, key: str, loop: Callable[..., object], *args: object) -> None:
        task = self._tasks.get(key)
        if task is None or task.done():
            self._tasks[key] = asyncio.get_running_loop().create_task(loop(*args), name=key)  # type: ignore[arg-type]

    def _end(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def _target(self, owner: Owner, name: str) -> WatchTarget | None:
        return self._targets.get(owner, {}).get(name)

    async def _look_loop(self, owner: Owner, name: str) -> None:
        full_at = 0.0
        while (target := self._target(owner, name)) is not None:
            now = time.monotonic()
            full = now >= full_at or name in self._full
            self._full.discard(name)
            self._poked[name].clear()
            view = await self._look(target, full)
            if full:
                setting_up = isinstance(view, MachineView) and view.cloud_init == "running"
                full_at = now + (FULL_LOOK_SECONDS if isinstance(view, MachineView) and not setting_up else 0)
            before, self._views[name] = self._views.get(name), view
            if _told(before) != _told(view):
                self._wake(owner, _peers(before) != _peers(view))
            await self._pause(
                owner, name, target.interval if target.engine else max(target.interval, SETTING_UP_SECONDS)
            )

    async def _pause(self, owner: Owner, name: str, interval: float) -> None:
        failing = any(
            (p := self._probes.get(a)) is not None and p.failing_since is not None and p.up
            for t in self._targets.get(owner, {}).values()
            for a in t.probe
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._poked[name].wait(), EAGER_SECONDS if failing else interval)

    async def _look(self, target: WatchTarget, full: bool) -> MachineView | Impostor | Unknown:
        before = self._views.get(target.target.name)
        try:
            session = await self._machines.session(target.target)
            if full or not isinstance(before, MachineView):
                view = await self._observe(session, self._clock())
                proxy = None if target.engine is None else await self._look_at_proxy(target.engine, session, view)
                guard = None if target.guard is None else await target.guard(session)
                return replace(view, proxy=proxy, guard=guard)
            if target.engine is not None and isinstance(before.proxy, ProxyView) and before.proxy.active:
                proxy = await target.engine.health(session, before.proxy)
                return replace(before, proxy=proxy, seen_at=self._clock())
            return replace(before, seen_at=self._clock())
        except HostKeyMismatch as error:
            return Impostor(str(error))
        except HasiteError as error:
            return Unknown(str(error))

    async def _look_at_proxy(self, engine: Engine, session: Session, view: MachineView) -> ProxyView | Unknown:
        if view.cloud_init == "running":
            return Unknown("cloud-init still runs")
        try:
            return await engine.observe(session)
        except HasiteError as error:
            return Unknown(str(error))

    async def _probe_loop(self, owner: Owner, name: str, address: str) -> None:
        streak: Streak | None = None
        self._probes.setdefault(address, Probe(None, self._clock()))
        while (target := self._target(owner, name)) is not None:
            started = time.monotonic()
            ok, detail = await self._probe_once(address, target.timeout)
            before = self._probes[address]
            streak = Streak(ok) if streak is None else streak.then(ok, before.up)
            after = self._probes[address] = count(before, streak, detail, target, self._clock())
            if before.failing_since is None and after.failing_since is not None:
                self._poke_all(owner)
            if before.up is not after.up:
                self._wake(owner, True)
            undecided = not ok and after.up is True
            pause = 0.1 if undecided else min(target.interval, NEW_INTERVAL_SECONDS) if streak.new else target.interval
            await asyncio.sleep(max(pause - (0 if undecided else time.monotonic() - started), 0.05))

    def _poke_all(self, owner: Owner) -> None:
        for name in self._targets.get(owner, {}):
            self._poked[name].set()

    async def _probe_once(self, address: str, limit: float) -> tuple[bool, str]:
        """One good answer is enough; what one connection was told without delay, the next would be told too."""
        attempts: set[asyncio.Task[tuple[bool, str]]] = set()
        began = time.monotonic()
        try:
            for number in range(1, ATTEMPTS + 1):
                patience = limit if number == ATTEMPTS else limit * number / (ATTEMPTS + 1)
                attempts.add(asyncio.create_task(self._attempt(address, limit)))
                left = max(began + patience - time.monotonic(), 0.0)
                done, _ = await asyncio.wait(attempts, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return max(task.result() for task in done)
            return False, "no answer in time"
        finally:
            for task in attempts:
                task.cancel()

    async def _attempt(self, address: str, limit: float) -> tuple[bool, str]:
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        host = f"[{address}]" if ":" in address else address
        try:
            timeout = aiohttp.ClientTimeout(total=limit)
            url = f"http://{host}:{self._probe_port}{ALIVE_PATH}"
            async with self._http.get(url, timeout=timeout, allow_redirects=False) as response:
                return response.status == 200, f"answered {response.status}"
        except TimeoutError:
            return False, "no answer in time"
        except (aiohttp.ClientError, OSError) as error:
            return False, f"{type(error).__name__}"


def _told(view: MachineView | Impostor | Unknown | None) -> object:
    """What of a view may change a plan."""
    if isinstance(view, MachineView):
        proxy = view.proxy
        if isinstance(proxy, ProxyView):
            servers = tuple(sorted((name, server.up) for name, server in proxy.servers.items()))
            told: object = (proxy.installed, proxy.config_sha256, proxy.active, proxy.enabled, servers)
        else:
            told = type(proxy)
        return (view.host_key, view.cloud_init, view.cloud_init_error, told, view.guard, _peers(view))
    return type(view)


def _peers(view: MachineView | Impostor | Unknown | None) -> object:
    if isinstance(view, MachineView) and isinstance(view.proxy, ProxyView):
        return tuple(sorted(view.proxy.peers.items()))
    return None
