"""Windows: which stretch of time a counter belongs to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.domain.windows import MIDNIGHT, Duration, ResetRules, Unit, Window, WindowRule, parse_duration


def ms(text: str) -> int:
    """Give an ISO time in Unix milliseconds."""
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def rule(
    duration: str,
    zone: str = "UTC",
    anchor: str | None = None,
    reset_time: time = MIDNIGHT,
    rules: ResetRules = ResetRules.LITELLM,
) -> WindowRule:
    """Give a rule from texts."""
    return WindowRule(parse_duration(duration), zone, None if anchor is None else ms(anchor), reset_time, rules)


def bounds(window: Window, zone: str) -> tuple[str, str]:
    """Give a window's start and end as a clock on the wall of the zone shows them."""
    assert window.end_ms is not None
    start, end = (
        datetime.fromtimestamp(instant_ms // 1000, ZoneInfo(zone)).isoformat()
        for instant_ms in (window.start_ms, window.end_ms)
    )
    return start, end


class TestParseDuration:
    """Durations as an operator writes them."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("30s", Duration(30, Unit.SECOND)),
            ("15m", Duration(15, Unit.MINUTE)),
            ("24h", Duration(24, Unit.HOUR)),
            ("7d", Duration(7, Unit.DAY)),
            ("30d", Duration(30, Unit.DAY)),
            ("2w", Duration(14, Unit.DAY)),
            ("1mo", Duration(1, Unit.MONTH)),
            ("hourly", Duration(1, Unit.HOUR)),
            ("daily", Duration(1, Unit.DAY)),
            ("weekly", Duration(7, Unit.DAY)),
            ("monthly", Duration(1, Unit.MONTH)),
            ("120mo", Duration(120, Unit.MONTH)),
            ("3652d", Duration(3652, Unit.DAY)),
        ],
    )
    def test_reads(self, text: str, expected: Duration) -> None:
        """A number with a unit, and LiteLLM's words, up to ten years."""
        assert expected == parse_duration(text)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is not a duration: write"),
            ("30", "is not a duration: write"),
            ("d", "is not a duration: write"),
            ("-1d", "is not a duration: write"),
            ("1.5h", "is not a duration: write"),
            (" 1d", "is not a duration: write"),
            ("1d\n", "is not a duration: write"),
            ("1D", "is not a duration: write"),
            ("1y", "is not a duration: write"),
            ("1d12h", "is not a duration: write"),
            ("٣d", "is not a duration: write"),
            ("9999999999999d", "is not a duration: write"),
            ("0s", "has no length: write a number of 1 or more"),
            ("0w", "has no length: write a number of 1 or more"),
            ("121mo", "longer than 10 years: write a shorter one"),
            ("3653d", "longer than 10 years: write a shorter one"),
            ("999999999999s", "longer than 10 years: write a shorter one"),
        ],
    )
    def test_refuses(self, text: str, reason: str) -> None:
        """Anything else is refused with what to write instead."""
        with pytest.raises(ValueError, match=reason):
            parse_duration(text)

    @pytest.mark.parametrize(("text", "name"), [("030s", "30s"), ("2w", "14d"), ("weekly", "7d"), ("monthly", "1mo")])
    def test_canonical_text(self, text: str, name: str) -> None:
        """Two ways to write a duration give one window name, and with it one counter."""
        assert name == str(parse_duration(text)) == rule(text).at(ms("2026-11-23T12:00:00Z")).name


class TestWindow:
    """A stretch of time."""

    @pytest.mark.parametrize(("now_ms", "expected"), [(99, False), (100, True), (199, True), (200, False)], ids=str)
    def test_contains(self, now_ms: int, expected: bool) -> None:  # noqa: FBT001 - a column
        """The start belongs to a window, the end to the next one."""
        assert expected is Window("1s", 100, 200).contains(now_ms)

    def test_lifetime(self) -> None:
        """Without a duration there is one window, which never ends."""
        window = WindowRule().at(ms("2026-11-23T12:00:00Z"))

        assert Window("lifetime", 0, None) == window
        assert window.contains(ms("9999-01-01T00:00:00Z"))


