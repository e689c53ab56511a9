"""How the scenarios handle a ReplicatedDatabase in the local world: its members, its clients, what hurts it."""

import asyncio
import base64
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from e2e.evidence import keep_words
from e2e.histories import Operation, Violation, check, load
from e2e.histories.stores import TOTAL, Server, Store, store
from e2e.site import LOCATIONS, NAMESPACE, KubectlError, Object, Stage, eventually
from e2e.world.cloud.state import Droplet
from e2e.world.network import SITES
from e2e.world.world import ROOT

KEYS = 3
PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
VERSIONS = {"postgresql": "15", "mariadb": "10.11"}
GUARD = "hasite-guard.service"


def manifest(
    name: str, engine: str, *, locations: Sequence[str] = ("new-york", "amsterdam"), members: int = 1, **spec: Any
) -> dict[str, Any]:
    """A ReplicatedDatabase whose clients stand at the client's place of the internet. `spec` replaces whole fields."""
    return {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": "ReplicatedDatabase",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "engine": engine,
            "version": VERSIONS[engine],
            "credentialsRef": {"name": "digitalocean"},
            "deletionPolicy": "Delete",
            "locations": [{"name": each, "region": LOCATIONS[each], "members": members} for each in locations],
            "databases": [{"name": "shop", "owner": "shop"}],
            "users": [{"name": "shop"}],
            "access": {"cidrs": [f"{SITES['client'].ipv4}/32"]},
            **spec,
        },
    }


