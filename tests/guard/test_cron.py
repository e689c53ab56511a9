"""Schedules as cron writes them."""

from datetime import UTC, datetime, timedelta

import pytest
from hasite.guard.cron import DAY, Schedule, ScheduleError, civil, days, stamp, unstamp
from hypothesis import given
from hypothesis import strategies as st


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("schedule", "now", "latest", "period"),
    [
        ("0 3 * * *", "2026-11-24T13:00", "2026-11-24T03:00", 86400),
        ("0 3 * * *", "2026-11-24T02:59", "2026-11-23T03:00", 86400),
        ("* * * * *", "2026-11-24T13:00:59", "2026-11-24T13:00", 60),
        ("*/15 * * * *", "2026-11-24T13:59", "2026-11-24T13:45", 900),
        ("30 1-5/2 * * *", "2026-11-24T13:59", "2026-11-24T05:30", 7200),
        ("0 0 * * 0", "2026-11-24T13:59", "2026-11-22T00:00", 7 * 86400),
        ("0 0 * * 7", "2026-11-24T13:59", "2026-11-22T00:00", 7 * 86400),
        ("0 0 1,20 * *", "2026-11-24T13:59", "2026-11-20T00:00", 19 * 86400),
        ("0 0 1 * 1", "2026-11-24T13:59", "2026-11-23T00:00", 7 * 86400),  # the first, or a Monday
        ("0 0 29 2 *", "2026-11-24T13:59", "2024-02-29T00:00", 1461 * 86400),
        ("5/20 0 * * *", "2026-11-24T13:59", "2026-11-24T00:45", 1200),
    ],
)
def test_the_latest_time_of_a_schedule(schedule: str, now: str, latest: str, period: int) -> None:
    parsed = Schedule.parse(schedule)
    assert parsed.latest(unix(now)) == unix(latest)
    assert parsed.period(unix(now)) == period


def test_a_day_that_no_month_has_never_comes() -> None:
    assert Schedule.parse("0 0 30 2 *").latest(unix("2026-11-24T00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("", "five fields"),
        ("0 3 * *", "five fields, not 4"),
        ("0 3 * * * *", "five fields, not 6"),
        ("60 3 * * *", "minute: '60' is not within 0 to 59"),
        ("0 24 * * *", "hour"),
        ("0 3 0 * *", "day of the month"),
        ("0 3 * 13 *", "month"),
        ("0 3 * * 8", "day of the week"),
        ("0 3 * * mon", "no part of a schedule"),
        ("@daily", "five fields"),
        ("5-1 3 * * *", "not within"),
        ("*/0 3 * * *", "not within"),
        ("1,,2 3 * * *", "no part"),
        ("-1 3 * * *", "no part"),
    ],
)
def test_what_is_no_schedule_is_told(schedule: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        Schedule.parse(schedule)


@given(st.datetimes(datetime(2001, 1, 1), datetime(2090, 1, 1)), st.integers(0, 59), st.integers(0, 23))
def test_a_daily_time_is_within_the_last_day(now: datetime, minute: int, hour: int) -> None:
    moment = now.replace(tzinfo=UTC).timestamp()
    found = Schedule.parse(f"{minute} {hour} * * *").latest(moment)
    assert found is not None
    assert 0 <= moment - found < timedelta(days=1).total_seconds()
    assert datetime.fromtimestamp(found, UTC).strftime("%H:%M") == f"{hour:02}:{minute:02}"


@given(st.integers(-(10**5), 10**6))
def test_the_calendar_is_python_s(day: int) -> None:
    date = datetime(1970, 1, 1) + timedelta(days=day)
    assert civil(day) == (date.year, date.month, date.day)
    assert days(*civil(day)) == day
    assert stamp(day * DAY + 3723.9) == date.strftime("%Y-%m-%dT01:02:03Z").rjust(20, "0")
    assert unstamp(stamp(day * DAY + 3723)) == day * DAY + 3723
