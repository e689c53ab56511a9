"""When the reconcile loop runs what."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import Resource
from hasite.errors import Conflict, HasiteError, Permanent, RateLimited, Transient, Unclear, Unreachable
from hasite.metrics import Metrics
from hasite.reconcilers import loop as loop_module
from hasite.reconcilers.loop import GONE, Loop, Outcome, backoff, delay_after

HOUR = 3600.0
FAILED = Outcome(0.0, failed=True)


@dataclass
class Leader:
    leads: bool = True
    identity: str = "operator-1"
    term: tuple[str, int] = ("", 0)

    def is_leader(self) -> bool:
        return self.leads


@dataclass
class Recorder:
    """Does what ``act`` says, and remembers what ran."""

    kind: type[Resource] = HASite
    act: Callable[[str], Awaitable[Outcome]] | None = None
    runs: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most_at_once: int = 0

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        assert name not in self.running, "one object was reconciled twice at once"
        self.running.add(name)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.runs.append(name)
        try:
            return await self.act(name) if self.act else Outcome(HOUR)
        finally:
            self.running.discard(name)

    async def forget(self, namespace: str, name: str) -> None:
        self.forgotten.append(name)


class Bench:
    """A loop with one recorder, running until the test ends."""

    def __init__(self) -> None:
        self.leader = Leader()
        self.recorder = Recorder()
        self.metrics = Metrics()
        self.loop = Loop({HASite: self.recorder}, self.leader, self.metrics, concurrency=2, time_limit=5)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.loop.run())

    def wake(self, name: str, *, urgent: bool = False, fresh: bool = False) -> None:
        self.loop.wake(HASite, "default", name, urgent=urgent, fresh=fresh)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - any condition, not an event of its own
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Everything that can run without a timer has run."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.loop.stop(patience=0.1)


def gate() -> tuple[asyncio.Event, Callable[[str], Awaitable[Outcome]]]:
    opened = asyncio.Event()

    async def act(name: str) -> Outcome:
        await opened.wait()
        return Outcome(HOUR)

    return opened, act


async def test_a_woken_object_is_reconciled_once(bench: Bench) -> None:
    bench.start()
    bench.wake("shop")
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop"]


async def test_a_reconcile_is_called_again_when_it_asked_to_be(bench: Bench) -> None:
    async def soon(name: str) -> Outcome:
        return Outcome(0.01)

    bench.recorder.act = soon
    bench.start()
    bench.wake("shop")
    await bench.until(lambda: len(bench.recorder.runs) >= 3)


async def test_a_wake_cuts_the_waiting_short(bench: Bench) -> None:
    bench.start()
    bench.wake("shop")
    await bench.settle()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop", "shop"]


async def test_urgent_objects_take_no_slots_from_those_that_wait_their_turn(bench: Bench) -> None:
    opened, pools = gate(), Recorder(LoadBalancerPool)
    _, pools.act = opened
    bench.loop = Loop({HASite: bench.recorder, LoadBalancerPool: pools}, bench.leader, bench.metrics, concurrency=2)
    bench.start()
    for number in range(40):
        bench.loop.wake(LoadBalancerPool, "default", f"pool-{number}", urgent=True)
    bench.wake("shop")
    await bench.settle()
    assert len(pools.running) == 40
    assert bench.recorder.runs == ["shop"]
    opened[0].set()


async def test_of_all_kinds_the_object_that_has_been_due_for_longest_runs_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers are late when the event loop is busy, and what wakes objects meanwhile is before them."""
    loop, order = asyncio.get_running_loop(), list[str]()
    clock, late = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: clock() + late)
    pools = Recorder(LoadBalancerPool)

    async def site(name: str) -> Outcome:
        order.append(name)
        return Outcome(1.0 if name == "shop" and order.count(name) == 1 else HOUR)

    async def pool(name: str) -> Outcome:
        nonlocal late
        order.append(name)
        if name == "slow":
            late = 2.0
            for number in range(3):
                bench.loop.wake(LoadBalancerPool, "default", f"pool-{number}")
            await bench.settle()
        return Outcome(HOUR)

    bench.recorder.act, pools.act = site, pool
    bench.loop = Loop({HASite: bench.recorder, LoadBalancerPool: pools}, bench.leader, bench.metrics, concurrency=1)
    bench.start()
    bench.wake("shop")
    await bench.settle()
    bench.loop.wake(LoadBalancerPool, "default", "slow")
    await bench.until(lambda: len(order) == 6)
    assert order == ["shop", "slow", "shop", "pool-0", "pool-1", "pool-2"]


