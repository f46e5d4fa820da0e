"""Budgets that roll over: what the configuration says of them, and decisions from one day to the next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Before, Budget, Counter, Increase, Scope, ScopeKind, Spent
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, AnswerModels, Deny, Reason, Verdict
from extauthz.domain.windows import Duration, ResetRules, Unit, WindowRule
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.memory import MemoryLedger
from extauthz.ledger.tallies import CARRIED_ON_MAX
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY, ManualClock, a_hold

DAY_MS = 86_400_000
NOON_MS = 1_795_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
USD = 10**9
TEAM = Scope(ScopeKind.TEAM, ("t",))
DAILY = WindowRule(Duration(1, Unit.DAY))
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}
  - model_name: local
    litellm_params: {model: ollama/llama, input_cost_per_token: 0, output_cost_per_token: 0}
general_settings: {budget_exceeded_models_policy: free_only}
litellm_settings: {budget_rollover: true}
extauthz:
  teams: {t: {max_budget: 10, max_requests: 3, budget_duration: 1d}}
  keys: [{key: sk, team: t}]
"""


def budgets(folder: Path, text: str) -> list[Budget]:
    """Give the budgets of everybody, of a configuration."""
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return [*load(file, {}).directory.budgets_on(Scope(ScopeKind.GLOBAL))]


class TestConfig:
    """What says that budgets roll over."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", False),
            ("litellm_settings: {budget_rollover: true}", True),
            ("litellm_settings: {budget_rollover: false}", False),
            ("extauthz: {budget_rollover: true}", True),
            ("extauthz: {budget_rollover: false}\nlitellm_settings: {budget_rollover: true}", False),
        ],
    )
    def test_settings(self, tmp_path: Path, text: str, *, expected: bool) -> None:
        """LiteLLM's setting counts where ours says nothing."""
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        snapshot = load(file, {})

        assert expected == snapshot.settings.budget_rollover
        assert [] == [notice for notice in snapshot.notices if "rollover" in notice]

    def test_every_budget(self, tmp_path: Path) -> None:
        """It is for budgets of every kind, LiteLLM's own among them."""
        text = """
litellm_settings: {budget_rollover: true, max_budget: 7, budget_duration: 30d}
router_settings: {provider_budget_config: {openai: {budget_limit: 1, time_period: 1d}}}
"""
        assert [True, True] == [budget.rollover for budget in budgets(tmp_path, text)]
        assert [False, False] == [
            budget.rollover for budget in budgets(tmp_path, text.replace("budget_rollover: true, ", ""))
        ]


class TestCounters:
    """Which counter takes over from which."""

    def test_the_window_before(self) -> None:
        """It ends where the other begins, and is of the same budget; neither is another counter for that."""
        rule = WindowRule(Duration(1, Unit.MONTH), "Europe/Berlin", rules=ResetRules.EXACT)
        window = rule.at(NOON_MS)
        counter = Budget(10, rule, rollover=True).counter(TEAM, window)
        earlier = rule.at(window.start_ms - 1)

        assert Before(Counter(TEAM, earlier), 10) == counter.before
        assert window.start_ms == earlier.end_ms
        assert counter == Budget(10, rule).counter(TEAM, window) == Counter.parse(counter.key)

    def test_the_first_window_of_a_clock(self) -> None:
        """One that begins with Unix time has one before it, too."""
        window = DAILY.at(0)

        assert (-DAY_MS, 0) == ((before := DAILY.before(window)) and before.start_ms, before and before.end_ms)

    @pytest.mark.parametrize(
        "budget", [Budget(10, DAILY), Budget(10, WindowRule(), rollover=True)], ids=["not asked for", "never resets"]
    )
    def test_none(self, budget: Budget) -> None:
        """A budget takes nothing over that does not reset, or is not to."""
        assert budget.counter(TEAM, budget.rule.at(NOON_MS)).before is None

    @pytest.mark.parametrize(("ago_ms", "limit"), [(0, 15), (1, 10), (-1, 15)])
    def test_an_increase(self, ago_ms: int, limit: int) -> None:
        """The limit is that of the last moment of the window before."""
        window = DAILY.at(NOON_MS)
        budget = Budget(10, DAILY, increase=Increase(5, window.start_ms - ago_ms), rollover=True)
        before = budget.counter(TEAM, window).before

        assert before is not None
        assert limit == before.limit


@dataclass(slots=True)
class Gate:
    """An authorizer with the time in the test's hand."""

    config: Snapshot
    clock: ManualClock
    ledger: MemoryLedger
    asked: int = 0

    async def chat(self) -> Verdict:
        """Ask for an answer."""
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
        return await self._decide("POST", "/v1/chat/completions", json.dumps(body).encode())

    async def answered(self, spent: Spent) -> None:
        """Ask for an answer that uses so much."""
        verdict = await self.chat()
        assert isinstance(verdict, Admit)
        await self.ledger.settle(verdict.hold, spent)

    async def models(self) -> Verdict:
        """Ask for the list of models."""
        return await self._decide("GET", "/v1/models", b"")

    async def _decide(self, method: str, path: str, body: bytes) -> Verdict:
        self.asked += 1
        authorizer = Authorizer(self.ledger, UsualAnswer(UsualTokens(20), UsualTokens(0)))
        facts = RequestFacts(method, path, {"authorization": ("Bearer sk",)}, body)
        return (await authorizer.decide(facts, Call(f"r{self.asked}", "attempt", 1.0), self.config)).verdict


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Make a gate with a team that has 10 USD and three requests a day, at noon."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    clock = ManualClock(NOON_MS)
    return Gate(load(file, {}), clock, MemoryLedger(clock.now_ms, SIGNING_KEY))


