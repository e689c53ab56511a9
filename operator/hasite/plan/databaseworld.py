"""What was observed for one ReplicatedDatabase, and the first things to be read off it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hasite.api.common import DropletRecord
from hasite.api.replicateddatabase import Access, ReplicatedDatabase
from hasite.guard.messages import Beat, Order
from hasite.plan.droplets import Sight
from hasite.plan.names import Owner, Role, parse_name, template_hash
from hasite.plan.poolworld import BOOTSTRAP_VERSION
from hasite.plan.world import Firewall, GuardView, Impostor, MachineView, Unknown

SERVER_PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
WITNESS_SIZE = "s-1vcpu-1gb"


@dataclass(frozen=True)
class Version:
    """What a member should have. ``program``: guard, units, certificate; ``settings``: what the guard is told."""

    program: str
    settings: str


@dataclass(frozen=True)
class DatabaseWorld:
    """``beats``: the latest word of each member's guard; silent ones are Unknown.

    ``versions``: of the members of the present membership. ``declaration``: digest of the users and databases that the
    spec declares, or why it can't be known. ``ordered``: the latest order that was given, and when (Unix time).
    ``access``: who may connect, by the spec and by the sites that use the database. ``parameters_error``: why the
    server's parameters can't be set as the spec has them. ``refused``: members that refused a delivery a moment ago.
    """

    now: float
    identity: str
    sight: Sight
    machines: Mapping[str, MachineView | Impostor | Unknown]
    firewalls: Sequence[Firewall] | Unknown
    beats: Mapping[str, Beat | Unknown] = field(default_factory=dict)
    versions: Mapping[str, Version] = field(default_factory=dict)
    declaration: str | Unknown = ""
    ordered: tuple[Order, float] | None = None
    operator_cidrs: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)
    parameters_error: str | None = None
    refused: frozenset[str] = frozenset()

    def beat(self, name: str) -> Beat | None:
        """The latest word of a guard that is heard."""
        beat = self.beats.get(name)
        return beat if isinstance(beat, Beat) else None

    def guard(self, name: str) -> GuardView | None:
        """What was delivered to a machine that can be reached."""
        view = self.machines.get(name)
        guard = view.guard if isinstance(view, MachineView) else None
        return guard if isinstance(guard, GuardView) else None

    @property
    def epoch(self) -> int:
        """The newest that any guard has voted in."""
        return max((b.epoch for b in self.beats.values() if isinstance(b, Beat)), default=0)

    @property
    def reign(self) -> int:
        """The newest epoch that any guard knows a primary to have reigned in: what people see, and order by."""
        return max((b.reign for b in self.beats.values() if isinstance(b, Beat)), default=0)

    @property
    def holder(self) -> Beat | None:
        """The guard that says of itself that it holds the newest epoch with a valid lease."""
        held = [b for b in self.beats.values() if isinstance(b, Beat) and b.epoch == self.epoch]
        return next((b for b in held if b.holder == b.sender and b.lease_left > 0), None)

    @property
    def primary(self) -> Beat | None:
        """The holder, once its server takes writes."""
        holder = self.holder
        return holder if holder is not None and holder.database.state == "primary" else None


def owner_of(database: ReplicatedDatabase) -> Owner:
    """Whose the database's things are."""
    return Owner(database.uid, database.namespace, database.name)


def template_of(database: ReplicatedDatabase, role: Role) -> str:
    """Hash of what a member's droplet is made from."""
    spec = database.spec
    if role == "witness":
        return template_hash(BOOTSTRAP_VERSION, "witness", spec.effective_image, WITNESS_SIZE)
    installation = spec.installation.model_dump_json() if spec.installation else ""
    return template_hash(BOOTSTRAP_VERSION, spec.engine, spec.version, spec.effective_image, spec.size, installation)


def role_of(database: ReplicatedDatabase, record: DropletRecord) -> Role:
    """Of a record, by its name."""
    return "witness" if parse_name(record.name, owner_of(database), "witness") else "db"


def serves(world: DatabaseWorld, name: str, witness: bool) -> bool:
    """Whether a member does its part: it follows or leads, with its guard heard; of a witness its guard is enough."""
    beat = world.beat(name)
    if beat is None:
        return False
    if witness or world.primary is beat:
        return True
    seen = beat.database
    return seen.streaming and (seen.state == "standby" or turns(beat))


def turns(beat: Beat) -> bool:
    """Whether this is a member of a ring that takes writes, and applies those of others."""
    seen = beat.database
    return beat.role == "ring" and seen.state == "primary" and not seen.read_only and seen.conflict is None


def has_data(world: DatabaseWorld, name: str) -> bool:
    """Whether a member's server holds a copy of the database."""
    beat = world.beat(name)
    return beat is not None and beat.database.state not in ("absent", "failed")
