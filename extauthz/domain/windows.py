"""Budget windows: which stretch of time a counter belongs to.

A window resets because its start, and with it the counter's key, changes; no job has to run. The windows of a rule tile
time: every instant lies in exactly one, and each begins where the one before it ends, also where a zone's clock jumps.

Two functions of a zone see to that: `_reached_ms`, the first instant at which its clock shows a time or a later one,
and `_latest_shown`, the latest time that the clock has shown by an instant. Neither ever goes back, and an instant is
not before the first one for a time exactly when that time, or a later one, has been shown by then.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
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

DAY_SECONDS = UNIT_SECONDS[Unit.DAY]

DURATION_YEARS_MAX = 10
DURATION_SECONDS_MAX = DURATION_YEARS_MAX * 12 * UNIT_SECONDS[Unit.MONTH]

# The words that LiteLLM takes for a duration.
WORDS = {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "1mo"}

LIFETIME = "lifetime"

# Without an anchor, 7d starts on Mondays and 1mo on the first.
FIRST_MONDAY = date(1970, 1, 5)
FIRST_MONTH = date(1970, 1, 1)

MIDNIGHT = time()

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


MONTHLY = Duration(1, Unit.MONTH)
# What LiteLLM takes for a month.
THIRTY_DAYS = Duration(30, Unit.DAY)


class ResetRules(StrEnum):
    """How durations are read where they have no anchor: as LiteLLM resets them, or to the letter."""

    LITELLM = "litellm"
    EXACT = "exact"


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


FOREVER = Window(LIFETIME, 0, None)
NEVER = Window("", 0, 0)


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How time is cut into windows: by `duration`, in the IANA time zone `zone`, counted from `anchor_ms`.

    - No duration: one window that never ends.
    - Seconds, minutes, hours: elapsed time, counted from the anchor, or from FIRST_MONDAY's midnight in the zone.
    - Days: from `reset_time` to `reset_time` by the zone's clock, so that some have 23 or 25 hours; counted from the
      anchor's local date, or from FIRST_MONDAY.
    - Months: calendar months, from the anchor's day of the month (its last day where it is too short) or the first;
      several months at once are counted from the anchor's month, or from January 1970.

    Without an anchor, ResetRules.LITELLM makes two exceptions: 30 days are a calendar month, and whole hours that
    divide a day into equal parts (24h, 6h, 1h) follow the zone's clock from midnight on.

    Raises ValueError for a zone that does not exist and for an anchor that is not between 1970 and 2100.
    """

    duration: Duration | None = None
    zone: str = "UTC"
    anchor_ms: int | None = None
    reset_time: time = MIDNIGHT
    rules: ResetRules = ResetRules.LITELLM
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _length: Duration | None = field(init=False, repr=False, compare=False)
    _by_the_clock: bool = field(init=False, repr=False, compare=False)
    _origin: date = field(init=False, repr=False, compare=False)
    _origin_ms: int = field(init=False, repr=False, compare=False)
    # Requests ask for one window until it ends, and calendars are slow to compute with.
    _last: Window = field(init=False, repr=False, compare=False)
    _last_before: Window = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        zone = _zone(self.zone)
        as_litellm = self.rules is ResetRules.LITELLM and self.anchor_ms is None
        length = MONTHLY if as_litellm and self.duration == THIRTY_DAYS else self.duration
        if self.anchor_ms is None:
            origin = FIRST_MONTH if length is not None and length.unit is Unit.MONTH else FIRST_MONDAY
            origin_ms = _reached_ms(datetime.combine(origin, MIDNIGHT), zone)
        elif 0 <= self.anchor_ms <= ANCHOR_MS_MAX:
            origin = datetime.fromtimestamp(self.anchor_ms // 1000, zone).date()
            origin_ms = self.anchor_ms
        else:
            raise ValueError(f"an anchor of {self.anchor_ms} ms is not a time between 1970 and 2100")
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_length", length)
        object.__setattr__(self, "_by_the_clock", as_litellm and length is not None and _divides_a_day(length))
        object.__setattr__(self, "_origin", origin)
        object.__setattr__(self, "_origin_ms", origin_ms)
        object.__setattr__(self, "_last", FOREVER if length is None else NEVER)
        object.__setattr__(self, "_last_before", NEVER)

    def at(self, now_ms: int) -> Window:
        """Give the window that an instant (Unix milliseconds) lies in."""
        last = self._last
        if self._length is None or last.contains(now_ms):
            return last
        window = Window(str(self.duration), *self._bounds(self._length, now_ms))
        object.__setattr__(self, "_last", window)
        return window

    def before(self, window: Window) -> Window | None:
        """Give the window that ends where one of this rule begins; None before the one that never ends."""
        if self._length is None:
            return None
        last = self._last_before
        if last is NEVER or last.end_ms != window.start_ms:
            last = Window(str(self.duration), *self._bounds(self._length, window.start_ms - 1))
            object.__setattr__(self, "_last_before", last)
        return last

    def _bounds(self, length: Duration, now_ms: int) -> tuple[int, int]:
        match length.unit:
            case Unit.DAY | Unit.MONTH:
                return self._calendar_bounds(length, now_ms)
            case unit if self._by_the_clock:
                return self._clock_bounds(length.count * UNIT_SECONDS[unit], now_ms)
            case unit:
                length_ms = length.count * UNIT_SECONDS[unit] * 1000
                start_ms = now_ms - (now_ms - self._origin_ms) % length_ms
                return start_ms, start_ms + length_ms

    def _clock_bounds(self, length_s: int, now_ms: int) -> tuple[int, int]:
        """Find the part of a day that the zone's clock is in; the last one ends at midnight."""
        shown = _latest_shown(now_ms, self._zone)
        midnight, length = datetime.combine(shown, MIDNIGHT), timedelta(seconds=length_s)
        start = midnight + (shown - midnight) // length * length
        return _reached_ms(start, self._zone), _reached_ms(start + length, self._zone)

    def _calendar_bounds(self, length: Duration, now_ms: int) -> tuple[int, int]:
        """Find the days or months that the zone's clock is in; before the reset time it is still the day before."""
        reset = timedelta(hours=self.reset_time.hour, minutes=self.reset_time.minute, seconds=self.reset_time.second)
        today = (_latest_shown(now_ms, self._zone) - reset).date()
        if length.unit is Unit.DAY:
            distance = (today - self._origin).days
        else:
            begun = today.day >= self._day_in(today.year, today.month)
            distance = _month_number(today) - _month_number(self._origin) - (not begun)
        index = distance // length.count
        return self._start_ms(length, index), self._start_ms(length, index + 1)

    def _start_ms(self, length: Duration, index: int) -> int:
        """Give the start of the calendar window that is `index` windows after the origin's."""
        distance = index * length.count
        if length.unit is Unit.DAY:
            day = self._origin + timedelta(days=distance)
        else:
            year, month = divmod(_month_number(self._origin) + distance, 12)
            day = date(year, month + 1, self._day_in(year, month + 1))
        return _reached_ms(datetime.combine(day, self.reset_time), self._zone)

    def _day_in(self, year: int, month: int) -> int:
        """Give the day of a month on which windows start."""
        return min(self._origin.day, monthrange(year, month)[1])


def _divides_a_day(length: Duration) -> bool:
    """Tell whether a duration is whole hours of which some make a day.

    Shorter ones are elapsed time: by the clock, one of them would last an hour longer when it is put back.
    """
    length_s = length.count * UNIT_SECONDS[length.unit]
    whole_hours = length.unit not in {Unit.DAY, Unit.MONTH} and length_s % UNIT_SECONDS[Unit.HOUR] == 0
    return whole_hours and DAY_SECONDS % length_s == 0


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone: write an IANA name, such as Europe/Berlin or UTC") from error


def _reached_ms(shown: datetime, zone: ZoneInfo) -> int:
    """Give the first instant at which a zone's clock shows a time or a later one.

    Of a time that comes twice that is the first; of one that the clock jumps over, the jump. So a day that is skipped
    whole (Pacific/Apia, 2011-12-30) gets no length and no instant.
    """
    moment = shown.replace(tzinfo=zone, fold=0)
    first_s, again_s = int(moment.timestamp()), int(moment.replace(fold=1).timestamp())
    # PEP 495 reads a time that is jumped over with the offset before the jump, and then with the one after it, which
    # is the earlier instant.
    return (first_s if first_s <= again_s else _jump_s(again_s, first_s, zone)) * 1000


def _latest_shown(now_ms: int, zone: ZoneInfo) -> datetime:
    """Give the latest time that a zone's clock has shown by an instant, to the second.

    While a clock that was put back shows times again, that is the last one before it was put back.
    """
    now_s = now_ms // 1000
    now = datetime.fromtimestamp(now_s, zone)
    if now.fold:
        first_s = int(now.replace(fold=0).timestamp())
        now = datetime.fromtimestamp(_jump_s(first_s, now_s, zone) - 1, zone)
    return now.replace(tzinfo=None)


def _jump_s(before_s: int, after_s: int, zone: ZoneInfo) -> int:
    """Find the second between two, in Unix seconds, from which on a zone's offset is another one."""
    offset = datetime.fromtimestamp(before_s, zone).utcoffset()
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if datetime.fromtimestamp(middle_s, zone).utcoffset() == offset:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1