class TestElapsedTime:
    """Seconds, minutes and hours are elapsed time."""

    @pytest.mark.parametrize(
        ("duration", "zone", "anchor", "now", "start"),
        [
            pytest.param("30s", "UTC", None, "2026-11-23T12:00:44Z", "2026-11-23T12:00:30Z", id="30s"),
            pytest.param("15m", "UTC", None, "2026-11-23T12:59:59Z", "2026-11-23T12:45:00Z", id="15m"),
            pytest.param("1h", "Asia/Kolkata", None, "2026-11-23T12:00Z", "2026-11-23T11:30Z", id="half-hour zone"),
            pytest.param("24h", "UTC", None, "2026-11-23T12:00Z", "2026-11-23T00:00Z", id="24h"),
            pytest.param("24h", "Asia/Tokyo", None, "2026-11-23T12:00Z", "2026-11-22T15:00Z", id="24h in Tokyo"),
            pytest.param("168h", "UTC", None, "2026-11-24T12:00Z", "2026-11-23T00:00Z", id="168h from a Monday"),
            pytest.param("24h", "UTC", "2026-01-01T09:30Z", "2026-11-23T09:29Z", "2026-11-22T09:30Z", id="anchor"),
            pytest.param("24h", "UTC", "2027-01-01T09:30Z", "2026-11-23T09:29Z", "2026-11-22T09:30Z", id="ahead"),
            pytest.param("7h", "UTC", None, "1969-12-31T23:00Z", "1969-12-31T22:00Z", id="before 1970"),
        ],
    )
    def test_start(self, duration: str, zone: str, anchor: str | None, now: str, start: str) -> None:
        """Windows are counted from the anchor, or from the first Monday's midnight in the zone."""
        assert ms(start) == rule(duration, zone, anchor, rules=ResetRules.EXACT).at(ms(now)).start_ms

    def test_length_does_not_follow_the_clock_on_the_wall(self) -> None:
        """24h is 24 hours also on the day that has 25, and so it starts at midnight in winter and at 1 in summer."""
        window = rule("24h", "Europe/Berlin", rules=ResetRules.EXACT).at(ms("2026-10-25T12:00:00+01:00"))

        assert ("2026-10-25T01:00:00+02:00", "2026-10-26T00:00:00+01:00") == bounds(window, "Europe/Berlin")


class TestDays:
    """Days are those of the zone's calendar."""

    @pytest.mark.parametrize(
        ("duration", "zone", "now", "start", "end"),
        [
            pytest.param(
                "1d", "UTC", "2026-11-23T23:59:59Z", "2026-11-23T00:00:00+00:00", "2026-11-24T00:00:00+00:00", id="UTC"
            ),
            pytest.param(
                "1d",
                "America/New_York",
                "2026-11-23T03:00:00Z",
                "2026-11-22T00:00:00-05:00",
                "2026-11-23T00:00:00-05:00",
                id="evening before",
            ),
            pytest.param(
                "7d",
                "Europe/Berlin",
                "2026-11-22T12:00:00Z",
                "2026-11-16T00:00:00+01:00",
                "2026-11-23T00:00:00+01:00",
                id="7d from Monday to Monday",
            ),
            pytest.param(
                "1d",
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-29T00:00:00+01:00",
                "2026-03-30T00:00:00+02:00",
                id="day of 23 hours",
            ),
            pytest.param(
                "1d",
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-25T00:00:00+02:00",
                "2026-10-26T00:00:00+01:00",
                id="day of 25 hours",
            ),
            pytest.param(
                "1d",
                "America/Sao_Paulo",
                "2018-11-04T12:00:00Z",
                "2018-11-04T01:00:00-02:00",
                "2018-11-05T00:00:00-02:00",
                id="midnight that does not exist",
            ),
            pytest.param(
                "1d",
                "America/Sao_Paulo",
                "2018-11-04T02:59:59Z",
                "2018-11-03T00:00:00-03:00",
                "2018-11-04T01:00:00-02:00",
                id="second before it",
            ),
            pytest.param(
                "1d",
                "Asia/Beirut",
                "2022-03-27T12:00:00Z",
                "2022-03-27T01:00:00+03:00",
                "2022-03-28T00:00:00+03:00",
                id="Beirut's missing midnight",
            ),
            pytest.param(
                "1d",
                "America/Havana",
                "2026-11-01T04:30:00Z",
                "2026-11-01T00:00:00-04:00",
                "2026-11-02T00:00:00-05:00",
                id="first of two midnights",
            ),
            pytest.param(
                "1d",
                "America/Havana",
                "2026-11-01T05:30:00Z",
                "2026-11-01T00:00:00-04:00",
                "2026-11-02T00:00:00-05:00",
                id="second of two midnights",
            ),
            pytest.param(
                "1d",
                "America/St_Johns",
                "2010-11-07T03:00:00Z",
                "2010-11-07T00:00:00-02:30",
                "2010-11-08T00:00:00-03:30",
                id="yesterday's last hour once more",
            ),
            pytest.param(
                "1d",
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                "2011-12-29T00:00:00-10:00",
                "2011-12-31T00:00:00+14:00",
                id="day before a skipped one",
            ),
        ],
    )
    def test_bounds(self, duration: str, zone: str, now: str, start: str, end: str) -> None:
        """From local midnight to local midnight, whatever the clock on the wall does."""
        window = rule(duration, zone).at(ms(now))

        assert (start, end) == bounds(window, zone)

    def test_from_the_anchor(self) -> None:
        """An anchor moves the first day, by its local date; its time of day does not count."""
        window = rule("30d", "Asia/Tokyo", anchor="2026-01-01T20:00:00Z").at(ms("2026-02-01T00:00:00+09:00"))

        assert ("2026-02-01T00:00:00+09:00", "2026-03-03T00:00:00+09:00") == bounds(window, "Asia/Tokyo")


