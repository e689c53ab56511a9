"""The part of a reconcile that all kinds share: whether to act at all, and how to let go."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import LoadBalancerPool
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.errors import Unauthorized
from hasite.plan.status import Problem
from hasite.reconcilers.base import (
    Endings,
    Refusals,
    Troubles,
    credentials,
    give_up,
    has_finalizer,
    report_problem,
    retain,
)
from hasite.reconcilers.loop import GONE, Outcome
from hasite.reconcilers.services import Account, Services

R = TypeVar("R", HASite, LoadBalancerPool, ReplicatedDatabase)

PROBLEM_SECONDS = 10.0


class OwningReconciler(Generic[R]):
    """Keeps in memory only what may be lost, by UID: first looks at an end, troubles, refusals."""

    kind: type[R]

    def __init__(self, services: Services) -> None:
        self._services = services
        self._endings = Endings()
        self._troubles = Troubles()
        self._refusals = Refusals()
        self._uids: dict[tuple[str, str], str] = {}

    async def forget(self, namespace: str, name: str) -> None:
        """The object is gone."""
        self._services.watch.follow((self.kind.KIND, namespace, name), ())
        self._services.metrics.forget((self.kind.KIND, namespace, name))
        await self._let_go(self._uids.pop((namespace, name), ""))

    async def _let_go(self, uid: str) -> None:
        """Of an object that is gone: its name may be another's by now."""
        self._drop(uid)

    def _drop(self, uid: str) -> None:
        self._endings.not_yet(uid)
        self._troubles.forget(uid)
        self._refusals.over(uid)

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """One look at the whole resource."""
        services = self._services
        resource = await services.kube.get(self.kind, namespace, name)
        if resource is None:
            return GONE
        before = self._uids.setdefault((namespace, name), resource.uid)
        if before != resource.uid:
            self._uids[namespace, name] = resource.uid
            await self._let_go(before)
        observing = resource.spec.management_policy == "Observe"
        if resource.deleting:
            if not has_finalizer(resource):
                return Outcome(60.0)
            if observing or resource.spec.deletion_policy == "Retain":
                await self._leave_all(resource)
                return Outcome(1.0)
        elif not observing and not has_finalizer(resource):
            resource = await services.kube.set_finalizer(resource, True)
        return await self._with_credentials(resource, observing)

    async def _with_credentials(self, resource: R, observing: bool) -> Outcome:
        account = await credentials(self._services, resource)
        if isinstance(account, Problem):
            return await self._stuck(resource, account)
        try:
            return await self._reconcile(resource, account, observing)
        except Unauthorized as error:
            return await self._stuck(resource, Problem(error.reason, str(error), True))

    async def _reconcile(self, resource: R, account: Account, observing: bool) -> Outcome:
        raise NotImplementedError

    async def _leave_all(self, resource: R) -> None:
        """Nothing at the provider is touched, now or later."""
        await retain(self._services, resource)

    async def _stuck(self, resource: R, problem: Problem) -> Outcome:
        if resource.deleting and self._refusals.due(resource.uid, self._services.clock()):
            await give_up(self._services, resource, problem)
            return Outcome(1.0)
        await report_problem(self._services, resource, problem)
        return Outcome(PROBLEM_SECONDS)

    async def _turned_away(self, resource: R, problems: Sequence[Problem]) -> Outcome | None:
        """A deletion whose steps the provider refuses is given up too: a token may be allowed to read only."""
        refused = next((p for p in problems if p.reason == "Unauthorized"), None)
        if refused is None or not resource.deleting:
            self._refusals.over(resource.uid)
            return None
        return await self._stuck(resource, refused)
