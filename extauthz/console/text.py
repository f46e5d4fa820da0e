"""How amounts, times and names are written for people."""

from __future__ import annotations

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.domain.money import NANOUSD_PER_USD, usd_text

# Where the output is no terminal, nobody's window sets the width, and no row should be folded.
WIDTH_WITHOUT_TERMINAL = 240

KEY_DIGITS_SHOWN = 8
KEY_PREFIX = "key:"

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
MILLISECONDS = 1000
CENTS_FROM_USD = 1.0
CENT_USD = 0.01

# From this width on there is room for what is only nice to see.
WIDE = 100


def new_console(*, stderr: bool = False) -> Console:
    """Make a console for standard output."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=WIDTH_WITHOUT_TERMINAL)


def clean(text: str) -> str:
    """Take away what would steer a terminal: models, paths and names come from clients."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def cell(text: str, style: str = "") -> Text:
    """Write foreign text into a cell as it is, without what would steer a terminal."""
    return Text(clean(text), style)


def wide(console: Console) -> bool:
    """Tell whether there is room for what is only nice to see."""
    return console.width >= WIDE


def new_table(*columns: str, right: tuple[str, ...] = (), tight: bool = False) -> Table:
    """Make a table; columns in `right` are numbers, and in a `tight` one they stand closer together."""
    table = Table(box=None, padding=(0, 1 if tight else 2, 0, 0), header_style="bold")
    for column in columns:
        number = column in right
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def exact(usd: float) -> str:
    """Write an amount in USD to the last nano-USD: `10.0`, `0.000124`."""
    return usd_text(round(usd * NANOUSD_PER_USD))


def amount(usd: float) -> str:
    """Write an amount in USD for a table, where JSON has the last nano-USD: `10.00`, `0.0982`, `0.000124`."""
    if usd == 0:
        return "0.00"
    return (f"{usd:.4f}" if abs(usd) >= CENT_USD else f"{usd:.6f}").removesuffix("00")


def short(usd: float) -> str:
    """Write an amount in USD for a glance: `12.35`, `0.0124`."""
    return f"{usd:,.2f}" if abs(usd) >= CENTS_FROM_USD or usd == 0 else f"{usd:.4f}"


def per_million(usd: float) -> str:
    """Write a price: `2.5`, `0.075`."""
    return exact(usd).removesuffix(".0")


def duration(seconds: float) -> str:
    """Write a time in the two units that matter: `3 d 4 h`, `12 min 5 s`, `45 s`."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // DAY_S, whole % DAY_S // HOUR_S, whole % HOUR_S // MINUTE_S
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {whole % MINUTE_S} s" if whole % MINUTE_S else f"{minutes} min"
    return f"{whole} s"


def milliseconds(seconds: float) -> str:
    """Write a short time: `0.42 ms`, `12 ms`."""
    value = seconds * MILLISECONDS
    return f"{value:.2f} ms" if value < 1 else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"  # noqa: PLR2004


def until(stamp: Timestamp, now_s: float) -> str:
    """Tell how long it is until then."""
    return duration(stamp.ToMilliseconds() / MILLISECONDS - now_s)


def roughly_until(stamp: Timestamp, now_s: float) -> str:
    """Tell how long it is until then, in the one unit that matters: `6 h`."""
    return " ".join(until(stamp, now_s).split()[:2])


def clock(stamp: Timestamp) -> str:
    """Write the time of day, as it is here."""
    return stamp.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")


def scope_short(scope: str) -> str:
    """Shorten the SHA-256 of a key, where a line has no room for it."""
    if not scope.startswith(KEY_PREFIX):
        return scope
    digits = scope.removeprefix(KEY_PREFIX)
    return scope if len(digits) <= KEY_DIGITS_SHOWN else f"{KEY_PREFIX}{digits[:KEY_DIGITS_SHOWN]}…"
