"""The hypervisor of the local world: droplets as Debian machines on this host."""

import asyncio
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.world.cloud.backend import FirewallRule, MachineSpec
from e2e.world.machines.disk import Disk
from e2e.world.machines.faults import slow_disk, starved
from e2e.world.machines.guest import REBOOT, Guest
from e2e.world.machines.seed import write_seed
from e2e.world.network import Network, Port, run

DISK_SIZE = 1536 << 20
SHUTDOWN_SECONDS = 30.0


@dataclass
class Machine:
    """A droplet: its disk lasts, its guest is one boot (None while its power is off)."""

    spec: MachineSpec
    disk: Disk
    guest: Guest | None = None
    watcher: asyncio.Task[None] | None = None
    wanted_on: bool = field(default=True)


class Machines:
    """Implements `Hypervisor`. Machines live under `directory`, their images are read-only trees keyed by slug.

    KeyError from any method that is given a machine which does not exist.
    """

    def __init__(
        self, network: Network, images: Mapping[str, Path], directory: Path, *, disk_size: int = DISK_SIZE
    ) -> None:
        self.network = network
        self.directory = directory / "machines"
        self._images = images
        self._disk_size = disk_size
        self._machines: dict[int, Machine] = {}

    async def start(self) -> None:
        """Make the place where machines live. Its mounts are shared, so that an unmount reaches every namespace."""
        self.directory.mkdir(parents=True)
        await run(["mount", "--bind", str(self.directory), str(self.directory)])
        await run(["mount", "--make-shared", str(self.directory)])

    async def close(self) -> None:
        """Destroy every machine."""
        await asyncio.gather(*map(self.destroy, list(self._machines)))
        await run(["umount", str(self.directory)])

    # -- Hypervisor -----------------------------------------------------------------------------------------------

    async def create(self, spec: MachineSpec) -> None:
        """Boot a new machine. ValueError: no such image, or the machine exists. A failure leaves nothing."""
        if spec.image not in self._images:
            raise ValueError(f"the local world has no image {spec.image}; it has {', '.join(self._images)}")
        if spec.id in self._machines:
            raise ValueError(f"machine {spec.id} exists already")
        machine = Machine(spec, Disk(self.directory / str(spec.id), self._disk_size))
        self._machines[spec.id] = machine
        try:
            await machine.disk.mount(self._images[spec.image])
            await asyncio.to_thread(write_seed, machine.disk.root, spec)
            await self._boot(machine)
        except BaseException:
            await self.destroy(spec.id)
            raise

    async def power(self, machine: int, on: bool, *, hard: bool = True) -> None:
        """Switch a machine on or off. A guest that was asked to shut down and doesn't is cut off after 30 s."""
        target = self._machines[machine]
        target.wanted_on = on
        if on:
            if target.guest and not target.guest.running:
                await self._off(target)
            if target.guest is None:
                await self._boot(target)
            return
        if not hard and target.guest is not None:
            target.guest.shut_down()
            with contextlib.suppress(TimeoutError):
                await self._off(target, SHUTDOWN_SECONDS)
        await self.kill(machine)

    async def destroy(self, machine: int) -> None:
        """Take a machine and its disk away, whatever it is doing."""
        await self.power(machine, False)
        target = self._machines.pop(machine)
        await self._off(target)
        await self.network.forget(machine)
        await target.disk.unmount()
        await asyncio.to_thread(shutil.rmtree, self.directory / str(machine), ignore_errors=True)

    async def set_firewall(self, machine: int, inbound: tuple[FirewallRule, ...] | None) -> None:
        """As in `Hypervisor`; may come before the machine is created."""
        await self.network.set_firewall(machine, inbound)

    async def assign_reserved_ip(self, address: str, machine: int | None) -> None:
        """As in `Hypervisor`; may come before the machine is created."""
        await self.network.assign(address, machine)

    # -- faults ---------------------------------------------------------------------------------------------------

    async def kill(self, *machines: int) -> None:
        """Cut the power of machines, all at one instant: the network is silent first, so that no one hears them die."""
        targets = [target for machine in machines if (target := self._machines[machine]).guest]
        for target in targets:
            target.wanted_on = False
        await self.network.silence(target.spec.id for target in targets)
        for target in targets:
            if target.guest:
                target.guest.kill()
        await asyncio.gather(*map(self._off, targets))

    async def power_off_region(self, region: str) -> None:
        """The datacentre goes dark: cut off and every machine in it without power."""
        await self.network.cut(region)
        await self.kill(*self.machines_in(region))

    async def power_on_region(self, region: str) -> None:
        """The datacentre comes back: connected, and every machine in it boots."""
        await self.network.restore(region)
        await asyncio.gather(*(self.power(machine, True) for machine in self.machines_in(region)))

    async def fill_disk(self, machine: int) -> None:
        """Leave no free byte on a machine's disk."""
        await self._machines[machine].disk.fill()

    async def free_disk(self, machine: int) -> None:
        """Undo `fill_disk`."""
        await self._machines[machine].disk.free()

    def slow_disk(self, machine: int, delay: float, *units: str) -> contextlib.AbstractAsyncContextManager[None]:
        """While the block runs, whatever these units sync to the disk takes ``delay`` seconds longer."""
        return slow_disk(self._group(machine), delay, units)

    def starved(
        self, machine: int, unit: str, away: float, awake: float
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """While the block runs, a unit gets the processor for ``awake`` seconds only after each ``away`` seconds."""
        return starved(self._group(machine), unit, away, awake)

    def _group(self, machine: int) -> str:
        guest = self._machines[machine].guest
        if guest is None:
            raise RuntimeError(f"machine {machine} is not running")
        return guest.group

    # -- looking --------------------------------------------------------------------------------------------------

    def machines_in(self, region: str) -> list[int]:
        """The machines of a region, running or not."""
        return [machine for machine, target in self._machines.items() if target.spec.region == region]

    def running(self, machine: int) -> bool:
        """Whether a machine has power; false too after its guest has switched itself off."""
        return self._machines[machine].guest is not None

    async def exec(self, machine: int, argv: Sequence[str], text: str = "") -> tuple[int, str]:
        """Run a command in a machine as root: exit status and standard output. RuntimeError when it is not running."""
        guest = self._machines[machine].guest
        if guest is None:
            raise RuntimeError(f"machine {machine} is not running")
        return await guest.execute(tuple(argv), text)

    def command(self, machine: int, argv: Sequence[str]) -> list[str]:
        """What runs a command in a machine as root. RuntimeError when it is not running."""
        guest = self._machines[machine].guest
        if guest is None:
            raise RuntimeError(f"machine {machine} is not running")
        return guest.command(tuple(argv))

    def console(self, machine: int) -> str:
        """All that a machine has written to its console, over all its boots."""
        self._machines[machine]
        return (self.directory / str(machine) / "console.log").read_text(errors="replace")

    def memory(self, machine: int) -> tuple[int, int]:
        """Bytes of memory that a machine's processes use, and bytes it has written to its disk (memory as well)."""
        target = self._machines[machine]
        return (target.guest.memory() if target.guest else 0), target.disk.used()

    # -- one boot -------------------------------------------------------------------------------------------------

    async def _boot(self, machine: Machine) -> None:
        spec = machine.spec
        port = Port(spec.id, spec.region, spec.public_ipv4, spec.private_ipv4, spec.public_ipv6)
        namespace = await self.network.attach(port)
        group = f"{self.network.prefix}{spec.id}"
        machine.wanted_on = True
        machine.guest = await Guest.boot(group, machine.disk.root, namespace, spec.name)
        machine.watcher = asyncio.create_task(self._watch(machine, machine.guest), name=f"machine {spec.id}")

    async def _watch(self, machine: Machine, guest: Guest) -> None:
        """See a boot to its end: unplug the machine, and boot it again when that is what its guest asked for."""
        status = await guest.ended()
        await self.network.detach(machine.spec.id)
        machine.guest = None
        if status == REBOOT and machine.wanted_on:
            await self._boot(machine)

    async def _off(self, machine: Machine, seconds: float | None = None) -> None:
        if machine.watcher is not None:
            await asyncio.wait_for(asyncio.shield(machine.watcher), seconds)
