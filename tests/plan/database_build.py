"""Small builders for databases, their members and their world. Nothing here decides anything."""

from collections.abc import Mapping, Sequence
from typing import Any

from hasite.api.common import DropletRecord
from hasite.api.databasestatus import MembershipRecord, VoteRecord
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.guard.messages import Beat
from hasite.guard.model import Database, Position, SyncRecord
from hasite.plan.databaseworld import DatabaseWorld, Version, owner_of, role_of, template_of
from hasite.plan.droplets import Sight
from hasite.plan.firewalls import database_firewall
from hasite.plan.membership import member_of, with_members
from hasite.plan.names import Owner, Role, droplet_name, droplet_tags
from hasite.plan.world import Droplet, Firewall, GuardView, MachineView

from tests.plan.build import AMSTERDAM, BOTH, FRANKFURT, NEW_YORK, NOW, REGIONS, metadata

DATABASE = Owner("da7aba5e-0000-4000-8000-000000000004", "default", "shop")
ADDRESSES = {NEW_YORK: "192.0.2.{}", AMSTERDAM: "198.51.100.{}", FRANKFURT: "203.0.113.{}"}
CURRENT = Version("program", "settings")


def database(at: Sequence[str] = BOTH, **spec: Any) -> ReplicatedDatabase:
    """``status`` goes to the status. ``members``: at each location."""
    status, count = spec.pop("status", {}), spec.pop("members", 1)
    return ReplicatedDatabase.model_validate(
        {
            "kind": "ReplicatedDatabase",
            "metadata": metadata(DATABASE),
            "spec": {
                "engine": "postgresql",
                "version": "17",
                "credentialsRef": {"name": "digitalocean"},
                "locations": [{"name": name, "region": REGIONS[name], "members": count} for name in at],
                **spec,
            },
            "status": status,
        }
    )


def member(location: str, serial: int, role: Role = "db", **more: Any) -> DropletRecord:
    """Made and pinned, of the present template, unless told otherwise."""
    template = more.pop("template", template_of(database(), role))
    values: dict[str, Any] = {
        "name": droplet_name(DATABASE, role, location, template, serial),
        "location": location,
        "region": REGIONS[location],
        "template": template,
        "droplet_id": 100 + serial,
        "public_ipv4": ADDRESSES[location].format(10 + serial),
        "host_key": "own key",
        "served": True,
    }
    return DropletRecord(**values | more)


def reigning(at: Sequence[str] = BOTH, records: Sequence[DropletRecord] = (), **spec: Any) -> ReplicatedDatabase:
    """A database that was made, with one member at each location unless ``records`` says otherwise. ``without``: names
    of records that take no part."""
    without, status = spec.pop("without", ()), spec.pop("status", {})
    kept = tuple(records) or tuple(member(name, serial) for serial, name in enumerate(at))
    shell = database(at, **spec)
    parts = [member_of(shell, r) for r in kept if r.name not in without]
    before = MembershipRecord(version=6, members=(), voters=())
    values = {
        "droplets": kept,
        "serial": 20,
        "membership": with_members(before, parts),
        "bootstrap": kept[0].name,
        "made": True,
        "epoch": 3,
        "declared": "digest-3",
        "vote": VoteRecord(epoch=3, holder=kept[0].name),
        "preferred": spec.get("primary_location", spec.get("primaryLocation", "")),
        "observed_generation": 1,
        **status,
    }
    return shell.model_copy(update={"status": shell.status.model_copy(update=values)})


def beat(name: str, holder: str, epoch: int = 3, **more: Any) -> Beat:
    """Of a member that does what it should. ``seen`` changes what it saw of its server."""
    mine = name == holder
    seen = more.pop("seen", {})
    server: dict[str, Any] = {
        "state": "primary" if mine else "standby",
        "position": Position(epoch, 1000),
        "upstream": None if mine else holder,
        "streaming": not mine,
        "read_only": not mine,
        "lag_seconds": None if mine else 0.1,
    }
    values: dict[str, Any] = {
        "sender": name,
        "epoch": epoch,
        "holder": holder,
        "lease_left": 2.0 if mine else 0.0,
        "role": "primary" if mine else "standby",
        "database": Database(**server | seen),
        "sync": SyncRecord(epoch, 1, frozenset({name, holder}), 1),
        "settings_version": 7,
        "membership_version": 7,
        "reign": epoch,
    }
    return Beat(**values | more)


def droplet(of: DropletRecord, role: Role = "db", **more: Any) -> Droplet:
    """What the provider shows of a record's droplet."""
    values: dict[str, Any] = {
        "id": of.droplet_id or 1,
        "name": of.name,
        "region": of.region,
        "status": "active",
        "tags": frozenset(droplet_tags(DATABASE, role)),
        "public_ipv4": of.public_ipv4,
        "created_at": NOW - 3600,
    }
    return Droplet(**values | more)


def firewalls(of: ReplicatedDatabase) -> tuple[Firewall, ...]:
    """As it should be."""
    wanted = database_firewall(DATABASE, 5432, of.spec.access, ())
    return (Firewall("fw-db", wanted.name, wanted.inbound, wanted.tags),)


def machine(**guard: Any) -> MachineView:
    """Set up, with a guard that is up to date unless told otherwise."""
    values: dict[str, Any] = {"program": "program", "settings": "settings", "active": True, "enabled": True}
    return MachineView("own key", "done", NOW, guard=GuardView(**values | guard))


def world(of: ReplicatedDatabase, **more: Any) -> DatabaseWorld:
    """All members reachable and heard, the first one the holder. ``heard`` and ``machines``: what differs."""
    made = [r for r in of.status.droplets if r.droplet_id is not None]
    holder = more.pop("holder", made[0].name if made else "")
    heard: Mapping[str, Any] = more.pop("heard", {})
    changed: Mapping[str, Any] = more.pop("machines", {})
    beats = {}
    for record in made if of.status.made else ():
        witness = role_of(of, record) == "witness"
        beats[record.name] = beat(record.name, holder, seen={"state": "absent"} if witness else {})
    values: dict[str, Any] = {
        "now": NOW,
        "identity": "operator",
        "sight": Sight([droplet(r, role_of(of, r)) for r in made]),
        "machines": {r.name: machine() for r in made} | dict(changed),
        "firewalls": firewalls(of),
        "beats": beats | dict(heard),
        "versions": {r.name: CURRENT for r in made},
        "access": of.spec.access,
        "declaration": "digest",
    }
    return DatabaseWorld(**values | more)


def silent(of: ReplicatedDatabase) -> DatabaseWorld:
    """Nothing was made yet."""
    return world(of, beats={})


__all__ = ["AMSTERDAM", "BOTH", "FRANKFURT", "NEW_YORK", "NOW", "owner_of"]
