"""Observe, plan, apply, report: one file a kind. ``build`` puts the real parts together."""

import asyncio
import importlib
import logging
from collections.abc import Callable, Mapping

import asyncssh

from hasite.api import HASite, LoadBalancerPool, ReplicatedDatabase
from hasite.api.common import Resource
from hasite.clouds.accounts import Accounts
from hasite.config import Config
from hasite.databases.base import MemberOps
from hasite.databases.guards import GuardLines
from hasite.databases.voter import OperatorVoter
from hasite.dns.accounts import DnsAccounts
from hasite.dns.authorities import DnsAuthorities
from hasite.errors import Transient
from hasite.guard.messages import Message
from hasite.kube.base import Kube, Leadership
from hasite.machines.bootstrap import generate_host_key
from hasite.machines.ops import MachineOps
from hasite.machines.ssh import SshMachines
from hasite.metrics import Metrics
from hasite.proxies import ENGINES
from hasite.reconcilers.database import DatabaseReconciler, narrator_of
from hasite.reconcilers.loop import Reconciler, Wakes
from hasite.reconcilers.narrator import Narrator
from hasite.reconcilers.pool import PoolReconciler
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.site import SiteReconciler
from hasite.reconcilers.watch import Owner, Watcher

_log = logging.getLogger(__name__)

KEY_SECRET = "hasite-ssh"  # noqa: S105 - a name
KEY_FIELD = "ssh-privatekey"
KINDS: Mapping[str, type[Resource]] = {k.KIND: k for k in (HASite, LoadBalancerPool, ReplicatedDatabase)}


class _ApiMetrics:
    """The provider's clients tell the operator's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.accounts: Accounts | None = None

    def on_call(self, endpoint: str, status: int | str, seconds: float) -> None:
        """See ``clouds.metrics.ApiMetrics``."""
        self._metrics.api_call("digitalocean", endpoint, str(status))
        remaining = self.accounts.rate_limit_remaining if self.accounts else None
        if remaining is not None:
            self._metrics.rate_limit_remaining("lowest", remaining)


async def client_key(kube: Kube, namespace: str) -> str:
    """The operator's private SSH key, from its Secret; made once. Two that start at once end with the same one."""
    while True:
        try:
            secret = await kube.secret(namespace, KEY_SECRET)
            if secret is None:
                key = asyncssh.generate_private_key("ssh-ed25519", comment="hasite").export_private_key().decode()
                manifest = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": KEY_SECRET, "namespace": namespace},
                    "type": "kubernetes.io/ssh-auth",
                    "stringData": {KEY_FIELD: key},
                }
                secret = await kube.create_secret(manifest)
            return secret[KEY_FIELD].decode()
        except Transient as error:
            _log.warning("the operator's SSH key cannot be read yet: %s", error)
            await asyncio.sleep(1.0)


def _guards(services: Services, narrator: Narrator) -> GuardLines:
    """Connections to the members of all databases, with the operator's vote in each."""

    def voter(database: ReplicatedDatabase, send: Callable[[str, Message], None]) -> OperatorVoter:
        return OperatorVoter(services.kube, services.leadership, database, send)

    def wake(namespace: str, name: str) -> None:
        services.wakes.wake(ReplicatedDatabase, namespace, name)

    return GuardLines(wake, voter, listener=narrator)


async def build(
    config: Config, kube: Kube, leadership: Leadership, metrics: Metrics, wakes: Wakes
) -> Mapping[type[Resource], Reconciler]:
    """The reconcilers of all kinds, on the real world."""
    machines = SshMachines(await client_key(kube, config.namespace))
    importlib.import_module("pydo.aio")  # a third of a second, which no reconcile should wait for
    told = _ApiMetrics(metrics)
    accounts = told.accounts = Accounts(config.digitalocean_endpoint, told)

    names = DnsAccounts()

    def account(token: str) -> Account:
        cloud = accounts.get(token)
        return Account(cloud, names.get(cloud))

    def wake(owner: Owner, urgent: bool) -> None:
        kind, namespace, name = owner
        wakes.wake(KINDS[kind], namespace, name, urgent=urgent)

    ops = MachineOps()
    services = Services(
        kube=kube,
        leadership=leadership,
        account=account,
        authorities=DnsAuthorities(config.nameservers),
        machines=machines,
        ops=ops,
        engines={name: engine() for name, engine in ENGINES.items()},
        watch=Watcher(machines, ops.observe, wake),
        wakes=wakes,
        metrics=metrics,
        client_key=machines.public_key,
        new_host_key=generate_host_key,
        operator_cidrs=config.operator_cidrs,
    )
    narrator = narrator_of(services)
    return {
        HASite: SiteReconciler(services),
        LoadBalancerPool: PoolReconciler(services),
        ReplicatedDatabase: DatabaseReconciler(services, _guards(services, narrator), MemberOps(), narrator),
    }