class TestMonths:
    """Months are those of the zone's calendar."""

    @pytest.mark.parametrize(
        ("duration", "anchor", "now", "start", "end"),
        [
            ("1mo", None, "2026-02-28", "2026-02-01", "2026-03-01"),
            ("1mo", None, "2028-02-29", "2028-02-01", "2028-03-01"),
            ("1mo", None, "2026-12-31", "2026-12-01", "2027-01-01"),
            ("3mo", None, "2026-11-23", "2026-10-01", "2027-01-01"),
            ("12mo", None, "2026-11-23", "2026-01-01", "2027-01-01"),
            ("5mo", None, "1970-05-31", "1970-01-01", "1970-06-01"),
            ("1mo", "2026-01-15", "2026-11-14", "2026-10-15", "2026-11-15"),
            ("1mo", "2026-01-15", "2026-11-15", "2026-11-15", "2026-12-15"),
            ("1mo", "2026-01-31", "2026-02-27", "2026-01-31", "2026-02-28"),
            ("1mo", "2026-01-31", "2026-03-30", "2026-02-28", "2026-03-31"),
            ("1mo", "2026-01-31", "2028-02-29", "2028-02-29", "2028-03-31"),
            ("12mo", "2024-02-29", "2026-11-23", "2026-02-28", "2027-02-28"),
            ("12mo", "2024-02-29", "2028-02-28", "2027-02-28", "2028-02-29"),
            ("3mo", "2027-01-10", "2026-11-23", "2026-10-10", "2027-01-10"),
        ],
    )
    def test_bounds(self, duration: str, anchor: str | None, now: str, start: str, end: str) -> None:
        """From the first, or the anchor's day, which is the last one in a month that is too short for it."""
        noon = None if anchor is None else f"{anchor}T12:00:00Z"
        window = rule(duration, anchor=noon).at(ms(f"{now}T12:00:00Z"))

        assert (f"{start}T00:00:00+00:00", f"{end}T00:00:00+00:00") == bounds(window, "UTC")

    def test_in_the_zone(self) -> None:
        """A month begins when it begins in the zone."""
        window = rule("1mo", "Pacific/Auckland").at(ms("2026-10-31T12:00:00Z"))

        assert ("2026-11-01T00:00:00+13:00", "2026-12-01T00:00:00+13:00") == bounds(window, "Pacific/Auckland")


class TestRule:
    """A rule is checked when it is made."""

    @pytest.mark.parametrize("zone", ["", "Berlin", "Europe", "../etc/passwd", "/etc/passwd", "Europe/Berlin\0"])
    def test_refuses_a_zone_that_is_none(self, zone: str) -> None:
        """A zone that does not exist is refused with what to write instead."""
        with pytest.raises(ValueError, match="is not a time zone: write an IANA name"):
            WindowRule(parse_duration("1d"), zone)

    @pytest.mark.parametrize("anchor_ms", [-1, 4_102_444_800_001, ms("2026-01-01T00:00:00Z") * 1000])
    def test_refuses_an_anchor_that_is_a_slip(self, anchor_ms: int) -> None:
        """An anchor before 1970 or after 2100 is refused."""
        with pytest.raises(ValueError, match="not a time between 1970 and 2100"):
            WindowRule(parse_duration("1d"), anchor_ms=anchor_ms)

    def test_equal_rules_are_equal(self) -> None:
        """Two rules with the same text are the same value."""
        assert rule("1mo", "Europe/Berlin") == rule("monthly", "Europe/Berlin")
        assert hash(rule("1mo", "Europe/Berlin")) == hash(rule("monthly", "Europe/Berlin"))


# Zones whose clocks jump at midnight, past it, by half an hour, by a day; and two without surprises.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
]
DURATIONS = ["1s", "30s", "7m", "15m", "1h", "6h", "24h", "100h", "1d", "2d", "7d", "30d", "1mo", "3mo", "7mo", "120mo"]
RESET_TIMES = st.times(timezones=st.none()).map(lambda at: at.replace(microsecond=0)) | st.sampled_from(
    [time(0, 0), time(0, 30), time(2, 0), time(2, 30), time(23, 59, 59)]
)
INSTANTS_MS = st.integers(ms("1970-01-01T00:00:00Z"), ms("2100-01-01T00:00:00Z"))


