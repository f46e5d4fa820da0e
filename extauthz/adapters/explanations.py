"""Decisions for operators: what a request would get and why, and what requests get as it happens.

The two calls of `extauthz.diagnostics.v1.Diagnostics` that are about decisions, and their messages. Operators see
amounts also where `hide_amounts` keeps them from clients, except in the sentence that the client gets.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.adapters.check import facts_of
from extauthz.adapters.measures import put_amounts
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Scope
from extauthz.domain.credentials import CREDENTIAL_HEADERS, Credential
from extauthz.domain.money import usd
from extauthz.domain.prices import Estimate, Prices, Units
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, AnswerModels, Decision, Deny, Pass, Reason, Word
from extauthz.errors import ExtauthzError, TooManyWatchersError
from extauthz.explanation import Counted, Explainer, Explanation
from extauthz.pricing.cost import UNIT_KINDS, rate
from extauthz.telemetry.decisions import DecisionFeed, DecisionFilter, DecisionRecord

_TOKENS_PRICED = 1_000_000
_SHA256 = re.compile("[0-9a-f]{64}")
_Context = grpc.aio.ServicerContext[Any, Any]


class CallRefusedError(ExtauthzError):
    """An operator's call cannot be answered as it is."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


async def explain(
    request: messages.ExplainRequest, context: _Context, *, explainer: Explainer, config: Snapshot
) -> messages.ExplainResponse:
    """Answer Explain."""
    try:
        facts, credential = asked_of(request, config)
    except CallRefusedError as refused:
        await context.abort(refused.code, str(refused))
    return explained(await explainer.explain(facts, config, credential))


async def watch(
    request: messages.WatchDecisionsRequest, context: _Context, *, feed: DecisionFeed
) -> AsyncIterator[messages.WatchDecisionsResponse]:
    """Answer WatchDecisions, until the client goes or the feed is closed."""
    try:
        wanted = filter_of(request)
    except CallRefusedError as refused:
        await context.abort(refused.code, str(refused))
    try:
        with feed.subscribe(wanted) as subscription:
            # Whoever waits for it knows that no decision from here on is overlooked.
            await context.send_initial_metadata(())
            async for record, missed in subscription:
                yield recorded(record, missed)
    except TooManyWatchersError as full:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(full))


def asked_of(request: messages.ExplainRequest, config: Snapshot) -> tuple[RequestFacts, Credential | None]:
    """Read the request to be explained, and whose key it is where its headers do not say.

    Raises CallRefusedError.
    """
    if request.HasField("check") == request.HasField("request"):
        raise _invalid("send either `check`, a whole CheckRequest as Envoy makes it, or `request`, the short form")
    bytes_max = config.settings.max_request_bytes
    if request.HasField("check"):
        if not request.check.attributes.request.HasField("http"):
            raise _invalid("`check` says nothing of a request: send its `attributes.request.http`")
        return facts_of(request.check.attributes, bytes_max), None
    short = request.request
    if not short.path.startswith("/"):
        raise _invalid("`path` must begin with a slash: send one such as /v1/chat/completions")
    credential = _credential(short, config)
    return facts_of(_attributes(short, bytes_max), bytes_max), credential


def _attributes(short: messages.ExplainRequest.ShortRequest, bytes_max: int) -> AttributeContext:
    """Write a short request as Envoy would send it, with no more of its body than Envoy reads."""
    body = short.body.encode()
    headers = {name.lower(): value for name, value in short.headers.items()}
    headers.setdefault("content-length", str(len(body)))
    if short.key:
        headers["authorization"] = f"Bearer {short.key}"
    http = AttributeContext.HttpRequest(
        method=short.method or "POST", path=short.path, headers=headers, raw_body=body[:bytes_max]
    )
    return AttributeContext(
        request=AttributeContext.Request(http=http), context_extensions=dict(short.context_extensions)
    )


def _credential(short: messages.ExplainRequest.ShortRequest, config: Snapshot) -> Credential | None:
    """Find the key that a short request names without showing it."""
    headers = {name.lower() for name in short.headers}
    given = [name for name in ("key", "key_sha256", "key_alias") if getattr(short, name)]
    if len(given) > 1:
        raise _invalid(f"name the key once: send one of {' and '.join(f'`{name}`' for name in given)}")
    if short.key and "authorization" in headers:
        raise _invalid("name the key once: send `key`, or the header `authorization`")
    if not (short.key_sha256 or short.key_alias):
        return None
    if not headers.isdisjoint(CREDENTIAL_HEADERS):
        raise _invalid(f"name the key once: send `{given[0]}`, or a header that carries a key")
    if short.key_sha256:
        if not _SHA256.fullmatch(short.key_sha256.lower()):
            raise _invalid("`key_sha256` must be 64 hexadecimal digits: the SHA-256 of the key")
        return Credential(short.key_sha256.lower())
    sha256 = config.directory.sha256_of(short.key_alias)
    if sha256 is None:
        raise CallRefusedError(
            grpc.StatusCode.NOT_FOUND,
            "no key has this alias, or several have it: send one that stands in `keys` as `key_alias`, or `key_sha256`",
        )
    return Credential(sha256)


