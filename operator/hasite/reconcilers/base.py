"""What the reconcilers share: credentials, sight of droplets, reporting, giving up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar, cast

from hasite.api.common import FINALIZER, Condition, DropletRecord
from hasite.api.databasestatus import ReplicatedDatabaseStatus
from hasite.api.hasite import HASite, HASiteStatus
from hasite.api.loadbalancerpool import LoadBalancerPool, LoadBalancerPoolStatus
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.errors import HasiteError, Unauthorized
from hasite.plan.droplets import Sight, missing_from_listing
from hasite.plan.names import Owner, Role, firewall_name
from hasite.plan.poolworld import STEADY_SECONDS
from hasite.plan.status import Problem, condition, kstatus, merge
from hasite.plan.steps import Step, Wait, describe
from hasite.plan.world import Droplet, Firewall, Unknown
from hasite.reconcilers.services import Account, Services

Owning = HASite | LoadBalancerPool | ReplicatedDatabase
"""A resource that droplets belong to."""

R = TypeVar("R", HASite, LoadBalancerPool, ReplicatedDatabase)
T = TypeVar("T")
S = TypeVar("S", HASiteStatus, LoadBalancerPoolStatus, ReplicatedDatabaseStatus)

_log = logging.getLogger(__name__)

RESTING_AGE = 150.0
"""Oldest firewalls and domains, in seconds, that a resource at rest is judged by: it bounds the calls an hour."""

RESTING_DROPLETS_AGE = 75.0
"""The same of droplets, which change more often and matter more."""

BUSY_AGE = 2.0

READ_SECONDS = 1.0
"""Between two reads of one droplet by its ID."""

LOOK_UP_SECONDS = 4.0
"""Between two look-ups of one droplet by its name. Much less than a claim lasts beyond its request's time-out."""

ROLES: Mapping[str, Role] = {HASite.KIND: "app", LoadBalancerPool.KIND: "lb", ReplicatedDatabase.KIND: "db"}
"""Whose firewall a kind has."""

KSTATUS = ("Ready", "Reconciling", "Stalled")
ALARMS = ("Stalled", "DegradedLocation", "Blind", "DataSaved")
"""Conditions that people want to be told of when they become True; more of a database is told by ``narrator``."""
GIVE_UP_SECONDS = 300.0
"""How long a deletion waits for credentials that are gone, counted from when it first found them so."""


async def credentials(services: Services, resource: Owning) -> Account | Problem:
    """The account of a resource. One that is being deleted may use the last token that was seen."""
    key = (resource.namespace, resource.spec.credentials_ref.name)
    secret = await services.kube.secret(*key)
    token = (secret or {}).get("token", b"").decode(errors="replace").strip()
    if token:
        services.tokens[key] = token
    elif resource.deleting:
        token = services.tokens.get(key, "")
    if token:
        return services.account(token)
    what = "is not there" if secret is None else "has no key `token`"
    return Problem("CredentialsMissing", f"Secret {key[1]} {what}", True)


def deleted_at(resource: Owning) -> float | None:
    """Unix time of its deletion."""
    text = resource.metadata.get("deletionTimestamp")
    return None if text is None else datetime.fromisoformat(str(text)).timestamp()


def is_busy(records: Sequence[DropletRecord], resource: Owning) -> bool:
    """Something is under way at the provider, so that an old inventory would hold it up."""
    return (
        resource.deleting
        or resource.status.observed_generation != resource.generation
        or any(r.droplet_id is None or r.public_ipv4 is None or r.released_since is not None for r in records)
    )


async def look_at_account(
    services: Services, account: Account, records: Sequence[DropletRecord], droplets_age: float, age: float
) -> tuple[Sight, Sequence[Firewall] | Unknown]:
    """Droplets and firewalls side by side: a provider that is silent is waited for once. Ages: oldest, in seconds."""
    return await asyncio.gather(
        look_at_droplets(services, account, records, droplets_age), look_at_firewalls(account, age)
    )


