"""How old a read of its zone a pool may be judged by: as old as it will do, so that waiting costs no calls.

A read serves until something new speaks against it, until a write of ours, or until ``MOST_SECONDS`` are over. What
changes anything, or looks as if it lacked something, is decided on one of ``BUSY_AGE`` at most; the end of a removal
on one of that very moment; and so is the first look after a name server begins to lead astray.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from hasite.clouds import limiter
from hasite.errors import HasiteError, Unauthorized
from hasite.plan.dns import DnsWish, plan_dns
from hasite.plan.world import Answer, Unknown, ZoneView
from hasite.reconcilers.base import BUSY_AGE
from hasite.reconcilers.services import Account, Services

MOST_SECONDS = 75.0
"""Oldest read that a pool is judged by whose name servers will not agree."""

SLACK_SECONDS = 0.05
"""A read that was begun because of something new is not older than that, whichever clock says so."""


@dataclass(frozen=True)
class Doubt:
    """Why a zone is looked at: what is wanted, what the name servers and the account's zone file say instead.

    ``ending``: nothing else of a deleted pool is left, so that the zone alone decides whether it is let go.
    """

    uid: str
    wish: DnsWish
    answers: Mapping[str, Answer | Unknown]
    zone_file: str = ""
    ending: bool = False

    @property
    def astray(self) -> bool:
        """Visitors are led to an address that is not to be published: that is urgent."""
        wanted = set(self.wish.addresses)
        given = [answer.addresses for answer in self.answers.values() if isinstance(answer, Answer)]
        return not self.wish.delete_all and any(addresses - wanted for addresses in given)

    @property
    def says(self) -> frozenset[str]:
        """Everything that speaks, so that what is new can be told from what was looked into."""
        wish, name = self.wish, f"{self.wish.domain}."
        said = {f"wanted {wish.addresses} {wish.ttl} {wish.delete_all}"}
        said |= {" ".join(line.split()) for line in self.zone_file.splitlines() if line.startswith(name)}
        for server, answer in self.answers.items():
            if isinstance(answer, Answer):
                said.add(f"{server} {sorted(answer.addresses)} {sorted(answer.txt)}")
        return frozenset(said)


class ZoneSight:
    """Since when each pool's doubts are what they are, by its UID. All of it may be lost."""

    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._known: dict[str, tuple[frozenset[str], float]] = {}

    async def look(self, account: Account, doubt: Doubt) -> ZoneView | Unknown:
        """The zone. Raises Unauthorized."""
        with limiter.urgent() if doubt.astray else contextlib.nullcontext():
            view = await _records(account, doubt.wish.zone, self._age(doubt))
            if isinstance(view, ZoneView) and (least := _least_age(doubt, view)) is not None:
                return await _records(account, doubt.wish.zone, least)
        return view

    def forget(self, uid: str) -> None:
        """Its name servers agree, or it is gone."""
        self._known.pop(uid, None)

    def _age(self, doubt: Doubt) -> float:
        now, says = self._clock(), doubt.says
        before, since = self._known.get(doubt.uid, (frozenset[str](), now))
        new = bool(says - before)
        self._known[doubt.uid] = (says, now if new else since)
        if new:
            return 0.0 if doubt.astray else BUSY_AGE
        return max(BUSY_AGE, min(MOST_SECONDS, now - since + SLACK_SECONDS))


def _least_age(doubt: Doubt, view: ZoneView) -> float | None:
    """How old a read may be from which this follows; None when nothing does."""
    plan = plan_dns(doubt.wish, view, doubt.answers)
    if doubt.ending and (plan.settled or plan.steps):
        return 0.0
    return BUSY_AGE if plan.steps or plan.doubtful else None


async def _records(account: Account, zone: str, max_age: float) -> ZoneView | Unknown:
    try:
        return await account.dns.records(zone, max_age)
    except Unauthorized:
        raise
    except HasiteError as error:
        return Unknown(str(error))