async def test_wakes_during_a_reconcile_make_it_run_once_more_afterwards(bench: Bench) -> None:
    opened, bench.recorder.act = gate()
    bench.start()
    bench.wake("shop")
    await bench.settle()
    for _ in range(5):
        bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop"]
    opened.set()
    await bench.settle()
    assert bench.recorder.runs == ["shop", "shop"]


async def test_no_more_objects_at_once_than_there_are_slots_and_in_the_order_they_came(bench: Bench) -> None:
    opened, bench.recorder.act = gate()
    bench.start()
    for number in range(10):
        bench.wake(f"site-{number}")
    await bench.settle()
    assert bench.recorder.runs == ["site-0", "site-1"]
    opened.set()
    await bench.until(lambda: len(bench.recorder.runs) == 10)
    assert bench.recorder.runs == [f"site-{number}" for number in range(10)]
    assert bench.recorder.most_at_once == 2


@pytest.mark.parametrize("queued_before", [False, True], ids=["not queued before", "queued before"])
async def test_an_urgent_object_waits_for_no_slot(bench: Bench, queued_before: bool) -> None:
    opened, bench.recorder.act = gate()
    bench.start()
    await bench.settle()
    for number in range(4):
        bench.wake(f"site-{number}")
    if queued_before:
        bench.wake("burning")
    bench.wake("burning", urgent=True)
    await bench.settle()
    assert bench.recorder.runs == ["site-0", "site-1", "burning"]
    opened.set()
    await bench.until(lambda: len(bench.recorder.runs) == 5)
    await bench.settle()
    assert sorted(bench.recorder.runs) == ["burning", "site-0", "site-1", "site-2", "site-3"]


async def test_a_running_reconcile_hears_that_something_urgent_came_in(bench: Bench) -> None:
    heard: list[bool] = []

    async def two_steps(name: str) -> Outcome:
        heard.append(bench.loop.urgent(HASite, "default", name))
        if len(heard) == 1:
            bench.wake(name, urgent=True)
            heard.append(bench.loop.urgent(HASite, "default", name))
        return Outcome(HOUR)

    bench.recorder.act = two_steps
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert heard == [False, True, False]


async def test_a_failing_object_delays_no_other(bench: Bench) -> None:
    async def fail(name: str) -> Outcome:
        if name == "broken":
            raise ValueError("a bug")
        return Outcome(HOUR)

    bench.recorder.act = fail
    bench.start()
    bench.wake("broken")
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["broken", "shop"]


async def test_an_object_that_is_backed_off_is_not_run_by_an_ordinary_wake(bench: Bench) -> None:
    async def fail(name: str) -> Outcome:
        raise Unreachable("nobody there")

    bench.recorder.act = fail
    bench.start()
    bench.wake("shop")
    await bench.settle()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop"]


@pytest.mark.parametrize("how", ["urgent", "fresh"])
async def test_an_urgent_or_fresh_wake_ends_a_backoff(bench: Bench, how: str) -> None:
    async def fail(name: str) -> Outcome:
        raise Permanent("a person must act")

    bench.recorder.act = fail
    bench.start()
    bench.wake("shop")
    await bench.settle()
    bench.wake("shop", urgent=how == "urgent", fresh=how == "fresh")
    await bench.settle()
    assert bench.recorder.runs == ["shop", "shop"]


