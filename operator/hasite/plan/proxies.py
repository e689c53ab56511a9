"""What a load balancer is to do, independent of any engine."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Upstream:
    """One app server. ``Active`` ones get requests; ``Candidate`` ones are only checked; ``Draining`` end.

    ``backup``: gets requests only while no other server that is not a backup can.
    """

    name: str
    address: str
    state: Literal["Candidate", "Active", "Draining"]
    backup: bool = False


@dataclass(frozen=True)
class Check:
    """An HTTP check; times in seconds."""

    path: str
    interval: float
    timeout: float
    rise: int
    fall: int


@dataclass(frozen=True)
class ProxyModel:
    """Frontends and backends of one load balancer.

    It listens on 80 for any Host; ``port`` is the app servers'. ``GET ALIVE_PATH`` is answered by the proxy itself: 200
    while at least one Active server is up, else 503; it is what the operator and the peers probe. ``peers`` are the
    addresses of the load balancers of other locations, each checked at that path every ``probe_interval`` seconds
    (``probe_timeout``, two failures down, two successes up).
    """

    name: str
    location: str
    domain: str
    port: int
    upstreams: tuple[Upstream, ...]
    check: Check
    peers: tuple[str, ...]
    probe_interval: float
    probe_timeout: float
    drain_seconds: float


@dataclass(frozen=True)
class DatabaseMember:
    """A member of a database and the address that app servers reach it at. ``backup``: only while no other is there."""

    name: str
    address: str
    backup: bool = False


@dataclass(frozen=True)
class DatabaseProxyModel:
    """The proxy on one app server that leads to a database: 127.0.0.1:``port`` to the member that takes writes,
    127.0.0.1:``port + 1`` to the others, and while there are none, to that one too.

    Which is which, the members' guards say on ``health_port``. ``environment_sha256``: of the file beside it, so that
    a change of that one is a change of the configuration.
    """

    name: str
    location: str
    members: tuple[DatabaseMember, ...]
    port: int
    health_port: int
    environment_sha256: str


ALIVE_PATH = "/.well-known/hasite/alive"