class TestDecisions:
    """From one day to the next."""

    async def test_days(self, gate: Gate) -> None:
        """A team that spent 25 of 10 USD begins the next day with 15, and the day after with 5."""
        await gate.answered(Spent(25 * USD, 60, 1))
        await gate.clock.advance(DAY_MS)
        second = await gate.chat()
        await gate.clock.advance(DAY_MS)
        third = await gate.chat()

        assert isinstance(second, Deny)
        assert (Reason.BUDGET_EXCEEDED, "1d") == (second.reason, second.window)
        assert "15" in second.message
        assert isinstance(third, Admit)
        assert third.available_nanousd is not None
        assert 5 * USD - 10**6 < third.available_nanousd < 5 * USD

    async def test_lists_of_models(self, gate: Gate) -> None:
        """They know what is carried before anybody asked for an answer that day."""
        await gate.answered(Spent(25 * USD, 60, 1))
        await gate.clock.advance(DAY_MS)
        second = await gate.models()
        await gate.chat()
        await gate.clock.advance(DAY_MS)
        third = await gate.models()

        assert isinstance(second, AnswerModels)
        assert second.names == ("local",)
        assert not isinstance(third, AnswerModels)

    async def test_requests(self, gate: Gate) -> None:
        """A budget in requests carries what is beyond it: here what was under way in another replica."""
        for _ in range(3):
            await gate.answered(Spent(0, 60, 1))
        counters = (Budget(3, DAILY).counter(TEAM, DAILY.at(NOON_MS)),)
        await gate.ledger.settle(a_hold("elsewhere", counters, reserved_at_ms=NOON_MS), Spent(0, 60, 1))
        requests = Counter.parse(counters[0].key.replace("|1d|", "|1d/requests|"))
        await gate.ledger.settle(a_hold("there, too", (requests,), reserved_at_ms=NOON_MS), Spent(0, 60, 1))
        await gate.clock.advance(DAY_MS)
        answers = [await gate.chat() for _ in range(3)]

        assert [True, True, False] == [isinstance(answer, Admit) for answer in answers]

    async def test_a_day_off(self, gate: Gate) -> None:
        """After a day on which nobody asked, the next one begins at 0: only the window before counts."""
        await gate.answered(Spent(95 * USD, 60, 1))
        await gate.clock.advance(2 * DAY_MS)

        assert isinstance(await gate.chat(), Admit)

    async def test_an_answer_that_comes_over_midnight(self, gate: Gate) -> None:
        """What it costs beyond the limit is missing in the day that has begun by then."""
        await gate.answered(Spent(9 * USD, 60, 1))
        slow = await gate.chat()
        assert isinstance(slow, Admit)
        await gate.clock.advance(DAY_MS // 2)
        first = await gate.chat()
        await gate.ledger.settle(slow.hold, Spent(12 * USD, 60, 1))
        second = await gate.chat()

        assert isinstance(first, Admit)
        assert isinstance(second, Deny)
        assert "11" in second.message


class TestMemory:
    """What is kept in memory for it."""

    @pytest.mark.parametrize(("days", "carried"), [(30.9, 15), (35.9, 0)])
    async def test_how_long(self, days: float, carried: int) -> None:
        """A counter stays for the whole of the next window, which may be a longer month, and is dropped then."""
        rule = WindowRule(Duration(1, Unit.MONTH))
        february_ms, march_ms = 1_770_000_000_000, 1_773_000_000_000
        clock = ManualClock(february_ms)
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        february, march = (
            Budget(10, rule, rollover=True).counter(TEAM, rule.at(now_ms)) for now_ms in (february_ms, march_ms)
        )
        await ledger.settle(a_hold("r", (february,), reserved_at_ms=february_ms), Spent(25))
        await clock.advance(march.window.start_ms + int(days * DAY_MS) - february_ms)
        other = Counter(Scope(ScopeKind.TEAM, ("other",)), march.window)
        await ledger.settle(a_hold("o", (other,), reserved_at_ms=clock.now_ms()), Spent(1))
        (standing,) = await ledger.standings([(march, 10)])

        assert carried == standing.spent

    async def test_how_far(self) -> None:
        """A change goes on through so many windows, and no more."""
        rule = WindowRule(Duration(1, Unit.SECOND))
        clock = ManualClock(NOON_MS)
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        counters = [
            Budget(0, rule, rollover=True).counter(TEAM, rule.at(NOON_MS + 1000 * number))
            for number in range(CARRIED_ON_MAX + 2)
        ]
        await ledger.settle(a_hold("r", (counters[0],), reserved_at_ms=NOON_MS), Spent(25))
        for counter in counters[1:]:
            await clock.advance(1000)
            await ledger.amend(Amendment(counter.key, AmendmentKind.IMPORT, counter, 0, "ops"))
        await ledger.settle(a_hold("late", (counters[0],), reserved_at_ms=NOON_MS), Spent(5))
        standings = await ledger.standings([(counter, 0) for counter in counters])

        assert [30] * (CARRIED_ON_MAX + 1) + [25] == [standing.spent for standing in standings]
