"""Which window an instant lies in, by a table of dates: zones whose clocks jump, ends of months and years, leap days.

The expected times stand there as the zone's clock shows them, with its offset, and owe nothing to the code: they are
read off the zones' published rules.
"""

from __future__ import annotations

from datetime import datetime, time

import pytest

from extauthz.domain.windows import ResetRules, Window, WindowRule, parse_duration

# Rules, reset time, duration, zone; an instant; the start and the end of its window.
TABLE = """
# Europe/Berlin: 02:00 becomes 03:00 on 2026-03-29, 03:00 becomes 02:00 on 2026-10-25.
litellm 00:00 1d    Europe/Berlin 2026-03-28T23:30:00Z 2026-03-29T00:00+01:00 2026-03-30T00:00+02:00
litellm 00:00 24h   Europe/Berlin 2026-03-28T23:30:00Z 2026-03-29T00:00+01:00 2026-03-30T00:00+02:00
litellm 02:30 1d    Europe/Berlin 2026-03-29T00:59:59Z 2026-03-28T02:30+01:00 2026-03-29T03:00+02:00
litellm 02:30 1d    Europe/Berlin 2026-03-29T01:00:00Z 2026-03-29T03:00+02:00 2026-03-30T02:30+02:00
litellm 00:00 6h    Europe/Berlin 2026-03-29T01:30:00Z 2026-03-29T00:00+01:00 2026-03-29T06:00+02:00
litellm 00:00 1h    Europe/Berlin 2026-03-29T00:59:59Z 2026-03-29T01:00+01:00 2026-03-29T03:00+02:00
litellm 00:00 1h    Europe/Berlin 2026-03-29T01:00:00Z 2026-03-29T03:00+02:00 2026-03-29T04:00+02:00
litellm 02:30 1d    Europe/Berlin 2026-10-25T00:29:59Z 2026-10-24T02:30+02:00 2026-10-25T02:30+02:00
litellm 02:30 1d    Europe/Berlin 2026-10-25T00:30:00Z 2026-10-25T02:30+02:00 2026-10-26T02:30+01:00
litellm 02:30 1d    Europe/Berlin 2026-10-25T01:30:00Z 2026-10-25T02:30+02:00 2026-10-26T02:30+01:00
exact   02:30 1d    Europe/Berlin 2026-10-25T01:30:00Z 2026-10-25T02:30+02:00 2026-10-26T02:30+01:00
litellm 00:00 24h   Europe/Berlin 2026-10-25T12:00:00Z 2026-10-25T00:00+02:00 2026-10-26T00:00+01:00
exact   00:00 24h   Europe/Berlin 2026-10-25T12:00:00Z 2026-10-25T01:00+02:00 2026-10-26T00:00+01:00
litellm 06:30 24h   Europe/Berlin 2026-10-25T12:00:00Z 2026-10-25T00:00+02:00 2026-10-26T00:00+01:00
litellm 00:00 1h    Europe/Berlin 2026-10-25T01:15:00Z 2026-10-25T02:00+02:00 2026-10-25T03:00+01:00
exact   00:00 1h    Europe/Berlin 2026-10-25T01:15:00Z 2026-10-25T02:00+01:00 2026-10-25T03:00+01:00
litellm 00:00 15m   Europe/Berlin 2026-10-25T01:20:00Z 2026-10-25T02:15+01:00 2026-10-25T02:30+01:00
litellm 00:00 30d   Europe/Berlin 2026-10-31T22:59:59Z 2026-10-01T00:00+02:00 2026-11-01T00:00+01:00
litellm 00:00 30d   Europe/Berlin 2026-10-31T23:00:00Z 2026-11-01T00:00+01:00 2026-12-01T00:00+01:00

# America/New_York: 02:00 becomes 03:00 on 2026-03-08, 02:00 becomes 01:00 on 2026-11-01.
litellm 02:00 1d    America/New_York 2026-03-08T06:59:59Z 2026-03-07T02:00-05:00 2026-03-08T03:00-04:00
litellm 02:30 7d    America/New_York 2026-03-09T06:29:59Z 2026-03-02T02:30-05:00 2026-03-09T02:30-04:00
litellm 01:30 1mo   America/New_York 2026-11-01T05:30:00Z 2026-11-01T01:30-04:00 2026-12-01T01:30-05:00
litellm 01:30 30d   America/New_York 2026-11-01T06:30:00Z 2026-11-01T01:30-04:00 2026-12-01T01:30-05:00
litellm 23:59 1d    America/New_York 2026-11-24T04:58:59Z 2026-11-22T23:59-05:00 2026-11-23T23:59-05:00
litellm 23:59 1d    America/New_York 2026-11-24T04:59:00Z 2026-11-23T23:59-05:00 2026-11-24T23:59-05:00

# Australia/Lord_Howe: 02:00 becomes 01:30 on 2026-04-05, 02:00 becomes 02:30 on 2026-10-04.
litellm 00:00 1d    Australia/Lord_Howe 2026-04-04T14:00:00Z 2026-04-05T00:00+11:00 2026-04-06T00:00+10:30
litellm 01:45 1d    Australia/Lord_Howe 2026-04-04T15:15:00Z 2026-04-05T01:45+11:00 2026-04-06T01:45+10:30
litellm 00:00 1h    Australia/Lord_Howe 2026-04-04T15:10:00Z 2026-04-05T01:00+11:00 2026-04-05T02:00+10:30
litellm 02:15 1d    Australia/Lord_Howe 2026-10-03T15:29:59Z 2026-10-03T02:15+10:30 2026-10-04T02:30+11:00
litellm 00:00 1h    Australia/Lord_Howe 2026-10-03T15:30:00Z 2026-10-04T02:30+11:00 2026-10-04T03:00+11:00
litellm 00:00 30d   Australia/Lord_Howe 2026-10-15T00:00:00Z 2026-10-01T00:00+10:30 2026-11-01T00:00+11:00

# America/St_Johns: 00:01 became 23:01 of the day before on 2010-11-07.
litellm 00:00 1d    America/St_Johns 2010-11-07T03:00:00Z 2010-11-07T00:00-02:30 2010-11-08T00:00-03:30
litellm 00:00 24h   America/St_Johns 2010-11-07T03:00:00Z 2010-11-07T00:00-02:30 2010-11-08T00:00-03:30
litellm 23:30 1d    America/St_Johns 2010-11-07T03:00:00Z 2010-11-06T23:30-02:30 2010-11-07T23:30-03:30
litellm 00:00 1h    America/St_Johns 2010-11-07T03:15:00Z 2010-11-07T00:00-02:30 2010-11-07T01:00-03:30
litellm 00:00 30d   America/St_Johns 2026-11-01T02:29:59Z 2026-10-01T00:00-02:30 2026-11-01T00:00-02:30

# Asia/Kathmandu: a quarter of an hour off, and half an hour in 1970, where exact hours are counted from.
litellm 00:00 1d    Asia/Kathmandu 2026-11-23T18:14:59Z 2026-11-23T00:00+05:45 2026-11-24T00:00+05:45
litellm 00:00 1h    Asia/Kathmandu 2026-11-23T18:14:59Z 2026-11-23T23:00+05:45 2026-11-24T00:00+05:45
exact   00:00 1h    Asia/Kathmandu 2026-11-23T18:14:59Z 2026-11-23T23:15+05:45 2026-11-24T00:15+05:45
litellm 06:00 7d    Asia/Kathmandu 2026-11-23T00:14:59Z 2026-11-16T06:00+05:45 2026-11-23T06:00+05:45

# Pacific/Apia: 2011-12-30 was left out.
litellm 00:00 1d    Pacific/Apia 2011-12-30T09:59:59Z 2011-12-29T00:00-10:00 2011-12-31T00:00+14:00
litellm 12:00 1d    Pacific/Apia 2011-12-30T09:59:59Z 2011-12-29T12:00-10:00 2011-12-31T00:00+14:00
litellm 12:00 1d    Pacific/Apia 2011-12-30T10:00:00Z 2011-12-31T00:00+14:00 2011-12-31T12:00+14:00
litellm 00:00 6h    Pacific/Apia 2011-12-30T10:00:00Z 2011-12-31T00:00+14:00 2011-12-31T06:00+14:00
litellm 00:00 7d    Pacific/Apia 2011-12-30T10:00:00Z 2011-12-26T00:00-10:00 2012-01-02T00:00+14:00
litellm 00:00 30d   Pacific/Apia 2011-12-30T10:00:00Z 2011-12-01T00:00-10:00 2012-01-01T00:00+14:00

# UTC: months of 28, 29, 30 and 31 days, the turn of the year, and what LiteLLM's rules leave alone.
litellm 00:00 30d   UTC 2026-01-31T23:59:59Z 2026-01-01T00:00+00:00 2026-02-01T00:00+00:00
litellm 00:00 30d   UTC 2026-02-28T23:59:59Z 2026-02-01T00:00+00:00 2026-03-01T00:00+00:00
exact   00:00 30d   UTC 2026-02-28T23:59:59Z 2026-02-10T00:00+00:00 2026-03-12T00:00+00:00
litellm 00:00 30d   UTC 2028-02-29T12:00:00Z 2028-02-01T00:00+00:00 2028-03-01T00:00+00:00
litellm 00:00 1mo   UTC 2028-02-29T12:00:00Z 2028-02-01T00:00+00:00 2028-03-01T00:00+00:00
litellm 00:00 30d   UTC 2026-04-30T23:59:59Z 2026-04-01T00:00+00:00 2026-05-01T00:00+00:00
litellm 00:00 30d   UTC 2026-12-31T23:59:59Z 2026-12-01T00:00+00:00 2027-01-01T00:00+00:00
litellm 06:30 30d   UTC 2026-03-01T06:29:59Z 2026-02-01T06:30+00:00 2026-03-01T06:30+00:00
litellm 23:59 30d   UTC 2026-11-30T23:59:30Z 2026-11-01T23:59+00:00 2026-12-01T23:59+00:00
litellm 06:30 1mo   UTC 2027-01-01T06:29:59Z 2026-12-01T06:30+00:00 2027-01-01T06:30+00:00
litellm 00:00 3mo   UTC 2026-11-30T23:59:59Z 2026-10-01T00:00+00:00 2027-01-01T00:00+00:00
litellm 00:00 1d    UTC 2028-02-29T23:59:59Z 2028-02-29T00:00+00:00 2028-03-01T00:00+00:00
litellm 00:00 7d    UTC 2027-01-01T00:00:00Z 2026-12-28T00:00+00:00 2027-01-04T00:00+00:00
litellm 00:00 1w    UTC 2028-02-29T00:00:00Z 2028-02-28T00:00+00:00 2028-03-06T00:00+00:00
litellm 00:00 14d   UTC 2026-12-06T23:59:59Z 2026-11-23T00:00+00:00 2026-12-07T00:00+00:00
litellm 00:00 48h   UTC 2026-11-24T23:59:59Z 2026-11-23T00:00+00:00 2026-11-25T00:00+00:00
litellm 00:00 daily UTC 2026-12-31T23:59:59Z 2026-12-31T00:00+00:00 2027-01-01T00:00+00:00
"""
ROWS = [line.split() for line in TABLE.splitlines() if line and not line.startswith("#")]


