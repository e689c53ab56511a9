"""ReplicatedDatabase: observe → plan → apply → report. The guards' connections and the vote run beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hasite.api.common import seconds
from hasite.api.hasite import HASite
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.base import Goods, MemberOperations, MemberOps
from hasite.databases.bootstrap import packages_of, user_data_of
from hasite.databases.certificates import Authority
from hasite.databases.declare import Declaration, Server
from hasite.databases.guards import Guards
from hasite.databases.parameters import parameters_error
from hasite.databases.parcel import version_of
from hasite.databases.secrets import authority_of, declaration_of
from hasite.databases.voter import stored_of
from hasite.errors import Permanent, Transient
from hasite.guard.messages import Order
from hasite.guard.model import OPERATOR, Member
from hasite.plan.connection import access_of, connection_secrets, differs
from hasite.plan.database import DatabasePlan, plan_database, plan_database_removal
from hasite.plan.databasestatus import database_report
from hasite.plan.databaseworld import SERVER_PORTS, WITNESS_SIZE, DatabaseWorld, Version
from hasite.plan.membership import membership_of, settings_of
from hasite.plan.names import Owner, Role
from hasite.plan.status import Problem
from hasite.plan.steps import CreateDroplet, DatabaseStep, DeclareDatabases, DeliverGuard, GiveOrder, describe
from hasite.plan.world import GuardView, Impostor, MachineView, Unknown
from hasite.reconcilers.apply import Application
from hasite.reconcilers.base import (
    BUSY_AGE,
    RESTING_AGE,
    RESTING_DROPLETS_AGE,
    is_busy,
    look_at_account,
    observed_waits,
    overdue,
    planned,
    report,
)
from hasite.reconcilers.loop import Outcome
from hasite.reconcilers.narrator import Narrator
from hasite.reconcilers.owning import OwningReconciler
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.values import Machine, target_of
from hasite.reconcilers.watch import WatchTarget

SITES_AGE = 30.0
"""Oldest list of the sites, in seconds, that a database at rest is judged by."""

STALE_SECONDS = 20.0
"""After a delivery, a look at the guard that shows something else may have begun before it: the standing connections
look in full every ten seconds."""


@dataclass(frozen=True)
class Known:
    """What was read beside the world, for the steps: none of it may stand in a status."""

    authority: Authority | None
    declaration: Declaration | Unknown


@dataclass
class DatabaseApplication(Application[ReplicatedDatabase]):
    """Carries out what only databases need."""

    guards: Guards | None = None
    narrator: Narrator | None = None
    members: MemberOperations = field(default_factory=MemberOps)
    known: Known = field(default_factory=lambda: Known(None, Unknown("not looked at")))
    delivered: dict[str, tuple[Version, float]] = field(default_factory=dict)

    def _machine_for(self, step: CreateDroplet) -> Machine:
        return machine_for(self.resource, step.role)

    async def _do_database(self, step: DatabaseStep) -> None:
        match step:
            case DeliverGuard():
                await self._deliver(step)
            case DeclareDatabases():
                await self._declare(step)
            case GiveOrder():
                order = Order(OPERATOR, step.kind, step.name, step.epoch, step.accept_data_loss)
                if self.narrator is not None:
                    self.narrator.ordered(self.resource.uid, order)
                self._guards.order(self.resource.uid, order)

    @property
    def _guards(self) -> Guards:
        if self.guards is None:
            raise Permanent("this operator has no connection to guards", "NotSupported")
        return self.guards

    async def _deliver(self, step: DeliverGuard) -> None:
        authority, address = self.known.authority, self.record(step.name).public_ipv4
        if authority is None or address is None:
            raise Transient("there is no certificate authority, or no address, yet")
        session = await self.session(step.name)
        goods = Goods(settings_of(self.resource, step.name), authority, self.services.clock())
        await self.members.deliver(session, goods, restart=step.restart)
        self.delivered[step.name] = (version_of(goods.settings, authority, goods.now), self.services.clock())
        self.services.watch.look_again(step.name)

    async def _declare(self, step: DeclareDatabases) -> None:
        paths, declaration = self._guards.paths(self.resource.uid), self.known.declaration
        if paths is None or isinstance(declaration, Unknown):
            raise Transient("what is to be declared is not known")
        engine, address = self.resource.spec.engine, self.record(step.name).public_ipv4 or ""
        server = Server(address, SERVER_PORTS[engine], paths.ca, paths.certificate, paths.key)
        await self.members.declare(engine, server, declaration)
        async with self._lock:
            await self._write(self.resource.status.model_copy(update={"declared": step.digest}))


class DatabaseReconciler(OwningReconciler[ReplicatedDatabase]):
    """A database's part of a reconcile."""

    kind = ReplicatedDatabase

    def __init__(
        self, services: Services, guards: Guards, members: MemberOperations, narrator: Narrator | None = None
    ) -> None:
        """``narrator``: the one that listens to the guards; without one, what reconciles see is all that is told."""
        super().__init__(services)
        self._narrator = narrator or narrator_of(services)
        self._guards = guards
        self._members = members
        self._delivered: dict[str, tuple[Version, float]] = {}
        self._sites_seen: tuple[Sequence[HASite], float] = ((), -math.inf)

    async def forget(self, namespace: str, name: str) -> None:
        """The object is gone, and with it the operator's vote."""
        uid = self._uids.get((namespace, name), "")
        await self._guards.drop(uid)
        await super().forget(namespace, name)

    def _drop(self, uid: str) -> None:
        super()._drop(uid)
        self._narrator.forget(uid)
        short = Owner(uid, "", "").short
        self._delivered = {n: when for n, when in self._delivered.items() if not uid or not n.endswith(short)}

    async def _reconcile(self, database: ReplicatedDatabase, account: Account, observing: bool) -> Outcome:
        services = self._services
        self._follow(database)
        known = await self._known(database, make=not observing and not database.deleting)
        if known.authority is not None and not database.deleting:
            await self._guards.follow(database, known.authority, _peers(database))
            self._narrate(database)
        world = await self._observe(database, account, known)
        plan = plan_database_removal(database, world) if database.deleting else plan_database(database, world)
        machine = machine_for(database, "db")
        application = DatabaseApplication(services, account, database, machine)
        application.guards, application.members, application.known = self._guards, self._members, known
        application.delivered, application.narrator = self._delivered, self._narrator
        if observing:
            plan = replace(
                plan, status=planned(database.status, plan.steps), steps=(), waits=observed_waits(plan.steps)
            )
        else:
            armed = application.arm(plan.status.droplets, plan.steps)
            await application.remember(planned(plan.status, plan.steps).model_copy(update={"droplets": armed}))
            await application.run(plan.steps)
        if plan.finished and self._endings.confirmed(database.uid, world.now):
            await services.kube.set_finalizer(application.resource, False)
            return Outcome(1.0)
        if plan.finished:
            return Outcome(BUSY_AGE + 0.5)
        self._endings.not_yet(database.uid)
        turned_away = await self._turned_away(application.resource, application.problems)
        return turned_away or await self._report(application, world, plan, known)

    def _follow(self, database: ReplicatedDatabase) -> None:
        """Members are looked at for as long as they are there: what they run must be what was delivered."""
        targets = [
            WatchTarget(target_of(record), None, (), guard=self._members.observe)
            for record in database.status.droplets
            if record.droplet_id is not None and record.public_ipv4 and record.known_keys
        ]
        self._services.watch.follow((self.kind.KIND, database.namespace, database.name), targets)

    def _narrate(self, database: ReplicatedDatabase) -> None:
        uid = database.uid
        self._narrator.follow(database, _peers(database))
        of = (self.kind.KIND, database.namespace, database.name)
        self._services.metrics.database(of, lambda: self._narrator.figures(uid))

    async def _known(self, database: ReplicatedDatabase, *, make: bool) -> Known:
        services = self._services
        authority = await authority_of(services.kube, database, services.clock(), make=make)
        return Known(authority, await declaration_of(services.kube, database, make=make))

    async def _observe(self, database: ReplicatedDatabase, account: Account, known: Known) -> DatabaseWorld:
        services, records = self._services, database.status.droplets
        busy = is_busy(records, database)
        now = services.clock()
        names = [member.name for member in _peers(database)]
        beats = self._guards.beats(database.uid, names)
        self._narrator.saw(database.uid, beats)
        silent = frozenset(name for name, beat in beats.items() if isinstance(beat, Unknown))
        troubled = self._troubles.droplets_age(database.uid, silent, now)
        age = BUSY_AGE if busy else min(troubled, RESTING_DROPLETS_AGE)
        versions = _versions(database, known.authority, now)
        sight, firewalls = await look_at_account(services, account, records, age, BUSY_AGE if busy else RESTING_AGE)
        return DatabaseWorld(
            now=now,
            identity=services.leadership.identity,
            sight=sight,
            machines={r.name: self._machine(r.name, now) for r in records},
            firewalls=firewalls,
            beats=beats,
            versions=versions,
            declaration=_digest(known),
            ordered=self._guards.ordered(database.uid),
            operator_cidrs=services.operator_cidrs,
            access=access_of(database, await self._sites(BUSY_AGE if busy else SITES_AGE)),
            parameters_error=parameters_error(database.spec.engine, database.spec.parameters),
        )

    async def _sites(self, max_age: float) -> Sequence[HASite]:
        """All sites, for those whose apps use a database; one list for all databases."""
        now = self._services.clock()
        if now - self._sites_seen[1] > max_age:
            self._sites_seen = (await self._services.kube.list(HASite), now)
        return self._sites_seen[0]

    async def _tell(self, database: ReplicatedDatabase, known: Known) -> None:
        """The Secrets that say how to connect."""
        if known.authority is None or isinstance(known.declaration, Unknown) or database.deleting:
            return
        passwords, certificate = known.declaration.passwords, known.authority.certificate
        for manifest in connection_secrets(database, passwords, certificate, database.status.primary):
            held = await self._services.kube.secret(database.namespace, manifest["metadata"]["name"])
            if differs(manifest, held):
                await self._services.kube.apply(manifest)

    def _machine(self, name: str, now: float) -> MachineView | Impostor | Unknown:
        """The latest look; of a guard that was just delivered only if it shows that."""
        view = self._services.watch.machine(name)
        last = self._delivered.get(name)
        if last is None or not isinstance(view, MachineView) or not isinstance(view.guard, GuardView):
            return view
        version, at = last
        if view.guard == GuardView(version.program, version.settings, True, True) or now - at >= STALE_SECONDS:
            return view
        return replace(view, guard=Unknown("it was not looked at since its delivery"))

    async def _report(
        self, application: DatabaseApplication, world: DatabaseWorld, plan: DatabasePlan, known: Known
    ) -> Outcome:
        services, database = self._services, application.resource
        for step in application.done:
            await services.kube.event(database, "Normal", type(step).__name__, describe(step).split(" ", 1)[1])
        for happening in self._narrator.tell(database.uid):
            if not database.deleting:
                await services.kube.event(database, happening.kind, happening.reason, happening.text)
        late = overdue(database.status.droplets, world.sight, world.now, seconds(database.spec.progress_deadline))
        problems = [*application.problems, *late]
        if isinstance(known.declaration, Unknown):
            problems.append(Problem("PasswordMissing", known.declaration.why, True))
        observing = database.spec.management_policy == "Observe"
        shown = plan if observing else replace(plan, status=database.status)
        status = database_report(database, world, shown, problems)
        last = self._narrator.last(database.uid) or database.status.last_turnover
        status = status.model_copy(update={"last_turnover": last})
        database = await report(services, database, status)
        if not observing:
            await self._tell(database, known)
        return application.outcome(plan.again_in)


