"""No paid request passes a budget that is used up, of whichever measure, model or provider, and no other is refused."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Filter, FilterKind, Measure
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Deny, Pass, Reason, Verdict
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY

# The providers of each model's deployments; the last one is free.
MODELS = {"gpt": ("openai",), "claude": ("anthropic",), "either": ("openai", "anthropic"), "house": ("ollama",)}
FREE = "house"
ONLY = (
    None,
    *(Filter(FilterKind.MODEL, name) for name in ("gpt", "claude", "house")),
    *(Filter(FilterKind.PROVIDER, name) for name in ("openai", "anthropic", "ollama")),
)
LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """A budget of the configuration: on whom, of what, and whether it is used up."""

    payer: str
    measure: Measure
    only: Filter | None
    used_up: bool


WRITTEN = st.builds(
    Written, st.sampled_from(("global", "team", "user")), st.sampled_from(Measure), st.sampled_from(ONLY), st.booleans()
)


@cache
def _loaded(text: str) -> Snapshot:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text)
        return load(file, {})


def configuration(budgets: Sequence[Written]) -> Snapshot:
    """Write all budgets, each in its place."""
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"{provider}/{name}",
                "input_cost_per_token": 0 if name == FREE else 1e-6,
                "output_cost_per_token": 0 if name == FREE else 1e-6,
            },
        }
        for name, providers in MODELS.items()
        for provider in providers
    ]
    payers = {payer: _fields([each for each in budgets if each.payer == payer]) for payer in ("global", "team", "user")}
    section = {
        "global": payers["global"],
        "teams": {"t": payers["team"]},
        "users": {"u": payers["user"]},
        "keys": [{"key": "sk", "team": "t", "user": "u"}],
    }
    # JSON is YAML.
    return _loaded(json.dumps({"model_list": models, "extauthz": section}))


def _fields(budgets: Sequence[Written]) -> dict[str, dict[str, object]]:
    fields: dict[str, dict[str, object]] = {}
    own: dict[str, object] = {}
    for each in budgets:
        limit = {Measure.USD: ("max_budget", 1), Measure.TOKENS: ("max_tokens", LIMIT)}
        name, amount = limit.get(each.measure, ("max_requests", LIMIT))
        if each.only is None:
            own[name] = amount
        else:
            parts = fields.setdefault(f"{each.only.kind}_max_budget", {})
            part = parts.setdefault(each.only.name, {})
            assert isinstance(part, dict)
            part[name] = amount
    return {**own, **fields}  # type: ignore[dict-item]  # JSON's values


async def decided(budgets: Sequence[Written], model: str) -> Verdict:
    """Use up what is to be, and ask for a chat."""
    config, ledger = configuration(budgets), MemoryLedger(lambda: 0, SIGNING_KEY)
    used_up = {(each.payer, each.measure, each.only) for each in budgets if each.used_up}
    for scope in config.directory.budgeted():
        for budget in config.directory.budgets_on(scope):
            if (str(scope.kind), budget.measure, budget.only) in used_up:
                counter = budget.counter(scope, budget.rule.at(0))
                await ledger.amend(Amendment(counter.key, AmendmentKind.IMPORT, counter, budget.limit, "test"))
    facts = RequestFacts(
        "POST",
        "/v1/chat/completions",
        {"authorization": ("Bearer sk",)},
        json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode(),
    )
    authorizer = Authorizer(ledger, UsualAnswer(UsualTokens(20), UsualTokens(0)))
    return (await authorizer.decide(facts, Call("r", "attempt", 1.0), config)).verdict


def refused(budgets: Sequence[Written], model: str) -> bool:
    """Tell by the rules as they are written in docs/budgets.md whether a request is to be refused."""
    binding = [
        each
        for each in budgets
        if each.used_up and each.payer != "user" and not (model == FREE and each.measure is Measure.USD)
    ]
    used_up_providers = {
        each.only.name for each in binding if each.only is not None and each.only.kind is FilterKind.PROVIDER
    }
    of_the_model = any(
        each.only is None or (each.only.kind is FilterKind.MODEL and each.only.name == model) for each in binding
    )
    return of_the_model or used_up_providers.issuperset(MODELS[model])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(WRITTEN, max_size=8, unique_by=lambda each: (each.payer, each.measure, each.only)),
    st.sampled_from([*MODELS]),
)
def test_what_is_used_up_refuses_what_it_is_for(budgets: list[Written], model: str) -> None:
    """Whatever budgets there are: a request is refused by those that are for it and bind, and by nothing else."""
    verdict = asyncio.run(decided(budgets, model))

    if refused(budgets, model):
        assert isinstance(verdict, Deny)
        assert Reason.BUDGET_EXCEEDED == verdict.reason
    else:
        assert not isinstance(verdict, Deny)
        assert model == FREE or not isinstance(verdict, Pass)
