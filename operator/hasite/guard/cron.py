"""Times of a schedule as cron(5) writes them: five fields of numbers, in UTC. Pure: of the calendar, and of no
clock.

Minute, hour, day of the month, month, day of the week (0 or 7: Sunday); each ``*``, a number, ``a-b``, either with
``/step``, or several of these with commas. When both days are given, either will do, as in every cron.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = ("minute", "hour", "day of the month", "month", "day of the week")
_PART = re.compile(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
DAY = 86400
_LONGEST = 366 * 8 + 1
"""Days: the 29th of February may be eight years away."""


class ScheduleError(ValueError):
    """The text is no schedule; it says which field, and why."""


@dataclass(frozen=True)
class Schedule:
    """When something is to happen."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Raises ScheduleError."""
        fields = text.split()
        if len(fields) != len(_BOUNDS):
            raise ScheduleError(f"a schedule has five fields, not {len(fields)}")
        minutes, hours, days, months, weekdays = (_field(each, number) for number, each in enumerate(fields))
        either = not fields[2].startswith("*") and not fields[4].startswith("*")
        return cls(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)

    def latest(self, now: float) -> int | None:
        """The last time, in Unix seconds, that is not after ``now``; None: there is none in eight years."""
        return next(self._before(now), None)

    def period(self, now: float) -> int | None:
        """Seconds between the last two times that are not after ``now``; None: there are no two."""
        times = self._before(now)
        last, before = next(times, None), next(times, None)
        return None if last is None or before is None else last - before

    def _before(self, now: float) -> Iterator[int]:
        today = int(now // DAY)
        for day in range(today, today - _LONGEST, -1):
            if not self._on(day):
                continue
            for hour in sorted(self.hours, reverse=True):
                for minute in sorted(self.minutes, reverse=True):
                    time = day * DAY + hour * 3600 + minute * 60
                    if time <= now:
                        yield time

    def _on(self, day: int) -> bool:
        _, month, of_month = civil(day)
        if month not in self.months:
            return False
        in_month, in_week = of_month in self.days, (day + 4) % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970, in the Gregorian calendar."""
    era, of_era = divmod(day + 719468, 146097)  # a year begins in March, so that a leap day is its last
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return (
        year + era * 400 + (month >= 10),
        month + 3 if month < 10 else month - 9,
        of_year - (153 * month + 2) // 5 + 1,
    )


def days(year: int, month: int, day: int) -> int:
    """The opposite of ``civil``."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def stamp(seconds: float) -> str:
    """Unix time as RFC 3339 writes it, to the second."""
    day, rest = divmod(int(seconds // 1), DAY)
    year, month, of_month = civil(day)
    return f"{year:04}-{month:02}-{of_month:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}Z"


def unstamp(text: str) -> int:
    """The opposite of ``stamp``. Raises ValueError."""
    year, month, of_month, hour, minute, second = (int(part) for part in re.split("[-T:]", text.rstrip("Z")))
    return days(year, month, of_month) * DAY + hour * 3600 + minute * 60 + second


def _field(text: str, number: int) -> frozenset[int]:
    low, high = _BOUNDS[number]
    values: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ScheduleError(f"{_NAMES[number]}: {part!r} is no part of a schedule")
        step = int(found[4] or 1)
        first, last = (low, high) if found[1] == "*" else (int(found[2]), int(found[3] or found[2]))
        if found[1] != "*" and found[3] is None and found[4] is not None:
            last = high
        if not (low <= first <= last <= high and step > 0):
            raise ScheduleError(f"{_NAMES[number]}: {part!r} is not within {low} to {high}")
        values |= set(range(first, last + 1, step))
    return frozenset(values)
