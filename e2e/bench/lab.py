"""A world with one site that is ready, and what the measurements ask of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.rdatatype
import yaml

from e2e.probes import ask
from e2e.world.network import SITES
from e2e.world.world import ROOT, TOKEN, OperatorProcess, World

NAME_SERVERS = (SITES["dns1"].ipv4, SITES["dns2"].ipv4)
DIRECTORY = Path("/run/hasite-bench")
PREFIX = "hsb-"


class Lab:
    """One world, one operator, one site."""

    def __init__(self, world: World, operator: OperatorProcess, site: Mapping[str, Any]) -> None:
        self.world = world
        self.operator = operator
        self.site = site
        self.applied_at = 0.0

    @property
    def name(self) -> str:
        return str(self.site["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.site["metadata"]["namespace"])

    async def apply(self) -> None:
        self.applied_at = time.time()
        await self.world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(self.site))

    async def ready(self, seconds: float = 180.0) -> float:
        """Seconds until the site is ready."""
        started = time.monotonic()
        await self.world.kubectl(
            "wait", "--for=condition=Ready", f"hasites/{self.name}", "-n", self.namespace, f"--timeout={seconds:.0f}s"
        )
        return time.monotonic() - started

    async def published(self) -> tuple[frozenset[str], ...]:
        """What each name server answers for A and AAAA together."""
        return tuple(await asyncio.gather(*(self._answers(server) for server in NAME_SERVERS)))

    async def _answers(self, server: str) -> frozenset[str]:
        found: set[str] = set()
        for kind in ("A", "AAAA"):
            message = await ask(self.world.network.namespace("client"), server, self.site["spec"]["domain"], kind)
            for rrset in message.answer:
                if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    found |= {record.to_text() for record in rrset}
        return frozenset(found)

    async def addresses(self) -> dict[str, set[str]]:
        """Published addresses by location."""
        pool = await self.world.get("loadbalancerpools", self.name, self.namespace)
        found: dict[str, set[str]] = {}
        for address in pool["status"]["addresses"]:
            found.setdefault(address["location"], set()).add(address["address"])
        return found

    def cpu_seconds(self) -> float:
        """User and system time of the operator so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Resident memory of the operator."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    @property
    def pid(self) -> int:
        return self.operator.process.pid

    async def metric(self, name: str) -> float:
        """The sum over all series of a metric."""
        page = await self.world.metrics(self.operator.name)
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.split("{")[0].split(" ")[0] == name
        )


def example_site(**spec: Any) -> dict[str, Any]:
    """The site of examples/site.yaml, without a hold-down so that the next run needn't wait for it."""
    documents = list(yaml.safe_load_all((ROOT / "examples" / "site.yaml").read_text()))
    site: dict[str, Any] = next(d for d in documents if d["kind"] == "HASite")
    site["spec"] |= {"failureDetection": {"holdDown": "0s"}, **spec}
    return site


@asynccontextmanager
async def lab(site: Mapping[str, Any]) -> AsyncIterator[Lab]:
    """A fresh world; nothing of it is left afterwards."""
    world = World(DIRECTORY, prefix=PREFIX, progress=lambda text: print(f"  {text}", flush=True))
    try:
        await world.start()
        operator = await world.start_operator("bench")
        namespace = site["metadata"]["namespace"]
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": site["spec"]["credentialsRef"]["name"], "namespace": namespace},
            "stringData": {"token": TOKEN},
        }
        await world.kubectl("create", "namespace", namespace)
        await world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
        made = Lab(world, operator, site)
        await leading(made)
        yield made
    finally:
        await world.stop()


async def leading(made: Lab) -> None:
    """The operator leads: what is measured is not its start."""
    async with asyncio.timeout(60):
        while True:
            try:
                if await made.metric("hasite_leader") == 1:
                    return
            except (KeyError, ValueError):
                pass
            await asyncio.sleep(0.2)
