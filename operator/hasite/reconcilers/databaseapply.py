"""Carries out what only databases need: deliveries to the guards, declarations to the server, people's orders."""

from dataclasses import dataclass, field, replace

from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.base import Goods, MemberOperations, MemberOps
from hasite.databases.bootstrap import packages_of, user_data_of
from hasite.databases.certificates import Authority
from hasite.databases.declare import Declaration, Server
from hasite.databases.guards import Guards
from hasite.databases.parcel import NO_SECRETS, version_of
from hasite.errors import HasiteError, Permanent, Transient
from hasite.guard.messages import Order
from hasite.guard.model import OPERATOR
from hasite.plan.databaseworld import SERVER_PORTS, WITNESS_SIZE, Version
from hasite.plan.membership import settings_of
from hasite.plan.names import Role
from hasite.plan.steps import CreateDroplet, DatabaseStep, DeclareDatabases, DeliverGuard, GiveOrder
from hasite.plan.world import Unknown
from hasite.reconcilers.apply import Application
from hasite.reconcilers.loop import Outcome
from hasite.reconcilers.narrator import Narrator
from hasite.reconcilers.values import Machine


@dataclass(frozen=True)
class Known:
    """What was read beside the world, for the steps: none of it may stand in a status."""

    authority: Authority | None
    declaration: Declaration | Unknown
    backup_secrets: bytes = field(default=NO_SECRETS, repr=False)
    backup_missing: str = ""


@dataclass
class DatabaseApplication(Application[ReplicatedDatabase]):
    """Carries out what only databases need."""

    guards: Guards | None = None
    narrator: Narrator | None = None
    members: MemberOperations = field(default_factory=MemberOps)
    known: Known = field(default_factory=lambda: Known(None, Unknown("not looked at")))
    delivered: dict[str, tuple[Version, float]] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)

    def outcome(self, again_in: float) -> Outcome:
        """A member that refuses its delivery is left alone for a while by the plan; all others are looked after."""
        deliveries = sum(problem.message.startswith(DeliverGuard.__name__) for problem in self.problems)
        return replace(super().outcome(again_in), failed=len(self.problems) > deliveries)

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
        secrets = self.known.backup_secrets
        goods = Goods(settings_of(self.resource, step.name), authority, self.services.clock(), secrets)
        try:
            session = await self.session(step.name)
            await self.members.deliver(session, goods, restart=step.restart)
        except HasiteError:
            self.failed[step.name] = self.services.clock()
            raise
        self.failed.pop(step.name, None)
        self.delivered[step.name] = (version_of(goods.settings, authority, goods.now, secrets), self.services.clock())
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


def machine_for(database: ReplicatedDatabase, role: Role) -> Machine:
    """What a droplet of this role is made from."""
    spec = database.spec
    if role == "witness":
        return Machine(WITNESS_SIZE, spec.effective_image, (), "")
    return Machine(spec.size, spec.effective_image, packages_of(spec), user_data_of(spec))