async def test_a_run_that_ended_with_failed_steps_is_not_repeated_by_an_ordinary_wake(bench: Bench) -> None:
    async def fail(name: str) -> Outcome:
        return Outcome(HOUR, failed=True)

    bench.recorder.act = fail
    bench.start()
    for fresh, urgent in [(False, False), (False, False), (True, False), (False, False), (False, True)]:
        bench.wake("shop", fresh=fresh, urgent=urgent)
        await bench.settle()
    assert bench.recorder.runs == ["shop"] * 3
    assert b'result="failed"' in bench.metrics.text()


async def test_wakes_during_a_run_that_ends_with_failed_steps_do_not_repeat_it_at_once(bench: Bench) -> None:
    async def fail(name: str) -> Outcome:
        bench.wake(name)
        return Outcome(HOUR, failed=True)

    bench.recorder.act = fail
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop"]


@pytest.mark.parametrize(
    ("outcomes", "least", "most"),
    [
        pytest.param([FAILED], 0.5, 1.0, id="first failure: about a second"),
        pytest.param([FAILED] * 4, 4.0, 8.0, id="doubled with each in a row"),
        pytest.param([FAILED] * 20, 30.0, 60.0, id="a minute at most"),
        pytest.param([Outcome(2.0, failed=True)], 2.0, 2.0, id="never before the reconciler wants it"),
        pytest.param([Outcome(2.0, failed=True)] * 5, 8.0, 16.0, id="later than it wants it, when it goes on"),
        pytest.param([Outcome(90.0, failed=True)] * 20, 90.0, 90.0, id="it may ask for more than a minute"),
        pytest.param([FAILED] * 6 + [Outcome(0.0)], 0.0, 0.0, id="a run without failures waits as it asks"),
        pytest.param([FAILED] * 6 + [Outcome(0.0), FAILED], 0.5, 1.0, id="and a failure after it is the first"),
        pytest.param([Unreachable("?")] * 3 + [FAILED], 4.0, 8.0, id="raised errors count as well"),
    ],
)
async def test_time_until_the_next_run_after_failed_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome | Exception], least: float, most: float
) -> None:
    waits: list[float] = []
    left = iter(outcomes)

    async def act(name: str) -> Outcome:
        now = next(left)
        if isinstance(now, Exception):
            raise now
        return now

    rest = bench.loop._rest

    def noted(entry: Any, state: Any, delay: float) -> None:
        waits.append(delay)
        rest(entry, state, HOUR)

    monkeypatch.setattr(bench.loop, "_rest", noted)
    bench.recorder.act = act
    bench.start()
    for _ in outcomes:
        bench.wake("shop", fresh=True)
        await bench.settle()
    assert len(waits) == len(outcomes)
    assert least <= waits[-1] <= most


async def test_a_fresh_wake_during_a_reconcile_that_fails_makes_it_run_again_at_once(bench: Bench) -> None:
    async def fail_once(name: str) -> Outcome:
        if len(bench.recorder.runs) == 1:
            bench.wake(name, fresh=True)
            raise Permanent("the old wish could not be fulfilled")
        return Outcome(HOUR)

    bench.recorder.act = fail_once
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop", "shop"]


async def test_a_reconcile_over_its_time_limit_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.loop = Loop({HASite: bench.recorder}, bench.leader, bench.metrics, time_limit=0.01)
    _, bench.recorder.act = gate()
    bench.start()
    bench.wake("shop")
    await bench.until(lambda: b'result="timeout"' in bench.metrics.text())
    await bench.loop.stop(patience=0.1)


async def test_an_object_that_is_gone_is_forgotten_with_its_metrics(bench: Bench) -> None:
    async def gone(name: str) -> Outcome:
        return GONE

    bench.metrics.locations(("HASite", "default", "shop"), up=2, wanted=2)
    bench.recorder.act = gone
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.forgotten == ["shop"]
    assert bench.loop.known() == 0
    assert b'name="shop"' not in bench.metrics.text()


