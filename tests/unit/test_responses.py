"""Verdicts as Envoy's CheckResponse, field by field."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from google.rpc import code_pb2

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValueOption
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz.adapters.holds import HoldCodec
from extauthz.adapters.listings import encode_listing
from extauthz.adapters.responses import Responses, answered, denied
from extauthz.alerts import Warnings
from extauthz.config.upstream_auth import UpstreamAuthRule
from extauthz.domain.budgets import Budget, Counter, Scope, ScopeKind, Standing
from extauthz.domain.endpoints import Api
from extauthz.domain.listings import Listing
from extauthz.domain.payers import Accounts
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.reservation import Hold, public_id
from extauthz.domain.verdict import Admit, AnswerModels, Deny, ModelsView, Pass, Reason
from extauthz.domain.windows import Window, WindowRule
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offers import CatalogSource, Offer
from extauthz.survey import Survey, SurveyedBudget
from tests.support.surveyed import a_snapshot

HOLD = Hold(
    id="6f1c",
    reserved_at_ms=1_790_000_000_000,
    counters=(Counter(Scope(ScopeKind.TEAM, ("research",)), Window("lifetime", 0, None)),),
    model="gpt-4o",
    prices=Prices(Decimal("1.5e-7"), Decimal("0.00001")),
    estimate=Estimate(12, 512, 5_121_800, 99_000_000),
    streamed=True,
    tokens_max=128_000,
)
SECRET = "sk-of-the-upstream"
CODEC = HoldCodec(lambda: b"k" * 32)
WARNINGS = Warnings()
RESPONSES = Responses(CODEC, WARNINGS)
AS_IT_IS = UpstreamAuthRule.model_validate("pass")
REMOVED = UpstreamAuthRule.model_validate("remove")
SET = UpstreamAuthRule.model_validate({"set": SECRET})
CREDENTIALS = {
    "api-key",
    "authorization",
    "ocp-apim-subscription-key",
    "x-api-key",
    "x-goog-api-key",
    "x-litellm-api-key",
}
SENT = ("authorization", "accept-encoding", "x-extauthz-id", "x-extauthz-models", "content-type")


def added(headers: list[HeaderValueOption]) -> dict[str, str]:
    """Give headers by name, having made sure that each replaces what others wrote."""
    assert {HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD} >= {header.append_action for header in headers}
    return {header.header.key: header.header.value for header in headers}


def metadata(response: CheckResponse) -> dict[str, object]:
    """Give the dynamic metadata."""
    return dict(response.dynamic_metadata.items())


def test_an_open_door() -> None:
    """A request that nothing is known about passes as it came, but for headers that are ours alone."""
    response = RESPONSES.passed(Pass(Reason.OTHER_ROUTE), SENT, AS_IT_IS)

    assert code_pb2.OK == response.status.code
    assert {} == added(list(response.ok_response.headers))
    assert ["x-extauthz-id", "x-extauthz-models"] == list(response.ok_response.headers_to_remove)
    assert {} == added(list(response.ok_response.response_headers_to_add))
    assert {"extauthz.reason": "other_route"} == metadata(response)


def test_a_list_to_be_pruned() -> None:
    """The response filter is told by header and by metadata, and the list comes uncompressed."""
    response = RESPONSES.passed(Pass(Reason.DISCOVERY_PRUNED, ModelsView.FREE_ONLY), SENT, AS_IT_IS)

    assert {"x-extauthz-models": "free_only"} == added(list(response.ok_response.headers))
    conditions = {"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"}
    assert {"accept-encoding", "x-extauthz-id", *conditions} == set(response.ok_response.headers_to_remove)
    assert {
        "extauthz.reason": "discovery_pruned",
        "extauthz.models": "free_only",
        "extauthz.listing": encode_listing(Listing()),
    } == metadata(response)


def test_a_result_that_is_read() -> None:
    """Its name goes with it, sealed, and the answer comes uncompressed and whole: no piece is taken for all of it."""
    response = RESPONSES.passed(Pass(Reason.UNBILLED, result="a name"), (*SENT, "range"), AS_IT_IS)
    sealed = metadata(response)["extauthz.result"]

    assert "a name" == CODEC.unseal(str(sealed))
    assert {"accept-encoding", "range", "if-none-match"} <= set(response.ok_response.headers_to_remove)
    without = Responses(HoldCodec(lambda: None), WARNINGS).passed(Pass(Reason.UNBILLED, result="x"), SENT, AS_IT_IS)
    assert {"extauthz.reason": "unbilled"} == metadata(without)


def test_an_admission_carries_its_hold() -> None:
    """The hold travels in the metadata; the client sees a hash of its id and what is left."""
    verdict = Admit(Reason.WITHIN_BUDGET, HOLD, available_nanousd=1_500_000_000)
    response = RESPONSES.admitted(verdict, SENT, AS_IT_IS, hide=False)
    fields = metadata(response)

    assert code_pb2.OK == response.status.code
    assert {"extauthz.reason", "extauthz.r"} == fields.keys()
    assert HOLD == CODEC.decode(str(fields["extauthz.r"]))
    assert {"x-extauthz-reservation": public_id("6f1c"), "x-extauthz-available-usd": "1.5"} == added(
        list(response.ok_response.response_headers_to_add)
    )
    assert "accept-encoding" in response.ok_response.headers_to_remove


def test_without_a_key_an_admission_carries_no_hold() -> None:
    """Where nothing can be signed nothing is sent: an unsigned hold would be anybody's to write."""
    whole = replace(HOLD, whole_prices=HOLD.prices)
    verdict = Admit(Reason.STORE_FAILURE_ALLOWED, whole, stream_options="{}")
    response = Responses(HoldCodec(lambda: None), WARNINGS).admitted(verdict, SENT, AS_IT_IS, hide=False)

    assert code_pb2.OK == response.status.code
    assert {
        "extauthz.reason": "store_failure_allowed",
        "extauthz.truncated": True,
        "extauthz.inject": True,
        "extauthz.stream_options": "{}",
    } == metadata(response)


