"""The network itself: made, changed and broken by `ip` and `nft`."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from e2e.world.cloud.backend import FirewallRule
from e2e.world.network.commands import CommandError, run
from e2e.world.network.rules import TRACKING, Direction, Faults, known_place, render_core, render_region
from e2e.world.network.topology import CORE_ADDRESS, DEFAULT_PREFIX, GATEWAY_V6, REGIONS, SITES, Port, Region, Site

SYSCTLS = """\
net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv6.conf.default.accept_dad=0
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
net.ipv4.conf.all.send_redirects=0
net.ipv4.icmp_ratelimit=0
"""


class Network:
    """Namespaces, links, routes, firewalls and faults. `prefix` begins the name of every namespace.

    Faults act in the core, on every packet, so that connections that are already open feel them too. What happens
    inside one region never passes the core: a region that is cut off still works within itself.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = prefix
        self.faults = Faults()
        self._ports: dict[int, Port] = {}
        self._firewalls: dict[int, tuple[FirewallRule, ...]] = {}
        self._reserved: dict[str, int] = {}
        self._silent: set[int] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def namespace(self, place: str) -> str:
        """The name, under /run/netns, of a place: "core", a site, a region's router ("r-nyc3"), a droplet ("d-101")."""
        return f"{self.prefix}{place}"

    # -- building -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the core, every region and every site. CommandError when one of them is there already."""
        await self._add_namespace("core")
        await self._ip("core", f"addr add {CORE_ADDRESS}/32 dev lo")
        async with asyncio.TaskGroup() as tasks:
            for region in REGIONS.values():
                tasks.create_task(self._add_region(region))
            for site in SITES.values():
                tasks.create_task(self._add_site(site))
        await self._load("core", render_core(self.faults))

    async def _add_namespace(self, place: str) -> None:
        namespace = self.namespace(place)
        await run(["ip", "netns", "add", namespace])
        await run(["nsenter", f"--net=/run/netns/{namespace}", "sysctl", "-q", "-p", "-"], SYSCTLS)
        await self._ip(place, "link set lo up")

    async def _add_region(self, region: Region) -> None:
        await self._add_namespace(region.place)
        await self._join("core", region.slug, region.place, "core")
        await self._ip(
            region.place,
            f"addr add {region.router}/32 dev lo",
            "addr add fe80::2/64 dev core nodad",
            "link set core up",
            f"route add {CORE_ADDRESS}/32 dev core src {region.router}",
            f"route add default via {CORE_ADDRESS} dev core src {region.router}",
            f"route add blackhole {region.public}",
            f"route add ::/0 via {GATEWAY_V6} dev core",
            f"route add blackhole {region.public_v6}",
        )
        await self._ip(
            "core",
            f"addr add {GATEWAY_V6}/64 dev {region.slug} nodad",
            f"link set {region.slug} up",
            f"route add {region.router}/32 dev {region.slug} src {CORE_ADDRESS}",
            f"route add {region.public} via {region.router} dev {region.slug}",
            f"route add {region.public_v6} via fe80::2 dev {region.slug}",
        )
        await self._load(region.place, TRACKING + render_region((), {}))

    async def _add_site(self, site: Site) -> None:
        await self._add_namespace(site.name)
        await self._join("core", site.name, site.name, "eth0")
        await self._ip(site.name, *_edge("eth0", site.ipv4, CORE_ADDRESS, site.ipv6))
        await self._ip("core", *_router_side(site.name, site.ipv4, CORE_ADDRESS, site.ipv6))

    async def _join(self, a: str, a_link: str, b: str, b_link: str) -> None:
        """A veth pair made inside the two namespaces: none of it is ever visible in the host's own."""
        await run(["ip", "link", "add", a_link, "netns", self.namespace(a), "type", "veth",
                   "peer", "name", b_link, "netns", self.namespace(b)])  # fmt: skip

    # -- droplets -------------------------------------------------------------------------------------------------

    async def attach(self, port: Port) -> str:
        """Wire a droplet up, under its firewall and with its reserved addresses; returns its namespace."""
        region = REGIONS[port.region]
        self._ports[port.machine] = port
        self._silent.discard(port.machine)
        await self._apply_firewalls(port.region)
        await self._add_namespace(port.place)
        await self._join(region.place, port.public_link, port.place, "eth0")
        await self._join(region.place, port.private_link, port.place, "eth1")
        await self._ip(
            port.place,
            *_edge("eth0", port.public_ipv4, region.router, port.public_ipv6),
            f"addr add {port.private_ipv4}/32 dev eth1",
            "link set eth1 up",
            f"route add {port.private_router}/32 dev eth1 src {port.private_ipv4}",
            f"route add {port.private_network} via {port.private_router} dev eth1 src {port.private_ipv4}",
        )
        await self._ip(
            region.place,
            *_router_side(port.public_link, port.public_ipv4, region.router, port.public_ipv6),
            *_router_side(port.private_link, port.private_ipv4, port.private_router),
        )
        for address in [address for address, machine in self._reserved.items() if machine == port.machine]:
            await self._lead(address, port)
        return self.namespace(port.place)

    async def silence(self, machines: Iterable[int]) -> None:
        """From now on no packet reaches or leaves these droplets, as if their power had gone; undone by `attach`."""
        machines = set(machines)
        self._silent |= machines
        await asyncio.gather(*map(self._apply_firewalls, {self._ports[m].region for m in machines if m in self._ports}))

    async def detach(self, machine: int) -> None:
        """Take a droplet's namespace and links away; nothing of it answers any more. Its firewall stays known."""
        port = self._ports.pop(machine, None)
        if port is None:
            return
        # The links go first: a namespace outlives its name until its last process is gone, and holds them till then.
        region = self.namespace(REGIONS[port.region].place)
        for link in (port.public_link, port.private_link):
            await self._delete("ip", "-n", region, "link", "del", link)
        await self._delete("ip", "netns", "del", self.namespace(port.place))
        self._silent.discard(machine)
        await self._apply_firewalls(port.region)

    async def forget(self, machine: int) -> None:
        """Detach a droplet for good: its firewall and its reserved addresses are given up."""
        await self.detach(machine)
        self._firewalls.pop(machine, None)
        self._reserved = {address: owner for address, owner in self._reserved.items() if owner != machine}

    async def set_firewall(self, machine: int, inbound: tuple[FirewallRule, ...] | None) -> None:
        """Replace a droplet's inbound rules in one transaction; None opens everything. ValueError: not a rule."""
        if inbound is None:
            self._firewalls.pop(machine, None)
        else:
            self._firewalls[machine] = inbound
        if machine in self._ports:
            await self._apply_firewalls(self._ports[machine].region)

    async def assign(self, address: str, machine: int | None) -> None:
        """Lead a reserved address to a droplet, or to nobody."""
        previous = self._ports.get(self._reserved.pop(address, -1))
        if previous:
            await self._ip(REGIONS[previous.region].place, f"route del {address}/32")
            await self._ip(previous.place, f"addr del {address}/32 dev eth0")
        if machine is not None:
            self._reserved[address] = machine
            if machine in self._ports:
                await self._lead(address, self._ports[machine])

    async def _lead(self, address: str, port: Port) -> None:
        await self._ip(port.place, f"addr add {address}/32 dev eth0")
        region = REGIONS[port.region]
        await self._ip(region.place, f"route replace {address}/32 dev {port.public_link} src {region.router}")

    async def _apply_firewalls(self, region: str) -> None:
        async with self._locks[region]:
            ports = [port for port in self._ports.values() if port.region == region]
            ruleset = render_region(ports, self._firewalls, frozenset(self._silent))
            await self._load(REGIONS[region].place, ruleset)

    # -- faults ---------------------------------------------------------------------------------------------------

    async def cut(self, place: str, direction: Direction = "both") -> None:
        """Cut a region or a site off. "in": nothing reaches it any more; "out": nothing leaves it."""
        names = frozenset({known_place(place)})
        await self.break_with(
            replace(
                self.faults,
                cut_in=self.faults.cut_in | (names if direction != "out" else frozenset()),
                cut_out=self.faults.cut_out | (names if direction != "in" else frozenset()),
            )
        )

    async def cut_between(self, a: str, b: str, direction: Direction = "both") -> None:
        """Cut two places off from each other only. "out": what goes from `a` to `b`; "in": from `b` to `a`."""
        pairs = {"out": {(a, b)}, "in": {(b, a)}, "both": {(a, b), (b, a)}}[direction]
        for place in (a, b):
            known_place(place)
        await self.break_with(replace(self.faults, cut_pairs=self.faults.cut_pairs | pairs))

    async def loss(self, percent: float, between: tuple[str, str] | None = None) -> None:
        """Lose a share of all packets, each way, or of those between two places; 0 ends it."""
        for place in between or ():
            known_place(place)
        others = {key: value for key, value in self.faults.loss.items() if key != between}
        await self.break_with(replace(self.faults, loss=others | ({between: percent} if percent else {})))

    async def restore(self, place: str | None = None) -> None:
        """End every fault that concerns a place, or all faults."""
        if place is None:
            await self.break_with(Faults())
            return
        gone = {known_place(place)}
        await self.break_with(
            Faults(
                cut_in=self.faults.cut_in - gone,
                cut_out=self.faults.cut_out - gone,
                cut_pairs=frozenset(pair for pair in self.faults.cut_pairs if place not in pair),
                loss={pair: percent for pair, percent in self.faults.loss.items() if pair is None or place not in pair},
            )
        )

    async def break_with(self, faults: Faults) -> None:
        """Replace all faults by these, in one transaction."""
        self.faults = faults
        async with self._locks["core"]:
            await self._load("core", render_core(self.faults))

    # -- tools ----------------------------------------------------------------------------------------------------

    async def _ip(self, place: str, *commands: str) -> None:
        await run(["ip", "-n", self.namespace(place), "-batch", "-"], "\n".join(commands) + "\n")

    async def _delete(self, *argv: str) -> None:
        with contextlib.suppress(CommandError):  # an attachment that failed half-way has not all of it
            await run(argv)

    async def _load(self, place: str, ruleset: str) -> None:
        await run(["nsenter", f"--net=/run/netns/{self.namespace(place)}", "nft", "-f", "-"], ruleset)


def _edge(link: str, ipv4: str, gateway: str, ipv6: str | None) -> list[str]:
    """A machine's own end of a link: its addresses and the default routes through the router at the other end."""
    commands = [
        f"addr add {ipv4}/32 dev {link}",
        f"link set {link} up",
        f"route add {gateway}/32 dev {link} src {ipv4}",
        f"route add default via {gateway} dev {link} src {ipv4}",
    ]
    if ipv6:
        commands += [f"addr add {ipv6}/128 dev {link} nodad", f"route add ::/0 via {GATEWAY_V6} dev {link}"]
    return commands


def _router_side(link: str, ipv4: str, router: str, ipv6: str | None = None) -> list[str]:
    """The router's end of a link to one machine."""
    commands = [
        f"addr add {router}/32 dev {link}",
        f"addr add {GATEWAY_V6}/64 dev {link} nodad",
        f"link set {link} up",
        f"route add {ipv4}/32 dev {link} src {router}",
    ]
    if ipv6:
        commands.append(f"route add {ipv6}/128 dev {link}")
    return commands
