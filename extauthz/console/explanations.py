"""`extauthz explain`: why a request is let through or refused, and what helps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from google.protobuf.json_format import Parse, ParseError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import Server
from extauthz.console.decisions import STYLES
from extauthz.console.inputs import Question
from extauthz.console.measures import Unit
from extauthz.console.text import (
    cell,
    clean,
    duration,
    exact,
    new_console,
    new_table,
    per_million,
    roughly_until,
    scope_short,
    until,
    wide,
)
from extauthz.errors import ExtauthzError

COLUMNS = ("", "scope", "window", "limit", "spent", "held", "available", "asks", "")
RESETS = "resets"
NUMBERS = ("limit", "spent", "held", "available", "asks", RESETS)
MARK = "▶"

# Who says what a model costs.
SOURCES = {
    "config": "the configuration",
    "genai-prices": "the price list",
    "unknown": "unknown_price, for nobody else says it",
}


class CheckUnusableError(ExtauthzError):
    """This is no CheckRequest as JSON."""


def short_request(question: Question) -> pb.ExplainRequest:
    """Ask about a request in short."""
    body = question.body
    if question.model and not body:
        body = json.dumps({"model": question.model, "messages": []})
    return pb.ExplainRequest(
        request=pb.ExplainRequest.ShortRequest(
            method=question.method,
            path=question.path,
            key=question.caller.key,
            key_sha256=question.caller.key_sha256,
            key_alias=question.caller.key_alias,
            body=body,
            headers=question.headers,
            context_extensions=question.context,
        )
    )


def whole_request(text: str) -> pb.ExplainRequest:
    """Ask about a CheckRequest as JSON. Raises CheckUnusableError, which does not show what is in it."""
    try:
        # Envoy's own message has fields that nobody here reads.
        check = Parse(text, CheckRequest(), ignore_unknown_fields=True)
    except (ParseError, ValueError, RecursionError):
        raise CheckUnusableError(
            "this is no CheckRequest as JSON: write what `grpcurl -d` takes, with raw_body in base64"
        ) from None
    return pb.ExplainRequest(check=check)


async def explained(server: Server, request: pb.ExplainRequest) -> pb.ExplainResponse:
    """Ask the server what it would decide."""
    return await server.ask("Explain", request, pb.ExplainResponse)


def show(answer: pb.ExplainResponse) -> None:
    """Print the verdict, what helps, and what it rests on."""
    console = new_console()
    console.print(_verdict(answer.decision))
    for advice in _advice(answer):
        console.print(advice)
    console.print()
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(answer):
        facts.add_row(Text(name, "dim"), cell(value))
    console.print(facts)
    if answer.scopes:
        console.print()
        console.print(_scopes(console, answer))


def _verdict(decision: pb.Decision) -> Text:
    style = f"bold {STYLES.get(decision.decision, '')}".strip()
    refusal = f"{decision.status} {clean(decision.reason)}: {clean(decision.message)}"
    match decision.decision:
        case "deny":
            return Text(f"denied: {refusal}", style)
        case "shadow_deny":
            return Text(f"let through by shadow mode, and otherwise denied: {refusal}", style)
        case "defer":
            return Text(f"left to Envoy's failure_mode_allow: {clean(decision.reason)}", style)
        case "allow":
            return Text(f"allowed: {clean(decision.reason)}", style)
        case other:
            return Text(f"{clean(other)}: {clean(decision.reason)}", style)


def _advice(answer: pb.ExplainResponse) -> Iterator[Text]:
    """Say what stands in the way, and what a person can do about it."""
    decision = answer.decision
    for standing in answer.scopes:
        if standing.refuses:
            yield from _about(standing)
    if decision.retry_after_seconds:
        yield Text(f"the client is told to try again in {duration(decision.retry_after_seconds)}")
    if decision.models:
        yield cell(f"the list is pruned: {decision.models}")
    if decision.answered_models:
        yield cell(f"the list is answered here: {', '.join(decision.answered_models)}")
    if decision.HasField("available_usd"):
        yield Text(f"the tightest budget then has {exact(decision.available_usd)} USD left")


def _about(standing: pb.ExplainResponse.ScopeStanding) -> Iterator[Text]:
    unit = Unit.of(standing)
    scope, limit = clean(standing.scope), unit.exact(standing, "limit")
    if standing.exhausted:
        again = (
            f"; it begins anew in {until(standing.resets_at, time.time())}" if standing.HasField("resets_at") else ""
        )
        yield Text(f"{scope} has spent {unit.exact(standing, 'spent')} of {limit} {unit.name}{again}")
        yield Text(f"more now: extauthz budgets grant {scope} AMOUNT --window {clean(standing.window)}")
    else:
        yield Text(
            f"{scope} has {unit.exact(standing, 'available')} of {limit} {unit.name} available, for open reservations "
            f"hold {unit.exact(standing, 'held')}"
        )
        yield Text(f"which they are: extauthz reservations list --scope {scope}")


def _facts(answer: pb.ExplainResponse) -> Iterator[tuple[str, str]]:
    yield "route", f"{answer.route_class}, {answer.endpoint}" if answer.endpoint else answer.route_class
    yield "principal", answer.principal or "nobody that is known"
    if answer.model:
        entry = (
            f" (by `{answer.model_entry}` of model_list)" if answer.model_entry else ", which model_list does not have"
        )
        yield "model", f"{answer.model}{entry}{', free' if answer.free else ''}"
    if answer.HasField("price"):
        yield "price", _price(answer.price)
    if answer.HasField("estimate"):
        yield "estimate", _estimate(answer.estimate)


def _price(price: pb.ExplainResponse.Price) -> str:
    parts = [f"{per_million(price.input_usd)} input", f"{per_million(price.output_usd)} output"]
    parts += [
        f"{per_million(getattr(price, f'{name}_usd'))} {name.replace('_', ' ')}"
        for name in ("cache_read_input", "cache_creation_input", "reasoning_output")
        if price.HasField(f"{name}_usd")
    ]
    tokens = f"{', '.join(parts)}, in USD per million tokens"
    units = [f"{exact(usd)} USD per {clean(unit)}" for unit, usd in sorted(price.units_usd.items())]
    return "; ".join((tokens, *units)) + (f" (by {SOURCES.get(price.source, clean(price.source))})")


def _estimate(estimate: pb.ExplainResponse.Estimate) -> str:
    reasoning = f" ({estimate.reasoning_output_tokens:,} of them reasoning)" if estimate.reasoning_output_tokens else ""
    seen = "; only the beginning of the body was seen" if estimate.truncated else ""
    tokens = f"{estimate.input_tokens:,} tokens in, {estimate.output_tokens:,} out{reasoning}"
    units = "".join(f", {count:,g} {clean(unit)}" for unit, count in sorted(estimate.units.items()))
    return f"{tokens}{units}: {exact(estimate.cost_usd)} USD, at most {exact(estimate.cost_usd_max)}{seen}"


def _scopes(console: Console, answer: pb.ExplainResponse) -> Table:
    table = new_table(*COLUMNS, *((RESETS,) if wide(console) else ()), right=NUMBERS, tight=not wide(console))
    for standing in answer.scopes:
        resets = roughly_until(standing.resets_at, time.time()) if standing.HasField("resets_at") else ""
        table.add_row(
            MARK if standing.refuses else "",
            cell(scope_short(standing.scope)),
            cell(standing.window),
            *_amounts(standing),
            _remark(standing),
            *((resets,) if wide(console) else ()),
            style="bold red" if standing.refuses else "",
        )
    return table


def _amounts(standing: pb.ExplainResponse.ScopeStanding) -> tuple[str, ...]:
    unit = Unit.of(standing)
    spent, held, asked = (unit.cell(standing, name) for name in ("spent", "held", "asked"))
    if not standing.limited:
        return ("none", spent, held, "", asked)
    return (unit.cell(standing, "limit"), spent, held, unit.cell(standing, "available"), asked)


def _remark(standing: pb.ExplainResponse.ScopeStanding) -> str:
    if standing.refuses:
        return "refuses"
    if standing.limited and not standing.binds:
        return "binds not"
    return "strict" if standing.strict else ""
