"""The values of LiteLLM's rows, each read as LiteLLM itself takes it, and written as our configuration has it.

What cannot be read raises UnreadableError: nobody is let through on a value that says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from extauthz.config.values import MOMENT_YEAR_MAX, MOMENT_YEAR_MIN
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX
from extauthz.domain.money import AMOUNT_NANOUSD_MAX, usd

# One column of one row, as it came over the wire.
Row = Mapping[str, object]
# The fields of a payer, by the names and in the shapes of our configuration file.
Written = dict[str, object]

LIMIT_MAX = usd(AMOUNT_NANOUSD_MAX)
NANO = usd(1)
# Beyond it no limit is meant, and Decimal rounds no more.
ENDLESS = Decimal(10) ** 15


class UnreadableError(ValueError):
    """A value that is there and says nothing."""


def amount(value: object, name: str) -> Decimal | None:
    """Read a limit in USD; None where it limits nothing, as LiteLLM takes what is no number, or infinite.

    A negative one is exhausted like one of 0, and one above what a counter holds is as much as a counter holds.
    """
    match value:
        case None:
            return None
        case bool():
            raise UnreadableError(f"{name} is not a number")
        case float() | Decimal() if not math.isfinite(value):
            return None
        case int() | float() | Decimal() if value > ENDLESS:
            return LIMIT_MAX
        case int() | float() | Decimal():
            # A double has digits that nobody wrote, far behind those that are counted.
            return min(max(Decimal(str(value)), Decimal(0)).quantize(NANO), LIMIT_MAX)
        case _:
            raise UnreadableError(f"{name} is not a number")


def moment(value: object, name: str) -> datetime | None:
    """Read a moment; without an offset it is UTC, as LiteLLM writes it."""
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
        if read is None:
            return None
        if not isinstance(read, datetime):
            raise UnreadableError(f"{name} is not a date")
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (OverflowError, ValueError):  # an offset may lead out of the years that there are
        raise UnreadableError(f"{name} is not a date") from None


def bounded(read: datetime) -> datetime:
    """Give a moment that our configuration can name: one long ago for one before that, and one far off beyond."""
    first = datetime(MOMENT_YEAR_MIN, 1, 1, tzinfo=UTC)
    last = datetime(MOMENT_YEAR_MAX, 12, 31, tzinfo=UTC)
    return min(max(read, first), last)


def flag(value: object, name: str) -> bool:
    """Read a flag; it is off where there is none."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise UnreadableError(f"{name} is neither true nor false")


def text(value: object, name: str) -> str | None:
    """Read a text; None where there is none or it is empty."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    raise UnreadableError(f"{name} is not a text")


def identifier(value: object, name: str) -> str | None:
    """Read the id of another payer; None where there is none."""
    read = text(value, name)
    if read is not None and len(read.encode()) > SCOPE_ID_BYTES_MAX:
        raise UnreadableError(f"{name} is longer than {SCOPE_ID_BYTES_MAX} bytes")
    return read


def texts(value: object, name: str) -> tuple[str, ...]:
    """Read a list of texts, none where there is none."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise UnreadableError(f"{name} is not a list of texts")
    return tuple(str(one) for one in value)


def tree(value: object, name: str) -> object:
    """Read a JSON column, its numbers exactly as they are written; LiteLLM writes some twice, as JSON in a text."""
    read = value
    try:
        for _ in range(2):
            read = json.loads(read, parse_float=Decimal) if isinstance(read, str) else read
    # Python's Decimal refuses exponents that JSON has.
    except (ArithmeticError, ValueError, RecursionError):
        raise UnreadableError(f"{name} is not JSON") from None
    return read


def mapping(value: object, name: str) -> Mapping[str, object]:
    """Read a JSON column that has an object, an empty one where there is none."""
    read = tree(value, name)
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise UnreadableError(f"{name} is not an object")
    return read


def entries(value: object, name: str) -> Sequence[Mapping[str, object]]:
    """Read a JSON column that has a list of objects, an empty one where there is none."""
    read = tree(value, name)
    if read is None:
        return ()
    if not isinstance(read, list) or not all(isinstance(one, dict) for one in read):
        raise UnreadableError(f"{name} is not a list of objects")
    return read
