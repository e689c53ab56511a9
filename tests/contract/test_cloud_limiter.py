"""The client-side rate limit: a table of what may go when, and the shared waiting."""

from collections.abc import Callable

import pytest
from hasite.clouds.limiter import Budget, Limiter, Limits, urgent
from hasite.errors import RateLimited

LIMITS = Limits(per_hour=100, per_minute=20, head_room=0.1)


def spent(budget: Budget, calls: int, *, start: float = 0.0, gap: float = 0.0) -> float:
    for number in range(calls):
        budget.spend(start + number * gap)
    return start + calls * gap


def minute_used(calls: int) -> Callable[[], Budget]:
    def make() -> Budget:
        budget = Budget(LIMITS)
        spent(budget, calls)
        return budget

    return make


def provider_says(remaining: int, limit: int = 100) -> Callable[[], Budget]:
    def make() -> Budget:
        budget = Budget(LIMITS)
        budget.learn(0.0, limit, remaining)
        return budget

    return make


def refused(retry_after: float) -> Callable[[], Budget]:
    def make() -> Budget:
        budget = Budget(LIMITS)
        budget.spend(0.0)
        budget.refused(0.0, retry_after)
        return budget

    return make


@pytest.mark.parametrize(
    ("case", "make", "now", "routine", "failover"),
    [
        ("nothing was called", minute_used(0), 0.0, 0.0, 0.0),
        ("below the head-room of the minute", minute_used(17), 10.0, 0.0, 0.0),
        ("in the head-room of the minute", minute_used(18), 10.0, 50.0, 0.0),
        ("the minute is used up", minute_used(20), 10.0, 50.0, 50.0),
        ("the minute has passed", minute_used(20), 60.0, 0.0, 0.0),
        ("others used the token too", provider_says(50), 1.0, 0.0, 0.0),
        ("the provider's count is in the head-room", provider_says(10), 1.0, 59.0, 0.0),
        ("the provider's count is at the limit", provider_says(0), 1.0, 59.0, 59.0),
        ("the provider's count is stale: one may ask again", provider_says(0), 60.0, 0.0, 0.0),
        ("the provider's limit is higher than the published one", provider_says(900, 1000), 1.0, 0.0, 0.0),
        ("the provider answered 429", refused(30.0), 0.5, 29.5, 0.5),
        ("urgent calls go on once a second after a 429", refused(30.0), 1.0, 29.0, 0.0),
        ("the time of the 429 is over", refused(30.0), 30.0, 0.0, 0.0),
    ],
)
def test_a_call_waits_as_long_as_the_limits_ask(
    case: str, make: Callable[[], Budget], now: float, routine: float, failover: float
) -> None:
    assert make().wait(now, urgent=False) == pytest.approx(routine), case
    assert make().wait(now, urgent=True) == pytest.approx(failover), case


def test_the_hour_is_counted_when_the_minute_is_not_the_limit() -> None:
    budget = Budget(LIMITS)
    now = spent(budget, 90, gap=10.0)
    assert 0.0 < budget.wait(now, urgent=False) <= 3660.0
    assert budget.wait(now, urgent=True) == 0.0
    assert budget.wait(3661.0 + 60.0, urgent=False) == 0.0


def test_what_is_left_counts_the_calls_of_others_and_our_own_since() -> None:
    budget = Budget(LIMITS)
    budget.learn(0.0, 100, 40)
    spent(budget, 5, start=1.0)
    assert budget.remaining(2.0) == 35


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_short_wait_is_waited_and_a_long_one_raises_with_the_seconds_to_come_back() -> None:
    time = Time()
    limiter = Limiter(time, LIMITS, time.sleep)
    spent(limiter.budget, 18)
    time.now = 58.0
    await limiter.admit()
    assert time.now == pytest.approx(60.0)
    spent(limiter.budget, 17, start=60.0)
    with pytest.raises(RateLimited) as caught:
        await limiter.admit()
    assert caught.value.retry_after == pytest.approx(60.0)


async def test_an_urgent_call_goes_where_a_routine_one_is_turned_away() -> None:
    time = Time()
    limiter = Limiter(time, LIMITS, time.sleep)
    spent(limiter.budget, 18)
    with pytest.raises(RateLimited):
        await limiter.admit()
    with urgent():
        await limiter.admit()
    with pytest.raises(RateLimited):
        await limiter.admit()