@dataclass
class History:
    """What clients did while a block ran; ``final`` and ``violations`` are there after it."""

    operations: list[Operation] = field(default_factory=list)
    final: dict[int, tuple[int, ...]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def acknowledged(self, since: float = 0.0, kind: str = "append") -> list[Operation]:
        """Writes that were begun since then and acknowledged, by time of completion."""
        found = [o for o in self.operations if o.outcome == "ok" and o.kind == kind and o.invoked >= since]
        return sorted(found, key=lambda o: o.completed)

    def __str__(self) -> str:
        outcomes = {each: sum(o.outcome == each for o in self.operations) for each in ("ok", "failed", "unknown")}
        epochs = sorted({(o.epoch, o.node) for o in self.operations if o.outcome == "ok" and o.node})
        return f"{outcomes}, reigns {epochs}, {len(self.violations)} violations"


class Databases:
    """One ReplicatedDatabase on a stage."""

    def __init__(self, stage: Stage, name: str, engine: str) -> None:
        self.stage = stage
        self.name = name
        self.engine = engine
        self._numbers = itertools.count(1)
        self._folder = Path(tempfile.mkdtemp(prefix="hasite-database-"))

    # -- the resource -----------------------------------------------------------------------------------------------

    async def apply(self, **spec: Any) -> None:
        """As a user does it."""
        body = json.dumps(manifest(self.name, self.engine, **spec))
        await self.stage.kubectl("apply", "-f", "-", stdin=body)

    async def patch(self, spec: Object) -> None:
        """Merges into the spec."""
        await self.stage.kubectl("patch", "rdb", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    async def status(self) -> Mapping[str, Any]:
        """The resource's status; empty while there is none."""
        found = json.loads(await self.stage.kubectl("get", "rdb", self.name, "-o", "json"))
        return dict(found.get("status", {}))

    async def generation(self) -> int:
        """Of the spec."""
        return int(await self.stage.kubectl("get", "rdb", self.name, "-o", "jsonpath={.metadata.generation}"))

    async def condition(self, kind: str) -> Object:
        """One condition."""
        conditions = (await self.status()).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {})

    async def until_ready(self, within: float = 300) -> float:
        """Seconds that it took."""

        async def ready() -> bool:
            return (await self.condition("Ready")).get("status") == "True"

        return (await eventually(ready, within, f"{self.name} is Ready", 0.5))[1]

    async def until_primary(self, other_than: str, within: float = 60) -> float:
        """Until status names another primary."""

        async def changed() -> bool:
            return (await self.status()).get("primary", "") not in ("", other_than)

        return (await eventually(changed, within, f"another primary than {other_than}", 0.2))[1]

    async def delete(self, within: float = 120) -> None:
        """Until it is gone; what its guards said is kept, for a test that fails."""
        with contextlib.suppress(KubectlError):
            await keep_words(self.stage, list((await self.members()).values()))
        await self.stage.kubectl("delete", "rdb", self.name, "--ignore-not-found", f"--timeout={within:.0f}s")

    # -- members ----------------------------------------------------------------------------------------------------

    async def members(self) -> dict[str, Droplet]:
        """Droplets by member name."""
        found = json.loads(await self.stage.kubectl("get", "rdb", self.name, "-o", "json"))
        tag = f"hasite:db:{found['metadata']['uid']}"
        droplets = self.stage.world.cloud.state.droplets.values()
        return {d.name: d for d in droplets if tag in d.tags and not d.deleting}

    async def primary(self) -> Droplet:
        """The member that status names."""
        return (await self.members())[(await self.status())["primary"]]

    async def guard(self, droplet: Droplet, signal: str) -> None:
        """A signal for the guard alone."""
        await self.stage.on(droplet, "systemctl", "kill", "--kill-whom=main", f"--signal={signal}", GUARD)

    async def leads(self, droplet: Droplet) -> bool:
        """Whether its own guard says so: for when there is no operator to ask."""
        ask = ("curl", "-sf", "--max-time", "1", "http://127.0.0.1:7432/primary")
        with contextlib.suppress(RuntimeError):  # it has no power
            return (await self.stage.world.machines.exec(droplet.id, ask))[0] == 0
        return False

    async def until_leads(self, droplets: Sequence[Droplet], within: float = 60) -> Droplet:
        """The first of them whose guard says so."""

        async def leading() -> list[Droplet]:
            return [each for each in droplets if await self.leads(each)]

        found: list[Droplet] = (await eventually(leading, within, "one of them leads", 0.1))[0]
        return found[0]

    async def sql(self, droplet: Droplet, text: str) -> str:
        """What the server on a member answers to its own superuser."""
        words = {
            "postgresql": ("runuser", "-u", "postgres", "--", "psql", "-XAtq"),
            "mariadb": ("mariadb", "--skip-column-names", "--batch"),
        }
        return await self.stage.on(droplet, *words[self.engine], text=text)

    # -- clients ----------------------------------------------------------------------------------------------------

    async def server(self, *droplets: Droplet) -> Server:
        """What a client needs to know, from the Secrets that a user would read."""
        users = await self._secret(f"{self.name}-users")
        authority = self._folder / "ca.crt"
        authority.write_bytes((await self._secret(f"{self.name}-ca"))["ca.crt"])
        hosts = tuple(d.public_ipv4 for d in droplets or (await self.members()).values())
        port = PORTS[self.engine]
        return Server(hosts, port, "shop", users["shop"].decode(), "shop", str(authority))

    async def _secret(self, name: str) -> dict[str, bytes]:
        found = json.loads(await self.stage.kubectl("get", "secret", name, "-o", "json"))["data"]
        return {key: base64.b64decode(value) for key, value in found.items()}

    async def prepare(self) -> None:
        """Tables for the clients, empty."""
        await self._ask(await self.server(), "prepare")

    async def final(self) -> dict[int, tuple[int, ...]]:
        """All lists as they are now."""
        answer = await self._ask(await self.server(), "final")
        return {int(key): tuple(values) for key, values in answer.items()}

    async def _ask(self, server: Server, what: str) -> Any:
        """By a process at the client's place: the tables live behind a firewall."""
        argv = [sys.executable, "-m", "e2e.database", self.engine, what]
        process = self.stage.world.run_at(
            "client", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        out, errors = await asyncio.to_thread(process.communicate, json.dumps(asdict(server)).encode())
        assert process.returncode == 0, errors.decode()[-2000:]
        return json.loads(out)

    async def until_written(self, since: float, within: float = 30) -> float:
        """Until a client was acknowledged an append that it began after ``since``."""

        def written() -> bool:
            files = sorted(self._folder.glob("client-*.jsonl"), key=lambda file: file.stat().st_mtime)[-8:]
            lines = (line for file in files for line in file.read_text().splitlines(keepends=True)[-50:])
            complete = load(line for line in lines if line.endswith("\n"))
            return any(o.invoked > since and o.outcome == "ok" and o.kind == "append" for o in complete)

        return (await eventually(written, within, "a write is acknowledged", 0.3))[1]

    def _start(self, server: Server, output: Path, seconds: float) -> "subprocess.Popen[bytes]":
        number = output.stem.partition("-")[2]
        argv = [
            sys.executable,
            "-m",
            "e2e.histories.client",
            self.engine,
            f"--number={number}",
            f"--seconds={seconds:g}",
        ]
        about = self._folder / f"server-{number}.json"
        about.write_text(json.dumps(asdict(server)))
        with output.open("wb") as out, about.open("rb") as into:
            return self.stage.world.run_at("client", argv, stdin=into, stdout=out, cwd=ROOT)

    @contextlib.asynccontextmanager
    async def clients(self, number: int = 4, *, each: bool = True, seconds: float = 600) -> AsyncIterator[History]:
        """Clients that follow the primary, and with ``each`` one more bound to every member, while the block runs.

        Afterwards all faults have to be over: then the lists are read, and the history is checked.
        """
        history = History()
        servers = [await self.server()] * number
        if each:
            servers += [await self.server(droplet) for droplet in (await self.members()).values()]
        await self.prepare()
        files = [self._folder / f"client-{next(self._numbers)}.jsonl" for _ in servers]
        processes = [self._start(server, output, seconds) for server, output in zip(servers, files, strict=True)]
        try:
            await eventually(lambda: files[0].stat().st_size > 0, 20, "the first operation", 0.1)
            yield history
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                await asyncio.to_thread(process.wait)
        for output in files:
            history.operations += load(output.read_text().splitlines())
        failures = Counter((o.node, o.kind, o.outcome, o.error[:60]) for o in history.operations if o.outcome != "ok")
        print(f"  clients: {history}; {failures.most_common(6)}")
        history.final = await self.final()
        history.violations = check(history.operations, history.final, TOTAL)


def main() -> None:
    """`python -m e2e.database ENGINE prepare|final`, a server as JSON on stdin."""
    engine, what = sys.argv[1:]
    server = json.loads(sys.stdin.read())
    connected: Store = store(engine, Server(**{**server, "hosts": tuple(server["hosts"])}), 10.0)
    if what == "prepare":
        connected.prepare(KEYS)
        print("{}")
    else:
        print(json.dumps({key: connected.read(key)[0] for key in range(KEYS)}))


if __name__ == "__main__":
    main()
