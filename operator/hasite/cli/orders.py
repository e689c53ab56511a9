"""What a person orders of a database: a field of its spec, for everybody to see, good for one epoch only."""

from hasite.api import ReplicatedDatabase
from hasite.errors import Permanent
from hasite.kube.base import Kube


async def promote(kube: Kube, database: ReplicatedDatabase, location: str, *, accept_data_loss: bool) -> str:
    """Sets ``spec.promote`` for the present epoch; what to tell the person. Raises Permanent: it can't be meant."""
    status = database.status
    known = [each.name for each in database.spec.locations]
    if location not in known:
        raise Permanent(f"{location} is none of the locations of {database.name}: {', '.join(known)}")
    if not status.epoch:
        raise Permanent(f"{database.name} has no primary yet, and never had one")
    if any(m.name == status.primary and m.location == location for m in status.members):
        raise Permanent(f"{status.primary} is the primary, and at {location} already")
    if accept_data_loss and status.primary:
        message = (
            f"{status.primary} takes writes: nothing need be lost; leave --accept-data-loss out, or wait until it is"
        )
        raise Permanent(f"{message} known to be gone")
    order = {"location": location, "epoch": status.epoch, "acceptDataLoss": accept_data_loss}
    await kube.patch_spec(database, {"promote": order})
    verb = "a switchover to" if status.primary else "a promotion at"
    return f"ordered {verb} {location}, for epoch {status.epoch}; watch it: kubectl hasite status rdb/{database.name}"


async def switchover(kube: Kube, database: ReplicatedDatabase, location: str) -> str:
    """The same, while there is a primary that can hand over. Raises Permanent when there is none."""
    if not database.status.primary:
        raise Permanent(f"{database.name} has no primary that could hand over: see `kubectl hasite promote`")
    return await promote(kube, database, location, accept_data_loss=False)