def ms(text: str) -> int:
    """Give an ISO time in Unix milliseconds."""
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_row(row: list[str]) -> None:
    """The window is the one in the table, for its first and last millisecond as well, and both neighbours touch it."""
    rules, reset_time, duration, zone, now, start, end = row

    def at(instant_ms: int) -> Window:
        return WindowRule(
            parse_duration(duration), zone, reset_time=time.fromisoformat(reset_time), rules=ResetRules(rules)
        ).at(instant_ms)

    window = at(ms(now))

    assert (ms(start), ms(end)) == (window.start_ms, window.end_ms)
    assert window == at(ms(start)) == at(ms(end) - 1)
    assert at(ms(start) - 1).end_ms == ms(start)
    assert at(ms(end)).start_ms == ms(end)


@pytest.mark.parametrize(
    ("duration", "reset_time", "now", "start", "end"),
    [
        ("30d", "00:00", "2026-02-14T23:00:00Z", "2026-02-15T00:00+01:00", "2026-03-17T00:00+01:00"),
        ("30d", "06:30", "2026-02-15T05:29:59Z", "2026-01-16T06:30+01:00", "2026-02-15T06:30+01:00"),
        ("24h", "06:30", "2026-10-25T12:00:00Z", "2026-10-25T09:00+01:00", "2026-10-26T09:00+01:00"),
        ("1mo", "06:30", "2026-02-16T05:29:59Z", "2026-01-16T06:30+01:00", "2026-02-16T06:30+01:00"),
        ("1mo", "06:30", "2026-02-16T05:30:00Z", "2026-02-16T06:30+01:00", "2026-03-16T06:30+01:00"),
    ],
)
def test_an_anchor_goes_before_the_rules(duration: str, reset_time: str, now: str, start: str, end: str) -> None:
    """With an anchor 30d is 30 days, and 24h are counted from it; days and months begin at the reset time."""
    anchor_ms = ms("2026-01-16T09:00+01:00")
    window = WindowRule(
        parse_duration(duration), "Europe/Berlin", anchor_ms, reset_time=time.fromisoformat(reset_time)
    ).at(ms(now))

    assert (ms(start), ms(end)) == (window.start_ms, window.end_ms)
