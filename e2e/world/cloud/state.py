"""Everything that the simulated account holds, as plain dataclasses in memory.

States that change by themselves (a droplet's, an action's) are computed from the clock when they are read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

ActionStatus = Literal["in-progress", "completed", "errored"]


@dataclass
class Action:
    """Work in progress on a resource. It completes when it was reported done, but never before `due`."""

    id: int
    type: str
    resource_id: int
    resource_type: str
    region: str
    started_at: float
    due: float
    done_at: float | None = None
    errored: bool = False

    def status(self, now: float) -> ActionStatus:
        """The status at the given time."""
        if self.errored:
            return "errored"
        return "completed" if self.done_at is not None and now >= self.due else "in-progress"

    def completed_at(self, now: float) -> float | None:
        """When it ended, in seconds of the clock; None while it goes on."""
        if self.done_at is None or self.status(now) == "in-progress":
            return None
        return max(self.done_at, self.due)


@dataclass
class Image:
    """A base image (with a slug) or a snapshot (without one)."""

    id: int
    name: str
    distribution: str
    slug: str | None
    regions: tuple[str, ...]
    created_at: float
    min_disk_size: int
    tags: list[str] = field(default_factory=list)
    droplet: int | None = None
    base: str = ""  # for a snapshot: the slug that its droplet was made from


@dataclass
class Droplet:
    """A droplet. Invariant: its addresses are its own from creation until it has left the state."""

    id: int
    name: str
    region: str
    image: Image
    size: str
    created_at: float
    vpc: str
    public_ipv4: str
    private_ipv4: str
    public_ipv6: str | None
    user_data: str
    ssh_keys: tuple[str, ...]
    features: tuple[str, ...]
    create: Action
    tags: list[str] = field(default_factory=list)
    tags_visible_at: float = 0.0
    actions: list[Action] = field(default_factory=list)
    machine: bool = False
    powered: bool = True
    deleting: bool = False

    def status(self, now: float) -> Literal["new", "active", "off"]:
        """The status at the given time; a droplet whose creation failed stays new."""
        if self.create.status(now) != "completed":
            return "new"
        return "active" if self.powered else "off"

    def locked(self, now: float) -> bool:
        """Whether an action is in progress, so that no other is taken."""
        return self.deleting or any(action.status(now) == "in-progress" for action in self.actions)

    def visible_tags(self, now: float) -> list[str]:
        """The tags that a listing shows."""
        return self.tags if now >= self.tags_visible_at else []

    def addresses(self) -> list[str]:
        """All of its own addresses, reserved IPs apart."""
        return [a for a in (self.public_ipv4, self.private_ipv4, self.public_ipv6) if a]


@dataclass
class SshKey:
    """A public key of the account; `fingerprint` is MD5 in colon notation."""

    id: int
    name: str
    public_key: str
    fingerprint: str


@dataclass(frozen=True)
class Target:
    """The other side of a firewall rule."""

    addresses: tuple[str, ...] = ()
    droplet_ids: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    load_balancer_uids: tuple[str, ...] = ()
    kubernetes_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A firewall rule as stored: `ports` is "0" for all ports and for ICMP."""

    protocol: str
    ports: str
    target: Target


@dataclass
class Firewall:
    """A firewall; it applies to `droplet_ids` and to every droplet with one of `tags`."""

    id: str
    name: str
    created_at: float
    inbound: list[Rule]
    outbound: list[Rule]
    droplet_ids: list[int]
    tags: list[str]
    in_force: bool = False


@dataclass
class Record:
    """A DNS record as the API stores it: host names in `data` without their final dot."""

    id: int
    type: str
    name: str
    data: str
    ttl: int
    priority: int | None = None
    port: int | None = None
    weight: int | None = None
    flags: int | None = None
    tag: str | None = None


@dataclass
class Domain:
    """A zone."""

    name: str
    ttl: int
    serial: int
    records: dict[int, Record] = field(default_factory=dict)


@dataclass
class ReservedIp:
    """A reserved address, bound to its region. `droplet` is whom it leads to."""

    ip: str
    region: str
    project_id: str
    droplet: int | None = None
    actions: list[Action] = field(default_factory=list)

    def locked(self, now: float) -> bool:
        """Whether an action is in progress."""
        return any(action.status(now) == "in-progress" for action in self.actions)


@dataclass
class Vpc:
    """A private network of one region."""

    id: str
    name: str
    region: str
    ip_range: str
    created_at: float
    default: bool
    description: str = ""


@dataclass
class State:
    """The whole account. Tags are keyed by their lower-case name: the provider ignores their case."""

    droplets: dict[int, Droplet] = field(default_factory=dict)
    actions: dict[int, Action] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    keys: dict[int, SshKey] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    firewalls: dict[str, Firewall] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    reserved_ips: dict[str, ReservedIp] = field(default_factory=dict)
    vpcs: dict[str, Vpc] = field(default_factory=dict)
    taken_domains: set[str] = field(default_factory=set)  # in other people's accounts
    droplet_limit: int = 5000
    _ids: dict[str, Iterator[int]] = field(default_factory=dict)

    def next_id(self, kind: str) -> int:
        """A fresh number; every kind has its own range, so that a mix-up is noticed."""
        ranges = {"droplet": 400_000_001, "action": 2_000_000_001, "image": 170_000_001, "key": 40_000_001}
        return next(self._ids.setdefault(kind, count(ranges.get(kind, 1_700_000_001))))

    def next_uuid(self, kind: str) -> str:
        """A fresh UUID, the same in every run."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}/{self.next_id(kind)}"))

    def tagged(self, tag: str) -> list[Droplet]:
        """The droplets with a tag, whether listings show it yet or not."""
        return [droplet for droplet in self.droplets.values() if tag in droplet.tags]

    def reserved_ips_of(self, droplet: int) -> list[ReservedIp]:
        """The reserved IPs that lead to a droplet."""
        return [ip for ip in self.reserved_ips.values() if ip.droplet == droplet]
