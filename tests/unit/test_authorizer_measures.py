"""Decisions by budgets in tokens and requests, of single models and of providers, on the memory ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter, Scope, Spent, Standing
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, AnswerModels, Deny, ModelsView, Pass, Reason, Verdict
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Reserve, ReserveResult
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: either
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: either
    litellm_params: {{model: anthropic/claude, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: local
    litellm_params: {{model: ollama/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: chooser
    litellm_params: {{model: auto_router/complexity_router, complexity_router_config: {{tiers: [claude, gpt-4o]}}}}
router_settings: {{model_group_alias: {{fast: gpt-4o}}}}
general_settings: {{master_key: sk-admin, budget_exceeded_models_policy: {policy}}}
extauthz:
  store_failure: {store_failure}
  teams: {{t: {team}}}
  keys: [{{key: sk, team: t}}]
"""


class AbsentLedger(MemoryLedger):
    """A store that does not answer."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Fail."""
        raise StoreUnavailableError("away")

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Fail."""
        raise StoreUnavailableError("away")


@dataclass(slots=True)
class Gate:
    """An authorizer with one configuration."""

    ledger: MemoryLedger
    config: Snapshot
    asked: int = 0

    async def ask(
        self,
        model: str | list[str] = "gpt-4o",
        *,
        key: str = "sk",
        unseen_bytes: int = 0,
        fallbacks: Sequence[str] = (),
    ) -> Verdict:
        """Ask for a chat."""
        self.asked += 1
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "fallbacks": [*fallbacks]}
        facts = RequestFacts(
            "POST",
            "/v1/chat/completions",
            {"authorization": (f"Bearer {key}",)},
            json.dumps({"model": model, **body}).encode(),
            unseen_bytes=unseen_bytes,
        )
        return await self._decide(facts)

    async def used(self, model: str = "gpt-4o") -> None:
        """Ask for a chat, and let it use ten tokens at a thousandth of a cent."""
        verdict = await self.ask(model)
        assert isinstance(verdict, Admit)
        await self.ledger.settle(verdict.hold, Spent(10_000, 10, 1))

    async def discover(self, path: str = "/v1/models", *, filtered: bool = True) -> Verdict:
        """Ask for models; `filtered` where the response filter stands."""
        context = {"extauthz.prune": "on"} if filtered else {}
        return await self._decide(RequestFacts("GET", path, {"authorization": ("Bearer sk",)}, context=context))

    async def _decide(self, facts: RequestFacts) -> Verdict:
        authorizer = Authorizer(self.ledger, UsualAnswer(UsualTokens(20), UsualTokens(0)))
        return (await authorizer.decide(facts, Call(f"r{self.asked}", "attempt", 1.0), self.config)).verdict


def gate(
    folder: Path,
    team: str,
    *,
    policy: str = "free_only",
    store_failure: str = "deny",
    kind: type[MemoryLedger] = MemoryLedger,
    more: str = "",
) -> Gate:
    """Make a gate with one team."""
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(team=team, policy=policy, store_failure=store_failure) + more)
    return Gate(kind(lambda: 0, SIGNING_KEY), load(file, {}))


def refused(verdict: Verdict) -> tuple[str | None, str]:
    """Give the budget and the reason of a refusal."""
    assert isinstance(verdict, Deny)
    return verdict.window, verdict.reason


@pytest.mark.parametrize(
    ("team", "window"),
    [
        ("{max_tokens: 10}", "lifetime/tokens"),
        ("{max_requests: 1}", "lifetime/requests"),
        ("{model_max_budget: {gpt-4o: {budget_limit: 0.00001}}}", "lifetime/model=gpt-4o"),
        ("{model_max_budget: {gpt-4o: {max_tokens: 10}}}", "lifetime/tokens/model=gpt-4o"),
        ("{provider_max_budget: {openai: {max_requests: 1}}}", "lifetime/requests/provider=openai"),
    ],
    ids=["tokens", "requests", "a model's USD", "a model's tokens", "a provider's requests"],
)
async def test_until_it_is_used_up(tmp_path: Path, team: str, window: str) -> None:
    """A request passes, what it used is booked, and the next one is refused with the name of the budget."""
    house = gate(tmp_path, team)

    await house.used()

    assert (window, Reason.BUDGET_EXCEEDED) == refused(await house.ask())


async def test_others_go_on(tmp_path: Path) -> None:
    """What is used up of one model or provider leaves the others alone; no alias, and no router, is a way around."""
    house = gate(
        tmp_path, "{model_max_budget: {gpt-4o: {max_requests: 1}}, provider_max_budget: {openai: {max_tokens: 10}}}"
    )
    await house.used()

    assert isinstance(await house.ask("claude"), Admit)
    assert Reason.BUDGET_EXCEEDED == refused(await house.ask("gpt-4o"))[1]
    assert Reason.BUDGET_EXCEEDED == refused(await house.ask("fast"))[1]
    assert Reason.BUDGET_EXCEEDED == refused(await house.ask("chooser"))[1]


async def test_tokens_in_flight_are_held(tmp_path: Path) -> None:
    """The estimate of tokens is held, and a second request is told to wait."""
    house = gate(tmp_path, "{max_tokens: 10}")

    assert isinstance(await house.ask(), Admit)
    assert ("lifetime/tokens", Reason.BUDGET_HELD) == refused(await house.ask())


async def test_strict_admission_counts_the_most_tokens(tmp_path: Path) -> None:
    """Every byte is a token, and all that the client allows of the answer."""
    house = gate(tmp_path, "{max_tokens: 1000, admission: strict}")

    denial = await house.ask()

    assert ("lifetime/tokens", Reason.REQUEST_TOO_DEAR) == refused(denial)
    assert isinstance(denial, Deny)
    assert "It may use up to 1076." in denial.message


async def test_any_of_two_providers(tmp_path: Path) -> None:
    """A model of both is refused when both are used up, and not before; it is counted on each."""
    house = gate(
        tmp_path,
        "{}",
        more="  global: {provider_max_budget: {openai: {max_requests: 2}, anthropic: {max_requests: 4}}}\n",
    )
    await house.used()
    await house.used("either")

    assert ("lifetime/requests/provider=openai", Reason.BUDGET_EXCEEDED) == refused(await house.ask())
    await house.used("either")
    await house.used("claude")
    await house.used("either")
    assert Reason.BUDGET_EXCEEDED == refused(await house.ask("either"))[1]
    assert ("lifetime/requests/provider=anthropic", Reason.BUDGET_EXCEEDED) == refused(await house.ask("claude"))


async def test_a_list_of_models_passes_no_provider_over(tmp_path: Path) -> None:
    """All of them are asked, so the one that is used up would be paid."""
    house = gate(tmp_path, "{provider_max_budget: {openai: {max_requests: 1}}}")
    await house.used()

    assert Reason.BUDGET_EXCEEDED == refused(await house.ask(["gpt-4o", "claude"]))[1]


async def test_fallbacks_pass_no_provider_over(tmp_path: Path) -> None:
    """A caller that names another provider's model as its fallback asks for its own model first all the same."""
    house = gate(tmp_path, "{provider_max_budget: {openai: {max_requests: 1}}}")
    await house.used()

    assert Reason.BUDGET_EXCEEDED == refused(await house.ask(fallbacks=["claude"]))[1]
    assert Reason.BUDGET_EXCEEDED == refused(await house.ask("claude", fallbacks=["gpt-4o"]))[1]
    assert isinstance(await house.ask("claude"), Admit)