@pytest.mark.parametrize(
    ("available_nanousd", "hide"),
    [pytest.param(None, False, id="no limit"), pytest.param(1, True, id="hidden")],
)
def test_amounts_are_not_always_shown(available_nanousd: int | None, hide: bool) -> None:  # noqa: FBT001 - a column
    """Where nothing limits, or where amounts are hidden, no amount reaches the client."""
    verdict = Admit(Reason.WITHIN_BUDGET, HOLD, available_nanousd)
    response = RESPONSES.admitted(verdict, SENT, AS_IT_IS, hide=hide)

    assert {"x-extauthz-reservation"} == added(list(response.ok_response.response_headers_to_add)).keys()


@pytest.mark.parametrize(
    ("limited", "hide", "warning"),
    [
        pytest.param(HOLD.counters, False, "team:research lifetime 92% used", id="near its limit"),
        pytest.param(HOLD.counters, True, "team:research lifetime near its limit", id="hidden"),
        pytest.param((), False, None, id="a budget that does not bind"),
    ],
)
async def test_a_budget_near_its_limit_is_told(
    limited: tuple[Counter, ...],
    hide: bool,  # noqa: FBT001 - a column
    warning: str | None,
) -> None:
    """The client hears of a budget that limits it and is nearly spent, and of none that only counts."""
    surveyed = SurveyedBudget(Standing(HOLD.counters[0], 100, 92, 0), Budget(100, WindowRule()))
    warnings = Warnings()
    await warnings.learn(Survey(budgets=(surveyed,)), a_snapshot(Accounts()))
    verdict = Admit(Reason.WITHIN_BUDGET, HOLD, limited=limited)
    response = Responses(CODEC, warnings).admitted(verdict, SENT, AS_IT_IS, hide=hide)

    assert warning == added(list(response.ok_response.response_headers_to_add)).get("x-extauthz-warning")


def test_usage_is_asked_for_by_a_boolean() -> None:
    """The meter adds stream options only where it is told to: an empty text would be true in Lua."""
    options = '{"include_usage":true}'
    asked = RESPONSES.admitted(Admit(Reason.WITHIN_BUDGET, HOLD, stream_options=options), SENT, AS_IT_IS, hide=False)
    not_asked = RESPONSES.admitted(Admit(Reason.WITHIN_BUDGET, HOLD), SENT, AS_IT_IS, hide=False)

    assert metadata(asked)["extauthz.inject"] is True
    assert options == metadata(asked)["extauthz.stream_options"]
    assert not {"extauthz.inject", "extauthz.stream_options"} & metadata(not_asked).keys()


@pytest.mark.parametrize(
    ("rule", "set_headers", "removed"),
    [
        pytest.param(AS_IT_IS, {}, set(), id="pass"),
        pytest.param(REMOVED, {}, CREDENTIALS, id="remove"),
        # Envoy removes after it has set: the header that is set must not be among those that go.
        pytest.param(SET, {"authorization": f"Bearer {SECRET}"}, CREDENTIALS - {"authorization"}, id="set"),
    ],
)
def test_the_clients_credential(rule: UpstreamAuthRule, set_headers: dict[str, str], removed: set[str]) -> None:
    """The upstream gets the client's credential, none, or its own, wherever the client had put its key."""
    free = RESPONSES.passed(Pass(Reason.FREE_MODEL), SENT, rule)
    paid = RESPONSES.admitted(Admit(Reason.WITHIN_BUDGET, HOLD), SENT, rule, hide=False)

    for response in (free, paid):
        assert set_headers == added(list(response.ok_response.headers))
        assert removed == CREDENTIALS & set(response.ok_response.headers_to_remove)


