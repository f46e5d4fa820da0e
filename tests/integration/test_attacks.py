"""Attacks through a real Envoy: each is refused, or is a paid call like any other.

Every attack is tried by three: by somebody whose budget is exhausted, by somebody who has money, and by somebody whose
key nobody knows. The upstream answers whatever reaches it, so that nothing but the gate can stop an attack.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
import pytest_asyncio

from extauthz.demo import answers
from extauthz.envoy.bootstrap import BootstrapOptions, Document
from tests.support.attacks import (
    ATTACKS,
    COST_NANOUSD,
    FREE,
    LIMIT,
    MEBIBYTE,
    PAID,
    PAID_BODY,
    Attack,
    End,
    Framing,
    bodiless,
    listed,
    more,
    padded,
    paid,
    refused,
)
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.processes import eventually
from tests.support.raw import Reply, send
from tests.support.stack import Metrics, Stack, patient, stack
from tests.support.upstream import MODELS, Head, Play, Received

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

CONFIG = f"""
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
general_settings: {{budget_exceeded_models_policy: free_only}}
extauthz:
  max_request_bytes: {LIMIT}
  teams:
    broke: {{max_budget: 0}}
    rich: {{max_budget: 1000}}
  keys:
    - {{key: sk-broke, team: broke}}
    - {{key: sk-rich, team: rich}}
"""
BROKE, RICH, STRANGER = "sk-broke", "sk-rich", "sk-stranger"


def trusting(document: Document) -> Document:
    """Let clients choose their x-request-id, as an Envoy does that does not stand at the edge."""
    [listener] = cast("Any", document)["static_resources"]["listeners"]
    listener["filter_chains"][0]["filters"][0]["typed_config"]["preserve_external_request_id"] = True
    return document


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def house(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Give the whole house, with an Envoy that shows the Check only the beginning of large bodies."""
    version: EnvoyVersion = request.param

    def limited(options: BootstrapOptions) -> BootstrapOptions:
        return replace(patient(options), max_request_bytes=LIMIT)

    async with stack(CONFIG, version=version, options=limited, edit=trusting) as house:
        yield house


async def attempt(house: Stack, attack: Attack, key: str) -> tuple[Reply, list[Received]]:
    """Attack, and give the answer with what reached the upstream."""
    house.upstream.requests.clear()
    [reply] = await send(house.envoy.options.listen.port, attack.raw(key))
    return reply, list(house.upstream.requests)


def spent(metrics: Metrics, team: str) -> int:
    """Tell what a team has spent, in nano-USD."""
    return sum(amount for (scope, *_), amount in metrics.spent.items() if scope == f"team:{team}")


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_without_money_nothing_is_called(house: Stack, attack: Attack) -> None:
    """With an exhausted budget an attack is answered 4xx, and the upstream sees nothing that could cost money."""
    reply, seen = await attempt(house, attack, BROKE)
    metrics = await house.gate.metrics()

    match attack.end:
        case End.REFUSED:
            assert 400 <= reply.status < 500
            assert 429 != reply.status, "not for its form, but for the money"
            assert [] == seen
        case End.PAID:
            assert 429 == reply.status
            assert "budget_exceeded" == reply.headers["x-extauthz-reason"]
            assert [] == seen
        case End.LISTED:
            assert 200 == reply.status
            assert ["local-llama"] == [model["id"] for model in json.loads(reply.body)["data"]]
            assert {"GET"} >= {request.method for request in seen}
    assert 0 == metrics.open == spent(metrics, "broke")


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_with_money_it_is_paid(house: Stack, attack: Attack) -> None:
    """With money left an attack is answered 4xx and costs nothing, or it is held, settled and booked."""
    before = spent(await house.gate.metrics(), "rich")

    reply, seen = await attempt(house, attack, RICH)
    metrics = await house.settled()
    booked = spent(metrics, "rich") - before

    match attack.end:
        case End.REFUSED:
            assert 400 <= reply.status < 500
            assert [] == seen
            assert 0 == booked
        case End.PAID:
            assert 200 == reply.status
            assert 1 == len(seen)
            assert "x-extauthz-reservation" in reply.headers
            assert booked == attack.cost_nanousd if attack.cost_nanousd is not None else booked > 0
        case End.LISTED:
            assert 200 == reply.status
            assert {"GET"} == {request.method for request in seen}
            assert 0 == booked
    assert {0} >= set(metrics.held.values())


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_without_a_known_key_nothing_passes(house: Stack, attack: Attack) -> None:
    """Somebody whose key is not known gets 4xx, whatever the request looks like."""
    reply, seen = await attempt(house, attack, STRANGER)

    assert 400 <= reply.status < 500
    assert [] == seen


