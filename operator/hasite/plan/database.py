"""One ReplicatedDatabase: its members' droplets, who takes part, what they are told, and who is to be the primary.

The operator is needed for none of what keeps the database alive: elections, fencing and following are the guards' own
(``hasite.guard``). It makes machines, tells the guards who takes part, votes (``databases/voter.py``), and passes on
what people order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hasite.api.common import DropletRecord
from hasite.api.databasestatus import MemberRecord, ReplicatedDatabaseStatus, VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.claims import Claims
from hasite.plan.databasebackup import restore_error
from hasite.plan.databaseleave import release, rests
from hasite.plan.databaseorders import declined, plan_orders
from hasite.plan.databaserollout import Change, Group, Part, plan_members
from hasite.plan.databaseworld import SERVER_PORTS, DatabaseWorld, owner_of, role_of, serves, template_of
from hasite.plan.deliveries import Deliveries, deliveries, identities
from hasite.plan.droplets import Settled, settle
from hasite.plan.firewalls import database_firewall, plan_firewall, remove_firewall
from hasite.plan.membership import in_force, is_unmade, member_of, with_members
from hasite.plan.names import Role, ordinal_of
from hasite.plan.poolworld import STEADY_SECONDS
from hasite.plan.rollout import Create
from hasite.plan.steps import CreateDroplet, DeclareDatabases, DestroyDroplet, Refusal, Step, Wait
from hasite.plan.world import Firewall, MachineView, Unknown

ROLES: tuple[Role, ...] = ("db", "witness")


@dataclass(frozen=True)
class DatabasePlan:
    """``status`` is written before the first step. ``finished``: nothing of a deleted database is left.

    ``strange``: droplets with this database's tags that no record knows; they may hold data, so a person has to look.
    """

    status: ReplicatedDatabaseStatus
    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    waits: tuple[Wait, ...] = ()
    finished: bool = False
    strange: tuple[str, ...] = field(default=())

    @property
    def again_in(self) -> float:
        """Seconds until the next look."""
        if self.steps:
            return 0.2
        return min((wait.again_in for wait in self.waits), default=STEADY_SECONDS)


def plan_database(database: ReplicatedDatabase, world: DatabaseWorld) -> DatabasePlan:
    """The whole plan of a database that is not being deleted."""
    settled = _settle(database, world)
    records = tuple(r for r in settled.records if not is_strange(r))
    strange = tuple(sorted(r.name for r in settled.records if is_strange(r)))
    refusal = _refusal(database, world, settled)
    if refusal is not None:
        return _orders_alone(database, world, records, DatabasePlan(database.status, (), (refusal,), strange=strange))
    database = _with(database, droplets=settled.records, vote=database.status.vote or VoteRecord())
    database = _with(database, made=database.status.made or world.reign > 0)
    present = [r for r in records if not rests(database, r, world)]
    change = plan_members(_want(database), _parts(database, present, world), bool(database.status.bootstrap))
    change, refusals = _bounded(database, records, change)
    records = _remember(records, change, database, world)
    firewall_steps, firewall_waits, stands = plan_firewall(_firewall(database, world), world.firewalls)
    database, created, creations = _claims(database, change if stands else Change(), world)
    known = database.status.membership
    database = _membership(database, records, change, world)
    keys = identities(records, world)
    # What each member should have is known of the membership before: a new one is delivered by the next plan.
    work = deliveries(database, records, world) if database.status.membership == known else Deliveries()
    orders = plan_orders(database, world, records, change.hand_over or work.hand_over)
    database = _with(database, preferred=orders.preferred, declined_promotion=declined(database, world))
    records, destructions, release_waits = release(database, records, world)
    database = _with(database, droplets=_kept(settled, records, created))
    waits = (*settled.waits, *firewall_waits, *keys.waits, *work.waits, *orders.waits, *release_waits)
    waits += tuple(Wait(f"{name} does not replicate yet", 1.0) for name in change.waiting_for)
    # A member that refuses its delivery takes orders all the same.
    steps = (*firewall_steps, *settled.steps, *keys.steps, *creations, *orders.steps, *work.steps, *destructions)
    steps += _declaration(database, world)
    return DatabasePlan(database.status, steps, refusals, waits, strange=strange)


def _orders_alone(
    database: ReplicatedDatabase, world: DatabaseWorld, records: Sequence[DropletRecord], plan: DatabasePlan
) -> DatabasePlan:
    """What people order is passed on all the same: it has nothing to do with what must be mended."""
    if database.status.vote is None:
        return plan
    orders = plan_orders(database, world, records, "")
    status = _with(database, preferred=orders.preferred, declined_promotion=declined(database, world)).status
    return replace(plan, status=status, steps=orders.steps, waits=orders.waits)


def is_strange(record: DropletRecord) -> bool:
    """A droplet that was found by its tags alone: nobody knows its host key, so nothing can be sent to it."""
    return record.droplet_id is not None and not record.known_keys


def _refusal(database: ReplicatedDatabase, world: DatabaseWorld, settled: Settled) -> Refusal | None:
    """What must be mended before anything is done."""
    spec, status = database.spec, database.status
    if not spec.effective_image:
        message = f"no distribution is known that has {spec.engine} {spec.version}: give an image and an installation"
        return Refusal("VersionNotAvailable", message)
    if why := restore_error(database):
        return Refusal("NotSupported", why)
    if world.parameters_error:
        return Refusal("InvalidParameters", f"spec.parameters: {world.parameters_error}")
    if status.vote is None and isinstance(world.sight.listed, Unknown):
        return Refusal("NotSeenYet", f"droplets cannot be seen: {world.sight.listed.why}")
    if status.vote is None and settled.records:
        message = (
            "droplets of this database exist, but its status was lost, and with it the operator's vote: restore the "
            "status, or destroy the droplets by hand if their data are not wanted"
        )
        return Refusal("VoteLost", message)
    return None


def _with(database: ReplicatedDatabase, **changes: object) -> ReplicatedDatabase:
    return database.model_copy(update={"status": database.status.model_copy(update=changes)})


def _settle(database: ReplicatedDatabase, world: DatabaseWorld) -> Settled:
    owner = owner_of(database)
    parts = [
        settle(
            [r for r in database.status.droplets if role_of(database, r) == role],
            world.sight,
            owner,
            role,
            world.identity,
            world.now,
        )
        for role in ROLES
    ]
    return Settled(
        tuple(r for part in parts for r in part.records),
        tuple(r for part in parts for r in part.lost),
        tuple(s for part in parts for s in part.steps),
        tuple(w for part in parts for w in part.waits),
    )


def _want(database: ReplicatedDatabase) -> dict[Group, int]:
    spec = database.spec
    want: dict[Group, int] = {("db", location.name): location.members for location in spec.locations}
    if spec.witness is not None:
        want["witness", spec.witness.location] = 1
    return want


def regions_of(database: ReplicatedDatabase) -> dict[str, str]:
    """Location → region, the witness' too."""
    spec = database.spec
    regions = {location.name: location.region for location in spec.locations}
    return regions | ({spec.witness.location: spec.witness.region} if spec.witness else {})