def jumps_ms() -> st.SearchStrategy[int]:
    """Give instants within some hours of a moment when one of ZONES puts its clock on or back."""
    found = []
    for zone in map(ZoneInfo, ZONES):
        offsets = [datetime.fromtimestamp(day * 86_400, zone).utcoffset() for day in range(14_600, 21_000)]
        found += [14_600 + day for day in range(1, len(offsets)) if offsets[day] != offsets[day - 1]]
    return st.builds(lambda day, quarter: (day * 96 - quarter) * 900_000, st.sampled_from(found), st.integers(-8, 100))


@settings(max_examples=600, deadline=None)
@given(
    now_ms=INSTANTS_MS | st.deferred(jumps_ms),
    duration=st.sampled_from(DURATIONS),
    zone=st.sampled_from(ZONES),
    anchor_ms=st.none() | INSTANTS_MS,
    reset_time=RESET_TIMES,
    rules=st.sampled_from(ResetRules),
)
def test_windows_tile_time(
    now_ms: int, duration: str, zone: str, anchor_ms: int | None, reset_time: time, rules: ResetRules
) -> None:
    """Every instant lies in exactly one window, and the next one begins where it ends, whatever was asked before."""
    used = WindowRule(parse_duration(duration), zone, anchor_ms, reset_time, rules)

    def at(instant_ms: int) -> Window:
        window = replace(used).at(instant_ms)
        assert window == used.at(instant_ms)
        return window

    window = at(now_ms)

    assert window.contains(now_ms)
    assert window.end_ms is not None
    assert window == at(window.start_ms)
    assert window == at(window.end_ms - 1)
    assert window.end_ms == at(window.end_ms).start_ms
    assert window.start_ms == at(window.start_ms - 1).end_ms
    assert window == at(now_ms)


@settings(max_examples=100, deadline=None)
@given(now_ms=INSTANTS_MS, anchor_ms=INSTANTS_MS)
def test_a_month_starts_on_the_anchors_day(now_ms: int, anchor_ms: int) -> None:
    """In UTC, a month from an anchor starts on the anchor's day, or on the month's last one where it is too short."""
    start_ms = WindowRule(parse_duration("1mo"), anchor_ms=anchor_ms).at(now_ms).start_ms
    start = datetime.fromtimestamp(start_ms / 1000, UTC)
    tomorrow = datetime.fromtimestamp(start_ms / 1000 + 86_400, UTC)
    anchor = datetime.fromtimestamp(anchor_ms / 1000, UTC)

    assert start.day == anchor.day or (start.day < anchor.day and tomorrow.day == 1)


def shown_begin(shown: datetime, duration: str, reset_time: time) -> datetime:
    """Give the time on the clock at which the window begins that a time on the clock lies in."""
    if duration == "1d":
        reset = timedelta(hours=reset_time.hour, minutes=reset_time.minute)
        return datetime.combine(shown - reset, reset_time)
    hours = int(duration.removesuffix("h"))
    return shown.replace(hour=shown.hour - shown.hour % hours, minute=0)


@settings(max_examples=60, deadline=None)
@given(
    now_ms=st.deferred(jumps_ms).filter(lambda now_ms: now_ms > ms("1975-01-01T00:00:00Z")),
    duration=st.sampled_from(["1h", "2h", "6h", "24h", "1d"]),
    zone=st.sampled_from(ZONES),
    reset_time=st.builds(time, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 59])),
)
def test_windows_are_those_of_who_watches_the_clock(now_ms: int, duration: str, zone: str, reset_time: time) -> None:
    """Who looks at the zone's clock each minute, and turns a page whenever it shows a later window, has these pages."""
    minutes = range(now_ms - now_ms % 60_000 - 3 * 86_400_000, now_ms + 3 * 86_400_000, 60_000)
    pages: list[int] = []
    latest = datetime(1970, 1, 1)  # noqa: DTZ001 - as a clock on a wall shows it
    for minute_ms in minutes:
        shown = datetime.fromtimestamp(minute_ms // 1000, ZoneInfo(zone)).replace(tzinfo=None)
        begin = shown_begin(shown, duration, reset_time)
        if begin > latest:
            latest = begin
            pages.append(minute_ms)

    window = WindowRule(parse_duration(duration), zone, reset_time=reset_time).at(now_ms)

    assert max(page_ms for page_ms in pages if page_ms <= now_ms) == window.start_ms
    assert min(page_ms for page_ms in pages if page_ms > now_ms) == window.end_ms
