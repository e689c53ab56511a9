"""The local world's authoritative name servers: Knot, one process at each name server site."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.world.cloud.backend import DnsRecord
from e2e.world.machines import cgroups
from e2e.world.network import SITES, CommandError, Network, command_in, run
from e2e.world.zonefile import render_zone

PROVIDER_ZONE = "digitalocean.com"
"""The zone that holds the name servers' own addresses, so that a resolver which only knows them finds them by name."""

START_SECONDS = 10.0

CONFIGURATION = """\
server:
    rundir: "{directory}"
    pidfile: "{directory}/knot.pid"
    listen: [ {ipv4}@53, "{ipv6}@53" ]
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: "{directory}/knot.sock"
database:
    storage: "{directory}/db"
log:
  - target: stdout
    any: notice
template:
  - id: default
    storage: "{directory}"
    file: "%s.zone"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
"""


@dataclass
class _Server:
    site: str
    directory: Path
    process: asyncio.subprocess.Process


class Knot:
    """Implements `NameServers`. Every publication reaches each server whole: none ever serves half of a change.

    A zone's serial is the Unix time of its publication, or one more than the last when that is larger.
    """

    def __init__(self, network: Network, directory: Path, sites: tuple[str, ...] = ("dns1", "dns2")) -> None:
        self._network = network
        self._directory = directory / "nameservers"
        self._sites = sites
        self._servers: list[_Server] = []
        self._serials: dict[str, int] = {}
        self._lock = asyncio.Lock()

    @property
    def names(self) -> dict[str, str]:
        """The servers' host names and addresses."""
        return {f"ns{i}.{PROVIDER_ZONE}": SITES[site].ipv4 for i, site in enumerate(self._sites, 1)}

    @property
    def resolv_conf(self) -> Path:
        """A resolv.conf that names the servers, for processes inside the world (`run_in(…, resolv_conf=…)`)."""
        return self._directory / "resolv.conf"

    async def start(self) -> None:
        """Start the servers and wait until they answer. RuntimeError, with their words, when one does not."""
        for site in self._sites:
            self._servers.append(await self._launch(site))
        await asyncio.gather(*map(self._ready, self._servers))
        servers = "".join(f"nameserver {ipv4}\n" for ipv4 in self.names.values())
        _replace(self.resolv_conf, f"{servers}options timeout:1 attempts:1\n")
        own = [DnsRecord("@", "NS", f"{name}.", 1800) for name in self.names]
        for (name, ipv4), site in zip(self.names.items(), self._sites, strict=True):
            label = name.partition(".")[0]
            own += [DnsRecord(label, "A", ipv4, 1800), DnsRecord(label, "AAAA", SITES[site].ipv6, 1800)]
        await self.publish(PROVIDER_ZONE, tuple(own))

    async def close(self) -> None:
        """Stop the servers."""
        for server in self._servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.process.pid, signal.SIGTERM)
            await server.process.wait()
            cgroups.remove(self._group(server.site))
        self._servers.clear()

    async def publish(self, zone: str, records: tuple[DnsRecord, ...]) -> None:
        """Serve exactly these records; returns when every server does. ValueError when one can't be a record."""
        zone = zone.rstrip(".").lower()
        if not any(record.type == "NS" and record.name == "@" for record in records):
            records += tuple(DnsRecord("@", "NS", f"{name}.", 1800) for name in self.names)
        async with self._lock:
            serial = max(int(time.time()), self._serials.get(zone, 0) + 1)
            text = render_zone(zone, records, serial)
            new = zone not in self._serials
            self._serials[zone] = serial
            for server in self._servers:
                _replace(server.directory / f"{zone}.zone", text)
            await asyncio.gather(*(self._take(server, zone, new) for server in self._servers))

    async def remove(self, zone: str) -> None:
        """Stop serving a zone; nothing happens when it was not served."""
        zone = zone.rstrip(".").lower()
        async with self._lock:
            if self._serials.pop(zone, None) is None:
                return
            for server in self._servers:
                self._configure(server)
            await asyncio.gather(*(_control(server, "reload") for server in self._servers))
            for server in self._servers:
                (server.directory / f"{zone}.zone").unlink(missing_ok=True)

    def log(self, site: str) -> str:
        """What a server has written to its log."""
        return (self._directory / site / "log").read_text(errors="replace")

    async def _take(self, server: _Server, zone: str, new: bool) -> None:
        if new:
            self._configure(server)
            await _control(server, "reload")
        await _control(server, "--blocking", "zone-reload", zone)

    async def _launch(self, site: str) -> _Server:
        directory = self._directory / site
        (directory / "db").mkdir(parents=True)
        group = cgroups.make(self._group(site))
        argv = command_in(self._network.namespace(site), ["knotd", "-c", str(directory / "knot.conf")])
        server = _Server(site, directory, None)  # type: ignore[arg-type]
        self._configure(server)
        with (directory / "log").open("ab") as log:
            server.process = await asyncio.create_subprocess_exec(
                *cgroups.command_in_group(group, argv), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return server

    async def _ready(self, server: _Server) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                await _control(server, "status")
                return
            except CommandError as error:
                if server.process.returncode is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"name server {server.site}: {self.log(server.site)}") from error
            await asyncio.sleep(0.02)

    def _configure(self, server: _Server) -> None:
        site = SITES[server.site]
        text = CONFIGURATION.format(directory=server.directory, ipv4=site.ipv4, ipv6=site.ipv6)
        text += "".join(f'  - domain: "{zone}"\n' for zone in sorted(self._serials))
        _replace(server.directory / "knot.conf", text)

    def _group(self, site: str) -> str:
        return f"{self._network.prefix}{site}"


async def _control(server: _Server, *command: str) -> None:
    await run(["knotc", "-s", str(server.directory / "knot.sock"), *command])


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.rename(path)
