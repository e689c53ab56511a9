"""ReplicatedDatabase: the kind is there, its reconciler is not. It says so, and touches nothing."""

from datetime import UTC, datetime

from hasite.api.common import Resource
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.plan.status import Problem, kstatus, merge
from hasite.reconcilers.loop import GONE, Outcome
from hasite.reconcilers.services import Services

NOT_SUPPORTED = Problem("NotSupported", "this version of the operator does not manage databases yet", True)


class DatabaseReconciler:
    """Stalled, reason NotSupported."""

    kind: type[Resource] = ReplicatedDatabase

    def __init__(self, services: Services) -> None:
        self._services = services

    async def forget(self, namespace: str, name: str) -> None:
        """Nothing is kept."""

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Reports, once for each generation."""
        database = await self._services.kube.get(ReplicatedDatabase, namespace, name)
        if database is None:
            return GONE
        now = datetime.fromtimestamp(self._services.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = merge(database.status.conditions, kstatus([NOT_SUPPORTED], None), database.generation, now)
        status = database.status.model_copy(
            update={"conditions": conditions, "observed_generation": database.generation}
        )
        if status != database.status:
            await self._services.kube.write_status(database, status.wire())
        return Outcome(3600.0)
