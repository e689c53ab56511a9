"""An API that refuses, hangs, lies or is away: what is said meanwhile, and that the end is the same afterwards.

Each row is told twice: without the trouble, which is the reference, and with it. Nothing may be deleted because of it.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import pytest
from hasite.clouds import transport
from hasite.errors import Unreachable

from e2e.world.cloud import zones
from tests.scenarios.clockwork import monotonic
from tests.scenarios.extent import sample
from tests.scenarios.portrait import difference, portrait
from tests.scenarios.stories import LONG, is_gone, is_ready, ready
from tests.scenarios.universe import DOMAIN, NAMESPACE, TOKEN, Universe, play

Trouble = Callable[[Universe], object]


def _create(universe: Universe) -> None:
    universe.create_site()


def _scale_up(universe: Universe) -> None:
    universe.edit_site(lambda spec: spec["app"].update(replicasPerLocation=2))


def _delete(universe: Universe) -> None:
    universe.delete_site()


def _nothing(universe: Universe) -> None:
    """A site at rest."""


@dataclass(frozen=True)
class Row:
    """``trouble`` begins, the user does ``act``; it lasts ``lasts`` seconds. ``says``: words of the Ready condition
    or of an Event meanwhile, on the site or its pool. ``new``: the site is not there before ``act``."""

    trouble: Trouble
    act: Callable[[Universe], None] = _nothing
    lasts: float = 30.0
    says: str = ""
    over: Trouble = lambda universe: universe.cloud.faults.clear()
    new: bool = False
    page: int = 200
    """Items on a page of a list."""


def fails(kind: str, **where: Any) -> Trouble:
    """Calls fail in that way; all of them until it is over, unless ``count`` says how many."""
    where = {"count": None, **where}
    return lambda universe: universe.cloud.faults.fail(kind, **where)


def _kube_away(universe: Universe) -> None:
    universe.kube.fail_next = _Endless(Unreachable("the API server is away"))


def _kube_back(universe: Universe) -> None:
    universe.kube.fail_next = []


class _Endless(list[Exception]):
    """A list of failures that does not end."""

    def __bool__(self) -> bool:
        return True

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def pop(self, index: Any = -1) -> Exception:
        return self._error


def _losing_a_record(trouble: Trouble) -> Trouble:
    """Somebody removes one AAAA record as well, so that the operator has to read the zone."""

    def lose(universe: Universe) -> None:
        trouble(universe)
        for zone in universe.cloud.state.domains.values():
            record = next(r for r in zone.records.values() if r.type == "AAAA")
            del zone.records[record.id]
            zones.publish_soon(universe.cloud.core, zone)

    return lose


DROPLETS, RECORDS = "/v2/droplets", "/v2/domains/[^/]+/records"
ROWS = {
    "429 to everything for five minutes, while creating": Row(
        fails("rate-limited"), _create, 300.0, "rate limit", new=True
    ),
    "429 to everything for five minutes, at rest": Row(fails("rate-limited"), lasts=300.0),
    "429 to every write while scaling": Row(fails("rate-limited", method="POST"), _scale_up, 120.0, "rate limit"),
    "500 after the droplet was created": Row(
        fails("error-after", method="POST", path=DROPLETS, count=2), _create, 0.0, new=True
    ),
    "500 before the droplet was created": Row(
        fails("error-before", method="POST", path=DROPLETS, count=2), _create, 0.0, new=True
    ),
    "503 to the creation of droplets": Row(
        fails("unavailable", method="POST", path=DROPLETS), _create, 100.0, "Service Unavailable", new=True
    ),
    "a create that times out, done": Row(
        fails("hang-after", method="POST", path=DROPLETS, count=1), _create, 60.0, new=True
    ),
    "a create that times out, not done": Row(
        fails("hang-before", method="POST", path=DROPLETS, count=1), _create, 60.0, new=True
    ),
    "a create whose connection is reset, done": Row(
        fails("reset-after", method="POST", path=DROPLETS, count=1), _create, 0.0, new=True
    ),
    "500 after every record, firewall and zone was created": Row(
        fails("error-after", method="POST", path="/v2/(domains|firewalls).*"), _create, 60.0, new=True
    ),
    "the API is away for ten minutes, while creating": Row(fails("reset-before"), _create, 600.0, "can", new=True),
    "the API is away for ten minutes, at rest": Row(fails("reset-before"), lasts=600.0),
    "the API is away for ten minutes, while scaling": Row(fails("unavailable"), _scale_up, 600.0),
    "an empty list of droplets, once": Row(fails("empty-list", path=DROPLETS, count=1), lasts=200.0),
    "an empty list of droplets, once, while scaling": Row(fails("empty-list", path=DROPLETS, count=1), _scale_up),
    "empty lists of droplets for two minutes": Row(fails("empty-list", path=DROPLETS), lasts=120.0),
    "an empty list of records, once": Row(_losing_a_record(fails("empty-list", path=RECORDS, count=1)), lasts=60.0),
    "empty lists of records for two minutes": Row(
        _losing_a_record(fails("empty-list", path=RECORDS)), lasts=120.0, says="the provider lists no"
    ),
    "an empty list of domains, once": Row(fails("empty-list", path="/v2/domains", count=1), lasts=200.0),
    "an empty list of domains while creating": Row(
        fails("empty-list", path="/v2/domains", count=3), _create, 30.0, new=True
    ),
    "an empty list of firewalls, once": Row(fails("empty-list", path="/v2/firewalls", count=1), lasts=200.0),
    "empty lists of firewalls for two minutes": Row(fails("empty-list", path="/v2/firewalls"), lasts=120.0),
    "the second page of the droplets fails": Row(
        fails("error-before", method="GET", path=DROPLETS, page=2), _scale_up, 60.0, "Unexpected server-side", page=2
    ),
    "the second page of the records fails": Row(
        fails("error-before", method="GET", path=RECORDS, page=2), _create, 60.0, "Unexpected", new=True, page=2
    ),
    "the API is away for two minutes, while deleting": Row(fails("reset-before"), _delete, 120.0),
    "500 after every deletion": Row(fails("error-after", method="DELETE"), _delete, 120.0),
    "empty lists of firewalls, while deleting": Row(fails("empty-list", path="/v2/firewalls", count=2), _delete),
    "empty lists of records, while deleting": Row(fails("empty-list", path=RECORDS, count=3), _delete),
    "an empty list of droplets, while deleting": Row(fails("empty-list", path=DROPLETS, count=1), _delete),
    "a token that was withdrawn for a minute, while deleting": Row(
        lambda u: u.cloud.faults.revoke(TOKEN), _delete, 60.0, over=lambda u: u.cloud.faults.restore(TOKEN)
    ),
    "a token that may only read": Row(
        lambda u: u.cloud.faults.make_read_only(TOKEN),
        _scale_up,
        60.0,
        "access",
        over=lambda u: u.cloud.faults.restore(TOKEN),
    ),
    "a token that was withdrawn": Row(
        lambda u: u.cloud.faults.revoke(TOKEN),
        _scale_up,
        200.0,
        "authenticate",
        over=lambda u: u.cloud.faults.restore(TOKEN),
    ),
    "a token that was withdrawn, at rest": Row(
        lambda u: u.cloud.faults.revoke(TOKEN), lasts=300.0, over=lambda u: u.cloud.faults.restore(TOKEN)
    ),
    "the Secret is gone": Row(
        lambda u: u.kube.objects.pop(("Secret", NAMESPACE, "digitalocean")),
        _scale_up,
        60.0,
        "Secret digitalocean is not there",
        over=lambda u: u.kube.put_secret(NAMESPACE, "digitalocean", {"token": TOKEN}),
    ),
    "the Kubernetes API is away for five minutes, at rest": Row(_kube_away, lasts=300.0, over=_kube_back),
    "the Kubernetes API is away for five minutes, while creating": Row(
        lambda u: asyncio.get_running_loop().call_later(1.0, _kube_away, u), _create, 300.0, over=_kube_back, new=True
    ),
    "one name server gives no answer": Row(
        lambda u: u.names.silent.add("192.0.2.53"), _scale_up, 60.0, over=lambda u: u.names.silent.clear()
    ),
    "no name server gives an answer": Row(
        lambda u: u.names.silent.update({"192.0.2.53", "198.51.100.53"}),
        lasts=120.0,
        over=lambda u: u.names.silent.clear(),
    ),
}


@dataclass
class Told:
    """How a row ended."""

    picture: dict[str, Any]
    deleted: list[str]
    said: set[str]
    breaches: list[str]
    born: int


@cache
def _reference(act: Callable[[Universe], None], new: bool) -> Told:
    return _tell(Row(_nothing, act, new=new), False)


def _tell(row: Row, troubled: bool) -> Told:
    async def story(universe: Universe) -> Told:
        universe.start()
        if not row.new:
            universe.create_site()
            await ready(universe)
            await asyncio.sleep(20.0)
        universe.journal.clear()
        said: set[str] = set()
        if troubled:
            row.trouble(universe)
        row.act(universe)
        for _ in range(int(row.lasts * 2) if troubled else 0):
            await asyncio.sleep(0.5)
            said |= set(_words(universe))
        if troubled:
            row.over(universe)
        await asyncio.sleep(1.0)
        over = is_gone if row.act is _delete else is_ready
        await universe.until(lambda: over(universe), LONG, "the end")
        await asyncio.sleep(100.0)
        deleted = [line.split(" cloud ", 1)[1] for line in universe.journal if "before cloud DELETE" in line]
        witness = universe.witness
        return Told(portrait(universe), deleted, said, witness.breaches, witness.born.total())

    with mock.patch.object(transport, "PER_PAGE", row.page):
        told: Told = play(story)
    return told


def _words(universe: Universe) -> Iterator[str]:
    yield from (event.message for event in universe.kube.events if event.kind == "Warning")
    for each in (universe.site(), universe.pool()):
        for condition in each.status.conditions if each else ():
            if condition.type == "Ready":
                yield condition.message


@pytest.mark.parametrize("name", sample(ROWS, 9))
def test_trouble_with_an_api_is_said_and_survived(name: str) -> None:
    row = ROWS[name]
    reference, told = _reference(row.act, row.new), _tell(row, True)
    assert not told.breaches
    assert not difference(reference.picture, told.picture)
    assert told.born == reference.born
    assert row.act is _delete or told.deleted == reference.deleted
    assert any(row.says in said for said in told.said) or not row.says, sorted(told.said)


@pytest.mark.parametrize("how", ["used up", "refused"])
def test_a_failover_does_not_wait_behind_a_rate_limit_that_is(how: str) -> None:
    async def story(universe: Universe) -> None:
        operator = universe.start()
        universe.create_site()
        await ready(universe)
        await asyncio.sleep(100.0)
        budget = operator._clients[TOKEN].api.limiter.budget
        for _ in range(225 if how == "used up" else 0):
            budget.spend(monotonic())
        if how == "refused":
            budget.refused(monotonic(), 60.0)
        universe.witness.trouble = True
        universe.ground.dark.add("nyc3")
        lost = {s.public_ipv4 for s in universe.ground.specs.values() if s.region == "nyc3"}
        await universe.until(lambda: not lost & universe.names.addresses(DOMAIN), 6.0, "withdrawal")

    play(story)


def test_a_deletion_without_a_token_lets_go_in_the_end_and_says_what_is_left() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        universe.kube.objects.pop(("Secret", NAMESPACE, "digitalocean"))
        universe.cloud.faults.revoke(TOKEN)
        universe.delete_site()
        await asyncio.sleep(280.0)
        assert universe.site() is not None
        await universe.until(lambda: universe.site() is None and universe.pool() is None, 60.0, "the end")
        left = [event.message for event in universe.kube.events if event.reason == "LeftBehind"]
        names = {droplet.name for droplet in universe.cloud.state.droplets.values()}
        assert len(names) == 4
        assert all(any(name in message for message in left) for name in names)

    play(story)
