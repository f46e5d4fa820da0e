"""Where a request belongs in somebody's trace, as its headers say (W3C Trace Context). Clients write them."""

from __future__ import annotations

import re
from collections.abc import Mapping

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

# W3C asks for at least as much of a tracestate to be carried.
TRACESTATE_CHARS_MAX = 512
CARRIED_CHARS_MAX = 128 + 1 + TRACESTATE_CHARS_MAX

# A version after 00 may have more behind another hyphen.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,64})?")
_TRACESTATE = re.compile(r"[\t -~]*")


def carried(headers: Mapping[str, tuple[str, ...]]) -> str | None:
    """Write a request's place in a trace as one text: its traceparent, and behind a blank its tracestate.

    `headers` have lower-case names. None without a place, or with several; a tracestate that is too long stays behind.
    """
    parents = headers.get(TRACEPARENT, ())
    if len(parents) != 1 or _TRACEPARENT.fullmatch(parents[0].strip()) is None:
        return None
    state = ",".join(headers.get(TRACESTATE, ())).strip()
    if len(state) > TRACESTATE_CHARS_MAX or _TRACESTATE.fullmatch(state) is None:
        state = ""
    return f"{parents[0].strip()} {state}".rstrip()


def headers_of(text: str | None) -> dict[str, tuple[str, ...]]:
    """Give the headers back that `carried` wrote down; none for what it never wrote."""
    if text is None or len(text) > CARRIED_CHARS_MAX:
        return {}
    parent, _, state = text.partition(" ")
    headers: dict[str, tuple[str, ...]] = {TRACEPARENT: (parent,)}
    if state:
        headers[TRACESTATE] = (state,)
    return headers if carried(headers) == text else {}
