"""Verbs as items of scripts, and the scripts' answers as results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from extauthz.domain.budgets import Counter, Standing
from extauthz.domain.prices import Usage
from extauthz.domain.reservation import Hold, Lease, Note, State
from extauthz.ledger.base import (
    PROMISES_MAX,
    AlreadyEnded,
    Promise,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)
from extauthz.ledger.primary import text


def reserve_item(request: Reserve, *, repeated: bool = False) -> tuple[str, ...]:
    """Write a reserve; one that is `repeated` after a failover is not judged again."""
    hold = request.hold
    claims = (
        (
            claim.counter.key,
            "" if claim.limit is None or repeated else str(claim.limit),
            str(claim.amount),
            "1" if claim.whole else "",
        )
        for claim in request.claims
    )
    return (
        hold.id,
        request.attempt,
        str(hold.reserved_at_ms),
        word(hold.model),
        str(request.lease.lease_ms),
        str(request.lease.cost_nanousd),
        "" if request.not_after_ms is None or repeated else str(request.not_after_ms),
        "1" if repeated else "",
        str(len(request.claims)),
        *(value for claim in claims for value in claim),
    )


def reserve_result(answer: Sequence[Any], request: Reserve, now_ms: int) -> ReserveResult:
    """Read the answer to a reserve."""
    match [text(answer[0]), *answer[1:]]:
        case ["reserved", available, *_]:
            return Reserved(int(available) if available else None)
        case ["refused", index, limit, spent, held]:
            return Refused(Standing(request.claims[index - 1].counter, int(limit), int(spent), int(held)))
        case ["stale_window"]:
            return StaleWindow(now_ms)
        case ["ended", state]:
            return AlreadyEnded(State(text(state)))
        case _:
            return TooLate()


def as_granted(request: Reserve, granted: Sequence[bytes]) -> Reserve:
    """Ask for what was granted; nothing is said of that where an earlier attempt was."""
    if not granted:
        return request
    amounts = zip(request.claims, granted, strict=True)
    return replace(request, claims=tuple(replace(claim, amount=int(amount)) for claim, amount in amounts))


def settle_item(hold: Hold, cost_nanousd: int, note: Note) -> tuple[str, ...]:
    """Write a settle."""
    return (
        hold.id,
        str(hold.reserved_at_ms),
        word(hold.model),
        str(cost_nanousd),
        note.signal,
        _tokens(note.usage),
        str(len(hold.counters)),
        *(counter.key for counter in hold.counters),
    )


def standings_item(limits: Sequence[tuple[Counter, int]]) -> tuple[str, ...]:
    """Write a question about counters, each with its configured limit."""
    asked = (part for counter, limit in limits for part in (counter.key, str(limit)))
    return (str(len(limits)), *asked)


def renew_item(hold: Hold, lease: Lease) -> tuple[str, ...]:
    """Write a renewal."""
    return (hold.id, str(lease.lease_ms), str(lease.cost_nanousd))


def promise_item(promise: Promise) -> tuple[str, ...]:
    """Write a promise."""
    return (promise.name, promise.hold, str(PROMISES_MAX))


def _tokens(usage: Usage | None) -> str:
    """Write usage as the journal keeps it: input, output, cache read, cache creation and reasoning tokens."""
    if usage is None:
        return ""
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.reasoning_output_tokens,
    )
    return " ".join(map(str, counts))


def word(name: str) -> str:
    """Write a name so that no blank is in it, and never as nothing."""
    return quote(name, safe="/:@.-_*+") or "-"
