"""Deciding recorded requests again, by another configuration, over books in memory that have the record's own time.

The decision is the Authorizer's own. Each request holds its money and is settled at once, so that budgets and windows
act as they did; what others held at the same moment does not. Its tokens are those of the record, at new prices.

A record is less than a request: of several models, or fallbacks of its own, it has the first, and nothing of its route
but the path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from extauthz.authorizer import Authorizer, Call
from extauthz.config.model import DirectoryKind, Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.ask import Ask
from extauthz.domain.budgets import Counter
from extauthz.domain.claimed import Claimed
from extauthz.domain.credentials import Credential
from extauthz.domain.end_users import end_user_of
from extauthz.domain.prices import Estimate, Prices, Usage
from extauthz.domain.request import RequestFacts
from extauthz.domain.routes import Route, RouteClass
from extauthz.domain.verdict import Admit, Decision, Deny, Pass, Reason, Word
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.catalog import Reach
from extauthz.pricing.cost import cost
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.replay.records import LOOKAHEAD_MAX, Amended, Corrected, Decided, Opening, Record

# Endings that the books remember: as many as can come in another order than that of time, and some.
TOMBSTONES_MAX = 2 * LOOKAHEAD_MAX

# Memory answers at once; nobody waits.
PATIENCE_S = 60.0

END_USER_HEADER = "x-litellm-end-user-id"

# What makes a preflight of OPTIONS; no record has headers.
_PREFLIGHT = {"origin": ("replay",), "access-control-request-method": ("POST",)}

# What a request was refused for, or got, by what had been spent.
_BY_THE_BOOKS = (Reason.BUDGET_EXCEEDED, Reason.DISCOVERY_PRUNED)
# What a refusal was for that no configuration decides.
_OF_THE_MOMENT = (
    Reason.BUDGET_HELD,
    Reason.STORE_UNAVAILABLE,
    Reason.ALREADY_ENDED,
    Reason.INTERNAL_ERROR,
    Reason.KEYS_UNAVAILABLE,
)
# Refusals of somebody whose credential was not recorded: without it, the request would be anybody's.
_OF_STRANGERS = (
    Reason.UNAUTHENTICATED,
    Reason.PAYER_UNKNOWN,
    Reason.KEY_BLOCKED,
    Reason.KEY_EXPIRED,
    Reason.DIRECTORY_UNAVAILABLE,
)

NO_KEY = "who asked was not recorded"
IN_A_DIRECTORY = "who asked may be known from a directory, and here none is asked"
NO_TOKENS = "how many tokens it used was not recorded"
OF_THE_MOMENT = "it was refused for what others held, or for the store, at that moment"
UNKNOWN_BOOKS = "what had been spent before the record begins is not known (--spent)"
CORRECTION = "it puts a cost right that a lease had booked"
NO_ROOM = "it stands too far from its place in time, or on too many counters"
LATE_CHECKPOINT = "entries are missing before a checkpoint"


class Outcome(StrEnum):
    """What another configuration makes of a recorded decision."""

    SAME = "same"
    DENIED = "now denied"
    ALLOWED = "now allowed"
    COST = "cost changed"
    OTHERWISE = "decided otherwise"  # let through or refused as before, for another reason
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one record.

    `reason` is that of the new decision or, where nothing can be told, why not; `scope` the one that refuses now.
    Costs are nano-USD, 0 for what was not let through.
    """

    record: Decided | None
    outcome: Outcome
    reason: str
    scope: str | None = None
    refused: bool = False
    cost_before_nanousd: int = 0
    cost_after_nanousd: int = 0


class _Recorded(Authorizer):
    """Decides as ever, but for what a request is expected to use: that stands in its record."""

    record: Decided | None = None

    def expect(
        self,
        ask: Ask,  # noqa: ARG002 - what it says was said again
        reach: Reach,
        route: Route,  # noqa: ARG002
        settings: Settings,  # noqa: ARG002
        unseen_bytes: int,  # noqa: ARG002
    ) -> Estimate:
        """Price what was recorded."""
        record = self.record
        if record is None:
            return Estimate(0, 0, 0, 0)
        cost_nanousd, usage = _cost(record, reach.prices), record.usage or Usage(0, 0)
        return Estimate(usage.input_tokens, usage.output_tokens, cost_nanousd, _cost_max(record, cost_nanousd))


