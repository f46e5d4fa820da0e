"""Budget windows: which stretch of time a counter belongs to.

A window resets because its start, and with it the counter's key, changes; no job has to run. The windows of a rule tile
time: every instant lies in exactly one, and each begins where the one before it ends, also where a zone's clock jumps.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class Unit(StrEnum):
    """What a duration counts: elapsed time up to hours, the zone's calendar from days on."""

    SECOND = "s"
    MINUTE = "m"
    HOUR = "h"
    DAY = "d"
    MONTH = "mo"


# A calendar day may have 23 or 25 hours and a month 28 to 31 days: for those two it is the mean.
UNIT_SECONDS = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.HOUR: 3600,
    Unit.DAY: 86_400,
    Unit.MONTH: 2_629_800,
}

DURATION_YEARS_MAX = 10
DURATION_SECONDS_MAX = DURATION_YEARS_MAX * 12 * UNIT_SECONDS[Unit.MONTH]

# The words that LiteLLM takes for a duration.
WORDS = {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "1mo"}

LIFETIME = "lifetime"

# Without an anchor, 7d starts on Mondays and 1mo on the first.
FIRST_MONDAY = date(1970, 1, 5)
FIRST_MONTH = date(1970, 1, 1)

# An anchor beyond 2100 is a slip (microseconds, say), and leaves no room for calendar arithmetic around it.
ANCHOR_MS_MAX = 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class Duration:
    """The length of a window, such as `15m` or `1mo`. Raises ValueError when it is not between 1 and ten years."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a window of {self} has no length: write a number of 1 or more")
        if self.count * UNIT_SECONDS[self.unit] > DURATION_SECONDS_MAX:
            raise ValueError(
                f"a window of {self} is longer than {DURATION_YEARS_MAX} years: "
                "write a shorter one, or none for a budget that never resets"
            )

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"


def parse_duration(text: str) -> Duration:
    """Read `30s`, `15m`, `24h`, `7d`, `2w`, `1mo` or one of WORDS.

    Raises ValueError, with what to write instead, for anything else.
    """
    found = re.fullmatch(r"([0-9]{1,12})(mo|[smhdw])", WORDS.get(text, text))
    if found is None:
        raise ValueError(
            f"{text!r} is not a duration: write a whole number and a unit (s, m, h, d, w, mo for months), "
            f"such as 24h, 7d or 1mo, or one of {', '.join(WORDS)}"
        )
    count, unit = int(found[1]), found[2]
    return Duration(count * 7, Unit.DAY) if unit == "w" else Duration(count, Unit(unit))


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time [start_ms, end_ms) in Unix milliseconds; `lifetime` never ends (end_ms is None)."""

    name: str
    start_ms: int
    end_ms: int | None

    def contains(self, now_ms: int) -> bool:
        """Tell whether an instant lies in the window."""
        return self.start_ms <= now_ms and (self.end_ms is None or now_ms < self.end_ms)


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How time is cut into windows: by `duration`, in the IANA time zone `zone`, counted from `anchor_ms`.

    - No duration: one window that never ends.
    - Seconds, minutes, hours: elapsed time, counted from the anchor, or from FIRST_MONDAY's midnight in the zone.
    - Days: from local midnight to local midnight, so that some have 23 or 25 hours; counted from the anchor's local
      date, or from FIRST_MONDAY.
    - Months: calendar months, from the anchor's day of the month (its last day where it is too short) or the first;
      several months at once are counted from the anchor's month, or from January 1970.

    Raises ValueError for a zone that does not exist and for an anchor that is not between 1970 and 2100.
    """

    duration: Duration | None = None
    zone: str = "UTC"
    anchor_ms: int | None = None
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _origin: date = field(init=False, repr=False, compare=False)
    _origin_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        zone = _zone(self.zone)
        if self.anchor_ms is None:
            months = self.duration is not None and self.duration.unit is Unit.MONTH
            origin = FIRST_MONTH if months else FIRST_MONDAY
            origin_ms = _midnight_ms(origin, zone)
        elif 0 <= self.anchor_ms <= ANCHOR_MS_MAX:
            origin = _local_date(self.anchor_ms, zone)
            origin_ms = self.anchor_ms
        else:
            raise ValueError(f"an anchor of {self.anchor_ms} ms is not a time between 1970 and 2100")
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_origin", origin)
        object.__setattr__(self, "_origin_ms", origin_ms)

    def at(self, now_ms: int) -> Window:
        """Give the window that an instant (Unix milliseconds) lies in."""
        if self.duration is None:
            return Window(LIFETIME, 0, None)
        match self.duration.unit:
            case Unit.SECOND | Unit.MINUTE | Unit.HOUR:
                length_ms = self.duration.count * UNIT_SECONDS[self.duration.unit] * 1000
                start_ms = now_ms - (now_ms - self._origin_ms) % length_ms
                end_ms = start_ms + length_ms
            case Unit.DAY | Unit.MONTH:
                start_ms, end_ms = self._calendar_bounds(self.duration, now_ms)
        return Window(str(self.duration), start_ms, end_ms)

    def _calendar_bounds(self, duration: Duration, now_ms: int) -> tuple[int, int]:
        """Find the window around an instant: the one that the local date points to, or a neighbour of it.

        A neighbour when months start on the anchor's day and that day is still to come; and when a clock that is put
        back past midnight gives the last minutes of a day a second time, after the next day had begun
        (America/St_Johns until 2011).
        """
        today = _local_date(now_ms, self._zone)
        if duration.unit is Unit.DAY:
            index = (today - self._origin).days // duration.count
        else:
            index = (_month_number(today) - _month_number(self._origin)) // duration.count
        start_ms, end_ms = self._start_ms(duration, index), self._start_ms(duration, index + 1)
        if now_ms < start_ms:
            return self._start_ms(duration, index - 1), start_ms
        if now_ms >= end_ms:
            return end_ms, self._start_ms(duration, index + 2)
        return start_ms, end_ms

    def _start_ms(self, duration: Duration, index: int) -> int:
        """Give the start of the calendar window that is `index` windows after the origin's."""
        distance = index * duration.count
        if duration.unit is Unit.DAY:
            return _midnight_ms(self._origin + timedelta(days=distance), self._zone)
        year, month = divmod(_month_number(self._origin) + distance, 12)
        day = min(self._origin.day, monthrange(year, month + 1)[1])
        return _midnight_ms(date(year, month + 1, day), self._zone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone: write an IANA name, such as Europe/Berlin or UTC") from error


def _local_date(now_ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(now_ms // 1000, zone).date()


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    """Give the first local midnight of a date.

    PEP 495 reads a time that the clock jumps over with the offset before the jump: a jump that starts at midnight is
    itself the start of the day. A day that is skipped whole (Pacific/Apia, 2011-12-30) gets no length and no instant.
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1
