"""What an explanation rests on, on books that move, or do not answer, while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from extauthz import explanation
from extauthz.authorizer import Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter, Scope, Standing
from extauthz.domain.credentials import Credential
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Deny, Reason
from extauthz.errors import StoreUnavailableError
from extauthz.explanation import Explainer, Explanation
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY

DAY_MS = 86_400_000
# The last millisecond of a day, in UTC.
NOW_MS = 20_780 * DAY_MS - 1
USD = 1_000_000_000

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}
extauthz:
  teams: {daily: {max_budget: 1, budget_duration: 1d}}
  keys: [{key: sk-daily, key_alias: daily, team: daily}]
"""
CHAT = RequestFacts(
    "POST",
    "/v1/chat/completions",
    {"authorization": ("Bearer sk-daily",)},
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}',
)


class MovingLedger(MemoryLedger):
    """Books on which a dollar is spent after each look at the team's budget, and whose clock goes on meanwhile."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS
        super().__init__(lambda: self.at_ms, SIGNING_KEY)

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell, then spend."""
        told = await super().standings(limits, payers=payers)
        for standing in told:
            if standing.counter.scope.text == "team:daily":
                spent = Amendment(f"{self.at_ms}", AmendmentKind.IMPORT, standing.counter, USD, "test")
                assert await self.amend(spent)
        self.at_ms += 1
        return told


class SilentLedger(MemoryLedger):
    """Books that nobody opens."""

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Never come back."""
        return await asyncio.Future()


class AbsentLedger(SilentLedger):
    """Books that are not there."""

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Fail."""
        raise StoreUnavailableError


@pytest.fixture
def config(tmp_path: Path) -> Snapshot:
    """Load the configuration."""
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return load(tmp_path / "config.yaml", {})


def explainer(ledger: MemoryLedger) -> Explainer:
    """Make an explainer on some books."""
    return Explainer(ledger, UsualAnswer(UsualTokens(100), UsualTokens(0)))


def rows(explained: Explanation) -> dict[str, Standing]:
    """Give the standings by scope."""
    return {row.standing.counter.scope.text: row.standing for row in explained.counted}


async def test_the_decision_and_its_standings_are_of_one_moment(config: Snapshot) -> None:
    """What is shown is what the decision was made by, in its window, also when the books move and a day begins.

    The first look is a day too late for the claims, and the second sees the new day's window empty.
    """
    explained = await explainer(MovingLedger()).explain(CHAT, config)

    assert Reason.WITHIN_BUDGET is explained.decision.judged.reason
    standing = rows(explained)["team:daily"]
    assert NOW_MS + 1 == standing.counter.window.start_ms
    assert (0, USD) == (standing.spent, standing.available)
    assert explained.decision.estimate is not None
    assert {explained.decision.estimate.cost_nanousd} == {row.asked for row in explained.counted}


@pytest.mark.parametrize("kind", [SilentLedger, AbsentLedger])
async def test_without_books(kind: type[MemoryLedger], config: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Books that fail or keep silent are told by the decision, and no standing is made up."""
    monkeypatch.setattr(explanation, "_CALL", Call("explanation", "explanation", 0.01))
    monkeypatch.setattr(explanation, "PATIENCE_S", 0.01)
    explained = await explainer(kind(lambda: NOW_MS, SIGNING_KEY)).explain(CHAT, config)

    assert Reason.STORE_UNAVAILABLE is explained.decision.judged.reason
    assert () == explained.counted


async def test_a_credential_stands_in(config: Snapshot) -> None:
    """A key of which only the hash is known explains what the key itself would; an unknown one is refused."""
    ledger = MemoryLedger(lambda: NOW_MS, SIGNING_KEY)
    keyless = RequestFacts(CHAT.method, CHAT.path, {}, CHAT.body)
    sha256 = config.directory.sha256_of("daily")
    assert sha256 is not None
    explained = await explainer(ledger).explain(keyless, config, Credential(sha256))
    unknown = await explainer(ledger).explain(keyless, config, Credential("0" * 64))

    assert await explainer(ledger).explain(CHAT, config) == explained
    assert isinstance(unknown.decision.verdict, Deny)
    assert (401, ()) == (unknown.decision.verdict.status, unknown.counted)


async def test_nothing_is_reserved(config: Snapshot) -> None:
    """An explanation leaves no reservation and no counter behind."""
    ledger = MemoryLedger(lambda: NOW_MS, SIGNING_KEY)
    await explainer(ledger).explain(CHAT, config)

    assert 0 == await ledger.open_count()
    assert () == await ledger.balances(10)
