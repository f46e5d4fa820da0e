"""Refusals in the words of the API that was called, so that each official client raises its own error.

The reason is in all of them: as OpenAI's `type`, at the end of Anthropic's message, and in Google's ErrorInfo.
"""

from __future__ import annotations

import json

from extauthz.domain.endpoints import Api
from extauthz.domain.verdict import Deny, Reason

# Anthropic's types and Google's statuses, by the status that their clients go by.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "api_error",
}
_GOOGLE_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    503: "UNAVAILABLE",
}
_OF_MONEY = frozenset({Reason.BUDGET_EXCEEDED, Reason.BUDGET_HELD, Reason.REQUEST_TOO_DEAR})

# Whose reasons these are, as Google's ErrorInfo has it.
ERROR_DOMAIN = "extauthz"


def refusal_body(deny: Deny, api: Api) -> str:
    """Write a refusal as a body of the API."""
    match api:
        case Api.OPENAI:
            body = _openai(deny)
        case Api.ANTHROPIC:
            body = _anthropic(deny)
        case Api.GEMINI:
            body = _gemini(deny)
    return json.dumps(body, separators=(",", ":"))


def _openai(deny: Deny) -> dict[str, object]:
    return {"error": {"message": deny.message, "type": deny.type, "param": deny.param, "code": deny.code}}


def _anthropic(deny: Deny) -> dict[str, object]:
    scope = "" if deny.scope is None else f", {deny.scope}"
    error = {
        "type": _ANTHROPIC_TYPES.get(deny.status, "invalid_request_error"),
        "message": f"{deny.message} ({deny.reason}{scope})",
    }
    return {"type": "error", "error": error}


def _gemini(deny: Deny) -> dict[str, object]:
    named = {"scope": deny.scope, "window": deny.window, "param": deny.param}
    details: list[dict[str, object]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": deny.reason.upper(),
            "domain": ERROR_DOMAIN,
            "metadata": {name: text for name, text in named.items() if text is not None},
        }
    ]
    if deny.retry_after_s is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{deny.retry_after_s}s"})
    status = "RESOURCE_EXHAUSTED" if deny.reason in _OF_MONEY else _GOOGLE_STATUSES.get(deny.status, "INVALID_ARGUMENT")
    return {"error": {"code": deny.status, "message": deny.message, "status": status, "details": details}}