def test_a_list_is_answered_as_a_denial_of_200() -> None:
    """Envoy sends the body of a denial as it is, whatever the status."""
    catalog = Catalog(CatalogSource((Offer("local-llama", "openai/llama"),)), lambda *_: None)
    response = answered(AnswerModels(Reason.DISCOVERY_PRUNED, ("local-llama",)), catalog)

    assert code_pb2.OK != response.status.code
    assert 200 == response.denied_response.status.code
    assert {"content-type": "application/json"} == added(list(response.denied_response.headers))
    assert ["local-llama"] == [model["id"] for model in json.loads(response.denied_response.body)["data"]]
    assert {"extauthz.reason": "discovery_pruned"} == metadata(response)


SPENT = Deny(
    Reason.BUDGET_EXCEEDED,
    status=429,
    type="budget_exceeded",
    message="It is spent “everything”.",
    code="429",
    retry_after_s=60,
    scope="team:research",
    window="1d",
)


@pytest.mark.parametrize(
    ("retry_after_s", "should_retry", "headers"),
    [
        pytest.param(None, False, {"x-should-retry": "false"}, id="for good"),
        pytest.param(60, False, {"x-should-retry": "false", "retry-after": "60"}, id="until the window resets"),
        pytest.param(1, True, {"x-should-retry": "true", "retry-after": "1"}, id="for a moment"),
    ],
)
@pytest.mark.parametrize("api", Api)
def test_the_headers_of_a_refusal(
    api: Api,
    retry_after_s: int | None,
    should_retry: bool,  # noqa: FBT001 - a column of the table
    headers: dict[str, str],
) -> None:
    """Whatever the shape, headers say why, and tell the SDKs whether and when to try again."""
    response = denied(replace(SPENT, retry_after_s=retry_after_s, should_retry=should_retry), api)

    assert code_pb2.OK != response.status.code
    assert 429 == response.denied_response.status.code
    always = {"content-type": "application/json", "x-extauthz-reason": "budget_exceeded"}
    assert always | headers == added(list(response.denied_response.headers))
    assert {"extauthz.reason": "budget_exceeded"} == metadata(response)


def body_of(deny: Deny, api: Api) -> object:
    """Give the body of a refusal."""
    return json.loads(denied(deny, api).denied_response.body)


def test_a_refusal_in_openais_shape() -> None:
    """The body is an error of OpenAI's API."""
    error = {"message": "It is spent “everything”.", "type": "budget_exceeded", "param": None, "code": "429"}

    assert {"error": error} == body_of(SPENT, Api.OPENAI)


def test_a_refusal_in_anthropics_shape() -> None:
    """The body is an error of Anthropic's API, with the reason at the end of its message."""
    error = {
        "type": "rate_limit_error",
        "message": "It is spent “everything”. (budget_exceeded, team:research)",
    }

    assert {"type": "error", "error": error} == body_of(SPENT, Api.ANTHROPIC)


def test_a_refusal_in_googles_shape() -> None:
    """The body is an error of Google's API, with the reason among its details."""
    error = {
        "code": 429,
        "message": "It is spent “everything”.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "BUDGET_EXCEEDED",
                "domain": "extauthz",
                "metadata": {"scope": "team:research", "window": "1d"},
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "60s"},
        ],
    }

    assert {"error": error} == body_of(SPENT, Api.GEMINI)


@pytest.mark.parametrize(
    ("status", "reason", "anthropic", "google"),
    [
        (400, Reason.BAD_REQUEST, "invalid_request_error", "INVALID_ARGUMENT"),
        (400, Reason.BUDGET_EXCEEDED, "invalid_request_error", "RESOURCE_EXHAUSTED"),
        (401, Reason.UNAUTHENTICATED, "authentication_error", "UNAUTHENTICATED"),
        (402, Reason.BUDGET_EXCEEDED, "billing_error", "RESOURCE_EXHAUSTED"),
        (403, Reason.MODEL_NOT_ALLOWED, "permission_error", "PERMISSION_DENIED"),
        (404, Reason.MODEL_HIDDEN, "not_found_error", "NOT_FOUND"),
        (422, Reason.REQUEST_TOO_DEAR, "invalid_request_error", "RESOURCE_EXHAUSTED"),
        (429, Reason.BUDGET_HELD, "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (503, Reason.STORE_UNAVAILABLE, "api_error", "UNAVAILABLE"),
    ],
)
def test_the_words_of_each_status(status: int, reason: Reason, anthropic: str, google: str) -> None:
    """Each API has its own word for a status."""
    deny = Deny(reason, status=status, type="", message="")

    assert f'"type":"{anthropic}"' in denied(deny, Api.ANTHROPIC).denied_response.body
    assert f'"status":"{google}"' in denied(deny, Api.GEMINI).denied_response.body


def test_no_secret_shows_in_a_text() -> None:
    """Neither the rule with the upstream's key nor the parts of an answer's making print it."""
    assert SECRET not in f"{SET!r} {SET} {RESPONSES!r} {CODEC!r}"
