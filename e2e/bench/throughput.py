"""How many transactions a second an app gets through guard and local proxy, beside the same servers without either.

Without: guards and fuses of both members are stopped by a signal, so that they take no processor and decide nothing,
and the client connects to the primary itself. The servers, their settings and the replication stay what they are.
"""

import asyncio
import contextlib
import os
import re
import statistics
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from e2e.bench.client import PLACE
from e2e.bench.figures import Figure
from e2e.bench.losses import Keep, say, settled
from e2e.bench.ours import UNITS, Ours
from e2e.histories.stores import Server

SECONDS = 10
WARM_UP = 5
CLIENTS = 4
SCALE = 10
ROWS = 100_000
AIM = "at least 0.95"
THROUGH, GUARDED, BARE = "through guard and local proxy", "with guard, no proxy", "with neither"

FILL = f"""
CREATE TABLE IF NOT EXISTS bench_accounts (
    id int PRIMARY KEY, balance int NOT NULL, filler char(84) NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS bench_history (
    id bigint AUTO_INCREMENT PRIMARY KEY, account int NOT NULL, at timestamp NOT NULL);
INSERT IGNORE INTO bench_accounts (id, balance) SELECT seq, 0 FROM seq_1_to_{ROWS};
"""
TRANSACTION = (
    f"SET @account = FLOOR(1 + RAND() * {ROWS})",
    "START TRANSACTION",
    "UPDATE bench_accounts SET balance = balance + 1 WHERE id = @account",
    "SELECT balance FROM bench_accounts WHERE id = @account",
    "INSERT INTO bench_history (account, at) VALUES (@account, NOW())",
    "COMMIT",
)
"""After pgbench's, for MariaDB's own load generator."""


class Load:
    """A closed loop of ``CLIENTS`` connections, by the engine's own tool."""

    def __init__(self, cluster: Ours, server: Server) -> None:
        self._cluster = cluster
        self._server = server
        self._rate = 100.0
        """Transactions a second, of the last run: mariadb-slap counts queries, not seconds."""

    async def prepare(self) -> None:
        """Its tables."""
        if self._cluster.engine == "postgresql":
            await self._run(self._server, "pgbench", "--initialize", f"--scale={SCALE}", "--quiet", within=300)
        else:
            options = _mariadb_options(self._server)
            await self._run(self._server, "mariadb", *options, self._server.database, given=FILL, within=300)

    async def run(self, host: str, seconds: float) -> float:
        """Transactions a second at a host."""
        server = replace(self._server, hosts=(host,))
        self._rate = await (self._pgbench if self._cluster.engine == "postgresql" else self._slap)(server, seconds)
        return self._rate

    async def _pgbench(self, server: Server, seconds: float) -> float:
        options = [f"--client={CLIENTS}", "--jobs=2", f"--time={seconds:.0f}", "--no-vacuum", "--protocol=prepared"]
        text = await self._run(server, "pgbench", *options, within=seconds + 60)
        return _number(r"tps = ([\d.]+) \(without initial", text)

    async def _slap(self, server: Server, seconds: float) -> float:
        each = max(10, round(self._rate * seconds / CLIENTS))
        argv = ["mariadb-slap", *_mariadb_options(server), f"--create-schema={server.database}", "--delimiter=;"]
        queries = each * CLIENTS * len(TRANSACTION)
        argv += [f"--concurrency={CLIENTS}", f"--number-of-queries={queries}", f"--query={';'.join(TRANSACTION)}"]
        text = await self._run(server, *argv, within=10 * seconds + 60)
        return each * CLIENTS / max(0.001, _number(r"Average number of seconds to run all queries: ([\d.]+)", text))

    async def _run(self, server: Server, *argv: str, given: str = "", within: float) -> str:
        """Raises RuntimeError with its last words."""
        process = self._cluster.stage.world.run_at(
            PLACE,
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_environment(server)},
        )
        try:
            out, _ = await asyncio.to_thread(process.communicate, given.encode(), within)
        finally:
            process.kill()
        text = str(out.decode(errors="replace"))
        if process.returncode != 0:
            raise RuntimeError(f"{argv[0]}: status {process.returncode}: {text[-500:]}")
        return text


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no {pattern} in {text[-500:]}")
    return float(found[1])


