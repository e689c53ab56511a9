"""The way from a site's app servers to its database: a proxy on each, and a file that says how to log in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hasite.api.common import DropletRecord
from hasite.api.hasite import HASite
from hasite.plan.connection import Connection, Environment, members_for
from hasite.plan.firewalls import HEALTH_PORT
from hasite.plan.proxies import DatabaseProxyModel
from hasite.plan.steps import ConfigureProxy, Refusal, Step, Wait
from hasite.plan.world import Impostor, MachineView, ProxyView, Unknown

PACKAGES = ("haproxy",)
"""What the bootstrap installs on the app servers of a site with a database."""


@dataclass(frozen=True)
class SiteDatabase:
    """What the app servers are to be told. ``rendered``: app server → SHA-256 of its proxy's configuration.

    ``obstacle``: why there is nothing to tell. ``rejected``: app server → the words with which it refused exactly that
    configuration lately.
    """

    rendered: Mapping[str, str] = field(default_factory=dict)
    obstacle: Refusal | Wait | None = None
    rejected: Mapping[str, str] = field(default_factory=dict)


def packages_of(site: HASite) -> tuple[str, ...]:
    """Part of what an app droplet is made from; of a site without a database none are."""
    return PACKAGES if site.spec.database is not None else ()


def port_clash(site: HASite, connection: Connection) -> Refusal | None:
    """An app that listens where its own proxy does could not start, or would keep the proxy from it."""
    port = site.spec.app.port
    if port not in (connection.port, connection.port + 1):
        return None
    message = f"spec.app.port: {port} is where the proxy that leads to the {connection.engine} database listens"
    return Refusal("PortTaken", message)


def database_proxy_models(
    site: HASite, connection: Connection, environment: Environment
) -> Mapping[str, DatabaseProxyModel]:
    """What the proxy on each app server is to do, by the server's name."""
    return {
        record.name: DatabaseProxyModel(
            name=record.name,
            location=record.location,
            members=members_for(connection, record.location),
            port=connection.port,
            health_port=int(HEALTH_PORT),
            environment_sha256=environment.sha256,
        )
        for record in site.status.droplets
    }


Views = Mapping[str, MachineView | Impostor | Unknown]


def database_work(
    site: HASite, template: str, records: Sequence[DropletRecord], views: Views, way: SiteDatabase | None
) -> tuple[tuple[Step, ...], tuple[Wait, ...]]:
    """Proxies and environment files. Nothing is sent to a machine before it shows a host key of its own: the one that
    it was born with may be known to others, and what is sent holds a password."""
    if way is None:
        return (), ()
    steps: list[Step] = []
    waits: list[Wait] = [way.obstacle] if isinstance(way.obstacle, Wait) else []
    for record in records:
        if record.droplet_id is None or not record.pinned or record.leaving_since is not None:
            continue
        view = views.get(record.name)
        if isinstance(view, Unknown):
            waits.append(Wait(f"{record.name} cannot be reached over SSH", 5.0))
        elif isinstance(view, MachineView) and isinstance(view.proxy, ProxyView) and record.name in way.rendered:
            work = _work(record, view.proxy, record.template == template, way)
            steps += [work] if isinstance(work, ConfigureProxy) else []
            waits += [work] if isinstance(work, Wait) else []
    return tuple(steps), tuple(waits)


def _work(record: DropletRecord, proxy: ProxyView, current: bool, way: SiteDatabase) -> ConfigureProxy | Wait | None:
    """A machine of an older template may run a HAProxy that is its app's own: it is left alone unless ours is in force.
    It is replaced anyway."""
    if in_force(proxy, way.rendered[record.name]):
        return None
    if not current and proxy.config_sha256 is None:
        return None
    if not proxy.installed:
        return Wait(f"{record.name} has no HAProxy", 10.0)
    if record.name in way.rejected:
        return Wait(f"{record.name} refused its configuration: {way.rejected[record.name]}", 10.0)
    if proxy.config_sha256 != way.rendered[record.name]:
        reason = "its configuration or its environment file differs from the one it should have"
    else:
        reason = "the proxy does not run" if not proxy.active else "the proxy would not start at boot"
    return ConfigureProxy(record.name, reason)


def in_force(proxy: ProxyView, wanted: str) -> bool:
    """The proxy runs, at boot too, with the configuration that it should have, and the files beside it are right."""
    return proxy.active and proxy.enabled and proxy.config_sha256 == wanted


def connected(site: HASite, views: Views, way: SiteDatabase) -> tuple[bool, str, str]:
    """For the condition DatabaseConnected: status, reason, message."""
    use = site.spec.database
    name = use.name if use else ""
    if isinstance(way.obstacle, Refusal):
        return False, way.obstacle.reason, way.obstacle.message
    if isinstance(way.obstacle, Wait):
        return False, "NotYet", way.obstacle.message
    if way.rejected:
        server, words = min(way.rejected.items())
        return False, "ConfigurationRejected", f"{server}: {words}"
    led = [r.name for r in site.status.droplets if r.leaving_since is None and _is_led(views.get(r.name), r.name, way)]
    if not led:
        return False, "NotYet", f"no app server is led to {name} yet"
    return True, "Connected", f"app servers are led to {use.database if use else ''} of ReplicatedDatabase {name}"


def _is_led(view: MachineView | Impostor | Unknown | None, name: str, way: SiteDatabase) -> bool:
    if not isinstance(view, MachineView) or not isinstance(view.proxy, ProxyView) or name not in way.rendered:
        return False
    return in_force(view.proxy, way.rendered[name])
