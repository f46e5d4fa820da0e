"""Explain says what the Check that follows gets, field by field, and changes nothing."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.domain.verdict import Reason, Word
from tests.support.explained import House, a_house, asked_to_hold, seen_in, seen_of
from tests.support.recorded import CHAT, CONFIGS, PREFLIGHT, RECORDED, Recorded, asked, chat, models
from tests.support.redis import RedisServer

# A Check that comes after its explanation may come in another second.
SECONDS_BETWEEN_MAX = 5
# Reasons that need a store that is away, a reservation that has ended, or a failure of our own.
UNRECORDED = {
    Reason.STORE_FAILURE_ALLOWED,
    Reason.STORE_UNAVAILABLE,
    Reason.ALREADY_ENDED,
    Reason.INTERNAL_ERROR,
    Reason.PAYER_UNKNOWN,  # this one and the next need tokens
    Reason.KEYS_UNAVAILABLE,
    Reason.DIRECTORY_UNAVAILABLE,  # needs a directory
    Reason.MODEL_UNPRICED,  # needs another setting than the recorded configurations have
    Reason.SHADOW_MODE,  # what Envoy is told; the decision has the reason that is shadowed
}


@asynccontextmanager
async def served(store: str, folder: Path, config: str) -> AsyncIterator[House]:
    """Serve a configuration from a kind of store, with its books filled."""
    if store == "memory":
        async with a_house(folder, config) as house:
            await house.fill()
            yield house
        return
    async with (
        RedisServer(appendonly=False) as redis,
        a_house(folder, config, f"{redis.url}?tag={uuid.uuid4().hex}", more="  allow_eviction: true\n") as house,
    ):
        await house.fill()
        yield house


def test_what_is_recorded() -> None:
    """There are at least 50 requests, each of its own kind, and every reason that a request alone can bring about."""
    assert 50 <= len(RECORDED)
    assert len(RECORDED) == len({each.what for each in RECORDED})
    assert {*Reason} - UNRECORDED == {each.reason for each in RECORDED}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def test_explanations_come_true(store: str, config: str, tmp_path: Path) -> None:
    """Each recorded request gets what its explanation said: decision, answer, who pays, and what is held of whom."""
    async with served(store, tmp_path, config) as house, house.watching() as decisions:
        for recorded in RECORDED:
            if recorded.config == config:
                await come_true(house, recorded, decisions)


async def come_true(
    house: House, recorded: Recorded, decisions: AsyncIterator[messages.WatchDecisionsResponse]
) -> None:
    """Explain a request, let it come, and compare."""
    before = await house.open()
    explained = await house.explain(recorded.request)
    assert before == await house.open(), recorded.what

    answer = await house.check(recorded.request)
    decided = await anext(decisions)
    decision = explained.decision
    assert (recorded.word, recorded.reason) == (decision.decision, decision.reason), recorded.what

    # What the server decided …
    assert abs(decision.retry_after_seconds - decided.decision.retry_after_seconds) <= SECONDS_BETWEEN_MAX
    decided.decision.retry_after_seconds = decision.retry_after_seconds
    assert decided.decision == decision, recorded.what
    assert (decided.route_class, decided.principal, decided.model) == (
        explained.route_class,
        explained.principal,
        explained.model,
    ), recorded.what
    assert decided.estimate == explained.estimate, recorded.what
    assert [*decided.scopes] == [*dict.fromkeys(row.scope for row in explained.scopes)], recorded.what

    # … what Envoy was told …
    seen = seen_in(answer)
    if recorded.word is Word.SHADOW_DENY:
        assert seen.passed, recorded.what
    else:
        expected = seen_of(decision, hide_amounts=house.config.settings.hide_amounts)
        assert abs(expected.retry_after_s - seen.retry_after_s) <= SECONDS_BETWEEN_MAX, recorded.what
        assert expected == replace(seen, retry_after_s=expected.retry_after_s), recorded.what

    # … and what is held.
    held = {name: amounts for name, amounts in (await house.open()).items() if name not in before}
    if held:
        assert [asked_to_hold(explained)] == [*held.values()], recorded.what
    else:
        assert decision.decision == Word.DENY or not asked_to_hold(explained), recorded.what
    for name in held:
        await house.books.release(name)
    refusing = [(row.scope, row.window) for row in explained.scopes if row.refuses]
    assert ([(decision.scope, decision.window)] if decision.scope else []) == refusing, recorded.what


BODY = '{"model":"gpt-4o","messages":[{"role":"user","content":"What is a budget?"}]}'
ANA = sha256(b"sk-ana").hexdigest()


async def test_whose_key_it_is(tmp_path: Path) -> None:
    """A key, its hash and its alias explain the same as the Check that Envoy would send; no key comes back."""
    async with a_house(tmp_path, "blocked") as house:
        await house.fill()
        whole = await house.explain(asked("POST", CHAT, "sk-ana", body=BODY.encode()))
        for given in ({"key": "sk-ana"}, {"key_sha256": ANA.upper()}, {"key_alias": "ana-laptop"}):
            assert whole == await house.explained(request={"path": CHAT, "body": BODY, **given}), given

    assert "ana-laptop" == whole.principal
    assert "sk-ana" not in str(whole)


async def test_the_short_form(tmp_path: Path) -> None:
    """Method, headers, context extensions and the length of the body are as Envoy would tell them."""
    async with a_house(tmp_path, "free_only") as house:
        await house.fill()
        spent = {"key": "sk-spent", "method": "GET", "path": "/v1/models"}
        pruned = await house.explained(request={**spent, "context_extensions": {"extauthz.prune": "on"}})
        answered = await house.explained(request=spent)
        preflight = await house.explained(request={"method": "OPTIONS", "path": CHAT, "headers": PREFLIGHT})
        named = await house.explained(request={"path": CHAT, "body": BODY, "headers": {"X-Api-Key": "sk-rich"}})
        long = await house.explained(request={"path": CHAT, "key": "sk-rich", "body": BODY + " " * 70_000})

    assert ("free_only", []) == (pruned.decision.models, [*pruned.decision.answered_models])
    assert ("", ["local-llama"]) == (answered.decision.models, [*answered.decision.answered_models])
    assert "info" == preflight.route_class
    assert (sha256(b"sk-rich").hexdigest()[:8], False) == (
        named.principal.removeprefix("key "),
        named.estimate.truncated,
    )
    assert long.estimate.truncated


REQUEST = {"path": CHAT, "body": BODY}
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        ({}, INVALID, "either `check`"),
        ({"check": asked("GET", "/"), "request": REQUEST}, INVALID, "either `check`"),
        ({"check": {}}, INVALID, "attributes.request.http"),
        ({"request": {"body": BODY}}, INVALID, "/v1/chat/completions"),
        ({"request": {**REQUEST, "path": "v1/models"}}, INVALID, "/v1/chat/completions"),
        ({"request": {**REQUEST, "key": "sk-ana", "key_alias": "ana-laptop"}}, INVALID, "`key` and `key_alias`"),
        ({"request": {**REQUEST, "key": "sk-ana", "headers": {"Authorization": "x"}}}, INVALID, "`authorization`"),
        ({"request": {**REQUEST, "key_sha256": ANA, "headers": {"x-api-key": "sk-ana"}}}, INVALID, "`key_sha256`"),
        ({"request": {**REQUEST, "key_sha256": "sk-ana"}}, INVALID, "64 hexadecimal digits"),
        ({"request": {**REQUEST, "key_alias": "sk-ana"}}, NOT_FOUND, "`key_alias`"),
    ],
)
async def test_requests_that_cannot_be_explained(
    request_: dict[str, Any], code: grpc.StatusCode, said: str, tmp_path: Path
) -> None:
    """What is missing, said twice or not known is refused with what to send instead, and no key is repeated."""
    async with a_house(tmp_path, "blocked") as house:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await house.explained(**request_)

    assert code is refused.value.code()
    assert said in (refused.value.details() or "")
    assert "sk-ana" not in (refused.value.details() or "")


async def test_what_an_explanation_shows(tmp_path: Path) -> None:
    """Prices, estimate, and each budget with what it is, whether it binds, and what is asked of it."""
    async with a_house(tmp_path, "free_only") as house:
        await house.fill()
        free = await house.explain(chat("sk-ana", "local-llama"))
        thinker = await house.explain(chat("sk-ana", "thinker", {"user": "mia"}))
        strict = await house.explain(chat("sk-strict"))
        spent = await house.explain(chat("sk-spent"))
        hidden = await house.explain(models("sk-spent", "/v1/models/local-llama"))

    assert (True, "chat_completions", False) == (free.free, free.endpoint, free.HasField("estimate"))
    assert {0.0} == {row.asked_usd for row in free.scopes}
    assert ("config", {}, {}) == (thinker.price.source, {**thinker.price.units_usd}, {**thinker.estimate.units})
    assert (1, 4, 0.1, 6) == (
        thinker.price.input_usd,
        thinker.price.output_usd,
        thinker.price.cache_read_input_usd,
        thinker.price.reasoning_output_usd,
    )
    rows = {(row.scope, row.window): row for row in thinker.scopes}
    assert [
        ("global", "30d", True, True),
        ("org:acme", "lifetime", True, True),
        ("team:research", "30d", True, True),
        ("team:research", "lifetime", True, True),
        ("member:research/ana", "lifetime", True, True),
        ("user:ana", "lifetime", True, False),
        (f"key:{ANA}", "lifetime", False, False),
        ("end_user:mia", "lifetime", True, True),
    ] == [(row.scope, row.window, row.limited, row.binds) for row in rows.values()]
    assert {thinker.estimate.cost_usd} == {row.asked_usd for row in rows.values()}
    assert rows["global", "30d"].HasField("resets_at")
    assert not rows["org:acme", "lifetime"].HasField("resets_at")
    assert rows["user:ana", "lifetime"].exhausted
    assert 0.5 == rows["end_user:mia", "lifetime"].available_usd

    team = next(row for row in strict.scopes if row.scope == "team:strict")
    assert (True, True, strict.estimate.cost_usd_max) == (team.strict, team.refuses, team.asked_usd)
    assert "Current cost" not in spent.decision.message  # the client's sentence, whose amounts are hidden …
    assert (5.0, 5.0, 0.0) == next(  # … while the operator sees them
        (row.limit_usd, row.spent_usd, row.available_usd) for row in spent.scopes if row.refuses
    )
    assert (True, "model_entry", "local-llama") == (hidden.free, hidden.endpoint, hidden.model)


@pytest.mark.redis
@pytest.mark.parametrize(
    ("rule", "paid"),
    [
        ("deny", (Word.DENY, Reason.STORE_UNAVAILABLE)),
        ("allow", (Word.ALLOW, Reason.STORE_FAILURE_ALLOWED)),
        ("defer", (Word.DEFER, Reason.STORE_UNAVAILABLE)),
    ],
)
async def test_while_the_store_is_away(rule: str, paid: tuple[Word, Reason], tmp_path: Path) -> None:
    """An explanation says what requests get without the store, and shows no budget rather than a wrong one."""
    more = f"  store_failure: {rule}\n  allow_eviction: true\n"
    expected = {
        "paid": (chat("sk-ana"), paid),
        "free": (chat("sk-ana", "local-llama"), (Word.ALLOW, Reason.FREE_MODEL)),
        "list": (models("sk-ana", pruned=True), (Word.ALLOW, Reason.DISCOVERY_PRUNED)),
    }
    redis = RedisServer(appendonly=False)
    async with (
        redis,
        a_house(tmp_path, "free_only", f"{redis.url}?tag={uuid.uuid4().hex}", more=more) as house,
        house.watching() as decisions,
    ):
        await redis.kill()
        for what, (request, decision) in expected.items():
            explained = await house.explain(request)
            seen = seen_in(await house.check(request))
            decided = await anext(decisions)
            assert decision == (explained.decision.decision, explained.decision.reason), what
            assert decided.decision == explained.decision, what
            assert seen == seen_of(explained.decision, hide_amounts=True), what
            assert [] == [*explained.scopes], what
        await redis.restart()  # a server that stops would wait for it