def _bounded(
    database: ReplicatedDatabase, records: Sequence[DropletRecord], change: Change
) -> tuple[Change, tuple[Refusal, ...]]:
    """No fault in what counts as whose part may buy machines without end."""
    membership = database.status.membership
    most = 2 * max(sum(_want(database).values()), len(membership.members) if membership else 0)
    there = sum(r.leaving_since is None for r in records)
    if not change.create or there + len(change.create) <= most:
        return change, ()
    message = (
        f"{there} machines are there, and {len(change.create)} more seem to be missing: no more than {most} are made"
    )
    return replace(change, create=()), (Refusal("TooManyMachines", message),)


def _parts(database: ReplicatedDatabase, records: Sequence[DropletRecord], world: DatabaseWorld) -> tuple[Part, ...]:
    holder, membership = world.holder, database.status.membership
    members = {m.name for m in membership.members} if membership else set()
    parts = []
    for record in records:
        role = role_of(database, record)
        parts.append(
            Part(
                name=record.name,
                group=(role, record.location),
                current=record.template == template_of(database, role),
                serving=record.name in members and serves(world, record.name, role == "witness"),
                leaving=record.leaving_since is not None,
                holder=holder is not None and holder.sender == record.name,
            )
        )
    return tuple(parts)


def members_of(database: ReplicatedDatabase, world: DatabaseWorld) -> tuple[Part, ...]:
    """The members, each with whether it does its part."""
    return _parts(database, [r for r in database.status.droplets if not is_strange(r)], world)


def _remember(
    records: Sequence[DropletRecord], change: Change, database: ReplicatedDatabase, world: DatabaseWorld
) -> tuple[DropletRecord, ...]:
    leaving = change.leave or {}
    return tuple(
        r.model_copy(
            update={
                "leaving_since": world.now if r.name in leaving else r.leaving_since,
                "served": r.served or serves(world, r.name, role_of(database, r) == "witness"),
            }
        )
        for r in records
    )


def _kept(
    settled: Settled, records: Sequence[DropletRecord], created: Sequence[DropletRecord]
) -> tuple[DropletRecord, ...]:
    return (*records, *(r for r in settled.records if is_strange(r)), *created)


def _firewall(database: ReplicatedDatabase, world: DatabaseWorld) -> Firewall:
    port = SERVER_PORTS[database.spec.engine]
    return database_firewall(owner_of(database), port, world.access, world.operator_cidrs)


