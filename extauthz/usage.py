"""What the meter inside Envoy reported about one answer.

The numbers come from an upstream: whatever is absurd in them is put right here, and named, before money is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from extauthz.domain.money import cost_nanousd
from extauthz.domain.prices import Units, Usage
from extauthz.domain.value import value

# Ten times the largest context that is sold; more in one answer is a broken upstream.
TOKENS_MAX = 100_000_000

NOTHING = Usage(0, 0)

TOKEN_FIELDS = tuple(field.name for field in fields(Usage) if field.name.endswith("_tokens"))

# More of them in one answer is a broken upstream: the longest film is a day.
UNITS_MAX = {"images": 1_000, "milliseconds": 86_400_000, "queries": 10_000, "searches": 1_000}

# The turns of the longest session: one a second, for a day.
TURNS_MAX = 86_400

# Some servers write numbers as texts.
DIGITS_MAX = 12

# The longest names that the meter tells, in bytes.
MODEL_BYTES_MAX = 256
TIER_BYTES_MAX = 32
ID_BYTES_MAX = 128

# No answer costs so much, in USD.
UPSTREAM_COST_MAX = Decimal(10_000)

# The largest whole number that a protobuf Struct carries exactly.
BYTES_MAX = 2**53

# What one value of a protobuf Struct may be.
Field = float | bool | str | None


class Result(StrEnum):
    """What became of an answer that was promised."""

    OVER = "over"  # it was made, or made in part
    FAILED = "failed"


@value
class Report:
    """What was seen of an answer, up to now or to its end.

    `usage` is None when the upstream reported none. `events` are the SSE events and `text_bytes` the bytes of text that
    went to the client, `reasoning_bytes` those of them that were reasoning. `finished` says that the answer's own end
    was seen, even if the stream broke after it. `models` is how often the request's whole body named a model, None when
    nobody looked, or not to its end. `model` and `service_tier` are what the answer says about itself, and
    `cost_nanousd` what the upstream says it cost; None where it says nothing. `pending` says that the answer only
    promises one that is still to be made, and `answer_id` how it will be asked for; `result` is what became of one, as
    a read has shown. `turns` are the answers that `usage` is the sum of, 1 unless it is of a `session`. `absurd` names
    the fields that had to be put right.
    """

    usage: Usage | None = None
    events: int = 0
    text_bytes: int = 0
    reasoning_bytes: int = 0
    finished: bool = False
    models: int | None = None
    model: str | None = None
    service_tier: str | None = None
    cost_nanousd: int | None = None
    pending: bool = False
    answer_id: str | None = None
    result: Result | None = None
    turns: int = 1
    session: bool = False
    absurd: tuple[str, ...] = ()


def within(report: Report, tokens_max: int | None) -> Report:
    """Cut usage that is larger than the model's context to it, for each turn of a session, and name what was cut."""
    if report.usage is None or tokens_max is None:
        return report
    tokens_max *= report.turns
    absurd = [name for name in TOKEN_FIELDS if getattr(report.usage, name) > tokens_max]
    if not absurd:
        return report
    usage = replace(report.usage, **{name: min(getattr(report.usage, name), tokens_max) for name in absurd})
    return replace(report, usage=usage, absurd=tuple(dict.fromkeys((*report.absurd, *absurd))))


def read_report(fields: Mapping[str, Field]) -> Report:
    """Read the meter's fields; a missing one counts as nothing, an absurd one as the nearest sensible value.

    Usage whose input or output makes no sense, that counts nothing at all, or no output beside text that came through,
    is no usage: no answer costs nothing. What is paid by the unit needs no output.
    """
    reading = _Reading(fields)
    units = Units(**{name: reading.count(name, at_most) for name, at_most in UNITS_MAX.items() if name in fields})
    counts = {name: reading.count(name) for name in TOKEN_FIELDS if name in fields}
    usage = Usage(**{"input_tokens": 0, "output_tokens": 0, **counts}, units=units)
    text_bytes = reading.count("text_bytes", BYTES_MAX)
    unreadable = not {"input_tokens", "output_tokens"}.isdisjoint(reading.absurd)
    by_unit = max(units.images, units.milliseconds, units.queries) > 0
    output_is_missing = usage.output_tokens == 0 and text_bytes > 0 and not by_unit
    return Report(
        usage=None if usage == NOTHING or unreadable or output_is_missing else usage,
        events=reading.count("events"),
        text_bytes=text_bytes,
        reasoning_bytes=reading.count("reasoning_bytes", BYTES_MAX),
        finished=fields.get("finished") is True,
        models=reading.count("models") if "models" in fields else None,
        model=reading.name("model", MODEL_BYTES_MAX),
        service_tier=reading.name("service_tier", TIER_BYTES_MAX),
        cost_nanousd=reading.cost("upstream_cost"),
        pending=fields.get("pending") is True,
        answer_id=reading.name("answer_id", ID_BYTES_MAX),
        result=next((result for result in Result if result == fields.get("result")), None),
        turns=max(1, reading.count("turns", TURNS_MAX)),
        session="turns" in fields,
        absurd=tuple(reading.absurd),
    )


class _Reading:
    """The fields, and which of them were absurd."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self.absurd: list[str] = []

    def count(self, name: str, at_most: int = TOKENS_MAX) -> int:
        value = self._fields.get(name)
        if value is None:
            return 0
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX:
            value = float(value)
        if isinstance(value, str | bool) or math.isnan(value) or value < 0:
            self.absurd.append(name)
            return 0
        if value > at_most:
            self.absurd.append(name)
            return at_most
        return math.ceil(value)

    def name(self, name: str, bytes_max: int) -> str | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isprintable() and 0 < len(value.encode(errors="replace")) <= bytes_max:
            return value
        self.absurd.append(name)
        return None

    def cost(self, name: str) -> int | None:
        """Read an amount of USD, exactly as it is written."""
        value = self._fields.get(name)
        if value is None:
            return None
        try:
            amount = None if isinstance(value, bool) else Decimal(str(value))
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or not 0 < amount < UPSTREAM_COST_MAX:
            self.absurd.append(name)
            return None
        # Of an amount beyond the digits of decimals, rounding up is up to us.
        return max(1, cost_nanousd(amount))