async def test_a_cut_body_may_name_any_model(tmp_path: Path) -> None:
    """What is unseen of it may name the model whose budget is used up, so each budget of a model binds and counts."""
    house = gate(tmp_path, "{model_max_budget: {gpt-4o: {max_requests: 1}}}")
    await house.used()

    assert ("lifetime/requests/model=gpt-4o", Reason.BUDGET_EXCEEDED) == refused(
        await house.ask("claude", unseen_bytes=100)
    )
    assert isinstance(await house.ask("claude"), Admit)


class TestFree:
    """Models that cost nothing."""

    async def test_budgets_in_usd_let_it_pass(self, tmp_path: Path) -> None:
        """Without the store, whatever they have left, and of whichever model they are."""
        house = gate(tmp_path, "{max_budget: 0, model_max_budget: {local: {budget_limit: 0}}}", kind=AbsentLedger)

        verdict = await house.ask("local")

        assert isinstance(verdict, Pass)
        assert verdict.hold is not None
        assert (Reason.FREE_MODEL, True) == (verdict.reason, verdict.hold.free)

    @pytest.mark.parametrize("team", ["{max_budget: 0, max_requests: 1}", "{max_budget: 0, max_tokens: 10}"])
    async def test_others_hold_it(self, tmp_path: Path, team: str) -> None:
        """It is reserved at no cost, counted, and refused when they are used up."""
        house = gate(tmp_path, team)

        verdict = await house.ask("local")

        assert isinstance(verdict, Admit)
        assert (Reason.FREE_MODEL, None, False) == (verdict.reason, verdict.available_nanousd, verdict.hold.free)
        assert {"lifetime"} < {counter.label for counter in verdict.hold.counters}
        await house.ledger.settle(verdict.hold, Spent(0, 10, 1))
        assert Reason.BUDGET_EXCEEDED == refused(await house.ask("local"))[1]

    @pytest.mark.parametrize(
        ("store_failure", "reason"),
        [("deny", Reason.STORE_UNAVAILABLE), ("allow", Reason.STORE_FAILURE_ALLOWED)],
    )
    async def test_without_the_store(self, tmp_path: Path, store_failure: str, reason: Reason) -> None:
        """Where tokens or requests limit it, nobody can tell whether it may pass: the rule says."""
        house = gate(tmp_path, "{max_requests: 1}", store_failure=store_failure, kind=AbsentLedger)

        assert reason == (await house.ask("local")).reason

    async def test_an_admin_is_not_limited(self, tmp_path: Path) -> None:
        """The store is not asked."""
        house = gate(tmp_path, "{}", kind=AbsentLedger, more="  global: {max_requests: 0}\n")

        assert isinstance(await house.ask("local", key="sk-admin"), Pass)


