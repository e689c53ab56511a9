"""The provider's firewalls: each tier opens only what it serves."""

from collections.abc import Sequence

from hasite.api.replicateddatabase import Access
from hasite.plan.names import Owner, Role, firewall_name, role_tag
from hasite.plan.steps import CreateFirewall, DestroyFirewall, Step, UpdateFirewall, Wait
from hasite.plan.world import Firewall, FirewallRule, Unknown

ANYWHERE = frozenset({"0.0.0.0/0", "::/0"})

GUARD_PORT = "7431"
"""The guards' protocol."""
HEALTH_PORT = "7432"
"""Asked by the proxies on app servers: ``GET /primary``, ``GET /replica``. Plain HTTP."""
COPY_PORT = "7433"
"""Copies of the data, between members."""


def load_balancer_firewall(owner: Owner, operator_cidrs: Sequence[str]) -> Firewall:
    """80 to the world, 22 to the operator."""
    rules = frozenset({FirewallRule("tcp", "80", ANYWHERE), _ssh(operator_cidrs)})
    return Firewall("", firewall_name(owner, "lb"), rules, frozenset({role_tag(owner, "lb")}))


def app_firewall(owner: Owner, pool: Owner, port: int, operator_cidrs: Sequence[str]) -> Firewall:
    """The app's port to the pool's load balancers, 22 to the operator."""
    rules = frozenset(
        {FirewallRule("tcp", str(port), frozenset(), frozenset({role_tag(pool, "lb")})), _ssh(operator_cidrs)}
    )
    return Firewall("", firewall_name(owner, "app"), rules, frozenset({role_tag(owner, "app")}))


def database_firewall(owner: Owner, server_port: int, access: Access, operator_cidrs: Sequence[str]) -> Firewall:
    """The server's port and the health checks to who may connect; the guards' ports to each other; 22 to the operator.

    The operator reaches the server and the guards too, from anywhere unless its networks are known: what they speak is
    TLS that knows both sides. Health checks and copies are not open to anywhere.
    """
    members = frozenset({role_tag(owner, "db"), role_tag(owner, "witness")})
    operator, clients = frozenset(operator_cidrs) or ANYWHERE, members | set(access.tags)
    rules = {
        FirewallRule("tcp", str(server_port), frozenset(access.cidrs) | operator, clients),
        FirewallRule("tcp", GUARD_PORT, operator, members),
        FirewallRule("tcp", HEALTH_PORT, frozenset(access.cidrs) | frozenset(operator_cidrs), clients),
        FirewallRule("tcp", COPY_PORT, frozenset(), members),
        _ssh(operator_cidrs),
    }
    return Firewall("", firewall_name(owner, "db"), frozenset(rules), members)


def _ssh(operator_cidrs: Sequence[str]) -> FirewallRule:
    return FirewallRule("tcp", "22", frozenset(operator_cidrs) or ANYWHERE)


def first_difference(desired: Firewall, actual: Firewall) -> str | None:
    """Which field differs, with both values; None when none does."""
    for rule in sorted(actual.inbound - desired.inbound, key=str):
        return f"it lets in {rule.protocol} {rule.ports} from {', '.join(sorted(rule.cidrs | rule.tags))}"
    for rule in sorted(desired.inbound - actual.inbound, key=str):
        return f"it keeps out {rule.protocol} {rule.ports} from {', '.join(sorted(rule.cidrs | rule.tags))}"
    if desired.tags != actual.tags or actual.droplet_ids:
        return (
            f"it applies to {sorted(actual.tags) + sorted(map(str, actual.droplet_ids))}, not to {sorted(desired.tags)}"
        )
    return None


def plan_firewall(
    desired: Firewall, existing: Sequence[Firewall] | Unknown
) -> tuple[tuple[Step, ...], tuple[Wait, ...], bool]:
    """Steps, waits, and whether the firewall stands already so that droplets may be created behind it."""
    if isinstance(existing, Unknown):
        return (), (Wait(f"firewalls cannot be seen: {existing.why}", 5.0),), False
    named = sorted((f for f in existing if f.name == desired.name), key=lambda f: f.id)
    if not named:
        return (CreateFirewall(desired, "it is absent"),), (), False
    difference = first_difference(desired, named[0])
    if difference:
        changed = Firewall(named[0].id, desired.name, desired.inbound, desired.tags)
        return (UpdateFirewall(changed, difference),), (), True
    return (), (), True


def remove_firewall(owner: Owner, role: Role, existing: Sequence[Firewall] | Unknown) -> tuple[tuple[Step, ...], bool]:
    """Steps, and whether none of ours is left."""
    if isinstance(existing, Unknown):
        return (), False
    named = [f for f in existing if f.name == firewall_name(owner, role)]
    return tuple(DestroyFirewall(f.id, f.name, "its owner is deleted") for f in named), not named
