"""The refusals, in the words and the shape that OpenAI's clients know (LiteLLM's where OpenAI has none)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from extauthz.domain.budgets import Counter, Measure, Scope, ScopeKind, Standing
from extauthz.domain.money import usd_text
from extauthz.domain.tokens import TokenFault
from extauthz.domain.verdict import Deny, Reason

# The word for a payer in LiteLLM's messages, which people and scripts already search for.
_ENTITY = {
    ScopeKind.ORGANIZATION: "Organization",
    ScopeKind.TEAM: "Team",
    ScopeKind.MEMBER: "TeamMember",
    ScopeKind.USER: "User",
    ScopeKind.KEY: "Key",
    ScopeKind.END_USER: "EndUser",
    ScopeKind.PROJECT: "Project",
    ScopeKind.TAG: "Tag",
    ScopeKind.ANONYMOUS: "Anonymous",
}


@dataclass(frozen=True, slots=True)
class _Words:
    """How what a budget counts is called: LiteLLM's words for USD, and the same kind of words for the rest."""

    spent: str
    limit: str
    uses: str
    amount: Callable[[int], str]
    advice: str


_WORDS = {
    Measure.USD: _Words("cost", "budget", "cost", usd_text, " Ask for fewer tokens."),
    Measure.TOKENS: _Words("tokens", "tokens", "use", str, " Ask for fewer tokens."),
    Measure.REQUESTS: _Words("requests", "requests", "use", str, ""),
}

# Enough of a key's hash to find the key by, not enough to fill a message.
_KEY_DIGITS = 12


