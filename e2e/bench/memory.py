"""What a hundred sites cost the operator: its real process, API server and name servers; machines that only answer."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e.bench.crowd import Crowd
from e2e.bench.figures import Figure
from e2e.bench.lab import Lab, leading
from e2e.world.cloud import LARGE_PLAN, UNLIMITED, Cloud, serve
from e2e.world.cluster import cluster
from e2e.world.machines import clean
from e2e.world.nameservers import Knot
from e2e.world.network import Network, listen_in
from e2e.world.world import CLOUD_PORT, TOKEN, World

DIRECTORY = Path("/run/hasite-memory")
PREFIX = "hsm-"
NAMESPACE = "crowd"
TOKENS = (TOKEN, "token-2", "token-3", "token-4")
"""Of one account, while the sites are made: one token's 250 calls a minute would make that last half an hour."""
BATCH = 10
"""Sites that are made at once: more keep two cores, which also are all machines, too busy for a Lease."""
LEASE = "60"
REST_BEFORE = 120.0
READY_WITHIN = 3600.0


class CrowdedWorld(World):
    """The local world with a ``Crowd`` in place of machines."""

    crowd: Crowd

    async def start(self, **cloud_options: Any) -> None:
        """See ``World``."""
        await clean(self.directory, self.prefix)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cluster = await asyncio.to_thread(cluster, self.directory / "cluster", self._progress, self._port)
        starting = asyncio.create_task(self._start_cluster())
        self.network = Network(self.prefix)
        await self.network.start()
        self.names = Knot(self.network, self.directory / "names")
        await self.names.start()
        networks = [net for region in LARGE_PLAN.values() for net in (region.public, region.ipv6)]
        self.crowd = Crowd(namespace=self.network.namespace("ops"), networks=tuple(networks))
        await self.crowd.start()
        options = {"boot_delay": 0.3, "tag_delay": 1.0, "addresses": LARGE_PLAN, **cloud_options}
        options |= {"tokens": dict.fromkeys(TOKENS, "read-write"), "limits": UNLIMITED}
        self.cloud = Cloud(hypervisor=self.crowd, name_servers=self.names, **options)
        sockets = [listen_in(self.network.namespace("ops"), "127.0.0.1", CLOUD_PORT)]
        self._server = await serve(self.cloud, sockets)
        await starting

    async def stop(self) -> None:
        """See ``World``."""
        if hasattr(self, "crowd"):
            await self.crowd.close()
        await super().stop()


async def memory(sites: int, rest_seconds: float, interval: str) -> list[Figure]:
    """Memory, CPU and API calls of the operator with so many sites at rest. ``interval``: of their probes."""
    world = CrowdedWorld(DIRECTORY, prefix=PREFIX, progress=_say)
    try:
        await world.start()
        first = await _operator(world, "first")
        await world.kubectl("create", "namespace", NAMESPACE)
        await _apply(world, _secrets(TOKENS))
        for start in range(0, sites, BATCH):
            end = min(start + BATCH, sites)
            await _apply(world, [_site(number, interval) for number in range(start, end)])
            await _until_ready(world, end)
        await asyncio.sleep(REST_BEFORE)
        before = first.resident_mib()
        first.operator.kill(signal.SIGTERM)
        await _apply(world, _secrets((TOKEN,) * len(TOKENS)))
        second = await _operator(world, "second")
        await asyncio.sleep(REST_BEFORE)
        await _until_ready(world, sites)
        return _figures(sites, interval, before, await _at_rest(second, rest_seconds))
    finally:
        await world.stop()


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


async def _operator(world: CrowdedWorld, name: str) -> Lab:
    made = Lab(world, await world.start_operator(name, HASITE_LEASE_DURATION=LEASE), _site(0, "1s"))
    await leading(made)
    return made


async def _apply(world: CrowdedWorld, manifests: Sequence[Mapping[str, Any]]) -> None:
    await world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def _secrets(tokens: Sequence[str]) -> list[Mapping[str, Any]]:
    """One a token, each for every fourth site."""
    found: list[Mapping[str, Any]] = []
    for number, token in enumerate(tokens):
        metadata = {"name": f"digitalocean-{number}", "namespace": NAMESPACE}
        found.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}})
    return found


def _site(number: int, interval: str) -> Mapping[str, Any]:
    """Two locations, one load balancer and two apps at each: six droplets."""
    name = f"site-{number:03}"
    spec = {
        "domain": f"www.{name}.example",
        "credentialsRef": {"name": f"digitalocean-{number % len(TOKENS)}"},
        "locations": [{"name": "new-york", "region": "nyc3"}, {"name": "amsterdam", "region": "ams3"}],
        "app": {"replicasPerLocation": 2, "port": 8080, "userData": "#!/bin/sh\n"},
        "failureDetection": {"interval": interval},
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "hasite.dev/v1alpha1", "kind": "HASite", "metadata": metadata, "spec": spec}


async def _until_ready(world: CrowdedWorld, sites: int) -> None:
    """Says every ten seconds how far it is. Raises TimeoutError, and AssertionError when the operator has ended."""
    query = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    async with asyncio.timeout(READY_WITHIN):
        while True:
            states = (await world.kubectl("get", "hasites", "-n", NAMESPACE, "-o", query)).split()
            _say(f"{states.count('True')} of {sites} sites are ready, {len(world.cloud.journal)} calls so far")
            if states.count("True") == sites:
                return
            assert all(o.process.poll() in (None, 0) for o in world.operators.values()), "an operator ended"
            await asyncio.sleep(10)


async def _at_rest(made: Lab, seconds: float) -> Mapping[str, float]:
    world = made.world
    calls, cpu, began = len(world.cloud.journal), made.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    assert isinstance(world, CrowdedWorld)
    assert not world.crowd.unknown, f"the machines did not know: {world.crowd.unknown}"
    droplets, files = len(world.cloud.state.droplets), len(os.listdir(f"/proc/{made.pid}/fd"))
    assert files > droplets, "not every machine has its connection"
    return {
        "calls": (len(world.cloud.journal) - calls) * 3600 / passed,
        "cpu": 100 * (made.cpu_seconds() - cpu) / passed,
        "rss": made.resident_mib(),
        "pss": _pss_mib(made.pid),
        "droplets": droplets,
        "files": files,
    }


def _pss_mib(pid: int) -> float:
    """Memory that no other process has, and its share of the rest."""
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def _figures(sites: int, interval: str, before: float, seen: Mapping[str, float]) -> list[Figure]:
    droplets = f"{seen['droplets']:.0f} droplets"
    note = f"{droplets}, an SSH connection to each; {seen['files']:.0f} open files; a probe each {interval}"
    of = f"{sites} sites"
    return [
        Figure(f"resident memory of the operator, {of}", "MiB", (seen["rss"],), "under 150", note),
        Figure(f"of it its own (PSS), {of}", "MiB", (seen["pss"],), "", note),
        Figure(f"CPU of the operator at rest, {of}", "% of a core", (seen["cpu"],), "", note),
        Figure(f"API calls an hour at rest, {of}, real process", "calls", (seen["calls"],), "under 200"),
        Figure(f"resident memory of the operator that made them, {of}", "MiB", (before,), "under 150", "four tokens"),
    ]