async def look_at_droplets(
    services: Services, account: Account, records: Sequence[DropletRecord], max_age: float
) -> Sight:
    """Inventory, then by ID what it lacks, then by name what has no ID."""
    listed = await attempt_droplets(account, max_age)
    if max_age > BUSY_AGE and missing_from_listing(records, listed):
        listed = await attempt_droplets(account, BUSY_AGE)
    by_id = {n: await _read(services, account, n) for n in missing_from_listing(records, listed)}
    unnumbered = [r.name for r in records if r.droplet_id is None]
    by_name = {name: await _look_up(services, account, name) for name in unnumbered}
    return Sight(listed, by_id, by_name)


async def _read(services: Services, account: Account, droplet_id: int) -> Droplet | Unknown | None:
    """By ID. Not at every look either: a droplet without its tag is in no listing until it has it back."""
    return await _seldom(services, f"id {droplet_id}", READ_SECONDS, lambda: account.cloud.droplet(droplet_id))


async def _look_up(services: Services, account: Account, name: str) -> Sequence[Droplet] | Unknown:
    """By name. Not at every look: open claims of some droplets would use up the provider's rate limit."""
    return await _seldom(services, f"name {name}", LOOK_UP_SECONDS, lambda: account.cloud.find_droplets(name))


async def _seldom(services: Services, key: str, interval: float, look: Callable[[], Awaitable[T]]) -> T | Unknown:
    """The answer of a moment ago, or a new one."""
    now, known = services.clock(), services.looked_up
    if key in known and now - known[key][0] < interval:
        return cast("T | Unknown", known[key][1])
    for old in [other for other, (at, _) in known.items() if now - at > LOOK_UP_SECONDS]:
        del known[old]
    answer: T | Unknown
    try:
        answer = await look()
    except HasiteError as error:
        answer = Unknown(str(error))
    known[key] = (now, answer)
    return answer


async def attempt_droplets(account: Account, max_age: float) -> Sequence[Droplet] | Unknown:
    """The inventory. Raises Unauthorized, which is a matter for a person."""
    try:
        return await account.cloud.droplets(max_age)
    except Unauthorized:
        raise
    except HasiteError as error:
        return Unknown(str(error))


async def look_at_firewalls(account: Account, max_age: float) -> Sequence[Firewall] | Unknown:
    """All firewalls of the account."""
    try:
        return await account.cloud.firewalls(max_age)
    except Unauthorized:
        raise
    except HasiteError as error:
        return Unknown(str(error))


def now_text(services: Services) -> str:
    """RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(services.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def report(services: Services, resource: R, status: object) -> R:
    """Writes the status with its conditions' times, when it differs."""
    merged = status.model_copy(  # type: ignore[attr-defined]
        update={
            "conditions": merge(
                resource.status.conditions,
                status.conditions,  # type: ignore[attr-defined]
                resource.generation,
                now_text(services),
            )
        }
    )
    if merged == resource.status:
        return resource
    await _announce(services, resource, merged.conditions)
    return await services.kube.write_status(resource, merged.wire())


async def _announce(services: Services, resource: Owning, after: Sequence[Condition]) -> None:
    """Events for the conditions that people wait for."""
    before = {c.type: c for c in resource.status.conditions}
    for new in after:
        old = before.get(new.type)
        changed = old is None or (old.status, old.reason) != (new.status, new.reason)
        if not changed or new.status != "True":
            continue
        if new.type == "Ready":
            await services.kube.event(resource, "Normal", "Ready", new.message)
        elif new.type in ALARMS:
            await services.kube.event(resource, "Warning", new.reason, new.message or new.type)


async def report_problem(services: Services, resource: R, problem: Problem) -> R:
    """The status as it was, with the one thing that keeps us from looking any further."""
    old: Sequence[Condition] = resource.status.conditions
    kept: list[Condition] = [condition(c.type, c.status, c.reason, c.message) for c in old if c.type not in KSTATUS]
    status = resource.status.model_copy(
        update={"conditions": (*kstatus([problem], None), *kept), "observed_generation": resource.generation}
    )
    return await report(services, resource, status)


def planned(status: S, steps: Sequence[Step]) -> S:
    """The status with the plan in words, whether it is carried out or, observed only, is not."""
    return status.model_copy(update={"plan": tuple(describe(step) for step in steps[:50])})


