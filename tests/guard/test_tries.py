"""When a server that does not start gets a fresh copy of the data."""

import pytest
from hasite.guard.engines.base import EngineError
from hasite.guard.engines.mysqlcommon_tries import Tries

BROKEN = EngineError("it is broken")


def failing(times: int = 3) -> Tries:
    tries = Tries()
    tries.failures = times
    return tries


def test_two_starts_that_fail_call_for_no_copy_and_the_third_is_without_the_users_settings() -> None:
    assert not failing(2).are_over(BROKEN, 0.0)
    assert [failing(n).is_last for n in range(4)] == [False, False, True, True]


def test_the_third_start_that_fails_calls_for_a_copy_at_once_also_soon_after_one_for_another_reason() -> None:
    tries = failing()
    tries.copied(0.0)
    assert tries.are_over(BROKEN, 1.0)


def test_a_copy_that_could_not_be_made_is_tried_again_after_a_minute() -> None:
    tries = failing()
    assert tries.are_over(BROKEN, 0.0)
    with pytest.raises(EngineError, match="did not help: it is broken"):
        tries.are_over(BROKEN, 59.0)
    assert tries.are_over(BROKEN, 61.0)


def test_after_copies_that_did_not_help_the_next_is_ever_later_and_at_most_a_day() -> None:
    tries, now = failing(), 0.0
    for pause in [min(300.0 * 2**n, 86400.0) for n in range(12)]:
        assert tries.are_over(BROKEN, now)
        tries.copied(now)
        with pytest.raises(EngineError):
            tries.are_over(BROKEN, now + pause - 1)
        now += pause
