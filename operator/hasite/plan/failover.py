"""Whether an address belongs into DNS: verdicts from several vantage points, hold-downs, and the last address.

The rules, each with what it exists for:

- A withdrawal needs the operator and at least one load balancer of another location to find the address down, and none
  that finds it up (an operator that is cut off must not take a site down).
- The last published address is never withdrawn for being down; when every location looks down, the set stays as it was.
  So another one must have been found to serve after this one began to fail.
- An address that is certainly not ours (its droplet is gone, or shows a foreign host key) is withdrawn
  at once.
- A withdrawn address comes back only after a hold-down, doubled for every withdrawal in the last ten minutes
  (flapping); the hold-down is waived while no published address serves.
- A new address is published only after its machine has proved who it is and serves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hasite.api.loadbalancerpool import AddressStatus
from hasite.plan.world import Probe

FLAP_WINDOW_SECONDS = 600.0
CONFIRMATION_SECONDS = 0.3
LONGEST_HOLD_DOWN_SECONDS = 300.0


@dataclass(frozen=True)
class Verdict:
    """``up``: True, False, or None while it cannot be told. ``why`` is for people."""

    up: bool | None
    why: str


def judge(probe: Probe | None, opinions: Mapping[str, bool]) -> Verdict:
    """``opinions``: load balancer of another location → whether it reaches the address, fresh ones only."""
    if probe is None or probe.up is None:
        return Verdict(None, "the operator has not probed it long enough")
    if probe.up:
        return Verdict(True, "the operator reaches it")
    if not opinions:
        return Verdict(
            None, f"the operator does not reach it ({probe.detail}), and no other vantage point can be asked"
        )
    reached_by = sorted(name for name, up in opinions.items() if up)
    if reached_by:
        return Verdict(None, f"the operator does not reach it ({probe.detail}), but {', '.join(reached_by)} does")
    return Verdict(False, f"neither the operator ({probe.detail}) nor {', '.join(sorted(opinions))} reach it")


@dataclass(frozen=True)
class Candidate:
    """One address of a load balancer. ``proven``: host key known, configuration in force, proxy running.

    ``disowned`` says why the address is certainly not ours (any more), or is empty. ``failing_since``: the operator's
    first failed probe of the present row, ``ok_at``: its latest good one, Unix times.
    """

    address: str
    family: Literal["A", "AAAA"]
    load_balancer: str
    location: str
    verdict: Verdict
    proven: bool
    leaving: bool = False
    disowned: str = ""
    failing_since: float | None = None
    ok_at: float = math.inf


@dataclass(frozen=True)
class Publication:
    """Which addresses DNS should lead to, and what is remembered of each."""

    addresses: tuple[AddressStatus, ...]
    again_in: float | None
    """Seconds until a hold-down ends, or until it is known whether another address still serves."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The addresses that DNS should lead to."""
        return tuple(a.address for a in self.addresses if a.state == "Published")


def publish(
    before: Sequence[AddressStatus], candidates: Sequence[Candidate], hold_down: float, now: float
) -> Publication:
    """Each family for itself: an IPv6 address is no replacement for the last IPv4 one."""
    parts = [
        _publish(
            [a for a in before if a.family == family], [c for c in candidates if c.family == family], hold_down, now
        )
        for family in ("A", "AAAA")
    ]
    waits = [part.again_in for part in parts if part.again_in is not None]
    return Publication(tuple(a for part in parts for a in part.addresses), min(waits, default=None))


def _publish(
    before: Sequence[AddressStatus], candidates: Sequence[Candidate], hold_down: float, now: float
) -> Publication:
    """Each address's next state. One without a candidate any more stays as withdrawn until DNS has let go of it."""
    old = {a.address: a for a in before}
    out = {a.address for a in before if a.state == "Published"}
    live = {c.address for c in candidates if _serves(c, c.address in out)}
    if not live & out:
        hold_down = 0.0
    after: list[AddressStatus] = []
    waits: list[float] = []
    for candidate in candidates:
        others = live - {candidate.address}
        confirmed = {c.address for c in candidates if c.ok_at > (candidate.failing_since or 0.0)} & others
        if others and not confirmed and candidate.verdict.up is False:
            waits.append(CONFIRMATION_SECONDS)
        status, wait = _next(old.get(candidate.address), candidate, confirmed, hold_down, now)
        after.append(status)
        if wait is not None:
            waits.append(wait)
    known = {c.address for c in candidates}
    after += [_to(a, "Withdrawn", "its load balancer is gone", now) for a in before if a.address not in known]
    return Publication(_keep_the_last(before, after, candidates), min(waits, default=None))


def hold_down_of(status: AddressStatus, base: float, now: float) -> float:
    """Seconds that a withdrawn address stays out, counted from its withdrawal. ``base`` 0: none."""
    recent = sum(1 for t in status.withdrawals if now - t < FLAP_WINDOW_SECONDS)
    return float(min(base * 2.0 ** max(recent - 1, 0), max(LONGEST_HOLD_DOWN_SECONDS, base)))


def _serves(candidate: Candidate, published: bool) -> bool:
    """What is published has proved itself once: that its machine can't be asked now must not hold a failover back."""
    up = candidate.verdict.up is True and not candidate.leaving and not candidate.disowned
    return up and (candidate.proven or published)


def is_down(status: AddressStatus) -> bool:
    """It was withdrawn for being down, and for nothing else."""
    return status.state == "Withdrawn" and status.withdrawals[-1:] == (status.since,)


def _next(
    status: AddressStatus | None, candidate: Candidate, others: set[str], hold_down: float, now: float
) -> tuple[AddressStatus, float | None]:
    """``others``: addresses that were found to serve after this one began to fail."""
    current = status or AddressStatus(
        address=candidate.address,
        family=candidate.family,
        load_balancer=candidate.load_balancer,
        location=candidate.location,
        state="Pending",
        reason="new",
        since=now,
    )
    serves = candidate.verdict.up is True and candidate.proven
    if candidate.disowned or candidate.leaving:
        return _to(current, "Withdrawn", candidate.disowned or "its load balancer is leaving", now), None
    if current.state == "Published" and candidate.verdict.up is False and others:
        times = tuple(t for t in current.withdrawals if now - t < FLAP_WINDOW_SECONDS)
        return _to(current, "Withdrawn", candidate.verdict.why, now, withdrawals=(*times, now)), None
    if current.state == "Withdrawn" and serves:
        left = current.since + hold_down_of(current, hold_down, now) - now
        return (current, left) if left > 0 else (_to(current, "Published", "it serves again", now), None)
    if current.state == "Pending" and serves:
        return _to(current, "Published", "it has proved who it is, and serves", now), None
    return current, None


def _to(
    status: AddressStatus,
    state: Literal["Pending", "Published", "Withdrawn"],
    reason: str,
    now: float,
    withdrawals: tuple[float, ...] | None = None,
) -> AddressStatus:
    if status.state == state:
        return status
    changes: dict[str, object] = {"state": state, "reason": reason, "since": now}
    if withdrawals is not None:
        changes["withdrawals"] = withdrawals
    return status.model_copy(update=changes)


def _keep_the_last(
    before: Sequence[AddressStatus], after: Sequence[AddressStatus], candidates: Sequence[Candidate]
) -> tuple[AddressStatus, ...]:
    """When nothing would stay published, what was published and is still ours stays so."""
    if any(a.state == "Published" for a in after):
        return tuple(after)
    ours = {c.address for c in candidates if not c.disowned}
    published = {a.address: a for a in before if a.state == "Published" and a.address in ours}
    return tuple(published.get(a.address, a) for a in after)