def observed_waits(steps: Sequence[Step]) -> tuple[Wait, ...]:
    """What an observed resource waits for: somebody who lets the plan be carried out."""
    return (Wait("steps are planned, but managementPolicy is Observe", STEADY_SECONDS),) if steps else ()


async def retain(services: Services, resource: R) -> None:
    """deletionPolicy Retain: nothing is touched, and that is said."""
    what = left_behind(resource)
    await services.kube.event(resource, "Normal", "Retained", f"left as it is: {what}")
    await services.kube.set_finalizer(resource, False)


def left_behind(resource: Owning) -> str:
    """What a person finds at the provider afterwards."""
    things = [f"droplet {r.droplet_id} {r.name}" for r in resource.status.droplets if r.droplet_id]
    if isinstance(resource, LoadBalancerPool) and resource.status.zone:
        things.append(f"the records of {resource.spec.domain} in zone {resource.status.zone.name}")
    role = ROLES[resource.KIND]
    things.append(f"firewall {firewall_name(Owner(resource.uid, resource.namespace, resource.name), role)}")
    return ", ".join(things)


async def give_up(services: Services, resource: R, problem: Problem) -> None:
    """The way out of a deletion that can't be carried out: says what was left behind, and lets go."""
    message = f"could not clean up ({problem.message}); left behind: {left_behind(resource)}"
    _log.warning("%s/%s: %s", resource.namespace, resource.name, message)
    await services.kube.event(resource, "Warning", "LeftBehind", message)
    status = resource.status.model_copy(update={"left_behind": message})
    resource = await services.kube.write_status(resource, status.wire())
    await services.kube.set_finalizer(resource, False)


def overdue(records: Sequence[DropletRecord], sight: Sight, now: float, deadline: float) -> list[Problem]:
    """Machines that should have served by now; one that has served before is not new."""
    found: list[Problem] = []
    for record in records:
        droplet = sight.of(record) if record.droplet_id is not None and not record.served else None
        if isinstance(droplet, Droplet) and now - droplet.created_at > deadline and record.leaving_since is None:
            state = " and is still being made by the provider" if droplet.status == "new" else ""
            message = f"{record.name} does not serve {deadline:.0f} s after it was created{state}"
            found.append(Problem("RolloutStalled", message, True))
    return found


class Refusals:
    """Since when the provider turns a deletion away."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def due(self, key: str, now: float) -> bool:
        """It was turned away again; whether that has gone on for so long that it is given up."""
        return now - self._since.setdefault(key, now) >= GIVE_UP_SECONDS

    def over(self, key: str) -> None:
        """It was not turned away, or the resource is gone."""
        self._since.pop(key, None)


class Troubles:
    """When something last went wrong with a resource: an inventory from before that cannot tell why.

    Each new trouble costs one listing; a long one costs no more than rest does.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[frozenset[str], float]] = {}

    def droplets_age(self, uid: str, troubled: frozenset[str], now: float) -> float:
        """The oldest inventory of droplets that will do. ``troubled``: names of what does not answer as it should."""
        before, since = self._known.get(uid, (frozenset(), 0.0))
        if troubled - before:
            since = now
        self._known[uid] = (troubled, since)
        return max(BUSY_AGE, min(RESTING_DROPLETS_AGE, now - since))

    def forget(self, uid: str) -> None:
        """The resource is gone."""
        self._known.pop(uid, None)


class Endings:
    """Deletions that seem to be over. A list may come back empty by mistake once, so two looks have to say so."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def confirmed(self, uid: str, now: float) -> bool:
        """Whether an earlier look, older than any inventory that a deletion is judged by, said the same."""
        first = self._first.setdefault(uid, now)
        if now - first <= BUSY_AGE:
            return False
        del self._first[uid]
        return True

    def not_yet(self, uid: str) -> None:
        """Something is left after all."""
        self._first.pop(uid, None)


def has_finalizer(resource: Owning) -> bool:
    """Ours is there."""
    return FINALIZER in resource.finalizers
