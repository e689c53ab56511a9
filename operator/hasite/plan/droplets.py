"""One tier's droplets: what the records say, what the provider shows, and the steps between the two.

The rules, each with what it exists for:

- A claim is written before a create (a crash between the two must not buy twice).
- A claim without an ID is settled by a look-up by name before anything is created again (the provider has no
  idempotency keys).
- A claim is left alone while a request under it can still be on its way (``CLAIM_SECONDS``).
- A recorded droplet that a listing lacks is gone only when a read by its ID says so (a listing may be short).
- Only what carries our tags, or the ID that we recorded, is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hasite.api.common import Claim, DropletRecord
from hasite.plan.names import Owner, Role, droplet_tags, is_ours, parse_name
from hasite.plan.steps import CreateDroplet, DestroyDroplet, PowerOnDroplet, RenameDroplet, Step, TagDroplet, Wait
from hasite.plan.world import Droplet, Unknown

CLAIM_SECONDS = 45.0
"""Longer than the time-out of a create request (30 s)."""

CLOCK_SECONDS = 2.0
"""How far a new droplet's creation may seem to lie before its claim: providers tell whole seconds. A wider margin would
take a droplet for new that was made shortly before, and is dead."""

TAG_GRACE_SECONDS = 60.0
"""Tags appear in listings later than the droplet itself."""


@dataclass(frozen=True)
class Sight:
    """What was seen of the provider's droplets.

    ``listed``: the inventory. ``by_id``: fresh reads of recorded IDs that the inventory lacks; None is a definite 404.
    ``by_name``: fresh look-ups for claims without an ID.
    """

    listed: Sequence[Droplet] | Unknown
    by_id: Mapping[int, Droplet | Unknown | None] = field(default_factory=dict)
    by_name: Mapping[str, Sequence[Droplet] | Unknown] = field(default_factory=dict)

    def of(self, record: DropletRecord) -> Droplet | Unknown | None:
        """The droplet of a record that has an ID."""
        if not isinstance(self.listed, Unknown):
            for droplet in self.listed:
                if droplet.id == record.droplet_id:
                    return droplet
        fallback = (
            self.listed
            if isinstance(self.listed, Unknown)
            else Unknown("not in the listing, and not read by its ID yet")
        )
        return self.by_id.get(record.droplet_id or 0, fallback)


@dataclass(frozen=True)
class Settled:
    """The records after what was seen, and what follows from it. ``lost``: their droplet is gone for certain."""

    records: tuple[DropletRecord, ...]
    lost: tuple[DropletRecord, ...]
    steps: tuple[Step, ...]
    waits: tuple[Wait, ...]


def missing_from_listing(records: Sequence[DropletRecord], listed: Sequence[Droplet] | Unknown) -> tuple[int, ...]:
    """The recorded IDs that have to be read one by one."""
    if isinstance(listed, Unknown):
        return ()
    present = {droplet.id for droplet in listed}
    return tuple(r.droplet_id for r in records if r.droplet_id is not None and r.droplet_id not in present)


def unlisted(sight: Sight, wanted: Sequence[object]) -> tuple[Wait, ...]:
    """What purchases wait for: a status that was lost would have all bought anew that is only not listed."""
    if not (wanted and isinstance(sight.listed, Unknown)):
        return ()
    return (Wait(f"nothing is bought while droplets cannot be listed: {sight.listed.why}", 5.0),)


def settle(
    records: Sequence[DropletRecord], sight: Sight, owner: Owner, role: Role, identity: str, now: float
) -> Settled:
    """Brings the records of one tier up to what was seen."""
    kept: list[DropletRecord] = []
    lost: list[DropletRecord] = []
    steps: list[Step] = []
    waits: list[Wait] = []
    for record in records:
        if record.droplet_id is None:
            settled, more, wait = _settle_claim(record, sight, owner, role, identity, now)
            (lost if settled is None else kept).append(settled or record)
            steps += more
            waits += wait
            continue
        droplet = sight.of(record)
        match droplet:
            case None:
                lost.append(record)
            case Unknown():
                kept.append(record)
                waits.append(Wait(f"{record.name} cannot be seen: {droplet.why}", 5.0))
            case Droplet():
                kept.append(_with_addresses(record, droplet))
                steps += _drift(record, droplet, owner, role, now)
                if droplet.status == "new":
                    waits.append(Wait(f"{record.name} is being made by the provider", 1.0))
    kept += found_again([*kept, *lost], sight, owner, role)
    steps += _duplicates(kept, sight, owner, role)
    return Settled(tuple(kept), tuple(lost), tuple(steps), tuple(waits))


def _settle_claim(
    record: DropletRecord, sight: Sight, owner: Owner, role: Role, identity: str, now: float
) -> tuple[DropletRecord | None, list[Step], list[Wait]]:
    """None: nothing came of the claim, and its machine is not wanted any more."""
    claim = record.claim or Claim(by=identity, at=0)
    found = sight.by_name.get(record.name, Unknown("it was not looked up by name yet"))
    if isinstance(found, Unknown):
        return record, [], [Wait(f"whether {record.name} was created is not known: {found.why}", 2.0)]
    droplet = _made_under(claim, found, owner, role, now)
    if droplet is not None:
        adopted = record.model_copy(update={"droplet_id": droplet.id, "claim": None})
        return _with_addresses(adopted, droplet), [], []
    if now - claim.at < CLAIM_SECONDS:
        left = CLAIM_SECONDS - (now - claim.at)
        return record, [], [Wait(f"{record.name} may still be on its way, asked for by {claim.by}", left)]
    if record.leaving_since is not None:
        return None, [], []
    renewed = record.model_copy(update={"claim": Claim(by=identity, at=now)})
    step = CreateDroplet(record.name, record.location, record.region, role, "an earlier request for it left no droplet")
    return renewed, [step], []


def _made_under(claim: Claim, found: Sequence[Droplet], owner: Owner, role: Role, now: float) -> Droplet | None:
    """The newest. One of ours that is older than the claim may be a dead namesake that is still listed: it has to stay
    listed for as long as a claim is left alone."""
    fresh = [d for d in found if d.created_at >= claim.at - CLOCK_SECONDS]
    stale = [d for d in found if is_ours(d, owner, role)] if now - claim.at >= CLAIM_SECONDS else []
    return max(fresh or stale, key=lambda d: (d.created_at, d.id), default=None)


def _with_addresses(record: DropletRecord, droplet: Droplet) -> DropletRecord:
    return record.model_copy(
        update={
            "public_ipv4": droplet.public_ipv4 or record.public_ipv4,
            "public_ipv6": droplet.public_ipv6 or record.public_ipv6,
            "private_ipv4": droplet.private_ipv4 or record.private_ipv4,
        }
    )


def _drift(record: DropletRecord, droplet: Droplet, owner: Owner, role: Role, now: float) -> list[Step]:
    steps: list[Step] = []
    if droplet.status == "off" and record.leaving_since is None:
        steps.append(PowerOnDroplet(record.name, droplet.id, "it is switched off"))
    if droplet.name != record.name:
        steps.append(RenameDroplet(record.name, droplet.id, f"it is called {droplet.name}"))
    missing = tuple(tag for tag in droplet_tags(owner, role) if tag not in droplet.tags)
    if missing and now - droplet.created_at > TAG_GRACE_SECONDS:
        steps.append(TagDroplet(record.name, droplet.id, missing, f"it lacks {', '.join(missing)}"))
    return steps


def _duplicates(records: Sequence[DropletRecord], sight: Sight, owner: Owner, role: Role) -> list[Step]:
    """A second droplet under a recorded name: a create that was taken for lost and came through after all."""
    if isinstance(sight.listed, Unknown):
        return []
    ids = {r.name: r.droplet_id for r in records if r.droplet_id is not None}
    return [
        DestroyDroplet(d.name, d.id, f"it is a second one beside {ids[d.name]}")
        for d in sight.listed
        if is_ours(d, owner, role) and d.name in ids and d.id not in ids.values()
    ]


def found_again(records: Sequence[DropletRecord], sight: Sight, owner: Owner, role: Role) -> tuple[DropletRecord, ...]:
    """Droplets with our tags that no record knows: a status that was lost. They count, and are replaced one by one.

    Their host keys are lost with the status, so nothing may be sent to them, and none is trusted with the name again.
    """
    if isinstance(sight.listed, Unknown):
        return ()
    names = {r.name for r in records}
    ids = {r.droplet_id for r in records}
    found: list[DropletRecord] = []
    for droplet in sorted(sight.listed, key=lambda d: d.id):
        parts = parse_name(droplet.name, owner, role)
        if parts is None or not is_ours(droplet, owner, role) or droplet.id in ids or droplet.name in names:
            continue
        names.add(droplet.name)
        location, template = parts
        record = DropletRecord(
            name=droplet.name, location=location, region=droplet.region, template=template, droplet_id=droplet.id
        )
        found.append(_with_addresses(record.model_copy(update={"served": True}), droplet))
    return tuple(found)
