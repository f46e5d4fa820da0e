"""What the meter inside Envoy reported about one answer.

The numbers come from an upstream: whatever is absurd in them is put right here, and named, before money is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from extauthz.domain.prices import Usage

# Ten times the largest context that is sold; more in one answer is a broken upstream.
TOKENS_MAX = 100_000_000

NOTHING = Usage(0, 0)

TOKEN_FIELDS = tuple(name for name in Usage.__slots__ if name.endswith("_tokens"))

# Some servers write numbers as texts.
DIGITS_MAX = 12

# The largest whole number that a protobuf Struct carries exactly.
BYTES_MAX = 2**53

# What one value of a protobuf Struct may be.
Field = float | bool | str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen of an answer, up to now or to its end.

    `usage` is None when the upstream reported none. `events` are the SSE events and `text_bytes` the bytes of text that
    went to the client, `reasoning_bytes` those of them that were reasoning. `finished` says that the answer's own end
    was seen, even if the stream broke after it. `models` is how often the request's whole body named a model, None when
    nobody looked, or not to its end. `model` and `service_tier` are what the answer says about itself, and
    `cost_nanousd` what the upstream says it cost; None where it says nothing. `pending` says that the answer only
    promises one that is still to be made. `absurd` names the fields that had to be put right.
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
    absurd: tuple[str, ...] = ()


def within(report: Report, tokens_max: int | None) -> Report:
    """Cut usage that is larger than the model's context to it, and name what was cut."""
    if report.usage is None or tokens_max is None:
        return report
    counts = {name: getattr(report.usage, name) for name in TOKEN_FIELDS}
    absurd = tuple(name for name, count in counts.items() if count > tokens_max)
    if not absurd:
        return report
    usage = replace(report.usage, **{name: min(count, tokens_max) for name, count in counts.items()})
    return replace(report, usage=usage, absurd=tuple(dict.fromkeys((*report.absurd, *absurd))))


def read_report(fields: Mapping[str, Field]) -> Report:
    """Read the meter's fields; a missing one counts as nothing, an absurd one as the nearest sensible value.

    Usage whose input or output makes no sense, that counts nothing at all, or no output beside text that came through,
    is no usage: no answer costs nothing.
    """
    absurd: list[str] = []

    def count(name: str, at_most: int = TOKENS_MAX) -> int:
        value = fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX:
            value = float(value)
        if value is None:
            return 0
        if isinstance(value, str | bool) or math.isnan(value) or value < 0:
            absurd.append(name)
            return 0
        if value > at_most:
            absurd.append(name)
            return at_most
        return math.ceil(value)

    usage = Usage(
        input_tokens=count("input_tokens"),
        output_tokens=count("output_tokens"),
        cache_read_input_tokens=count("cache_read_input_tokens"),
        cache_creation_input_tokens=count("cache_creation_input_tokens"),
        reasoning_output_tokens=count("reasoning_output_tokens"),
    )
    text_bytes = count("text_bytes", at_most=BYTES_MAX)
    unreadable = not {"input_tokens", "output_tokens"}.isdisjoint(absurd)
    output_is_missing = usage.output_tokens == 0 and text_bytes > 0
    return Report(
        usage=None if usage == NOTHING or unreadable or output_is_missing else usage,
        events=count("events"),
        text_bytes=text_bytes,
        reasoning_bytes=count("reasoning_bytes", at_most=BYTES_MAX),
        finished=fields.get("finished") is True,
        models=count("models") if "models" in fields else None,
        absurd=tuple(absurd),
    )
