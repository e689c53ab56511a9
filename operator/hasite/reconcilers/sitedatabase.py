"""What the app servers of a site are told of its database: read from the cluster, rendered, delivered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hasite.api.hasite import DatabaseUse, HASite
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.databases.secrets import PASSWORD, authority_of, users_name
from hasite.errors import Permanent
from hasite.kube.base import Kube
from hasite.plan.connection import Connection, Environment, connection_of, environment_of
from hasite.plan.sitedatabase import SiteDatabase, database_proxy_models, in_force, port_clash
from hasite.plan.steps import ConfigureProxy, Refusal, Wait
from hasite.reconcilers.apply import Application
from hasite.reconcilers.services import Services
from hasite.reconcilers.values import Refused, sha256

REFUSED_SECONDS = 30.0
"""A configuration that a machine refused is tried again after this."""


@dataclass(frozen=True)
class Way:
    """``seen`` is for the plan; the rest is for its steps, and must not stand in a status."""

    seen: SiteDatabase
    configs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    environment: Environment | None = None


async def way_of(services: Services, site: HASite, use: DatabaseUse, refused: Mapping[str, Refused]) -> Way:
    """Three reads. ``refused``: by app server."""
    try:
        found = await _read(services, site, use)
        if isinstance(found, Refusal | Wait):
            return Way(SiteDatabase(obstacle=found))
        connection, environment = found
        models = database_proxy_models(site, connection, environment)
        configs = {name: services.database_proxy.render(model) for name, model in models.items()}
    except Permanent as error:
        return Way(SiteDatabase(obstacle=Refusal(error.reason, f"ReplicatedDatabase {use.name}: {error}")))
    rendered = {name: sha256(config) for name, config in configs.items()}
    now = services.clock()
    rejected = {
        name: r.words
        for name, r in refused.items()
        if r.config_sha256 == rendered.get(name) and now - r.at < REFUSED_SECONDS
    }
    return Way(SiteDatabase(rendered, None, rejected), configs, environment)


async def _read(services: Services, site: HASite, use: DatabaseUse) -> tuple[Connection, Environment] | Refusal | Wait:
    kube = services.kube
    database = await kube.get(ReplicatedDatabase, site.namespace, use.name)
    if database is None:
        return Wait(f"there is no ReplicatedDatabase {use.name} yet", 5.0)
    connection = connection_of(use, database, await _password(kube, database, use.user))
    if not isinstance(connection, Connection):
        return connection
    if clash := port_clash(site, connection):
        return clash
    authority = await authority_of(kube, database, services.clock(), make=False)
    if authority is None:
        return Wait(f"ReplicatedDatabase {use.name} has no certificate authority yet", 2.0)
    return connection, environment_of(connection, authority.certificate, authority.key)


async def _password(kube: Kube, database: ReplicatedDatabase, user: str) -> str | None:
    declared = next((each for each in database.spec.users if each.name == user), None)
    if declared is None:
        return None
    reference = declared.password_ref
    secret, key = (reference.name, PASSWORD) if reference else (users_name(database), user)
    held = await kube.secret(database.namespace, secret)
    return (held or {}).get(key, b"").decode(errors="replace") or None


@dataclass
class SiteApplication(Application[HASite]):
    """Carries out what only sites need."""

    environment: Environment | None = None

    async def _configure_proxy(self, step: ConfigureProxy) -> None:
        """The environment file first: a configuration is in force with it. Where only that one was amiss the proxy is
        not reloaded, which would cut long connections after a while."""
        proxy = self.services.database_proxy
        session = await self.session(step.name)
        if self.environment is not None:
            await proxy.equip(session, self.environment)
        if in_force(await proxy.observe(session), sha256(self.configs[step.name])):
            self.services.watch.look_again(step.name)
            return
        await super()._configure_proxy(step)