def narrator_of(services: Services) -> Narrator:
    """One that wakes the databases of which there is something to tell."""
    return Narrator(services.clock, lambda space, name: services.wakes.wake(ReplicatedDatabase, space, name))


def machine_for(database: ReplicatedDatabase, role: Role) -> Machine:
    """What a droplet of this role is made from."""
    spec = database.spec
    if role == "witness":
        return Machine(WITNESS_SIZE, spec.effective_image, (), "")
    return Machine(spec.size, spec.effective_image, packages_of(spec), user_data_of(spec))


def _members(database: ReplicatedDatabase) -> Sequence[Member]:
    """The present membership."""
    membership = database.status.membership
    return membership_of(membership).members if membership else ()


def _peers(database: ReplicatedDatabase) -> Sequence[Member]:
    """Who is talked to: until a change of the membership is in force, those of before count too, and may be elected."""
    stored = stored_of(database.status.vote)
    voted = (stored.vote.previous, stored.vote.membership) if stored else ()
    found = {member.name: member for membership in voted if membership for member in membership.members}
    return tuple((found | {member.name: member for member in _members(database)}).values())


def _versions(database: ReplicatedDatabase, authority: Authority | None, now: float) -> Mapping[str, Version]:
    if authority is None:
        return {}
    return {m.name: version_of(settings_of(database, m.name), authority, now) for m in _members(database)}


def _digest(known: Known) -> str | Unknown:
    if known.authority is None:
        return Unknown("there is no certificate authority yet")
    if isinstance(known.declaration, Unknown):
        return known.declaration
    return known.declaration.digest(known.authority.key)