async def test_an_unknown_transfer_coding_is_not_implemented(house: Stack) -> None:
    """Where the end of a body cannot be told, Envoy answers 501 as HTTP asks, and nothing is called."""
    attack = refused(headers=more("transfer-encoding: xchunked"), framing=Framing.NONE)

    reply, seen = await attempt(house, attack, RICH)

    assert 501 == reply.status
    assert [] == seen


@pytest.mark.parametrize(
    ("size", "framing", "whole"),
    [
        (LIMIT - 1, Framing.LENGTH, True),
        (LIMIT - 1, Framing.CHUNKED, True),
        (LIMIT, Framing.LENGTH, True),
        (LIMIT, Framing.CHUNKED, False),
        (LIMIT + 1, Framing.LENGTH, False),
        (LIMIT + 1, Framing.CHUNKED, False),
        (20 * MEBIBYTE, Framing.LENGTH, False),
        (20 * MEBIBYTE, Framing.CHUNKED, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_last", [False, True], ids=["model first", "model last"])
async def test_only_a_whole_body_is_free(
    house: Stack,
    size: int,
    framing: Framing,
    whole: bool,  # noqa: FBT001 - a column of the table
    model_last: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """A body around the buffer limit that names a free model is free only when its end has been seen."""
    place = {"last": FREE} if model_last else {"first": FREE}
    attack = paid(body=padded(size, **place), framing=framing)

    reply, seen = await attempt(house, attack, BROKE)

    assert [attack.body] * whole == [request.body for request in seen]
    # What ends at the limit in chunks is whole JSON, and still nobody knows that it is all.
    named = not model_last or size <= LIMIT
    assert (200 if whole else 429 if named else 400) == reply.status


async def test_a_paid_model_beyond_the_limit_is_not_free(house: Stack) -> None:
    """A second model that the Check cannot see does not pass for free."""
    attack = paid(body=padded(2 * LIMIT, first=FREE, last=PAID))

    reply, seen = await attempt(house, attack, BROKE)

    assert 429 == reply.status
    assert [] == seen


@pytest.mark.parametrize(
    ("body", "booked"),
    [
        pytest.param(padded(2 * LIMIT, first=FREE), 0, id="free to its end"),
        pytest.param(padded(2 * LIMIT, first=PAID), COST_NANOUSD, id="paid to its end"),
        pytest.param(padded(2 * LIMIT, first=FREE, last=PAID), COST_NANOUSD, id="paid at its end"),
        pytest.param(padded(2 * LIMIT, first=PAID, last=FREE), COST_NANOUSD, id="free at its end"),
    ],
)
async def test_a_body_beyond_the_limit_is_paid_by_all_that_it_names(house: Stack, body: bytes, booked: int) -> None:
    """The meter looks through what the Check cannot see: a second model makes the answer cost the dearest price."""
    attack = paid(body=body)
    before = spent(await house.gate.metrics(), "rich")

    reply, seen = await attempt(house, attack, RICH)

    assert 200 == reply.status
    assert [body] == [request.body for request in seen]
    assert booked == spent(await house.settled(), "rich") - before


async def test_reused_ids_are_two_reservations(house: Stack) -> None:
    """Requests with the same x-request-id and the same forged x-extauthz-id are two reservations, both booked."""
    same = ("x-request-id: 11111111-2222-4333-8444-555555555555", "x-extauthz-id: mine")
    attack = paid(headers=more(*same))
    before = spent(await house.gate.metrics(), "rich")

    first, seen = await attempt(house, attack, RICH)
    second, _ = await attempt(house, attack, RICH)
    booked = spent(await house.settled(), "rich") - before

    assert [same[0].partition(": ")[2]] == [request.header("x-request-id") for request in seen]
    assert first.headers["x-extauthz-reservation"] != second.headers["x-extauthz-reservation"]
    assert 2 * COST_NANOUSD == booked


async def test_each_request_of_a_connection_is_decided(house: Stack) -> None:
    """A call that follows a list on the same connection, already sent with it, is decided by itself."""
    attack = bodiless(listed(line="GET /v1/models")).raw(BROKE) + paid().raw(BROKE)
    house.upstream.requests.clear()

    replies = await send(house.envoy.options.listen.port, attack, replies=2)

    assert [200, 429] == [reply.status for reply in replies]
    assert ["GET"] == [request.method for request in house.upstream.requests]


async def test_a_smuggled_request_is_not_sent(house: Stack) -> None:
    """A second request behind a body with length and chunks reaches nobody: the connection ends with the 400."""
    smuggled = paid().raw(RICH)
    attack = refused(headers=more("transfer-encoding: chunked"), body=b"0\r\n\r\n" + smuggled)
    house.upstream.requests.clear()

    replies = await send(house.envoy.options.listen.port, attack.raw(RICH), replies=2)

    assert [400] == [reply.status for reply in replies]
    assert [] == list(house.upstream.requests)


FORGED_ANSWER = (
    ("x-extauthz-available-usd", "999"),
    ("x-extauthz-reservation", "forged"),
    ("X-Extauthz-Reservation", "twice"),
    ("x-extauthz-reason", "forged"),
    ("x-extauthz-warning", "forged"),
)


@pytest.mark.parametrize("model", ["gpt-4o", "local-llama"])
async def test_an_upstream_cannot_forge_our_headers(house: Stack, model: str) -> None:
    """The upstream's copies of our response headers never reach the client, whether we set our own or none."""
    usage = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    house.upstream.plays[model] = lambda _: Play((Head(headers=FORGED_ANSWER), usage))
    try:
        reply, seen = await attempt(house, paid(body=PAID_BODY.replace(b"gpt-4o", model.encode())), RICH)
    finally:
        del house.upstream.plays[model]
    await house.settled()

    assert 200 == reply.status
    assert 1 == len(seen)
    ours = {value for name, value in reply.headers.items() if name.startswith("x-extauthz-")}
    assert not {"999", "forged", "twice"} & ours
    assert (2 if model == "gpt-4o" else 0) == len(ours)


async def test_an_upstream_cannot_open_the_list(house: Stack) -> None:
    """An upstream that sets x-extauthz-models in its answer changes nothing: the list is pruned."""
    models = answers.to_bytes(answers.model_list(MODELS))
    house.upstream.plays["/v1/models"] = lambda _: Play((Head(headers=(("x-extauthz-models", "all"),)), models))
    try:
        reply, _ = await attempt(house, bodiless(listed(line="GET /v1/models")), BROKE)
    finally:
        del house.upstream.plays["/v1/models"]

    assert ["local-llama"] == [model["id"] for model in json.loads(reply.body)["data"]]


async def test_the_gate_survives_it_all(house: Stack) -> None:
    """None of the attacks made the gate fail: no failure of its own is counted, and it answers."""
    for attack in ATTACKS[::7]:
        await attempt(house, attack, RICH)

    metrics = await eventually(house.settled)

    failures = {where: metrics.value("extauthz_failures_total", where) for where in ("check", "access_log", "ext_proc")}
    assert {"check": 0, "access_log": 0, "ext_proc": 0} == failures
