"""Rings of real servers, each with a whole guard, in one process; and a guard without a database for a third vote."""

import asyncio
import contextlib
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hasite.guard.agent import Agent
from hasite.guard.engines.base import EngineError, Layout
from hasite.guard.engines.mysqlcommon import Place
from hasite.guard.engines.mysqlcommon_driver import Driver
from hasite.guard.messages import Order
from hasite.guard.model import OPERATOR, Database, Member, Membership, Settings
from hasite.guard.protocol import Received
from hasite.guard.wire import dump

from tests.databases.mysql_lab import Lab, Node, ProcessService, until

MakeServer = Callable[[Settings, Layout, Place], tuple[Driver, ProcessService]]
WITNESS = "witness"


@dataclass
class Ring:
    """``names``: the members, each at a location of its own name."""

    lab: Lab
    names: tuple[str, ...]
    routing: Literal["single", "local"] = "single"
    later: tuple[str, ...] = ()
    version: int = 1
    agents: dict[str, tuple[Agent, "asyncio.Task[None]"]] = field(default_factory=dict)
    writers: "list[asyncio.Task[None]]" = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    _layouts: dict[str, Layout] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def begin(self) -> None:
        """Until each member takes writes and receives from its predecessor."""
        nodes = await self.lab.add(*self.names, *self.later)
        address = nodes[-1].member.address.rpartition(".")[0] + ".99"
        self.members = (
            *(node.member for node in nodes[: len(self.names)]),
            Member(WITNESS, WITNESS, address, witness=True),
        )
        for name in self.names:
            await self.start(name)
        await self._start_witness()
        await self.closed(seconds=90.0)
        await (await self.leader()).ask("CREATE DATABASE shop")
        statement = "CREATE TABLE shop.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, words VARCHAR(50))"
        await (await self.leader()).ask(statement)
        for name in self.names:
            await until(lambda name=name: self._has_table(self.node(name)))  # type: ignore[misc]

    async def _has_table(self, node: Node) -> bool:
        return (
            bool(await node.ask("SHOW TABLES IN shop LIKE 't'"))
            if await node.ask("SHOW DATABASES LIKE 'shop'")
            else False
        )

    def settings(self, name: str) -> Settings:
        voters = tuple(member.name for member in self.members)
        return replace(
            self.lab.settings(name, self.members),
            membership=Membership(self.version, self.members, voters[: len(voters) - (len(voters) + 1) % 2]),
            bootstrap=self.names[0],
            write_routing=self.routing,
        )

    def node(self, name: str) -> Node:
        return self.lab.nodes[name]

    @property
    def _port(self) -> int:
        return self.node(self.names[0]).place.port

    async def _run(self, name: str, layout: Layout, server: tuple[Driver, ProcessService] | None) -> None:
        address = next(member.address for member in self.members if member.name == name)
        self._layouts[name] = layout
        agent = Agent(self.settings(name), layout, server, address_of=lambda member: (member.address, self._port + 2))
        running = asyncio.create_task(agent.run((address, self._port + 2), (address, self._port + 3)))
        self.agents[name] = agent, running

    async def _start_witness(self) -> None:
        base = self.lab.root / WITNESS
        layout = Layout(
            base / "data", base / "saved", base / "vote.json", base / "guard.json", base / "tls", base / "run"
        )
        self.lab.authority.issue(layout.tls, WITNESS, self.members[-1].address)
        await self._run(WITNESS, layout, None)

    async def start(self, name: str, running: ProcessService | None = None) -> None:
        """The guard, and by it the server, unless that is ``running``."""
        node = self.node(name)
        await node.driver.close()
        driver, service = self.lab.make(self.settings(name), node.layout, node.place)
        if running is not None:
            driver._service = service = running
        node.driver, node.service = driver, service
        await self._run(name, node.layout, (driver, service))

    async def stop_guard(self, name: str) -> None:
        """The guard alone."""
        _, running = self.agents.pop(name)
        running.cancel()
        await asyncio.wait([running])

    async def writable(self, name: str, seconds: float = 30.0) -> None:
        async def done() -> bool:
            return not self.seen(name).read_only

        await until(done, seconds)

    async def grow(self) -> None:
        """All that were to come later come now, as the operator lets them."""
        self.members = (*(self.node(name).member for name in self.later), *self.members)
        self.names, self.version = (*self.names, *self.later), self.version + 1
        for name, (agent, _) in self.agents.items():
            layout = self._layouts[name]
            layout.settings.parent.mkdir(parents=True, exist_ok=True)
            layout.settings.write_text(json.dumps(dump(self.settings(name))))
            agent.reload()
        for name in self.later:
            await self.start(name)

    async def crash(self, name: str) -> None:
        """As when its machine loses its power."""
        node = self.node(name)
        _, running = self.agents.pop(name)
        node.service.kill()
        running.cancel()
        await asyncio.wait([running])
        node.service.kill()
        with contextlib.suppress(FileNotFoundError):
            node.layout.lease.unlink()

    async def close(self) -> None:
        await self.rest()
        for _, running in self.agents.values():
            running.cancel()
        await asyncio.gather(*(running for _, running in self.agents.values()), return_exceptions=True)
        await self.lab.close()

    # looking

    def seen(self, name: str) -> Database:
        database = self.agents[name][0].status().beat.database
        return database

    def upstreams(self) -> dict[str, str | None]:
        """Of the members whose guards run, as far as their streams are live."""
        live = [name for name in self.names if name in self.agents]
        return {name: seen.upstream if (seen := self.seen(name)).streaming else None for name in live}

    @property
    def slowness(self) -> float:
        """MySQL takes seconds to start, and half a minute for a copy, on a machine that does other things too."""
        return 4.0 if self.lab.engine == "mysql" else 1.0

    async def closed(self, *names: str, seconds: float = 40.0) -> None:
        """Until these (all) receive from each other in a ring."""
        order = sorted(names or self.names)
        wanted = {name: order[index - 1] for index, name in enumerate(order)}

        async def done() -> bool:
            writable = all(not self.seen(name).read_only for name in order)
            return writable and (
                len(order) == 1 or {n: u for n, u in self.upstreams().items() if n in wanted} == wanted
            )

        await until(done, seconds * self.slowness)

    async def page(self, name: str, path: str = "/primary") -> int:
        """What a proxy is told; 0: nothing."""
        address = self.node(name).member.address

        def ask() -> int:
            try:
                with urllib.request.urlopen(f"http://{address}:{self._port + 3}{path}", timeout=1) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return 0

        return await asyncio.to_thread(ask)

    async def leader(self, *, but: str = "", seconds: float = 20.0) -> Node:
        """Where a proxy leads to."""

        async def found() -> Node | None:
            leaders = [name for name in self.agents if name not in (WITNESS, but) and await self.page(name) == 200]
            return self.node(leaders[0]) if leaders else None

        return await until(found, seconds)

    def order(self, kind: Literal["switchover", "promote"], target: str, epoch: int) -> None:
        for agent, _ in self.agents.values():
            agent._feed(Received(Order(OPERATOR, kind, target, epoch)))

    # writing

    def write(self, *names: str) -> None:
        """Clients at these members, until ``rest``: each goes on where it is while its server is away."""
        self.writers += [asyncio.create_task(self._writer(name)) for name in names]

    async def _writer(self, name: str) -> None:
        done = self.acknowledged.setdefault(name, [])
        while True:
            words = f"{name} {next(self._numbers)}"
            try:
                await self.node(name).ask(f"INSERT INTO shop.t (words) VALUES ('{words}')", 2.0)
            except EngineError:
                await asyncio.sleep(0.05)
            else:
                done.append(words)
                await asyncio.sleep(0.005)

    async def written(self, more: int, *names: str, seconds: float = 40.0) -> None:
        """Until clients at each of these (all) have had so many more writes acknowledged."""
        done = {name: self.acknowledged.setdefault(name, []) for name in names or self.names}
        before = {name: len(each) for name, each in done.items()}

        async def enough() -> bool:
            return all(len(each) >= before[name] + more for name, each in done.items())

        await until(enough, seconds)

    async def rest(self) -> None:
        """The clients end."""
        for writer in self.writers:
            writer.cancel()
        await asyncio.gather(*self.writers, return_exceptions=True)
        self.writers = []

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in await self.node(name).ask("SELECT id, words FROM shop.t ORDER BY id")]

    async def equal(self, seconds: float = 30.0) -> list[tuple[Any, ...]]:
        """Until all members have the same rows; these."""

        async def same() -> list[tuple[Any, ...]] | None:
            found = [await self.rows(name) for name in self.names]
            return found[0] if all(each == found[0] for each in found) else None

        return await until(same, seconds)

    async def complete(self) -> None:
        """Everything acknowledged is everywhere, once."""
        words = [row[1] for row in await self.equal()]
        assert len(words) == len(set(words))
        missing = {each for done in self.acknowledged.values() for each in done} - set(words)
        assert not missing, f"{len(missing)} acknowledged writes are gone: {sorted(missing)[:5]}"
