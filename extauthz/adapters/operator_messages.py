"""What operators ask and are told, to and from the messages of `extauthz.diagnostics.v1`."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from decimal import Decimal

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.adapters.explanations import timestamp
from extauthz.adapters.measures import dollars, put_amounts
from extauthz.domain.budgets import Counter, Scope
from extauthz.domain.money import AMOUNT_NANOUSD_MAX, limit_nanousd
from extauthz.domain.reservation import public_id
from extauthz.errors import UnclearError
from extauthz.holdings import LISTED, LISTED_MAX, Holdings, ReservationQuery
from extauthz.ledger.amounts import measure_of
from extauthz.ledger.audit import DRIFTS_SHOWN_MAX
from extauthz.ledger.base import AmendmentKind, Audit, Drift, OpenReservation
from extauthz.survey import SurveyedBudget
from extauthz.treasury import PAGE_SIZE, PAGE_SIZE_MAX, SCOPE_KINDS, Amount, BudgetPage, BudgetQuery, Change, Place

ChangeRequest = messages.SetLimitRequest | messages.ResetBudgetRequest | messages.GrantBudgetRequest

_PLACE = re.compile(r"[0-9]{1,15}(-[0-9]{1,15})?")
AGE_SECONDS_MAX = 10 * 365 * 86_400


def budget_query(request: messages.ListBudgetsRequest) -> BudgetQuery:
    """Read which budgets are asked for. Raises UnclearError."""
    share = request.used_share_min
    if not share >= 0 or math.isinf(share):
        raise UnclearError("`used_share_min` is a share of the limit: send 0 or more, such as 0.9")
    return BudgetQuery(
        prefix=request.prefix,
        count_max=_count(request.page_size, PAGE_SIZE, PAGE_SIZE_MAX, "page_size"),
        after=_place(request.page_token) if request.page_token else None,
        used_share_min=share,
    )


def budget_page(page: BudgetPage) -> messages.ListBudgetsResponse:
    """Write a page of budgets."""
    return messages.ListBudgetsResponse(
        budgets=map(budget, page.budgets), next_page_token="" if page.end is None else _token(page.end)
    )


def budget(surveyed: SurveyedBudget) -> messages.Budget:
    """Write a budget as it stands."""
    standing, configured = surveyed.standing, surveyed.budget
    window = standing.counter.window
    message = messages.Budget(
        scope=standing.counter.scope.text,
        window=standing.counter.label,
        resets_at=None if window.end_ms is None else timestamp(window.end_ms),
        soft_limit_usd=None if configured.soft_limit is None else dollars(configured.soft_limit),
        exhausted=standing.exhausted,
    )
    put_amounts(
        message,
        standing.counter.measure,
        limit=standing.limit,
        spent=standing.spent,
        held=standing.held,
        available=standing.available,
        configured_limit=configured.limit,
    )
    return message


def change(request: ChangeRequest, peer: str, new_id: Callable[[], str]) -> Change:
    """Read which change is wanted; who does not say so is the `peer`. Raises UnclearError."""
    amount: Amount | None = None
    match request:
        case messages.SetLimitRequest():
            kind = AmendmentKind.LIMIT
            amount = _limit(request)
        case messages.GrantBudgetRequest():
            kind = AmendmentKind.GRANT
            amount = _granted(request)
        case _:
            kind = AmendmentKind.RESET
    return Change(kind, request.scope, request.window, amount, request.who or peer, request.change_id or new_id())


def _limit(request: messages.SetLimitRequest) -> Amount | None:
    match request.HasField("limit_usd"), request.HasField("limit"):
        case True, True:
            raise UnclearError("`limit_usd` and `limit` are for different budgets: send one of them")
        case True, False:
            return Amount(_nanousd("limit_usd", request.limit_usd), in_usd=True)
        case False, True:
            return Amount(_whole("limit", request.limit), in_usd=False)
        case _:
            return None


def _granted(request: messages.GrantBudgetRequest) -> Amount:
    if request.amount and request.amount_usd:
        raise UnclearError("`amount_usd` and `amount` are for different budgets: send one of them")
    if request.amount:
        return Amount(_whole("amount", request.amount), in_usd=False)
    amount = Amount(_nanousd("amount_usd", request.amount_usd), in_usd=True)
    if amount.value == 0:
        raise UnclearError("`amount_usd` (or `amount`) must be above 0: send by how much the limit is raised")
    return amount


def reservation_query(request: messages.ListReservationsRequest) -> ReservationQuery:
    """Read which reservations are asked for. Raises UnclearError."""
    if not 0 <= request.age_seconds_min <= AGE_SECONDS_MAX:
        raise UnclearError(f"`age_seconds_min` must be between 0 and {AGE_SECONDS_MAX}")
    return ReservationQuery(
        scope=scope(request.scope) if request.scope else None,
        model=request.model,
        age_ms_min=int(request.age_seconds_min * 1000),
        count_max=_count(request.limit, LISTED, LISTED_MAX, "limit"),
    )


def reservations(holdings: Holdings) -> messages.ListReservationsResponse:
    """Write open reservations."""
    return messages.ListReservationsResponse(
        reservations=(_reservation(one, holdings.now_ms) for one in holdings.reservations), open=holdings.open
    )


def _reservation(reservation: OpenReservation, now_ms: int) -> messages.Reservation:
    return messages.Reservation(
        id=reservation.id,
        public_id=public_id(reservation.id),
        model=reservation.model,
        reserved_at=timestamp(reservation.reserved_at_ms),
        age_seconds=max(0, now_ms - reservation.reserved_at_ms) / 1000,
        lease_ends_at=timestamp(reservation.lease_end_ms),
        held=[_held(counter, amount) for counter, amount in reservation.amounts],
    )


def _held(counter: Counter, amount: int) -> messages.Reservation.Held:
    message = messages.Reservation.Held(scope=counter.scope.text, window=counter.label)
    put_amounts(message, counter.measure, held=amount)
    return message


def audited(audit: Audit) -> messages.AuditResponse:
    """Write what an audit found."""
    return messages.AuditResponse(
        ok=audit.ok,
        drift_usd=dollars(audit.drift_nanousd),
        scopes_checked=audit.scopes_checked,
        counters_checked=audit.counters_checked,
        reservations_open=audit.reservations_open,
        entries_read=audit.entries_read,
        drifts=map(_drift, audit.drifts[:DRIFTS_SHOWN_MAX]),
    )


def _drift(drift: Drift) -> messages.AuditResponse.Drift:
    message = messages.AuditResponse.Drift(of=drift.of, counter=drift.name)
    put_amounts(message, measure_of(drift.name), expected=drift.expected, found=drift.found)
    return message


def journal_place(text: str) -> str | None:
    """Read after which entry of the journal to begin, None: at the checkpoint. Raises UnclearError."""
    if text and not _PLACE.fullmatch(text):
        raise UnclearError(f"`after` must be the `at` of an entry, such as 1795000000000-0, and not {text[:32]!r}")
    return text or None


def scope(text: str) -> Scope:
    """Read a scope. Raises UnclearError."""
    try:
        return Scope.parse(text)
    except ValueError:
        raise UnclearError(f"{text!r} is not a scope: write {SCOPE_KINDS}") from None


def _nanousd(name: str, value: float) -> int:
    try:
        return limit_nanousd(Decimal(repr(value)))
    except ValueError as error:
        raise UnclearError(f"`{name}`: {error}") from None


def _whole(name: str, value: int) -> int:
    if not 0 <= value <= AMOUNT_NANOUSD_MAX:
        raise UnclearError(f"`{name}` must be between 0 and {AMOUNT_NANOUSD_MAX}")
    return value


def _count(asked: int, usual: int, count_max: int, name: str) -> int:
    if not 0 <= asked <= count_max:
        raise UnclearError(f"`{name}` must be between 1 and {count_max}, or left out for {usual}")
    return asked or usual


def _token(place: Place) -> str:
    return base64.urlsafe_b64encode("|".join(place).encode()).decode()


def _place(token: str) -> Place:
    try:
        scope_text, _, window = base64.urlsafe_b64decode(token.encode()).decode().partition("|")
    except (binascii.Error, ValueError):
        raise UnclearError("`page_token` is none of ours: send `next_page_token` of the page before") from None
    return scope_text, window
