"""What people are told of a database by the real reconciler: Events, metrics, and the record in the status."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hasite.api.databasestatus import TurnoverRecord

from tests.scenarios.test_databases import create, database_spec, delete, holder, live, lose_a_datacentre, wish
from tests.scenarios.universe import Universe, play


@dataclass(frozen=True)
class Told:
    """What was there in the end."""

    universe: Universe
    metrics: str

    @property
    def reasons(self) -> list[str]:
        about = ("PrimaryLost", "PrimaryBack", "Promoted", "Rejoined", "Switchover", "Degraded", "FailoverRefused")
        return [event.reason for event in self.universe.kube.events if event.reason.startswith(about)]

    @property
    def turnover(self) -> TurnoverRecord | None:
        found = live(self.universe)
        assert found is not None
        return found.status.last_turnover

    def value(self, series: str) -> str:
        start = f'hasite_database_{series}{{name="shop",namespace="default"}} '
        return next(line.removeprefix(start) for line in self.metrics.splitlines() if line.startswith(start))


def play_all(*stories: Callable[[Universe], Awaitable[None]], crash: bool = False) -> Told:
    """From a database that is Ready. ``crash``: the operator is killed before the last of them."""

    async def told(universe: Universe) -> Told:
        universe.start()
        await create(universe)
        for story in stories:
            if crash and story is stories[-1]:
                universe.crash()
            await story(universe)
        return Told(universe, universe.metrics.text().decode())

    result: Told = play(told, spec=database_spec())
    return result


def test_making_a_database_is_no_failover() -> None:
    told = play_all()
    assert (told.reasons, told.turnover) == ([], None)
    assert (told.value("members_ready"), told.value("failovers_total")) == ("2.0", "0.0")


def test_a_datacentre_that_is_lost_and_comes_back_is_a_loss_a_promotion_and_a_return() -> None:
    told = play_all(lose_a_datacentre)
    assert told.reasons == ["PrimaryLost", "Promoted", "Rejoined"]
    last = told.turnover
    assert last is not None
    assert (last.kind, last.primary, last.epoch) == ("failover", holder(told.universe), told.universe.guards.epoch)
    assert 3 < float(last.took.removesuffix("s")) < 8
    assert told.value("failovers_total") == "1.0"


def test_a_wish_that_comes_true_is_a_switchover() -> None:
    told = play_all(wish)
    assert "SwitchoverDone" in told.reasons
    assert "Promoted" not in told.reasons
    assert (told.value("failovers_total"), told.value("switchovers_total")) == ("0.0", "1.0")


def test_an_operator_that_starts_anew_tells_nothing_again() -> None:
    async def rest(universe: Universe) -> None:
        await asyncio.sleep(120.0)

    told = play_all(lose_a_datacentre, rest, crash=True)
    assert told.reasons.count("Promoted") == 1
    assert told.turnover is not None


def test_a_database_that_is_deleted_tells_of_no_loss_and_leaves_no_series() -> None:
    told = play_all(delete)
    assert told.reasons == []
    assert "hasite_database_epoch{" not in told.metrics