def filter_of(request: messages.WatchDecisionsRequest) -> DecisionFilter:
    """Read which decisions a reader wants. Raises CallRefusedError."""
    if not 0 <= request.sample <= 1:
        raise _invalid("`sample` is a share: send a number from 0 to 1, such as 0.1; 0 and 1 mean all")
    try:
        words, reasons = frozenset(map(Word, request.decisions)), frozenset(map(Reason, request.reasons))
    except ValueError as error:
        raise _invalid(f"`decisions` are some of {', '.join(Word)}; `reasons` of {', '.join(Reason)}") from error
    try:
        scope = Scope.parse(request.scope).text if request.scope else None
    except ValueError as error:
        raise _invalid("`scope` is none: send one such as team:research, as budgets are listed") from error
    return DecisionFilter(words, reasons, scope, request.model or None, request.sample or 1.0)


def explained(explanation: Explanation) -> messages.ExplainResponse:
    """Write an explanation."""
    decision, route = explanation.decision, explanation.route
    return messages.ExplainResponse(
        route_class=decision.route_class,
        endpoint=route.endpoint or "",
        principal=decision.principal or "",
        model=decision.model or "",
        model_entry=decision.entry or "",
        free=explanation.free,
        price=None if explanation.prices is None else _price(explanation.prices, explanation.source or ""),
        estimate=_estimate(decision.estimate, truncated=explanation.truncated),
        scopes=map(_standing, explanation.counted),
        decision=decided(decision),
    )


def decided(decision: Decision) -> messages.Decision:
    """Write a decision: by the rules, whether or not shadow mode let the request through."""
    message = messages.Decision(decision=decision.word, reason=decision.judged.reason)
    match decision.judged:
        case Deny() as refusal:
            message.status, message.type, message.message = refusal.status, refusal.type, refusal.message
            message.scope, message.window = refusal.scope or "", refusal.window or ""
            message.retry_after_seconds = refusal.retry_after_s or 0
        case AnswerModels(names=names):
            message.answered_models.extend(names)
        case Pass(models=models) if models is not None:
            message.models = models
        case _:
            pass
    if isinstance(decision.verdict, Admit) and decision.verdict.available_nanousd is not None:
        message.available_usd = float(usd(decision.verdict.available_nanousd))
    return message


def recorded(record: DecisionRecord, missed: int = 0) -> messages.WatchDecisionsResponse:
    """Write a decision that was made; `missed` others were lost before it."""
    decision = record.decision
    return messages.WatchDecisionsResponse(
        decided_at=timestamp(record.decided_ms),
        decision=decided(decision),
        method=record.method,
        path=record.path,
        route_class=decision.route_class,
        principal=decision.principal or "",
        model=decision.model or "",
        scopes=_texts(decision.payers),
        public_id=record.public_id or "",
        estimate=_estimate(decision.estimate, truncated=record.truncated),
        seconds=record.seconds,
        missed=missed,
    )


def timestamp(unix_ms: int) -> Timestamp:
    """Write a moment."""
    moment = Timestamp()
    moment.FromMilliseconds(unix_ms)
    return moment


def _standing(counted: Counted) -> messages.ExplainResponse.ScopeStanding:
    standing, window = counted.standing, counted.standing.counter.window
    limited = counted.budget is not None
    message = messages.ExplainResponse.ScopeStanding(
        scope=standing.counter.scope.text,
        window=standing.counter.label,
        limited=limited,
        binds=counted.binds,
        strict=counted.strict,
        resets_at=None if window.end_ms is None else timestamp(window.end_ms),
        exhausted=limited and standing.exhausted,
        refuses=counted.refuses,
    )
    limits = {"limit": standing.limit, "available": standing.available} if limited else {}
    used = {"spent": standing.spent, "held": standing.held, "asked": counted.asked}
    put_amounts(message, standing.counter.measure, **limits, **used)
    return message


def _price(prices: Prices, source: str) -> messages.ExplainResponse.Price:
    kinds = {
        "input_usd": prices.input,
        "output_usd": prices.output,
        "cache_read_input_usd": prices.cache_read_input,
        "cache_creation_input_usd": prices.cache_creation_input,
        "reasoning_output_usd": prices.reasoning_output,
    }
    return messages.ExplainResponse.Price(
        source=source,
        units_usd={kind.removeprefix("per_"): float(rate(prices, kind)) for kind in UNIT_KINDS if rate(prices, kind)},
        **{kind: float(price * _TOKENS_PRICED) for kind, price in kinds.items() if price is not None},
    )


def _estimate(estimate: Estimate | None, *, truncated: bool) -> messages.ExplainResponse.Estimate | None:
    if estimate is None:
        return None
    return messages.ExplainResponse.Estimate(
        input_tokens=estimate.input_tokens,
        output_tokens=estimate.output_tokens,
        reasoning_output_tokens=estimate.reasoning_output_tokens,
        cost_usd=float(usd(estimate.cost_nanousd)),
        cost_usd_max=float(usd(estimate.cost_nanousd_max)),
        truncated=truncated,
        units=_units(estimate.units),
    )


def _units(units: Units) -> dict[str, float]:
    counts = {
        "images": units.images,
        "seconds": units.milliseconds / 1000,
        "characters": units.characters,
        "queries": units.queries,
        "searches": units.searches,
    }
    return {name: count for name, count in counts.items() if count}


def _texts(scopes: Iterable[Scope]) -> Iterable[str]:
    return (scope.text for scope in scopes)


def _invalid(message: str) -> CallRefusedError:
    return CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)
