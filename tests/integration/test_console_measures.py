"""The operators' commands about budgets in tokens and requests, against a running server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gate import a_check
from tests.support.operators import BUSY, House, operated
from tests.support.processes import eventually

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

MORE = (
    "global: {max_requests: 50, budget_duration: 1d, model_max_budget: {gpt-4o: {max_tokens: 100000}}}\n"
    "  users: {ana: {max_budget: 5, max_tokens: 1000}}"
)
OTHERS = ["scope", "window", "measure", "limit", "spent", "held", "available", "resets_at"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Serve, with one request spent, and one that holds."""
    async with operated(MORE) as running:
        await running.end(await running.check(a_check(key=BUSY)))

        async def settled() -> bool:
            (requests, _) = await running.json("budgets", "get", "global")
            return bool(requests["spent"])

        await eventually(settled, what="the first answer is settled")
        await running.check(a_check(key=BUSY, reservation_id="held-for-long"))
        yield running


async def test_list(house: House) -> None:
    """They are listed beside those in USD, under names that say no USD, with what is spent and held of each."""
    requests, tokens, *_ = await house.json("budgets", "list", "global")

    assert OTHERS == list(requests) == list(tokens)
    assert ("1d/requests", "requests", 50, 1, 1, 48) == tuple(requests[name] for name in OTHERS[1:7])
    assert ("lifetime/tokens/model=gpt-4o", "tokens", 100_000) == tuple(tokens[name] for name in OTHERS[1:4])
    assert 0 < tokens["spent"] < tokens["spent"] + tokens["held"] < tokens["limit"]


async def test_a_table(house: House) -> None:
    """People see whole numbers, and which budget they are of."""
    run = await house.run("budgets", "list", "global")

    assert (0, "") == (run.code, run.err)
    assert ["global", "1d/requests", "50", "1", "1", "48", "4", "%"] == run.out.splitlines()[1].split()[:8]


async def test_changes(house: House) -> None:
    """Each is in the budget's own measure: a limit is set and taken back, raised, and what was spent is forgotten."""
    chosen = ("user:ana", "--window", "lifetime/tokens")

    changed = await house.json("budgets", "set", "user:ana", "20_000_000", "--window", "lifetime/tokens")
    granted = await house.json("budgets", "grant", "user:ana", "5", "--window", "lifetime/tokens")
    restored = await house.json("budgets", "unset", *chosen)
    reset = await house.json("budgets", "reset", *chosen)

    assert (1000, 20_000_000, True) == (changed["before"]["limit"], changed["after"]["limit"], changed["changed"])
    assert (20_000_005, 1005, 1005) == tuple(each["after"]["limit"] for each in (granted, restored, reset))
    assert 1000 == reset["after"]["configured_limit"]
    (usd, _) = await house.json("budgets", "get", "user:ana")
    assert (5.0, "usd") == (usd["limit_usd"], usd["measure"])


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["grant", "user:ana", "1.5", "--window", "lifetime/tokens"], "counts tokens: write a whole number"),
        (["set", "user:ana", "5"], "has several budgets: choose one by --window (lifetime, lifetime/tokens)"),
        (["set", "user:ana", "5", "--window", "1d/tokens"], "its windows are lifetime, lifetime/tokens"),
        (["set", "user:ana", "1e10", "--window", "lifetime"], "above 9007199.254740991, the most that one budget"),
    ],
    ids=["a part of a token", "which one", "none of these", "too much"],
)
async def test_what_cannot_be(house: House, command: list[str], sentence: str) -> None:
    """It is said what to write instead, and nothing changes."""
    run = await house.run("budgets", *command)

    assert 1 == run.code
    assert sentence in " ".join(run.err.split())


async def test_explain(house: House) -> None:
    """Every counter of the request is shown in its measure, with what the request asks of it."""
    run = await house.run("explain", "--key-env", "KEY", "--model", "gpt-4o", "--json", environment={"KEY": BUSY})
    explained = json.loads(run.out)
    asked = {row["window"]: row for row in explained["scopes"] if row["scope"] == "global"}

    assert {"1d/requests", "lifetime/tokens/model=gpt-4o", "lifetime"} == set(asked)
    assert (1, 50, True) == tuple(asked["1d/requests"][name] for name in ("asked", "limit", "binds"))
    tokens = explained["estimate"]["input_tokens"] + explained["estimate"]["output_tokens"]
    assert tokens == asked["lifetime/tokens/model=gpt-4o"]["asked"]
    assert explained["estimate"]["cost_usd"] == asked["lifetime"]["asked_usd"]
