"""The whole local world in one object: control plane, cloud, machines, network, name servers, and its operators."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from e2e.world.cloud import Cloud, serve
from e2e.world.cloud.serving import Server
from e2e.world.cluster import Cluster, cluster, run_kubectl, service_account_kubeconfig
from e2e.world.machines import ArchiveServer, Machines, clean, ensure_archive, ensure_image
from e2e.world.nameservers import Knot
from e2e.world.network import SITES, Network, forward, listen_in, run_in

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ("debian-12-x64",)
TOKEN = "local-token"
CLOUD_PORT = 8000
OPERATOR_NAMESPACE = "hasite-system"
OPERATOR_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc's settings of the image, so that what is measured here is what runs."""
REGIONS_BY_LOCATION = {"new-york": "nyc3", "amsterdam": "ams3", "frankfurt": "fra1", "san-francisco": "sfo3"}

Progress = Callable[[str], None]


@dataclass
class OperatorProcess:
    """One running operator. Its log is a file of JSON lines."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it, by default as a crash would."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=15)


class World:
    """Start it, break it, mend it. Nothing is left after ``stop``; a crashed one is cleaned by the next ``start``."""

    def __init__(self, directory: Path, *, prefix: str = "hs-", progress: Progress = print, port: int = 0) -> None:
        self.directory = directory
        self.prefix = prefix
        self._progress = progress
        self._port = port
        self._ports = itertools.count(8080)
        self.operators: dict[str, OperatorProcess] = {}
        self.network: Network
        self.machines: Machines
        self.names: Knot
        self.cloud: Cloud
        self.cluster: Cluster
        self._server: Server
        self._archive: ArchiveServer
        self._forwarder: asyncio.Server

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, **cloud_options: Any) -> None:
        """Returns when the API server has our kinds and the cloud answers. Long steps tell their progress."""
        await clean(self.directory, self.prefix)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        images = {slug: await asyncio.to_thread(ensure_image, slug, self._progress) for slug in IMAGES}
        archives = {slug: await asyncio.to_thread(ensure_archive, slug, progress=self._progress) for slug in IMAGES}
        self.cluster = await asyncio.to_thread(cluster, self.directory / "cluster", self._progress, self._port)
        starting = asyncio.create_task(self._start_cluster())
        self._progress("network, name servers and cloud")
        self.network = Network(self.prefix)
        await self.network.start()
        self._archive = ArchiveServer(self.network, archives)
        self.machines = Machines(self.network, images, self.directory)
        await self.machines.start()
        self.names = Knot(self.network, self.directory / "names")
        await self.names.start()
        options = {"boot_delay": 0.3, "tag_delay": 1.0, **cloud_options}
        self.cloud = Cloud(hypervisor=self.machines, name_servers=self.names, **options)
        sockets = [listen_in(self.network.namespace("ops"), "127.0.0.1", CLOUD_PORT)]
        self._server = await serve(self.cloud, sockets)
        await starting

    async def _start_cluster(self) -> None:
        self._progress("control plane")
        await self.cluster.start()
        await self.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests"))
        await self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    async def stop(self) -> None:
        """Ends everything, and takes every trace of it away."""
        for operator in self.operators.values():
            operator.kill()
        for close in ("_forwarder", "_archive"):
            if hasattr(self, close):
                getattr(self, close).close()
        if hasattr(self, "_server"):
            await self._server.close()
        if hasattr(self, "names"):
            await self.names.close()
        if hasattr(self, "machines"):
            await self.machines.close()
        if hasattr(self, "cluster"):
            await self.cluster.stop()
        await clean(self.directory, self.prefix)

    # -- operators --------------------------------------------------------------------------------------------------

    async def start_operator(self, name: str = "operator", **environ: str) -> OperatorProcess:
        """An operator in a namespace of the internet, with the rights of its service account and no others."""
        kubeconfig = await service_account_kubeconfig(
            self.cluster, OPERATOR_NAMESPACE, "hasite-operator", self.directory / f"{name}.kubeconfig"
        )
        await self._forward_api(kubeconfig)
        port = next(self._ports)
        log = self.directory / f"{name}.log"
        settings = {
            "PATH": os.environ["PATH"],
            **OPERATOR_ALLOCATOR,
            "KUBECONFIG": str(kubeconfig),
            "HASITE_NAMESPACE": OPERATOR_NAMESPACE,
            "HASITE_IDENTITY": name,
            "HASITE_LISTEN": f"127.0.0.1:{port}",
            "HASITE_OPERATOR_CIDRS": f"{SITES['ops'].ipv4}/32,{SITES['ops'].ipv6}/128",
            "HASITE_DIGITALOCEAN_ENDPOINT": f"http://127.0.0.1:{CLOUD_PORT}",
            "HASITE_NAMESERVERS": f"{SITES['dns1'].ipv4},{SITES['dns2'].ipv4}",
            **environ,
        }
        with log.open("ab") as output:
            process = run_in(
                self.network.namespace("ops"),
                [sys.executable, "-OO", "-m", "hasite.main", "run"],
                env=settings,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT / "operator",
            )
        self.operators[name] = OperatorProcess(name, process, log, port)
        return self.operators[name]

    async def _forward_api(self, kubeconfig: Path) -> None:
        """The API server's own address, inside the operator's namespace too."""
        if hasattr(self, "_forwarder"):
            return
        view = json.loads(await self.kubectl("config", "view", "--raw", "--output", "json"))
        host, _, port = view["clusters"][0]["cluster"]["server"].removeprefix("https://").partition(":")
        listener = listen_in(self.network.namespace("ops"), "127.0.0.1", int(port))
        self._forwarder = await forward(listener, host, int(port))

    # -- looking ----------------------------------------------------------------------------------------------------

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """As the cluster's admin."""
        return await run_kubectl(self.cluster, *arguments, stdin=stdin)

    async def get(self, kind: str, name: str, namespace: str) -> Mapping[str, Any]:
        """One object."""
        found: Mapping[str, Any] = json.loads(await self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def run_at(self, place: str, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """A process at a place of the internet: client, ops, dns1, a region."""
        return run_in(self.network.namespace(place), argv, **popen)

    async def output_at(self, place: str, *argv: str) -> tuple[int, str]:
        """What a command prints there, with its exit status."""
        process = self.run_at(place, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = await asyncio.to_thread(process.communicate)
        return process.returncode, out.decode(errors="replace")

    async def metrics(self, name: str = "operator") -> str:
        """The operator's metrics page."""
        _, text = await self.output_at("ops", "curl", "-s", f"http://127.0.0.1:{self.operators[name].port}/metrics")
        return text

    # -- faults -----------------------------------------------------------------------------------------------------

    def region(self, location: str) -> str:
        """The region of a location's name, or the region itself."""
        return REGIONS_BY_LOCATION.get(location, location)

    async def drop(self, location: str, how: str = "power") -> None:
        """A datacentre goes dark: ``power`` (every machine dies), ``cut`` (both ways), ``in`` or ``out`` (one way)."""
        if how == "power":
            await self.machines.power_off_region(self.region(location))
        else:
            direction: Any = "both" if how == "cut" else how
            await self.network.cut(self.region(location), direction)

    async def restore(self, location: str | None = None) -> None:
        """Everything (of one location) is back: links, and machines that lost their power."""
        await self.network.restore(self.region(location) if location else None)
        for slug in (
            [self.region(location)] if location else sorted({d.region for d in self.cloud.state.droplets.values()})
        ):
            await self.machines.power_on_region(slug)


async def call(directory: Path, action: str, **arguments: Any) -> Any:
    """Asks the world that serves from this directory to do something. Raises RuntimeError with its words."""
    connector = aiohttp.UnixConnector(path=str(directory / "control.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://world/{action}", json=arguments) as response,
    ):
        body = await response.json()
        if response.status != 200:
            raise RuntimeError(body["error"])
        return body
