"""What was observed, as frozen values. What could not be seen is ``Unknown``, never an empty collection."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Unknown:
    """It could not be seen, and why. Nothing may be concluded from it."""

    why: str


@dataclass(frozen=True)
class Droplet:
    """A droplet as the provider lists it."""

    id: int
    name: str
    region: str
    status: Literal["new", "active", "off", "archive"]
    tags: frozenset[str]
    public_ipv4: str | None = None
    private_ipv4: str | None = None
    public_ipv6: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True)
class FirewallRule:
    """One inbound permission. ``ports``: "80", "8000-9000" or "all"; sources are CIDRs or tags, never both empty."""

    protocol: Literal["tcp", "udp", "icmp"]
    ports: str
    cidrs: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Firewall:
    """A provider firewall. Outbound traffic is always open. ``id`` is empty for a desired one."""

    id: str
    name: str
    inbound: frozenset[FirewallRule]
    tags: frozenset[str]
    droplet_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class DnsRecord:
    """One record of a zone. ``name`` is relative to the zone or "@"; ``id`` is the provider's, 0 for a desired one."""

    type: str
    name: str
    data: str
    ttl: int
    id: int = 0


@dataclass(frozen=True)
class Answer:
    """What one authoritative server says of the name and of its ownership TXT."""

    addresses: frozenset[str]
    txt: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ZoneView:
    """The zone at the provider. ``records``: all of it, by a fresh and complete read; None: the zone is not there."""

    zone: str
    records: tuple[DnsRecord, ...] | None


@dataclass(frozen=True)
class ServerView:
    """An app server as one load balancer sees it. ``sessions``: requests in flight."""

    up: bool
    sessions: int = 0


@dataclass(frozen=True)
class ProxyView:
    """The proxy on a machine. ``peers``: whether the load balancer at an address answers its probes, as seen from here.

    ``old_processes`` end what they had before a reload; ``sessions`` are visitors' connections now.
    """

    installed: bool
    config_sha256: str | None
    active: bool
    enabled: bool
    servers: Mapping[str, ServerView] = field(default_factory=dict)
    peers: Mapping[str, bool] = field(default_factory=dict)
    old_processes: int = 0
    sessions: int = 0


@dataclass(frozen=True)
class GuardView:
    """The guard on a machine. ``program`` and ``settings``: versions of what was delivered last, "" for nothing.

    ``active``: guard and fuse run; ``enabled``: also after a boot.
    """

    program: str
    settings: str
    active: bool
    enabled: bool


@dataclass(frozen=True)
class MachineView:
    """A machine that was reached over SSH with a host key that is known, at ``seen_at`` (Unix seconds).

    ``host_key`` is the OpenSSH public key that it showed. ``cloud_init_error`` holds its own words.
    """

    host_key: str
    cloud_init: Literal["running", "done", "error"]
    seen_at: float
    cloud_init_error: str = ""
    proxy: ProxyView | Unknown | None = None
    guard: GuardView | Unknown | None = None


@dataclass(frozen=True)
class Impostor:
    """The machine at the address showed a host key that is not its own."""

    shown: str


@dataclass(frozen=True)
class Probe:
    """The operator's own verdict on one load balancer address; None while it has none.

    ``since``: Unix time of the verdict; ``failing_since``: of the first failed probe of the present row of failures;
    ``ok_at``: of the latest good one.
    """

    up: bool | None
    since: float
    detail: str = ""
    failing_since: float | None = None
    ok_at: float = 0.0