class TestDiscovery:
    """What a list of models shows."""

    @pytest.mark.parametrize("policy", ["blocked", "free_only"])
    @pytest.mark.parametrize(
        "team", ["{max_tokens: 0}", "{max_requests: 0}", "{provider_max_budget: {openai: {max_budget: 0}}}"]
    )
    async def test_only_money_for_all_decides(self, tmp_path: Path, policy: str, team: str) -> None:
        """Tokens, requests and providers that are used up change nothing, under no policy."""
        assert Pass(Reason.DISCOVERY) == await gate(tmp_path, team, policy=policy).discover()

    @pytest.mark.parametrize("policy", ["blocked", "all"])
    async def test_a_models_budget_blocks_nothing(self, tmp_path: Path, policy: str) -> None:
        """The list stays as it is."""
        house = gate(tmp_path, "{model_max_budget: {gpt-4o: {budget_limit: 0}}}", policy=policy)

        assert Pass(Reason.DISCOVERY) == await house.discover()

    async def test_a_models_budget_hides_that_model(self, tmp_path: Path) -> None:
        """Under `free_only`, and its aliases with it: the filter is told, and lists that are written here lack it."""
        house = gate(tmp_path, "{model_max_budget: {gpt-4o: {budget_limit: 0}, claude: {max_tokens: 5}}}")

        view = await house.discover()
        answer = await house.discover(filtered=False)

        assert isinstance(view, Pass)
        assert view.listing is not None
        assert (ModelsView.ALLOWED, ("gpt-4o",), Reason.DISCOVERY_PRUNED) == (
            view.models,
            view.listing.hidden,
            view.reason,
        )
        assert isinstance(answer, AnswerModels)
        assert ("claude", "either", "local") == answer.names

    @pytest.mark.parametrize("name", ["gpt-4o", "fast"])
    async def test_a_hidden_model_is_not_found(self, tmp_path: Path, name: str) -> None:
        """Neither by its name nor by an alias; others are."""
        house = gate(tmp_path, "{model_max_budget: {gpt-4o: {max_requests: 0}}}")

        assert Reason.MODEL_HIDDEN == (await house.discover(f"/v1/models/{name}")).reason
        assert Pass(Reason.DISCOVERY_PRUNED) == await house.discover("/v1/models/claude")

    async def test_without_money_the_free_ones_stay_but_for_hidden_ones(self, tmp_path: Path) -> None:
        """A free model is hidden by its tokens or requests, and never by its USD."""
        shown = gate(tmp_path, "{max_budget: 0, model_max_budget: {local: {budget_limit: 0}}}")
        hidden = gate(tmp_path, "{max_budget: 0, model_max_budget: {local: {max_tokens: 0}}}")

        free, none = await shown.discover(filtered=False), await hidden.discover(filtered=False)

        assert isinstance(free, AnswerModels)
        assert isinstance(none, AnswerModels)
        assert (("local",), ()) == (free.names, none.names)
