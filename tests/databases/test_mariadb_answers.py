"""Answers of a semi-synchronous follower that get lost on their way: no commit waits for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hasite.guard.engines.mysqlcommon_sql import NotAnswering

from tests.databases.mysql_lab import Lab, available, primary, standby, until
from tests.databases.test_mariadb import SERVER, build, make, revive, streaming

pytestmark = [
    pytest.mark.skipif(not available(SERVER), reason="needs mariadb-server, mariadb-backup, and to be root"),
    pytest.mark.timeout(120),
]

BEHIND = "127.0.0.99"
SYNC = primary(1, "alpha", "beta", required=1)


@dataclass
class Way:
    """Hands bytes on, both ways; what goes to the server is swallowed while it is deaf."""

    deaf: bool = False
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, address: str, port: int) -> asyncio.Server:
        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, out = await asyncio.open_connection(BEHIND, port)
            self._writers += [writer, out]
            await asyncio.gather(self._pass_on(inner, writer), self._pass_on(reader, out, inwards=True))

        return await asyncio.start_server(meet, address, port)

    async def _pass_on(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, inwards: bool = False) -> None:
        with contextlib.suppress(OSError):
            while content := await source.read(65536):
                if not (inwards and self.deaf):
                    to.write(content)
                    await to.drain()
        to.close()

    def cut(self) -> None:
        """Every connection ends, and new ones are good."""
        self.deaf = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    lab = Lab("mariadb", make)
    asyncio.run(build(lab.root))
    yield lab.root
    asyncio.run(lab.close())


@pytest.fixture
async def lab(template: Path) -> AsyncIterator[Lab]:
    made = Lab("mariadb", make, behind={"alpha": BEHIND})
    yield made
    await made.close()


async def test_two_commits_whose_answers_are_lost_do_not_stop_the_log_and_the_first_is_not_acknowledged(
    lab: Lab, template: Path
) -> None:
    alpha, beta = await lab.add("alpha", "beta")
    for node in (alpha, beta):
        await revive(node, template)
    way = Way()
    async with await way.serve(alpha.member.address, alpha.place.port):
        await alpha.reach(SYNC)
        await beta.reach(standby(1, "alpha", "alpha", "beta"), alpha)
        await streaming(beta)
        await alpha.ask("INSERT INTO shop.t VALUES (10, 'answered')")

        way.deaf = True
        lost = asyncio.create_task(alpha.ask("INSERT INTO shop.t VALUES (11, 'lost')", 60))

        async def pulsed() -> bool:
            await alpha.driver.observe()
            return await beta.values("SELECT COALESCE(SUM(beats), 0) FROM hasite.pulse") != [0]

        await until(pulsed, 20)
        assert not lost.done()
        way.cut()

        async def released() -> bool:
            await alpha.driver.observe()
            return lost.done()

        await until(released, 15)
        with pytest.raises(NotAnswering):
            await lost
        await alpha.ask("INSERT INTO shop.t VALUES (12, 'answered')")
        for node in (alpha, beta):
            assert await node.values("SELECT x FROM shop.t WHERE x >= 10 ORDER BY x") == [10, 11, 12]
