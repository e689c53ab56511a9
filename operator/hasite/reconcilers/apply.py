"""Carries a plan out, step by step. Every step is idempotent; a destructive one looks at the live object first."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, assert_never

from hasite.api.common import Claim, DropletRecord
from hasite.api.hasite import HASite
from hasite.api.loadbalancerpool import LoadBalancerPool, LoadBalancerPoolStatus
from hasite.api.replicateddatabase import ReplicatedDatabase
from hasite.clouds import limiter
from hasite.clouds.base import DropletSpec
from hasite.errors import Conflict, HasiteError, LeadershipLost, Permanent, Transient, Unclear
from hasite.machines.base import Session
from hasite.machines.bootstrap import Bootstrap, HostKey, render_user_data
from hasite.plan.names import Owner, droplet_tags
from hasite.plan.status import Problem
from hasite.plan.steps import (
    DESTRUCTIVE,
    ActivateHostKey,
    ApplyPool,
    ConfigureProxy,
    CreateDroplet,
    CreateFirewall,
    CreateRecord,
    CreateZone,
    DatabaseStep,
    DeclareDatabases,
    DeletePool,
    DeleteRecord,
    DeliverGuard,
    DestroyDroplet,
    DestroyFirewall,
    DestroyZone,
    GiveOrder,
    PowerOnDroplet,
    RenameDroplet,
    StageHostKey,
    Step,
    TagDroplet,
    UpdateFirewall,
    UpdateRecord,
    describe,
)
from hasite.proxies.base import Delivered, Engine, Rejected
from hasite.reconcilers.loop import Outcome
from hasite.reconcilers.services import Account, Services
from hasite.reconcilers.values import Machine, Refused, sha256, target_of

R = TypeVar("R", HASite, LoadBalancerPool, ReplicatedDatabase)

_log = logging.getLogger(__name__)

DnsStep = CreateZone | DestroyZone | CreateRecord | UpdateRecord | DeleteRecord
ProviderStep = DnsStep | CreateFirewall | UpdateFirewall | DestroyFirewall | ApplyPool | DeletePool
DNS_STEPS = (CreateZone, DestroyZone, CreateRecord, UpdateRecord, DeleteRecord)
MACHINE_STEPS = (StageHostKey, ActivateHostKey, ConfigureProxy)
"""Over SSH, each safe to be abandoned half-way: a machine that just died must not hold up what is urgent."""

URGENT_POLL_SECONDS = 0.1
CHANGED_SECONDS = 0.2

CLAIM_START_SECONDS = 10.0
"""A create starts this soon after its claim, or not at all: with its time-out of 30 s it ends before the claim does."""

PROVIDER_STEPS = (CreateFirewall, UpdateFirewall, DestroyFirewall, ApplyPool, DeletePool)


@dataclass
class Application(Generic[R]):
    """One resource, one plan. ``resource`` is the latest version that was written."""

    services: Services
    account: Account | None
    resource: R
    machine: Machine
    engine: Engine | None = None
    configs: Mapping[str, bytes] = field(default_factory=dict)
    host_keys: dict[str, HostKey] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._first: R = self.resource

    def outcome(self, again_in: float) -> Outcome:
        """When to look again: soon after what is remembered has changed, for that may lead on."""
        changed = self.resource.status != self._first.status
        return Outcome(min(again_in, CHANGED_SECONDS) if changed else again_in, failed=bool(self.problems))

    @property
    def owner(self) -> Owner:
        """Whose things these are."""
        return Owner(self.resource.uid, self.resource.namespace, self.resource.name)

    async def remember(self, status: object) -> None:
        """Writes the plan's status before its first step, with the host keys of the droplets that it will create."""
        async with self._lock:
            await self._write(status)

    def arm(self, records: Sequence[DropletRecord], steps: Sequence[Step]) -> tuple[DropletRecord, ...]:
        """Gives every droplet that is about to be created a host key to be known by."""
        new = {step.name for step in steps if isinstance(step, CreateDroplet)}
        for name in new:
            self.host_keys[name] = self.services.new_host_key()
        return tuple(self._armed(record) if record.name in new else record for record in records)

    def _armed(self, record: DropletRecord) -> DropletRecord:
        keys = (*record.bootstrap_keys[-3:], self.host_keys[record.name].public)
        return record.model_copy(update={"bootstrap_keys": keys})

    async def run(self, steps: Sequence[Step]) -> None:
        """DNS first, in order; then firewalls and the pool, in order; then machines side by side, each in order.

        Raises Conflict and LeadershipLost, which end the whole reconcile; another error ends its lane and is a problem.
        """
        dns = [s for s in steps if isinstance(s, DNS_STEPS)]
        provider = [s for s in steps if isinstance(s, PROVIDER_STEPS)]
        lanes: dict[str, list[Step]] = {}
        for step in steps:
            if not isinstance(step, DNS_STEPS + PROVIDER_STEPS):
                lanes.setdefault(step.name, []).append(step)
        with limiter.urgent() if any(isinstance(s, DeleteRecord) for s in dns) else contextlib.nullcontext():
            await self._lane(dns)
        await self._lane(provider)
        await self._side_by_side(lanes)

    async def _side_by_side(self, lanes: Mapping[str, Sequence[Step]]) -> None:
        """Until all have ended, or something urgent came: then work on machines is given up, to be done again later.

        Of several errors one is raised, a lost leadership first.
        """
        tasks = {asyncio.create_task(self._lane(lane), name=name): lane for name, lane in lanes.items()}
        pending = set(tasks)
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=URGENT_POLL_SECONDS)
                if pending and self._urgent:
                    on_machines = [t for t in pending if all(isinstance(s, MACHINE_STEPS) for s in tasks[t])]
                    for task in on_machines:
                        task.cancel()
        finally:
            for task in pending:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [e for e in ended if isinstance(e, BaseException) and not isinstance(e, asyncio.CancelledError)]
        if errors:
            raise next((e for e in errors if isinstance(e, LeadershipLost)), errors[0])

    async def _lane(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self._interrupted(step):
                if isinstance(step, CreateDroplet):
                    await self._unclaim(step.name)
                return
            try:
                await self._guarded(step)
            except (Conflict, LeadershipLost):
                raise
            except HasiteError as error:
                stalled = isinstance(error, Permanent)
                reason = error.reason if isinstance(error, Permanent) else type(error).__name__
                words = f"{type(step).__name__} {_subject(step)}: {error}"
                self.problems.append(Problem(reason, words, stalled))
                _log.warning("step failed: %s: %s", describe(step), error)
                if isinstance(error, Permanent | Unclear):
                    await self.services.kube.event(self.resource, "Warning", reason, words)
                return
            except Exception as error:
                words = f"{type(step).__name__} {_subject(step)}: {error!r}"
                self.problems.append(Problem("InternalError", words, True))
                _log.exception("step failed: %s", describe(step))
                return
            self.done.append(step)
            _log.info("step done: %s", describe(step))

    def _interrupted(self, step: Step) -> bool:
        """Something urgent came: what is not DNS can wait for the next plan, which follows at once."""
        return not isinstance(step, DNS_STEPS) and self._urgent

    @property
    def _urgent(self) -> bool:
        mine = self.resource
        return self.services.wakes.urgent(type(mine), mine.namespace, mine.name)

    async def _guarded(self, step: Step) -> None:
        if not self.services.leadership.is_leader():
            raise LeadershipLost("another operator leads")
        if isinstance(step, DESTRUCTIVE):
            await self._look_at_live_object()
        await self._do(step)

    async def _look_at_live_object(self) -> None:
        """What was decided on may be a name that now stands for another object, or an old version of this one."""
        mine = self.resource
        live = await self.services.kube.get(type(mine), mine.namespace, mine.name)
        if live is None or live.uid != mine.uid or live.generation != mine.generation or live.deleting != mine.deleting:
            raise Conflict(f"{mine.name} is not any more what the plan was made for")

    @property
    def _cloud(self) -> Account:
        if self.account is None:
            raise Permanent("there are no credentials", reason="CredentialsMissing")
        return self.account

    async def _do(self, step: Step) -> None:
        match step:
            case CreateDroplet():
                await self._create_droplet(step)
            case DestroyDroplet():
                await self._cloud.cloud.destroy_droplet(step.droplet_id)
            case PowerOnDroplet():
                await self._cloud.cloud.power_on(step.droplet_id)
            case RenameDroplet():
                await self._cloud.cloud.rename(step.droplet_id, step.name)
            case TagDroplet():
                await self._cloud.cloud.tag(step.droplet_id, step.tags)
            case StageHostKey():
                await self._stage_host_key(step)
            case ActivateHostKey():
                await self._activate_host_key(step)
            case ConfigureProxy():
                await self._configure_proxy(step)
            case DeliverGuard() | DeclareDatabases() | GiveOrder():
                await self._do_database(step)
            case _:
                await self._do_provider(step)

    async def _do_database(self, step: DatabaseStep) -> None:
        raise Permanent(f"{describe(step)}: not for this kind", reason="NotSupported")

    def _machine_for(self, step: CreateDroplet) -> Machine:
        return self.machine

    async def _do_provider(self, step: ProviderStep) -> None:
        cloud = self._cloud.cloud
        match step:
            case CreateFirewall():
                await cloud.create_firewall(step.firewall)
            case UpdateFirewall():
                await cloud.update_firewall(step.firewall)
            case DestroyFirewall():
                await cloud.destroy_firewall(step.firewall_id)
            case ApplyPool():
                await self.services.kube.apply(step.manifest)
            case DeletePool():
                await self.services.kube.delete(LoadBalancerPool, self.owner.namespace, step.name, step.uid)
            case _:
                await self._do_dns(step)

    async def _do_dns(self, step: DnsStep) -> None:
        dns = self._cloud.dns
        match step:
            case CreateZone():
                await dns.create_zone(step.zone)
                await self._zone_is_ours()
            case DestroyZone():
                await dns.destroy_zone(step.zone)
            case CreateRecord():
                await dns.create_record(step.zone, step.record)
            case UpdateRecord():
                await dns.update_record(step.zone, step.record)
            case DeleteRecord():
                await dns.delete_record(step.zone, step.record.id)
            case _:
                assert_never(step)

    async def _zone_is_ours(self) -> None:
        """Only one that we certainly made may be removed with the pool."""
        async with self._lock:
            status = self.resource.status
            if isinstance(status, LoadBalancerPoolStatus) and status.zone is not None:
                zone = status.zone.model_copy(update={"created_by_us": True})
                await self._write(status.model_copy(update={"zone": zone}))

    async def _create_droplet(self, step: CreateDroplet) -> None:
        cloud = self._cloud.cloud
        try:
            fingerprint = await cloud.ensure_ssh_key(self.services.client_key, "hasite")
            self._check_claim(step)
            machine = self._machine_for(step)
            user_data = render_user_data(
                Bootstrap(step.name, self.host_keys[step.name], machine.packages, machine.user_data)
            )
            droplet = await cloud.create_droplet(
                DropletSpec(
                    name=step.name,
                    region=step.region,
                    size=machine.size,
                    image=machine.image,
                    user_data=user_data,
                    tags=droplet_tags(self.owner, step.role),
                    ssh_key_fingerprints=(fingerprint,),
                )
            )
        except Unclear:
            raise
        except HasiteError:
            await self._unclaim(step.name)
            raise
        await self._change_record(step.name, {"droplet_id": droplet.id, "claim": None})

    def _check_claim(self, step: CreateDroplet) -> None:
        """A request must have ended, one way or the other, before its claim runs out and another may buy."""
        claim = self.record(step.name).claim
        if claim is None or self.services.clock() - claim.at > CLAIM_START_SECONDS:
            raise Transient("too much time has passed since it was claimed: it is claimed anew")

    async def _unclaim(self, name: str) -> None:
        """Certainly not asked for: the name must not be held for as long as by an unclear request.

        Where an earlier request may still come through, the keys that it was given stay known.
        """
        record = self.record(name)
        earlier = record.bootstrap_keys[:-1]
        renewed = {"bootstrap_keys": earlier, "claim": Claim(by=self.services.leadership.identity, at=0.0)}
        await self._change_record(name, renewed if earlier else None)

    async def _stage_host_key(self, step: StageHostKey) -> None:
        key = await self.services.ops.stage_host_key(await self.session(step.name))
        await self._change_record(step.name, {"host_key": key})
        self.services.watch.retarget(target_of(self.record(step.name)))

    async def _activate_host_key(self, step: ActivateHostKey) -> None:
        await self.services.ops.activate_host_key(await self.session(step.name))
        own: DropletRecord = self.record(step.name).model_copy(update={"bootstrap_keys": ()})
        self.services.watch.retarget(target_of(own))
        await self.services.machines.drop(step.name)
        await self.services.machines.session(target_of(own))
        await self._change_record(step.name, {"bootstrap_keys": ()})

    async def _configure_proxy(self, step: ConfigureProxy) -> None:
        if self.engine is None:
            raise Permanent("no proxy engine", reason="NotSupported")
        config = self.configs[step.name]
        term = self.services.leadership.term
        outcome = await self.engine.deliver(await self.session(step.name), config, term)
        self.services.watch.look_again(step.name)
        match outcome:
            case Delivered():
                self.refused.pop(step.name, None)
            case Rejected(stage, words):
                words = f"{stage}: {words}"
                if stage == "check":
                    self.refused[step.name] = Refused(sha256(config), words, self.services.clock())
                    raise Permanent(words, reason="ConfigurationRejected")
                raise Permanent(words, reason="DeliveryFailed") if stage == "write" else Transient(words)
            case _:
                assert_never(outcome)

    async def session(self, name: str) -> Session:
        """A session with a machine of ours, by its known host keys alone."""
        return await self.services.machines.session(target_of(self.record(name)))

    def record(self, name: str) -> DropletRecord:
        """The latest record of a droplet."""
        records: Sequence[DropletRecord] = self.resource.status.droplets
        return next(r for r in records if r.name == name)

    async def _change_record(self, name: str, changes: Mapping[str, object] | None) -> None:
        """None removes the record."""
        async with self._lock:
            droplets = tuple(
                r.model_copy(update=changes) if r.name == name else r
                for r in self.resource.status.droplets
                if r.name != name or changes is not None
            )
            await self._write(self.resource.status.model_copy(update={"droplets": droplets}))

    async def _write(self, status: object) -> None:
        if not self.services.leadership.is_leader():
            raise LeadershipLost("another operator leads")
        if status != self.resource.status:
            wire = status.wire()  # type: ignore[attr-defined]
            self.resource = await self.services.kube.write_status(self.resource, wire)


def _subject(step: Step) -> str:
    return describe(step).split(":", 1)[0].split(" ", 1)[1]
