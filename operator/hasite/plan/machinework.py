"""What is to be done on the machines themselves: host keys, and the configuration of the proxy."""

from collections.abc import Sequence

from hasite.api.common import DropletRecord
from hasite.plan.poolworld import PoolWorld, in_force
from hasite.plan.steps import ActivateHostKey, ConfigureProxy, StageHostKey, Step, Wait
from hasite.plan.world import MachineView, Unknown


def machine_work(records: Sequence[DropletRecord], world: PoolWorld) -> tuple[tuple[Step, ...], tuple[Wait, ...]]:
    """Host keys and proxy configurations of the machines that can be reached."""
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        view = world.machines.get(record.name)
        if record.pinned and record.leaving_since is None and isinstance(view, Unknown):
            waits.append(Wait(f"{record.name} cannot be reached over SSH", 5.0))
        if record.droplet_id is None or not isinstance(view, MachineView):
            continue
        if view.cloud_init == "running":
            waits.append(Wait(f"{record.name} is being set up by cloud-init", 1.0))
            continue
        steps += host_key_steps(record)
        work = _proxy_work(record, view, world)
        steps += [work] if isinstance(work, ConfigureProxy) else []
        waits += [work] if isinstance(work, Wait) else []
    return tuple(steps), tuple(waits)


def host_key_steps(record: DropletRecord) -> tuple[Step, ...]:
    """The key that came with user data is replaced: any process on the machine may have read it."""
    if record.pinned:
        return ()
    activate = ActivateHostKey(record.name, "the bootstrap's key was in the user data")
    if record.host_key:
        return (activate,)
    return (StageHostKey(record.name, "the bootstrap's key was in the user data"), activate)


def _proxy_work(record: DropletRecord, view: MachineView, world: PoolWorld) -> ConfigureProxy | Wait | None:
    proxy = view.proxy
    if isinstance(proxy, Unknown | None) or not proxy.installed or in_force(record, view, world):
        return None
    if record.name not in world.rendered:
        return Wait(f"there is no configuration for {record.name}", 10.0)
    if record.name in world.rejected:
        return Wait(f"{record.name} refused its configuration: {world.rejected[record.name]}", 10.0)
    if proxy.config_sha256 != world.rendered.get(record.name):
        return ConfigureProxy(record.name, "its configuration differs from the one it should have")
    return ConfigureProxy(
        record.name, "the proxy does not run" if not proxy.active else "the proxy would not start at boot"
    )
