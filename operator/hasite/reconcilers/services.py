"""Everything that the reconcilers reach the world through, handed in so that tests can hand in other worlds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hasite.clouds.base import Cloud
from hasite.dns.base import Authorities, DnsProvider
from hasite.kube.base import Kube, Leadership
from hasite.machines.base import Machines
from hasite.machines.bootstrap import HostKey
from hasite.machines.ops import Operations
from hasite.metrics import Metrics
from hasite.proxies.base import DatabaseProxy, Proxy
from hasite.proxies.haproxy_database import HaproxyDatabaseProxy
from hasite.reconcilers.loop import Wakes
from hasite.reconcilers.watch import Watch


@dataclass(frozen=True)
class Account:
    """One account at the provider."""

    cloud: Cloud
    dns: DnsProvider


@dataclass(frozen=True)
class Services:
    """``account`` turns an API token into clients. ``client_key`` is the operator's public SSH key (OpenSSH)."""

    kube: Kube
    leadership: Leadership
    account: Callable[[str], Account]
    authorities: Authorities
    machines: Machines
    ops: Operations
    engines: Mapping[str, Proxy]
    watch: Watch
    wakes: Wakes
    metrics: Metrics
    client_key: str
    new_host_key: Callable[[], HostKey]
    operator_cidrs: tuple[str, ...] = ()
    database_proxy: DatabaseProxy = field(default_factory=HaproxyDatabaseProxy)
    clock: Callable[[], float] = time.time
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    """The last token of each Secret, for resources that are deleted together with it."""
    looked_up: dict[str, tuple[float, object]] = field(default_factory=dict)
    """What the latest reads of single droplets said, and when."""