def budget_exceeded(standing: Standing, *, now_ms: int, status: int, hide_amounts: bool) -> Deny:
    """Refuse because a budget is used up, until its window resets."""
    words = _WORDS[standing.counter.measure]
    spent, limit = words.amount(standing.spent), words.amount(standing.limit)
    amounts = "" if hide_amounts else f" Current {words.spent}: {spent}, Max {words.limit}: {limit}"
    message = f"Budget has been exceeded!{_entity(standing.counter)}{amounts}{_reset(standing)}"
    end_ms = standing.counter.window.end_ms
    return Deny(
        Reason.BUDGET_EXCEEDED,
        status=status,
        type="budget_exceeded",
        message=message,
        code=str(status),
        retry_after_s=None if end_ms is None else max(1, -((now_ms - end_ms) // 1000)),
        scope=standing.counter.scope.text,
        window=standing.counter.label,
    )


def budget_held(standing: Standing, *, hide_amounts: bool) -> Deny:
    """Refuse because requests in flight hold what a budget has left; it passes as they end."""
    words = _WORDS[standing.counter.measure]
    amounts = (
        ""
        if hide_amounts
        else f" Current {words.spent}: {words.amount(standing.spent)}, Held: {words.amount(standing.held)},"
        f" Max {words.limit}: {words.amount(standing.limit)}."
    )
    return Deny(
        Reason.BUDGET_HELD,
        status=429,
        type="budget_held",
        message=f"Requests in flight hold what is left of the budget!{_entity(standing.counter)}{amounts}"
        " Try again in a moment.",
        code="429",
        retry_after_s=1,
        should_retry=True,
        scope=standing.counter.scope.text,
        window=standing.counter.label,
    )


def request_too_dear(standing: Standing, amount_max: int, *, status: int, hide_amounts: bool) -> Deny:
    """Refuse under strict admission because the most that a request can use is more than the budget has left."""
    words = _WORDS[standing.counter.measure]
    amounts = (
        ""
        if hide_amounts
        else f" It may {words.uses} up to {words.amount(amount_max)}. Current {words.spent}:"
        f" {words.amount(standing.spent)}, Max {words.limit}: {words.amount(standing.limit)}."
    )
    return Deny(
        Reason.REQUEST_TOO_DEAR,
        status=status,
        type="budget_exceeded",
        message=f"This request may {words.uses} more than the budget has left!{_entity(standing.counter)}{amounts}"
        f"{words.advice}",
        code=str(status),
        scope=standing.counter.scope.text,
        window=standing.counter.label,
    )


def unauthenticated(message: str) -> Deny:
    """Refuse because nobody knows who asks."""
    return Deny(Reason.UNAUTHENTICATED, 401, "authentication_error", message, code="invalid_api_key")


def blocked(scope: Scope) -> Deny:
    """Refuse because somebody who pays is blocked: a key, its team, its project, an end user."""
    who = _payer(scope).strip()
    what = f"Key is blocked ({who})" if scope.kind is ScopeKind.KEY else f"{who} is blocked"
    message = f"Authentication Error, {what}. Ask the operator to unblock it."
    return Deny(Reason.KEY_BLOCKED, 401, "authentication_error", message, code="key_blocked")


def key_expired(expires_ms: int, now_ms: int) -> Deny:
    """Refuse a key whose time is over."""
    end, now = _moment(expires_ms), _moment(now_ms)
    message = f"Authentication Error - Expired Key. Key Expiry time {end} and current time {now}"
    return Deny(Reason.KEY_EXPIRED, 401, "authentication_error", message, code="expired_key")


def directory_unavailable() -> Deny:
    """Refuse because nothing is known of a payer while the directory is away; the client may try again."""
    return Deny(
        Reason.DIRECTORY_UNAVAILABLE,
        503,
        "api_error",
        "Who pays cannot be found out at the moment. Try again in a moment.",
        retry_after_s=1,
        should_retry=True,
    )


def token_refused(fault: TokenFault) -> Deny:
    """Refuse a token. What is wrong with it is for the log: whoever forged it need not know what gave it away."""
    return replace(unauthenticated("This token is not accepted here."), fault=fault)


def team_refused() -> Deny:
    """Refuse a team that the token does not name."""
    return replace(payer_unknown(), fault=TokenFault.TEAM)


def payer_unknown() -> Deny:
    """Refuse whoever proved who they are, and is not listed as somebody who pays."""
    return Deny(
        Reason.PAYER_UNKNOWN, 403, "permission_denied", "Who you are is known, but nobody has said here that you pay."
    )


def keys_unavailable() -> Deny:
    """Refuse because the keys of a token's issuer are not there; the client may try again."""
    return Deny(
        Reason.KEYS_UNAVAILABLE,
        503,
        "api_error",
        "The token cannot be checked at the moment. Try again in a moment.",
        retry_after_s=1,
        should_retry=True,
        fault=TokenFault.KEYS_AWAY,
    )


def bad_request(message: str) -> Deny:
    """Refuse what cannot be understood: it is never guessed to be free, or to be discovery."""
    return Deny(Reason.BAD_REQUEST, 400, "invalid_request_error", message)


def model_unknown(name: str) -> Deny:
    """Refuse a model that the configuration does not have."""
    return Deny(
        Reason.MODEL_UNKNOWN,
        400,
        "invalid_request_error",
        f"Invalid model name passed in model={name}. Call `/v1/models` to view available models.",
        param="model",
    )


def model_not_allowed(name: str) -> Deny:
    """Refuse a model that is on none of the principal's lists."""
    return Deny(
        Reason.MODEL_NOT_ALLOWED,
        403,
        "permission_denied",
        f"This key may not use the model {name}. Call `/v1/models` to view available models.",
        param="model",
    )


def model_unpriced(name: str) -> Deny:
    """Refuse a model that nobody has a price for (`unknown_price: deny`)."""
    return Deny(
        Reason.MODEL_UNPRICED,
        403,
        "permission_denied",
        f"No price is known for the model {name}. Ask the operator to write its input_cost_per_token and "
        "output_cost_per_token in model_list (0 if it is free), or unknown_price: estimate.",
        param="model",
    )


def model_hidden(name: str) -> Deny:
    """Answer as OpenAI does for a model that does not exist: under `free_only` a paid one is not there."""
    return Deny(
        Reason.MODEL_HIDDEN,
        404,
        "invalid_request_error",
        f"The model '{name}' does not exist",
        param="model",
        code="model_not_found",
    )


def route_closed() -> Deny:
    """Refuse a route that is neither discovery nor inference nor info (`other: deny`)."""
    return Deny(Reason.ROUTE_CLOSED, 403, "permission_denied", "This route is closed here.")


def store_unavailable(reason: Reason = Reason.STORE_UNAVAILABLE) -> Deny:
    """Refuse because the budget could not be checked; the client may try again."""
    return Deny(
        reason,
        503,
        "api_error",
        "The budget cannot be checked at the moment. Try again in a moment.",
        retry_after_s=1,
        should_retry=True,
    )


def internal_error() -> Deny:
    """Refuse because of a failure of our own, which is never an accidental allow."""
    return Deny(
        Reason.INTERNAL_ERROR,
        503,
        "api_error",
        "The budget gate failed to decide. The failure is logged.",
        retry_after_s=1,
        should_retry=True,
    )


def _entity(counter: Counter) -> str:
    """Name the payer, and the model or provider that a budget of its is for."""
    only = counter.only
    return _payer(counter.scope) + ("" if only is None else f" {only.kind.capitalize()}={only.name}")


def _payer(scope: Scope) -> str:
    match scope.kind:
        case ScopeKind.GLOBAL:
            return ""
        case ScopeKind.ANONYMOUS:
            return f" {_ENTITY[scope.kind]}"
        case ScopeKind.MEMBER:
            team, user = scope.ids
            return f" {_ENTITY[scope.kind]}={user}:{team}"
        case ScopeKind.KEY:
            return f" {_ENTITY[scope.kind]}={scope.ids[0][:_KEY_DIGITS]}"
        case kind:
            return f" {_ENTITY[kind]}={scope.ids[0]}"


def _reset(standing: Standing) -> str:
    window = standing.counter.window
    if window.end_ms is None:
        return ""
    return f" The {standing.counter.label} budget resets at {_moment(window.end_ms)}."


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
