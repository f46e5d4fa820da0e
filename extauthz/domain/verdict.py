"""What the gate answers to one request. A denial is a value like any other."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from extauthz.domain.budgets import Counter, Scope
from extauthz.domain.endpoints import Api
from extauthz.domain.listings import Listing
from extauthz.domain.prices import Estimate
from extauthz.domain.reservation import Hold
from extauthz.domain.tokens import TokenFault
from extauthz.domain.value import value


class Reason(StrEnum):
    """Why a request was let through or refused; the closed set of values of the metrics' label `reason`."""

    INFO = "info"
    OTHER_ROUTE = "other_route"
    DISCOVERY = "discovery"
    DISCOVERY_PRUNED = "discovery_pruned"
    FREE_MODEL = "free_model"
    UNBILLED = "unbilled"
    WITHIN_BUDGET = "within_budget"
    ADMIN = "admin"
    STORE_FAILURE_ALLOWED = "store_failure_allowed"
    SHADOW_MODE = "shadow_mode"

    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_HELD = "budget_held"
    REQUEST_TOO_DEAR = "request_too_dear"
    UNAUTHENTICATED = "unauthenticated"
    KEY_BLOCKED = "key_blocked"
    KEY_EXPIRED = "key_expired"
    PAYER_UNKNOWN = "payer_unknown"
    KEYS_UNAVAILABLE = "keys_unavailable"
    DIRECTORY_UNAVAILABLE = "directory_unavailable"
    BAD_REQUEST = "bad_request"
    MODEL_UNKNOWN = "model_unknown"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    MODEL_UNPRICED = "model_unpriced"
    MODEL_HIDDEN = "model_hidden"
    ROUTE_CLOSED = "route_closed"
    STORE_UNAVAILABLE = "store_unavailable"
    ALREADY_ENDED = "already_ended"
    INTERNAL_ERROR = "internal_error"


class ModelsView(StrEnum):
    """Which part of a model list the client may see; in both, only what its own lists of models allow."""

    FREE_ONLY = "free_only"
    ALLOWED = "allowed"


@value
class Pass:
    """The request goes on and no money is held.

    `models` tells the response filter to prune the list, and `listing` what list it is. `hold` goes with a request that
    is exempt as free, for the case that a paid model answers it. `result` is the name under which an answer was
    promised that this request may show (domain/reservation.py: promise_name).
    """

    reason: Reason
    models: ModelsView | None = None
    listing: Listing | None = None
    hold: Hold | None = None
    result: str | None = None


@value
class Admit:
    """The request goes on and `hold` ends when it does.

    `available_nanousd` is what the tightest budget has left, None when nothing limits, and `limited` are the counters
    that do. `stream_options` is the JSON
    object that the upstream must get so that its stream reports usage, None when the request stays as it is.
    """

    reason: Reason
    hold: Hold
    available_nanousd: int | None = None
    stream_options: str | None = None
    limited: tuple[Counter, ...] = ()


@value
class AnswerModels:
    """The gate answers the model list itself, because no response filter stands on this route."""

    reason: Reason
    names: tuple[str, ...]
    listing: Listing = field(default_factory=Listing)


@value
class Deny:
    """The request ends here. `retry_after_s` is None when waiting does not help.

    `scope` is the one that binds, `window` the label of its budget. `fault` is what is wrong with the token,
    for logs alone.

    `should_retry` goes to OpenAI's SDKs as `x-should-retry`: they repeat a 429 unless it says false.
    """

    reason: Reason
    status: int
    type: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None
    should_retry: bool = False
    scope: str | None = None
    window: str | None = None
    fault: TokenFault | None = None


@value
class Defer:
    """The gate gives no answer, so that Envoy's own `failure_mode_allow` decides (`store_failure: defer`)."""

    reason: Reason


Verdict = Pass | Admit | AnswerModels | Deny | Defer


class Word(StrEnum):
    """What became of a request, in one word: the closed set of values of the metrics' label `decision`."""

    ALLOW = "allow"
    DENY = "deny"
    DEFER = "defer"
    SHADOW_DENY = "shadow_deny"  # let through by shadow mode


@value
class Decision:
    """A verdict with what it was given for: who asked, and what.

    `model` is the name that was asked for, as the client wrote it; `entry` is what of the model list that means, and
    fit for logs. `payers` are the scopes that its cost is counted on. `shadowed` is the verdict that the request would
    have got if shadow mode had not let it through. `endpoint` is the call that it makes, as far as that is known, and
    `api` the one whose clients make it.
    """

    verdict: Verdict
    route_class: str
    principal: str | None = None
    model: str | None = None
    entry: str | None = None
    payers: tuple[Scope, ...] = ()
    estimate: Estimate | None = None
    shadowed: Verdict | None = None
    endpoint: str | None = None
    api: Api = Api.OPENAI

    @property
    def judged(self) -> Verdict:
        """The verdict by the rules, whether or not shadow mode let the request through all the same."""
        return self.verdict if self.shadowed is None else self.shadowed

    @property
    def word(self) -> Word:
        """The verdict in one word."""
        match self.verdict:
            case _ if self.shadowed is not None:
                return Word.SHADOW_DENY
            case Pass() | Admit() | AnswerModels():
                return Word.ALLOW
            case Deny():
                return Word.DENY
            case Defer():
                return Word.DEFER
