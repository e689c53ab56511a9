"""The driver of the toy server, and its processes in a control group of their own where this machine has one."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hasite.guard import cgroup
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.model import Database, Desired, Member, Position, Settings

SERVER = Path(__file__).with_name("server.py")


class ToyService:
    """``group``: the folder of its control group, made when it starts; None: it is known by its process alone."""

    def __init__(self, layout: Layout, port: int, name: str, group: str | None) -> None:
        self._layout, self._port, self._name, self._group = layout, port, name, group
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """As ``Service`` says."""
        if self.pids() or (self._process is not None and self._process.poll() is None):
            return
        enter = ""
        if self._group is not None:
            os.makedirs(self._group, exist_ok=True)
            enter = f"echo $$ > {self._group}/cgroup.procs && "
        command = f"{enter}exec {sys.executable} -I -S {SERVER} {self._layout.data} {self._port} {self._name}"
        self._process = subprocess.Popen(["sh", "-c", command], start_new_session=True)  # noqa: ASYNC220
        while not self.pids() and self._process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """As ``Service`` says."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        async with asyncio.timeout(3):
            while self.pids():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def pids(self) -> tuple[int, ...]:
        """As ``Service`` says."""
        alive = self._process is not None and self._process.poll() is None
        if self._group is not None:
            return cgroup.pids((self._group,))
        return (self._process.pid,) if alive and self._process else ()

    def kill(self) -> None:
        """As ``Service`` says."""
        if self._process is not None:  # perhaps on its way into the group
            self._process.kill()
            self._process.wait()
        if self._group is not None:
            cgroup.kill((self._group,))


class ToyEngine:
    """``ports``: of each member's server. ``slow``: seconds before a promotion, to look at what happens meanwhile."""

    def __init__(self, layout: Layout, service: ToyService, name: str, ports: Mapping[str, int]) -> None:
        self._layout, self._service, self._name, self._ports = layout, service, name, ports
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._one = asyncio.Lock()
        self.reaches: list[Desired] = []
        self.slow: Callable[[Desired], float] = lambda _: 0.0
        self.failure: str = ""

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def configure(self, settings: Settings) -> None:
        """Nothing to do."""

    def kill(self) -> None:
        """As ``Engine`` says."""
        self._service.kill()

    async def observe(self) -> Database:
        """As ``Engine`` says."""
        if not self._layout.data.exists():
            return Database("absent")
        if not self._service.pids():
            log = self._layout.data / "log"
            lines = log.read_bytes().splitlines() if log.exists() else []
            position = Position(int(lines[-1].split(b" ")[0]), len(lines)) if lines else None
            return Database("stopped", position, drained=True)
        try:
            seen = await self._order({"do": "look"})
        except OSError as error:
            return Database("starting", detail=str(error))
        return Database(
            "primary" if seen["primary"] else "standby",
            Position(seen["epoch"], seen["offset"]),
            drained=True,
            upstream=seen["upstream"],
            streaming=seen["streaming"],
            followers=frozenset(seen["followers"]),
            read_only=not seen["primary"],
            lag_seconds=0.0,
            lag_bytes=0,
        )

    async def reach(self, desired: Desired, upstream: Member | None, /) -> None:
        """As ``Engine`` says."""
        self.reaches.append(desired)
        if self.failure:
            raise EngineError(self.failure)
        await asyncio.sleep(self.slow(desired))
        try:
            await self._reach(desired, upstream)
        except OSError as error:
            raise EngineError(str(error)) from error

    async def _reach(self, desired: Desired, upstream: Member | None) -> None:
        data = self._layout.data
        if desired.role == "stopped":
            await self._service.stop()
            return
        if not data.exists():
            if desired.role == "frozen" or (desired.role == "standby" and upstream is None):
                return
            if desired.role == "primary" and not desired.create:
                raise EngineError("there is no data")
            data.mkdir(parents=True)
        if desired.role != "primary" and self._service.pids() and (await self._order({"do": "look"}))["primary"]:
            await self._service.stop()
        await self._service.start()
        await self._ready()
        if desired.role == "primary":
            sync = desired.sync
            await self._order(
                {
                    "do": "lead",
                    "epoch": desired.epoch,
                    "eligible": sorted((sync.eligible if sync else frozenset()) - {self._name}),
                    "required": sync.required if sync else 0,
                }
            )
            return
        await self._follow(upstream if desired.role == "standby" else None)

    async def _follow(self, upstream: Member | None) -> None:
        where = upstream and {"name": upstream.name, "host": "127.0.0.1", "port": self._ports[upstream.name]}
        seen = await self._order({"do": "look"})
        if seen["diverged"]:
            await self._service.stop()
            kept = self._layout.saved / f"{seen['epoch']}-{time.time_ns()}"
            shutil.copytree(self._layout.data, kept, ignore=shutil.ignore_patterns("control"))
            (self._layout.data / "log").write_bytes(b"")
            await self._service.start()
            await self._ready()
        elif seen["upstream"] == (where and where["name"]):
            return
        await self._order({"do": "follow", "upstream": where})

    async def _ready(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError):
                await self._order({"do": "look"})
                return
            await asyncio.sleep(0.01)
        raise EngineError("the server does not come up")

    async def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        async with self._one:
            try:
                if self._link is None:
                    self._link = await asyncio.open_unix_connection(str(self._layout.data / "control"))
                reader, writer = self._link
                writer.write(json.dumps(order).encode() + b"\n")
                line = await reader.readline()
                if not line:
                    raise ConnectionResetError("the server has gone")
            except BaseException:
                if self._link is not None:
                    self._link[1].close()
                self._link = None
                raise
            answer: dict[str, Any] = json.loads(line)
            return answer