def _claims(
    database: ReplicatedDatabase, change: Change, world: DatabaseWorld
) -> tuple[ReplicatedDatabase, tuple[DropletRecord, ...], tuple[CreateDroplet, ...]]:
    """A serial number for each: it is in the status before the droplet is, and never given again."""
    serial = database.status.serial
    records: list[DropletRecord] = []
    steps: list[CreateDroplet] = []
    for wanted in change.create:
        role, location = wanted.group
        template = template_of(database, role)
        claims = Claims(owner_of(database), role, template, regions_of(database), world.identity, world.now)
        made, create = claims.of([Create(location, serial, wanted.reason)])
        records += made
        steps += create
        serial += 1
    return _with(database, serial=serial), tuple(records), tuple(steps)


def _membership(
    database: ReplicatedDatabase, records: Sequence[DropletRecord], change: Change, world: DatabaseWorld
) -> ReplicatedDatabase:
    """Who takes part from now on. Another change waits until the one before is in force."""
    before = database.status.membership
    ready = [member_of(database, r) for r in records if _ready(r, world)]
    if not database.status.bootstrap:
        complete = not change.create and len(ready) == sum(_want(database).values()) == len(records)
        if not complete:
            return database
        after = with_members(before, ready)
        return _with(database, membership=after, bootstrap=_first(database, ready))
    if before is None or not (in_force(database, world) or is_unmade(database, world)):
        return database
    after = with_members(before, _taking_part(database, before.members, ready, records))
    return _with(database, membership=after, bootstrap=_maker(database, ready, records, world))


def _maker(
    database: ReplicatedDatabase, ready: Sequence[MemberRecord], records: Sequence[DropletRecord], world: DatabaseWorld
) -> str:
    """Who makes the database: another one when the first was lost before it had, for certain."""
    before = database.status.bootstrap
    lost = all(r.name != before for r in records)
    others = [m for m in ready if not m.witness]
    return _first(database, ready) if lost and others and is_unmade(database, world) else before


def _taking_part(
    database: ReplicatedDatabase,
    before: Sequence[MemberRecord],
    ready: Sequence[MemberRecord],
    records: Sequence[DropletRecord],
) -> list[MemberRecord]:
    """Those that are ready, and those of before that stay. One whose droplet is gone keeps its place until another has
    come, so that no location loses its voter meanwhile."""
    leaving = {r.name for r in records if r.leaving_since is not None}
    known = {r.name for r in records}
    after = {m.name: m for m in (*before, *ready) if m.name in known and m.name not in leaving}
    want = _want(database)
    for member in before:
        group: Group = ("witness" if member.witness else "db", member.location)
        here = sum(m.location == member.location and m.witness == member.witness for m in after.values())
        if member.name not in known and here < want.get(group, 0):
            after[member.name] = member
    return list(after.values())


def _ready(record: DropletRecord, world: DatabaseWorld) -> bool:
    view = world.machines.get(record.name)
    done = isinstance(view, MachineView) and view.cloud_init == "done"
    return record.pinned and record.public_ipv4 is not None and record.leaving_since is None and done


def _first(database: ReplicatedDatabase, members: Sequence[MemberRecord]) -> str:
    """Who makes the database: at the wished location, else at the first."""
    spec = database.spec
    order = [location.name for location in spec.locations]
    wish = spec.primary_location or order[0]
    able = [m for m in members if not m.witness]
    return min(able, key=lambda m: (m.location != wish, order.index(m.location), ordinal_of(m.name))).name


def _declaration(database: ReplicatedDatabase, world: DatabaseWorld) -> tuple[Step, ...]:
    """Again in each reign: a failover may have lost what was declared last."""
    primary = world.primary
    if primary is None or isinstance(world.declaration, Unknown):
        return ()
    digest = f"{world.declaration}-{world.reign}"
    if digest == database.status.declared:
        return ()
    following = sum(serves(world, name, False) for name in world.beats if name != primary.sender)
    if primary.sync is not None and following < primary.sync.required:
        return ()  # each statement would only wait until its patience is over
    return (DeclareDatabases(primary.sender, digest, "users or databases differ from what was declared last"),)


def plan_database_removal(database: ReplicatedDatabase, world: DatabaseWorld) -> DatabasePlan:
    """The database is deleted, and deletionPolicy is Delete: members, then their firewall. The data go with them."""
    owner = owner_of(database)
    leaving = tuple(
        r.model_copy(update={"leaving_since": r.leaving_since or world.now}) for r in database.status.droplets
    )
    settled = _settle(_with(database, droplets=leaving), world)
    status = database.status.model_copy(update={"droplets": settled.records})
    destructions = tuple(
        DestroyDroplet(r.name, r.droplet_id, "its database is deleted")
        for r in settled.records
        if r.droplet_id is not None
    )
    more, gone = ((), False) if settled.records else remove_firewall(owner, "db", world.firewalls)
    steps = (*settled.steps, *destructions, *more)
    finished = not steps and not settled.records and gone
    return DatabasePlan(status, steps, (), settled.waits, finished)
