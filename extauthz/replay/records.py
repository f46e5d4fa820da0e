"""What was recorded: lines of `extauthz watch --json` or of `extauthz journal`, read as values, in the order of time.

A watch knows what was decided and expected, not what it cost in the end. A journal knows what was let through and what
that cost, and nothing of what was refused.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.claimed import Claimed
from extauthz.domain.directory import ADMIN_NAME
from extauthz.domain.money import NANOUSD_PER_USD
from extauthz.domain.prices import Usage
from extauthz.domain.routes import RouteClass
from extauthz.domain.verdict import Reason, Word
from extauthz.errors import ExtauthzError
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.journal import CHECKPOINT, LIMIT_REMOVED, Checkpoint, Entry, position

# Journals are in the order of endings, and files of several replicas one after the other: so many records are looked
# at together, and the earliest goes first.
LOOKAHEAD_MAX = 10_000

NO_RECORD = "is neither a line of `extauthz watch --json` nor of `extauthz journal`"

_ENDINGS = ("settled", "released", "expired")
_AMENDMENTS = {**{kind.value: kind for kind in AmendmentKind}, LIMIT_REMOVED: AmendmentKind.LIMIT}

# What stands in for a journal's request, which has no path.
_METHOD, _PATH = "POST", "/v1/chat/completions"


class RecordsUnusableError(ExtauthzError):
    """There is something in the file that no record is."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A request as it was decided about.

    `reason` is None where it was not recorded. `key_sha256` names who asked, `claimed` who did by another credential
    than a key; both are None when nobody or an `admin` did.
    `usage` are the tokens that were used or expected, None when unknown; `cost_nanousd` is what that was taken to cost,
    and `cost_nanousd_max` the most that it could have. `exact` says that it is what was booked, and no expectation.
    """

    at_ms: int
    word: Word
    reason: str | None
    method: str
    path: str
    route_class: str
    model: str | None
    principal: str
    key_sha256: str | None
    end_user: str | None
    claimed: Claimed | None = None
    admin: bool = False
    truncated: bool = False
    usage: Usage | None = None
    cost_nanousd: int = 0
    cost_nanousd_max: int = 0
    exact: bool = False

    @property
    def let_through(self) -> bool:
        """Whether the request went on."""
        return self.word is not Word.DENY


@dataclass(frozen=True, slots=True)
class Opening:
    """What had been spent when the record begins; `first` begins books anew, as an export does that lost its place."""

    at_ms: int
    spent: Mapping[Counter, int]
    first: bool


@dataclass(frozen=True, slots=True)
class Amended:
    """A change of the books by hand."""

    at_ms: int
    amendment: Amendment


@dataclass(frozen=True, slots=True)
class Corrected:
    """A cost that was put right after a lease had ended the reservation: what it was is told by two entries."""

    at_ms: int


Record = Decided | Opening | Amended | Corrected


def read_records(lines: Iterable[str]) -> Iterator[Record]:
    """Read lines, and give what they say by time. Raises RecordsUnusableError, with the number of the line."""
    waiting: list[tuple[int, int, Record]] = []
    for number, record in enumerate(_parsed(lines)):
        # An opening goes before all that it opens: some of that was reserved before the checkpoint was made.
        heapq.heappush(waiting, (0 if isinstance(record, Opening) else record.at_ms, number, record))
        if len(waiting) > LOOKAHEAD_MAX:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _parsed(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            if line.endswith("\n"):
                raise RecordsUnusableError(f"line {number} {NO_RECORD}") from error
            return  # the last one, cut off when its writer was stopped
        if record is not None:
            yield record


def _record(row: Mapping[str, Any]) -> Record | None:
    if "decided_at" in row:
        return _watched(row)
    if row["how"] == CHECKPOINT:
        checkpoint = Checkpoint.from_row(row)
        spent = {Counter.parse(key): int(amount) for key, amount in checkpoint.spent.items()}
        return Opening(position(checkpoint.at)[0], spent, checkpoint.first)
    return _journalled(Entry.from_row(row))


def _watched(row: Mapping[str, Any]) -> Decided:
    """Read a decision; what is not set may be there as null, or not at all."""
    decision, expected = row["decision"], row.get("estimate") or {}
    scopes = tuple(map(Scope.parse, row.get("scopes") or ()))
    word, principal = Word(decision["decision"]), row.get("principal") or ""
    tokens = [int(expected.get(f"{kind}_tokens") or 0) for kind in ("input", "output", "reasoning_output")]
    return Decided(
        at_ms=_milliseconds(row["decided_at"]),
        word=word,
        reason=Reason(decision["reason"]),
        method=row.get("method") or "",
        path=row.get("path") or "",
        route_class=RouteClass(row["route_class"]),
        model=row.get("model") or None,
        principal=principal,
        key_sha256=_id_of(scopes, ScopeKind.KEY),
        end_user=_id_of(scopes, ScopeKind.END_USER),
        claimed=_claimed(scopes),
        admin=principal == ADMIN_NAME and _only_global(scopes),
        truncated=bool(expected.get("truncated")),
        usage=Usage(tokens[0], tokens[1]) if expected else None,
        cost_nanousd=_nanousd(expected.get("cost_usd")),
        cost_nanousd_max=_nanousd(expected.get("cost_usd_max")),
    )


def _journalled(entry: Entry) -> Record | None:
    """Read an entry; None for one that only explains others."""
    at_ms = position(entry.at)[0]
    if entry.how in _AMENDMENTS:
        kind, counter = _AMENDMENTS[entry.how], Counter.parse(entry.counters[0])
        amount = None if entry.how == LIMIT_REMOVED else entry.cost.of(counter.measure)
        return Amended(at_ms, Amendment(entry.id or entry.at, kind, counter, amount, entry.who))
    if entry.how not in _ENDINGS:
        return None
    if entry.booked != entry.cost:
        return Corrected(at_ms)
    scopes = tuple(Counter.parse(counter).scope for counter in entry.counters)
    return Decided(
        at_ms=entry.reserved_at_ms or at_ms,
        word=Word.ALLOW,
        reason=None,
        method=_METHOD,
        path=_PATH,
        route_class=RouteClass.INFERENCE,
        model=entry.model or None,
        principal="",
        key_sha256=_id_of(scopes, ScopeKind.KEY),
        end_user=_id_of(scopes, ScopeKind.END_USER),
        claimed=_claimed(scopes),
        admin=_only_global(scopes),
        usage=_usage(entry.tokens) if entry.tokens else None,
        cost_nanousd=entry.cost.cost_nanousd,
        cost_nanousd_max=entry.cost.cost_nanousd,
        exact=True,
    )


def _usage(tokens: Sequence[int]) -> Usage:
    input_tokens, output_tokens, *special = tokens
    read, created, reasoning = (*special, 0, 0, 0)[:3]
    return Usage(input_tokens, output_tokens, read, created, reasoning)


def _claimed(scopes: Sequence[Scope]) -> Claimed | None:
    """Tell whom another credential than a key named. It was let in, so it does not matter whether it was listed."""
    user, team, organization = (
        _id_of(scopes, kind) for kind in (ScopeKind.USER, ScopeKind.TEAM, ScopeKind.ORGANIZATION)
    )
    has_key = any(scope.kind is ScopeKind.KEY for scope in scopes)
    named = any(name is not None for name in (user, team, organization))
    return Claimed(user, team, organization, unlisted=True) if named and not has_key else None


def _id_of(scopes: Iterable[Scope], kind: ScopeKind) -> str | None:
    return next((scope.ids[0] for scope in scopes if scope.kind is kind), None)


def _only_global(scopes: Iterable[Scope]) -> bool:
    """Tell an admin, whose spend is counted on nothing but the whole, and on the end user that it asks for."""
    kinds = {scope.kind for scope in scopes}
    return ScopeKind.GLOBAL in kinds and kinds <= {ScopeKind.GLOBAL, ScopeKind.END_USER}


def _nanousd(amount_usd: float | None) -> int:
    return int((Decimal(str(amount_usd or 0)) * NANOUSD_PER_USD).to_integral_value())


def _milliseconds(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1000)