async def test_an_object_that_came_back_while_it_was_forgotten_is_reconciled_again(bench: Bench) -> None:
    async def gone_once(name: str) -> Outcome:
        if len(bench.recorder.runs) == 1:
            bench.wake(name)
            return GONE
        return Outcome(HOUR)

    bench.recorder.act = gone_once
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == ["shop", "shop"]
    assert bench.loop.known() == 1


async def test_a_standby_reconciles_nothing_and_knows_every_object_when_it_takes_over(bench: Bench) -> None:
    bench.wake("shop")
    bench.wake("blog")
    await bench.settle()
    assert bench.recorder.runs == []
    bench.start()
    await bench.settle()
    assert bench.recorder.runs == ["shop", "blog"]


async def test_nothing_starts_while_the_lease_is_in_doubt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "NOT_LEADING", 0.01)
    bench.leader.leads = False
    bench.start()
    bench.wake("shop")
    await bench.settle()
    assert bench.recorder.runs == []
    bench.leader.leads = True
    await bench.until(lambda: bench.recorder.runs == ["shop"])


async def test_stopping_tells_what_runs_to_stop_and_starts_nothing_more(bench: Bench) -> None:
    async def until_told(name: str) -> Outcome:
        while not bench.loop.urgent(HASite, "default", name):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return Outcome(0)

    bench.recorder.act = until_told
    bench.start()
    bench.wake("shop")
    await bench.settle()
    await bench.loop.stop(patience=5)
    bench.wake("blog")
    await bench.settle()
    assert bench.recorder.runs == ["shop"]
    assert bench.task is not None and bench.task.done()


async def test_a_reconcile_that_does_not_listen_is_cancelled_when_the_loop_stops(bench: Bench) -> None:
    _, bench.recorder.act = gate()
    bench.start()
    bench.wake("shop")
    await bench.settle()
    await bench.loop.stop(patience=0.01)
    assert bench.recorder.running == set()


async def test_a_kind_without_a_reconciler_is_passed_over(bench: Bench) -> None:
    bench.loop.wake(LoadBalancerPool, "default", "shop")
    bench.start()
    await bench.settle()
    assert bench.loop.known() == 0


async def test_an_object_at_rest_costs_no_task(bench: Bench) -> None:
    bench.start()
    await bench.settle()
    before = len(asyncio.all_tasks())
    for number in range(100):
        bench.wake(f"site-{number}")
    await bench.until(lambda: len(bench.recorder.runs) == 100 and not bench.recorder.running)
    await bench.settle()
    assert len(asyncio.all_tasks()) == before
    assert bench.loop.known() == 100


@pytest.mark.parametrize(
    ("error", "failures", "least", "most"),
    [
        pytest.param(Transient("later"), 1, 0.5, 1.0, id="first failure: about a second"),
        pytest.param(Transient("later"), 4, 4.0, 8.0, id="doubled with each"),
        pytest.param(Transient("later"), 50, 30.0, 60.0, id="a minute at most"),
        pytest.param(RateLimited("slow down", retry_after=17), 1, 17.0, 18.7, id="never before retry_after"),
        pytest.param(Conflict("changed"), 1, 0.05, 0.1, id="a conflict only needs a new look"),
        pytest.param(Unclear("did it?"), 1, 0.5, 1.0, id="unclear: look soon"),
        pytest.param(Permanent("no"), 1, 60.0, 60.0, id="permanent: once a minute"),
        pytest.param(HasiteError("?"), 2, 1.0, 2.0, id="any other of ours"),
        pytest.param(ValueError("bug"), 3, 2.0, 4.0, id="a bug"),
    ],
)
def test_time_until_the_next_attempt(error: Exception, failures: int, least: float, most: float) -> None:
    for _ in range(50):
        assert least <= delay_after(error, failures) <= most


def test_backoffs_differ_so_that_objects_do_not_retry_in_step() -> None:
    assert len({backoff(5) for _ in range(20)}) > 1
