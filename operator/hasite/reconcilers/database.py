"""ReplicatedDatabase: observe → plan → apply → report. The guards' connections and the vote run beside it."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hasite.api.common import seconds
from hasite.api.hasite import HASite
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.base import MemberOperations
from hasite.databases.certificates import Authority
from hasite.databases.guards import Guards
from hasite.databases.parameters import parameters_error
from hasite.databases.parcel import version_of
from hasite.databases.secrets import authority_of, backup_secrets, bind_secrets, declaration_of
from hasite.databases.voter import stored_of
from hasite.errors import Conflict, HasiteError, LeadershipLost, Permanent, Unauthorized
from hasite.guard.model import Member
from hasite.plan.connection import access_of, connection_secrets, differs
from hasite.plan.database import DatabasePlan, plan_database, plan_database_removal
from hasite.plan.databasebackup import backup_happenings
from hasite.plan.databasestatus import database_report
from hasite.plan.databaseworld import DatabaseWorld, Version
from hasite.plan.droplets import Sight
from hasite.plan.membership import membership_of, settings_of
from hasite.plan.names import Owner
from hasite.plan.status import Problem
from hasite.plan.steps import (
    ActivateHostKey,
    DeclareDatabases,
    DeliverGuard,
    GiveOrder,
    StageHostKey,
    describe,
)
from hasite.plan.world import Firewall, GuardView, Impostor, MachineView, Unknown
from hasite.reconcilers.base import (
    BUSY_AGE,
    RESTING_AGE,
    RESTING_DROPLETS_AGE,
    credentials,
    is_busy,
    look_at_account,
    observed_waits,
    overdue,
    planned,
    report,
)
from hasite.reconcilers.databaseapply import DatabaseApplication, Known, machine_for
from hasite.reconcilers.loop import Outcome
from hasite.reconcilers.narrator import Narrator
from hasite.reconcilers.owning import PROBLEM_SECONDS, OwningReconciler
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.values import target_of
from hasite.reconcilers.watch import WatchTarget

_log = logging.getLogger(__name__)

SITES_AGE = 30.0
"""Oldest list of the sites, in seconds, that a database at rest is judged by."""

REFUSED_SECONDS = 10.0
"""A member that refused its delivery is left alone for so long."""

UNSEEN = Unknown("there are no credentials for the provider")

ON_MEMBERS = (StageHostKey, ActivateHostKey, DeliverGuard, DeclareDatabases, GiveOrder)
"""Steps that need no provider."""

STALE_SECONDS = 20.0
"""After a delivery, a look at the guard that shows something else may have begun before it: the standing connections
look in full every ten seconds."""


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
        self._failed: dict[str, float] = {}
        self._bound: dict[str, str] = {}
        self._sites_seen: tuple[Sequence[HASite] | Unknown, float] = (Unknown("sites were not listed yet"), -math.inf)

    async def _let_go(self, uid: str) -> None:
        """With the object the operator's vote is gone."""
        await self._guards.drop(uid)
        await super()._let_go(uid)

    def _drop(self, uid: str) -> None:
        super()._drop(uid)
        self._narrator.forget(uid)
        short = Owner(uid, "", "").short
        self._delivered = {n: when for n, when in self._delivered.items() if not uid or not n.endswith(short)}
        self._failed = {n: when for n, when in self._failed.items() if not uid or not n.endswith(short)}
        self._bound.pop(uid, None)

    async def _with_credentials(self, database: ReplicatedDatabase, observing: bool) -> Outcome:
        """Connections to the guards and the vote come first: they need neither an account nor anybody's password."""
        self._follow(database)
        make = not observing and not database.deleting
        authority, trouble = await self._authority(database, make=make)
        if trouble is not None and trouble.reason == "EarlierDatabase" and not database.deleting:
            return await self._stuck(database, trouble)
        if authority is not None and not database.deleting:
            await self._guards.follow(database, authority, _peers(database))
            self._narrate(database)
        known = await self._known(database, authority, make=make)
        troubles: tuple[Problem, ...] = () if trouble is None else (trouble,)
        if database.status.vote is not None and stored_of(database.status.vote) is None:
            message = "status.vote.ballot cannot be read, so the operator does not vote: restore the status"
            troubles += (Problem("VoteUnreadable", message, True),)
        account = await credentials(self._services, database)
        if isinstance(account, Problem):
            return await self._without_account(database, known, (*troubles, account), observing)
        try:
            return await self._carry_out(database, account, known, troubles, observing)
        except Unauthorized as error:
            problem = Problem(error.reason, str(error), True)
            return await self._without_account(database, known, (*troubles, problem), observing)

    async def _without_account(
        self, database: ReplicatedDatabase, known: Known, troubles: tuple[Problem, ...], observing: bool
    ) -> Outcome:
        """People's orders, deliveries and the report go on: machines that are there need no provider."""
        if database.deleting or database.status.vote is None:
            return await self._stuck(database, troubles[0])
        return await self._carry_out(database, None, known, troubles, observing)

    async def _carry_out(
        self,
        database: ReplicatedDatabase,
        account: Account | None,
        known: Known,
        troubles: tuple[Problem, ...],
        observing: bool,
    ) -> Outcome:
        services = self._services
        world = await self._observe(database, account, known)
        plan = plan_database_removal(database, world) if database.deleting else plan_database(database, world)
        if account is None:
            plan = replace(plan, steps=tuple(step for step in plan.steps if isinstance(step, ON_MEMBERS)))
        application = self._application(database, account, known)
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
        return turned_away or await self._report(application, world, plan, troubles)

    def _application(self, database: ReplicatedDatabase, account: Account | None, known: Known) -> DatabaseApplication:
        application = DatabaseApplication(self._services, account, database, machine_for(database, "db"))
        application.guards, application.members, application.known = self._guards, self._members, known
        application.delivered, application.narrator = self._delivered, self._narrator
        application.failed = self._failed
        return application

    async def _leave_all(self, database: ReplicatedDatabase) -> None:
        """The Secrets stay as the machines do, whatever the policy was before."""
        if database.spec.management_policy != "Observe":
            authority, _ = await self._authority(database, make=False)
            if authority is not None:
                await bind_secrets(self._services.kube, database, authority)
        await super()._leave_all(database)

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

    async def _authority(self, database: ReplicatedDatabase, *, make: bool) -> tuple[Authority | None, Problem | None]:
        """The one to go by, and what is wrong with its Secret: the guards are still spoken to with the one in use."""
        in_use = self._guards.authority(database.uid)
        try:
            now = self._services.clock()
            return await authority_of(self._services.kube, database, now, make=make, known=in_use), None
        except Permanent as error:
            return in_use, Problem(error.reason, str(error), True)

    async def _known(self, database: ReplicatedDatabase, authority: Authority | None, *, make: bool) -> Known:
        kube, policy = self._services.kube, database.spec.deletion_policy
        if make and authority is not None and self._bound.get(database.uid) != policy:
            await bind_secrets(kube, database, authority)
            self._bound[database.uid] = policy
        secrets, missing = await backup_secrets(kube, database)
        try:
            declaration = await declaration_of(kube, database, make=make)
        except (Conflict, LeadershipLost):
            raise
        except HasiteError as error:
            declaration = Unknown(str(error))
        return Known(authority, declaration, secrets, missing)

    async def _observe(self, database: ReplicatedDatabase, account: Account | None, known: Known) -> DatabaseWorld:
        services, records = self._services, database.status.droplets
        busy = is_busy(records, database)
        now = services.clock()
        names = [member.name for member in _peers(database)]
        beats = self._guards.beats(database.uid, names)
        self._narrator.saw(database.uid, beats)
        silent = frozenset(name for name, beat in beats.items() if isinstance(beat, Unknown))
        troubled = self._troubles.droplets_age(database.uid, silent, now)
        age = BUSY_AGE if busy else min(troubled, RESTING_DROPLETS_AGE)
        versions = _versions(database, known, now)
        firewalls: Sequence[Firewall] | Unknown
        sight, firewalls = Sight(UNSEEN), UNSEEN
        if account is not None:
            sight, firewalls = await look_at_account(services, account, records, age, BUSY_AGE if busy else RESTING_AGE)
        sites = await self._sites(BUSY_AGE if busy else SITES_AGE)
        if isinstance(sites, Unknown):  # who may connect is not known, so the firewall is left as it is
            sites, firewalls = (), sites
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
            access=access_of(database, sites),
            refused=frozenset(name for name, at in self._failed.items() if now - at < REFUSED_SECONDS),
            parameters_error=parameters_error(database.spec.engine, database.spec.parameters),
        )

    async def _sites(self, max_age: float) -> Sequence[HASite] | Unknown:
        """All sites, for those whose apps use a database; one list for all databases, the last one if need be."""
        now = self._services.clock()
        seen, at = self._sites_seen
        if now - at > max_age:
            try:
                seen = await self._services.kube.list(HASite)
            except HasiteError as error:
                _log.warning("sites cannot be listed: %s", error)
                seen = Unknown(f"sites cannot be listed: {error}") if isinstance(seen, Unknown) else seen
            self._sites_seen = (seen, now)
        return seen

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
        self, application: DatabaseApplication, world: DatabaseWorld, plan: DatabasePlan, troubles: Sequence[Problem]
    ) -> Outcome:
        services, database, known = self._services, application.resource, application.known
        for step in application.done:
            await services.kube.event(database, "Normal", type(step).__name__, describe(step).split(" ", 1)[1])
        for happening in self._narrator.tell(database.uid):
            if not database.deleting:
                await services.kube.event(database, happening.kind, happening.reason, happening.text)
        late = overdue(database.status.droplets, world.sight, world.now, seconds(database.spec.progress_deadline))
        problems = [*troubles, *application.problems, *late]
        if isinstance(known.declaration, Unknown):
            problems.append(Problem("PasswordMissing", known.declaration.why, True))
        if known.backup_missing:
            problems.append(Problem("BackupCredentialsMissing", known.backup_missing))
        observing = database.spec.management_policy == "Observe"
        shown = plan if observing else replace(plan, status=database.status)
        status = database_report(database, world, shown, problems)
        last = self._narrator.last(database.uid) or database.status.last_turnover
        status = status.model_copy(update={"last_turnover": last})
        for happening in backup_happenings(database.status.backup, status.backup):
            await services.kube.event(database, happening.kind, happening.reason, happening.text)
        database = await report(services, database, status)
        if not observing:
            await self._tell(database, known)
        return application.outcome(min(plan.again_in, PROBLEM_SECONDS) if troubles else plan.again_in)


def narrator_of(services: Services) -> Narrator:
    """One that wakes the databases of which there is something to tell."""
    return Narrator(services.clock, lambda space, name: services.wakes.wake(ReplicatedDatabase, space, name))


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


def _versions(database: ReplicatedDatabase, known: Known, now: float) -> Mapping[str, Version]:
    authority, secrets = known.authority, known.backup_secrets
    if authority is None:
        return {}
    return {m.name: version_of(settings_of(database, m.name), authority, now, secrets) for m in _members(database)}


def _digest(known: Known) -> str | Unknown:
    if known.authority is None:
        return Unknown("there is no certificate authority yet")
    if isinstance(known.declaration, Unknown):
        return known.declaration
    return known.declaration.digest(known.authority.key)