def _environment(server: Server) -> Mapping[str, str]:
    """So that no password is in an argument."""
    return {
        "PGHOST": server.hosts[0],
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "PGDATABASE": server.database,
        "PGSSLMODE": "verify-ca",
        "PGSSLROOTCERT": server.ca,
        "MYSQL_PWD": server.password,
    }


def _mariadb_options(server: Server) -> list[str]:
    return [f"--host={server.hosts[0]}", f"--port={server.port}", f"--user={server.user}", f"--ssl-ca={server.ca}"]


async def throughput(cluster: Ours, server: Server, pairs: int, keep: Keep) -> None:
    """Pairs of runs one right after the other, the order by turns, each run after a warm-up of its own.

    Between the two of a pair, the same with guards and without the proxy tells what of a difference is whose.
    """
    load = Load(cluster, server)
    say(f"{cluster.label}: tables for the load")
    await settled(cluster)
    await load.prepare()
    taken: dict[str, list[float]] = {THROUGH: [], GUARDED: [], BARE: []}

    async def run(kind: str, address: str) -> None:
        await load.run(address, WARM_UP)
        taken[kind].append(await load.run(address, SECONDS))

    for pair in range(pairs):
        for kind in (THROUGH, GUARDED, BARE)[:: 1 if pair % 2 == 0 else -1]:
            if kind == BARE:
                await settled(cluster)
                async with bare(cluster) as address:
                    await run(kind, address)
                await settled(cluster)
            else:
                await run(kind, server.hosts[0] if kind == THROUGH else await _primary_address(cluster))
        rates = ", ".join(f"{kind}: {rates[-1]:.0f}" for kind, rates in taken.items())
        say(f"{cluster.label}, pair {pair + 1} of {pairs}, transactions a second {rates}")
        _keep(cluster, taken, keep)


async def _primary_address(cluster: Ours) -> str:
    return (await cluster.database.primary()).public_ipv4


def _keep(cluster: Ours, taken: Mapping[str, list[float]], keep: Keep) -> None:
    what = f"{cluster.label}: transactions a second"
    for kind, rates in taken.items():
        keep(Figure(f"{what} {kind}", "1/s", tuple(rates), "", f"{CLIENTS} connections, {SECONDS} s each"))
    for kind, aim in ((THROUGH, AIM), (GUARDED, "")):
        ratios = tuple(a / b for a, b in zip(taken[kind], taken[BARE], strict=True))
        of_medians = statistics.median(taken[kind]) / statistics.median(taken[BARE])
        note = f"pair by pair; ratio of the medians {of_medians:.3f}"
        keep(Figure(f"{what} {kind} ÷ {BARE}", "", ratios, aim, note))


@contextlib.asynccontextmanager
async def bare(cluster: Ours) -> AsyncIterator[str]:
    """The primary's address; nothing of ours runs on the members meanwhile. Afterwards their guards find out that time
    has passed, stop the server, and choose anew.

    systemd's own watchdogs are off, or it would end what is stopped.
    """
    stage, primary = cluster.stage, await _primary_address(cluster)
    droplets = list((await cluster.database.members()).values())

    async def all_of(signal: str, watchdogs: str) -> None:
        kill = f"systemctl kill --kill-whom=main --signal={signal} {' '.join(UNITS.values())}"
        watch = f"systemctl service-watchdogs {watchdogs}"
        words = f"{watch} && {kill}" if signal == "STOP" else f"{kill}; sleep 1; {watch}"
        await asyncio.gather(*(stage.on(droplet, "sh", "-c", words) for droplet in droplets))

    await all_of("STOP", "no")
    try:
        yield primary
    finally:
        await all_of("CONT", "yes")