class Replayer:
    """Decides records again, one after the other.

    `spent` is what had been spent on counters when the record begins; None when that is not known.
    """

    def __init__(self, config: Snapshot, spent: Mapping[Counter, int] | None = None) -> None:
        self._config = config
        self._now_ms = 0
        self._given = spent
        self._books_known = spent is not None
        self._decided = 0
        self._begin()

    def _begin(self) -> None:
        """Open new books."""
        self._ledger = MemoryLedger(lambda: self._now_ms, b"replay", tombstones_max=TOMBSTONES_MAX)
        self._authorizer = _Recorded(self._ledger, UsualAnswer(UsualTokens(0), UsualTokens(0)))
        self._unbooked = self._given or {}

    async def replay(self, record: Record) -> Found | None:
        """Decide one record again; None for one that no decision is."""
        match record:
            case Opening():
                return await self._open(record)
            case Amended(at_ms, amendment):
                await self._move_to(at_ms)
                await self._ledger.amend(amendment)
                return None
            case Corrected():
                return Found(None, Outcome.UNKNOWN, CORRECTION)
            case Decided():
                await self._move_to(record.at_ms)
                self._decided += 1
                return await self._again(record)

    async def _open(self, opening: Opening) -> Found | None:
        if self._decided:
            return Found(None, Outcome.UNKNOWN, LATE_CHECKPOINT)
        if self._given is not None:
            return None
        if opening.first:
            self._begin()
        self._books_known = True
        self._unbooked = {
            counter: amount for counter, amount in opening.spent.items() if _counts(counter, opening.at_ms)
        }
        await self._move_to(opening.at_ms)
        return None

    async def _move_to(self, at_ms: int) -> None:
        """Let the record's time go on, and book what had been spent before it began."""
        self._now_ms = at_ms
        unbooked, self._unbooked = self._unbooked, {}
        for counter, amount in unbooked.items():
            await self._ledger.amend(Amendment(counter.key, AmendmentKind.IMPORT, counter, amount, "replay"))

    async def _again(self, record: Decided) -> Found:
        facts, credential = _asked(record, self._config)
        self._authorizer.record = record
        name = f"replay-{self._decided}"
        decision = await self._authorizer.decide(facts, Call(name, name, PATIENCE_S), self._config, credential)
        elsewhere = self._config.settings.directory is not DirectoryKind.FILES
        if elsewhere and decision.judged.reason in _OF_STRANGERS:
            return Found(record, Outcome.UNKNOWN, IN_A_DIRECTORY)
        after_nanousd = await self._settle(decision)
        return _compared(record, decision, after_nanousd, books_known=self._books_known)

    async def _settle(self, decision: Decision) -> int:
        """Book what a request costs that was let through, and tell how much that is."""
        if not isinstance(decision.verdict, Admit):
            return 0
        hold = decision.verdict.hold
        await self._ledger.settle(hold, hold.estimate.spent)
        return hold.estimate.cost_nanousd


def _asked(record: Decided, config: Snapshot) -> tuple[RequestFacts, Credential | Claimed | None]:
    """Write a request that asks for what was asked, by whom it was."""
    end_user, headers = record.end_user, dict[str, tuple[str, ...]]()
    body: dict[str, str] = {} if record.model is None else {"model": record.model}
    if end_user is not None:
        named: dict[str, tuple[str, ...]] = {END_USER_HEADER: (end_user,)}
        if end_user_of(named) == end_user:
            headers = named
        else:  # a header cannot carry it, so it came in the body
            body["user"] = end_user
    admin_sha256 = config.directory.accounts.admin_sha256 or ""
    key_sha256 = admin_sha256 if record.admin else record.key_sha256
    if record.method == "OPTIONS" and record.route_class == RouteClass.INFO:
        headers |= _PREFLIGHT
    # What could not be read cannot be read by any configuration.
    unreadable = record.reason == Reason.BAD_REQUEST
    facts = RequestFacts(
        method=record.method,
        path=record.path,
        headers=headers,
        body=b"" if unreadable else json.dumps(body).encode(),
        unseen_bytes=1 if record.truncated else 0,
    )
    return facts, record.claimed if key_sha256 is None else Credential(key_sha256)


