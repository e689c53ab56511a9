"""Everything that a plan can contain: steps named by their verb, each with the reason that a person reads."""

from dataclasses import dataclass, field
from typing import Literal

from hasite.plan.names import Role
from hasite.plan.world import DnsRecord, Firewall


@dataclass(frozen=True)
class CreateDroplet:
    """Its claim is in the status already."""

    name: str
    location: str
    region: str
    role: Role
    reason: str


@dataclass(frozen=True)
class DestroyDroplet:
    """By ID. ``name`` is for people."""

    name: str
    droplet_id: int
    reason: str


@dataclass(frozen=True)
class PowerOnDroplet:
    """Switches a droplet on that is off."""

    name: str
    droplet_id: int
    reason: str


@dataclass(frozen=True)
class RenameDroplet:
    """Gives a droplet its own name back."""

    name: str
    droplet_id: int
    reason: str


@dataclass(frozen=True)
class TagDroplet:
    """Puts tags back."""

    name: str
    droplet_id: int
    tags: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class StageHostKey:
    """Makes a new host key on the machine and remembers it beside the bootstrap's."""

    name: str
    reason: str


@dataclass(frozen=True)
class ActivateHostKey:
    """Lets the machine show its own key only, and forgets the bootstrap's."""

    name: str
    reason: str


@dataclass(frozen=True)
class ConfigureProxy:
    """Delivers the rendered configuration of one load balancer."""

    name: str
    reason: str


@dataclass(frozen=True)
class DeliverGuard:
    """Brings one member's guard, certificate and settings up to date. ``restart``: the guard is started anew, so that
    a primary would have to win its office again."""

    name: str
    restart: bool
    reason: str


@dataclass(frozen=True)
class DeclareDatabases:
    """Users and databases as declared, on the primary ``name``. ``digest``: of what is declared."""

    name: str
    digest: str
    reason: str


@dataclass(frozen=True)
class GiveOrder:
    """Tells the guards to make the member ``name`` the primary; holds for ``epoch`` only."""

    name: str
    kind: Literal["switchover", "promote"]
    epoch: int
    accept_data_loss: bool
    reason: str


@dataclass(frozen=True)
class CreateFirewall:
    """Before any droplet that it protects."""

    firewall: Firewall
    reason: str


@dataclass(frozen=True)
class UpdateFirewall:
    """Back to what it should be."""

    firewall: Firewall
    reason: str


@dataclass(frozen=True)
class DestroyFirewall:
    """After the last droplet that it protects."""

    firewall_id: str
    name: str
    reason: str


@dataclass(frozen=True)
class CreateZone:
    """The domain is absent at the provider."""

    zone: str
    reason: str


@dataclass(frozen=True)
class DestroyZone:
    """Only one that we created and that holds nothing but its SOA and NS."""

    zone: str
    reason: str


@dataclass(frozen=True)
class CreateRecord:
    """Adds one record."""

    zone: str
    record: DnsRecord
    reason: str


@dataclass(frozen=True)
class UpdateRecord:
    """Changes one record of ours in place."""

    zone: str
    record: DnsRecord
    reason: str


@dataclass(frozen=True)
class DeleteRecord:
    """Removes one record of ours."""

    zone: str
    record: DnsRecord
    reason: str


@dataclass(frozen=True)
class ApplyPool:
    """Creates or changes the LoadBalancerPool of a HASite."""

    manifest: dict[str, object] = field(hash=False)
    reason: str


@dataclass(frozen=True)
class DeletePool:
    """Deletes the LoadBalancerPool of a HASite."""

    name: str
    uid: str
    reason: str


DatabaseStep = DeliverGuard | DeclareDatabases | GiveOrder

Step = (
    CreateDroplet
    | DestroyDroplet
    | PowerOnDroplet
    | RenameDroplet
    | TagDroplet
    | StageHostKey
    | ActivateHostKey
    | ConfigureProxy
    | CreateFirewall
    | UpdateFirewall
    | DestroyFirewall
    | CreateZone
    | DestroyZone
    | CreateRecord
    | UpdateRecord
    | DeleteRecord
    | ApplyPool
    | DeletePool
    | DatabaseStep
)

DESTRUCTIVE = (DestroyDroplet, DestroyFirewall, DestroyZone, DeleteRecord, DeletePool)
"""Preceded by a look at the live object and at the leadership."""


@dataclass(frozen=True)
class Refusal:
    """A step that safety forbids. ``reason`` is CamelCase; both reach the condition word for word."""

    reason: str
    message: str


@dataclass(frozen=True)
class Wait:
    """What the plan waits for before it can go on, and when to look again (seconds)."""

    message: str
    again_in: float


def describe(step: Step) -> str:
    """One line for people: the verb, what it concerns, why."""
    verb = type(step).__name__
    match step:
        case CreateRecord() | UpdateRecord() | DeleteRecord():
            name = step.zone if step.record.name == "@" else f"{step.record.name}.{step.zone}"
            subject = f"{step.record.type} {name} {step.record.data}"
        case CreateFirewall() | UpdateFirewall():
            subject = step.firewall.name
        case CreateZone() | DestroyZone():
            subject = step.zone
        case ApplyPool():
            subject = "LoadBalancerPool"
        case _:
            subject = step.name
    return f"{verb} {subject}: {step.reason}"
