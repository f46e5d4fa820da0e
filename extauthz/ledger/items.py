"""Verbs as items of scripts, and the scripts' answers as results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from extauthz.domain.budgets import Counter, Spent, Standing
from extauthz.domain.prices import Usage
from extauthz.domain.reservation import Hold, Lease, Note, State
from extauthz.ledger.amounts import to_word
from extauthz.ledger.base import (
    PROMISES_MAX,
    AlreadyEnded,
    Amendment,
    Promise,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)
from extauthz.ledger.primary import text

# What a claim is written as.
CLAIM_PARTS = 4

# Names are those of models, again and again; so many are remembered as they are written.
WORDS_MAX = 1024


def reserve_item(request: Reserve) -> tuple[str, ...]:
    """Write a reserve."""
    hold = request.hold
    claims = (
        (
            claim.counter.key,
            "" if claim.limit is None else str(claim.limit),
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
        to_word(request.lease.spent),
        "" if request.not_after_ms is None else str(request.not_after_ms),
        "",
        str(len(request.claims)),
        *(value for claim in claims for value in claim),
        *_befores(hold.counters),
    )


def repeated_item(item: Sequence[str], granted: Sequence[bytes]) -> tuple[str, ...]:
    """Write a reserve again, after a failover, for what was granted: neither time, window nor limit is judged.

    Where an earlier attempt was granted it, nothing is said of that, and it is what was asked for.
    """
    id_, attempt, reserved_at, model, lease, spent, _not_after, _repeated, count, *rest = item
    claims = rest[: CLAIM_PARTS * int(count)]
    counters, asked, wholes = claims[::CLAIM_PARTS], claims[2::CLAIM_PARTS], claims[3::CLAIM_PARTS]
    amounts = [text(amount) for amount in granted] or asked
    claimed = zip(counters, amounts, wholes, strict=True)
    again = (part for counter, amount, whole in claimed for part in (counter, "", amount, whole))
    return (id_, attempt, reserved_at, model, lease, spent, "", "1", count, *again, *_befores(()))


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


def settle_item(hold: Hold, spent: Spent, note: Note) -> tuple[str, ...]:
    """Write a settle."""
    return (
        hold.id,
        str(hold.reserved_at_ms),
        word(hold.model),
        to_word(spent),
        note.signal,
        _tokens(note.usage),
        str(len(hold.counters)),
        *(counter.key for counter in hold.counters),
    )


def standings_item(limits: Sequence[tuple[Counter, int]]) -> tuple[str, ...]:
    """Write a question about counters, each with its configured limit."""
    asked = (part for counter, limit in limits for part in (counter.key, str(limit)))
    return (*_befores([counter for counter, _ in limits]), str(len(limits)), *asked)


def amend_item(amendment: Amendment) -> tuple[str, ...]:
    """Write a change by hand."""
    amount = "" if amendment.amount is None else str(amendment.amount)
    counter = amendment.counter
    return (amendment.id, amendment.kind, counter.key, amount, word(amendment.who), *_befores((counter,)))


def renew_item(hold: Hold, lease: Lease) -> tuple[str, ...]:
    """Write a renewal."""
    return (hold.id, str(lease.lease_ms), to_word(lease.spent))


def promise_item(promise: Promise) -> tuple[str, ...]:
    """Write a promise."""
    return (promise.name, promise.hold, str(PROMISES_MAX))


def _befores(counters: Sequence[Counter]) -> tuple[str, ...]:
    """Name the counters that take over the overspend of others, each with that one and its limit."""
    befores = [(counter.key, counter.before) for counter in counters if counter.before is not None]
    parts = (part for key, before in befores for part in (key, before.counter.key, str(before.limit)))
    return (str(len(befores)), *parts)


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


@lru_cache(WORDS_MAX)
def word(name: str) -> str:
    """Write a name so that no blank is in it, and never as nothing."""
    return quote(name, safe="/:@.-_*+") or "-"