def _cost(record: Decided, prices: Prices) -> int:
    """Tell what a request costs now; as before where its tokens are not known."""
    return record.cost_nanousd if record.usage is None else cost(prices, record.usage)


def _cost_max(record: Decided, cost_nanousd: int) -> int:
    """Tell what a request can cost at most now: dearer by as much as what it is expected to cost."""
    if record.cost_nanousd == 0:
        return max(cost_nanousd, record.cost_nanousd_max)
    return -(-record.cost_nanousd_max * cost_nanousd // record.cost_nanousd)


def _counts(counter: Counter, at_ms: int) -> bool:
    """Tell whether a window still counts."""
    return counter.window.end_ms is None or counter.window.end_ms > at_ms


def _compared(record: Decided, decision: Decision, after_nanousd: int, *, books_known: bool) -> Found:
    """Hold the new decision against the recorded one."""
    judged = decision.judged
    refused, scope = decision.word is Word.DENY, judged.scope if isinstance(judged, Deny) else None
    before_nanousd = record.cost_nanousd if record.let_through else 0
    why = _cannot_tell(record, decision, books_known=books_known)
    if why is not None:
        return Found(record, Outcome.UNKNOWN, why)
    if record.let_through and refused:
        outcome = Outcome.DENIED
    elif refused:
        outcome = Outcome.SAME if record.reason == judged.reason else Outcome.OTHERWISE
    elif not record.let_through:
        outcome = Outcome.ALLOWED
    elif _otherwise(record, decision):
        outcome = Outcome.OTHERWISE
    else:
        outcome = Outcome.SAME if before_nanousd == after_nanousd else Outcome.COST
    return Found(record, outcome, str(judged.reason), scope, refused, before_nanousd, after_nanousd)


def _otherwise(record: Decided, decision: Decision) -> bool:
    """Tell whether a request is let through for another reason that somebody notices: shadow mode, or a pruned list."""
    if record.word is Word.SHADOW_DENY or decision.word is Word.SHADOW_DENY:
        return (record.word, record.reason) != (decision.word, decision.judged.reason)
    return record.route_class == RouteClass.DISCOVERY and record.reason != decision.judged.reason


def _cannot_tell(record: Decided, decision: Decision, *, books_known: bool) -> str | None:
    """Say why the record is not enough to decide again, None when it is."""
    reason, verdict = decision.judged.reason, decision.verdict
    refused = decision.word is Word.DENY
    known = record.key_sha256 is not None or record.claimed is not None or record.admin
    if not known and (reason is Reason.UNAUTHENTICATED or record.reason in _OF_STRANGERS):
        return NO_KEY
    if reason in (Reason.STORE_UNAVAILABLE, Reason.STORE_FAILURE_ALLOWED):
        return NO_ROOM
    if not refused and record.reason in _OF_THE_MOMENT:
        return OF_THE_MOMENT
    if not refused and record.reason in _BY_THE_BOOKS and record.reason != reason:
        return None if books_known or _whatever_was_spent(decision) else UNKNOWN_BOOKS
    if isinstance(verdict, Admit) and record.usage is None and not record.exact:
        return NO_TOKENS
    return None


def _whatever_was_spent(decision: Decision) -> bool:
    """Tell whether no budget limits what was decided about."""
    match decision.verdict:
        case Admit(limited=()) | Pass(reason=Reason.FREE_MODEL):
            return True
        case _:
            return False
