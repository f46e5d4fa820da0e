"""What the gate makes of prices: the hold of what passes as free, and models that nobody has a price for."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

import pytest

from extauthz.adapters.holds import HoldCodec
from extauthz.adapters.responses import Responses
from extauthz.alerts import Warnings
from extauthz.authorizer import Authorizer, Call
from extauthz.config.snapshot import Snapshot
from extauthz.config.upstream_auth import UpstreamAuthRule
from extauthz.domain.budgets import Budget
from extauthz.domain.directory import Directory
from extauthz.domain.payers import Accounts, Key, Team
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, Deny, Pass, Reason, Verdict
from extauthz.domain.windows import WindowRule
from extauthz.envoy.names import HOLD_KEY
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.snapshots import a_priced_snapshot, an_offer
from tests.support.witness import AbsentLedger

ADMIN, ANA = "sk-admin", "sk-ana"
MODELS = (
    an_offer("gpt-4o", "openai/gpt-4o", input_cost_per_token=10, output_cost_per_token=100),
    an_offer("llama", "openai/llama", input_cost_per_token=0, output_cost_per_token=0),
    an_offer("riddle", "openai/riddle"),
)


def hashed(key: str) -> str:
    """Give what a key is known by."""
    return sha256(key.encode()).hexdigest()


ACCOUNTS = Accounts(
    teams={"research": Team((Budget(10**9, WindowRule()),))},
    keys=(Key(hashed(ANA), team="research"),),
    admin_sha256=hashed(ADMIN),
)


def configured(digest: str = "", **settings: object) -> Snapshot:
    """Put the models and their payers in force."""
    return replace(a_priced_snapshot(*MODELS, digest=digest, **settings), directory=Directory(ACCOUNTS))  # type: ignore[arg-type]


def chat(model: str, key: str = ANA, more: Mapping[str, object] | None = None) -> RequestFacts:
    """Ask for an answer of a model."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello?"}], **(more or {})}).encode()
    headers = {"authorization": (f"Bearer {key}",), "content-type": ("application/json",)}
    return RequestFacts("POST", "/v1/chat/completions", headers, body, 0, {})


async def verdict(facts: RequestFacts, config: Snapshot, ledger: AbsentLedger | None = None) -> Verdict:
    """Decide about one request."""
    usual = UsualAnswer(UsualTokens(512), UsualTokens(0))
    decision = await Authorizer(ledger or AbsentLedger(), usual).decide(facts, Call("r", "a", 1.0), config)
    return decision.verdict


async def test_what_passes_as_free_has_a_hold_and_no_reservation() -> None:
    """It says who would pay, and of what configuration; the store, which is away, is not asked."""
    ledger = AbsentLedger()
    ledger.away = True
    free = await verdict(chat("llama"), configured(digest="0123456789abcdef"), ledger)

    assert isinstance(free, Pass)
    assert free.hold is not None
    assert (Reason.FREE_MODEL, True, "llama", "0123456789ab") == (
        free.reason,
        free.hold.free,
        free.hold.model,
        free.hold.priced_by,
    )
    assert "team:research" in {counter.scope.text for counter in free.hold.counters}
    assert free.hold.estimate.input_tokens > 0


@pytest.mark.parametrize("key", [b"k" * 32, None])
async def test_the_hold_of_what_passes_as_free_goes_with_it(key: bytes | None) -> None:
    """Signed, and with an answer that the meter can read; a server that cannot sign yet lets it pass without one."""
    holds = HoldCodec(lambda: key)
    free = await verdict(chat("llama"), configured())
    assert isinstance(free, Pass)
    response = Responses(holds, Warnings()).passed(free, ["accept-encoding"], UpstreamAuthRule())

    assert ["accept-encoding"] == list(response.ok_response.headers_to_remove)
    assert (HOLD_KEY in response.dynamic_metadata) is (key is not None)
    if key is not None:
        assert free.hold == holds.decode(str(response.dynamic_metadata[HOLD_KEY]))


async def test_what_is_held_says_what_it_was_priced_by() -> None:
    """Another configuration has other prices."""
    paid = await verdict(chat("gpt-4o"), configured(digest="0123456789abcdef"))

    assert isinstance(paid, Admit)
    assert ("0123456789ab", False) == (paid.hold.priced_by, paid.hold.free)


@pytest.mark.parametrize("key", [ANA, ADMIN])
@pytest.mark.parametrize(
    ("model", "more"), [("riddle", {}), ("gpt-4o", {"fallbacks": ["riddle"]}), ("llama", {"fallbacks": ["riddle"]})]
)
async def test_a_model_without_a_price_is_refused(key: str, model: str, more: Mapping[str, object]) -> None:
    """With `unknown_price: deny` nobody spends what nobody knows, admins included; the reason says what to write."""
    refused = await verdict(chat(model, key, more), configured(unknown_price="deny"))

    assert isinstance(refused, Deny)
    assert (Reason.MODEL_UNPRICED, 403) == (refused.reason, refused.status)
    assert "input_cost_per_token" in refused.message
    assert "riddle" in refused.message


@pytest.mark.parametrize("mode", ["deny", "estimate"])
async def test_a_model_with_a_price_is_not(mode: str) -> None:
    """The rule is about models without one; by default these cost the unknown price."""
    assert isinstance(await verdict(chat("gpt-4o"), configured(unknown_price=mode)), Admit)
    assert isinstance(await verdict(chat("llama"), configured(unknown_price=mode)), Pass)
    assert (mode == "estimate") is isinstance(await verdict(chat("riddle"), configured(unknown_price=mode)), Admit)
