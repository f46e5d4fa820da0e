"""Which models discovery shows to whom, whatever the budgets say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.discovery import LISTS_CHARS_MAX
from extauthz.domain.budgets import Counter, Scope, Standing
from extauthz.domain.listings import Listing, Page, Shape
from extauthz.domain.policy import ModelsPolicy
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import AnswerModels, Decision, Deny, ModelsView, Pass, Reason
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: open/*
    litellm_params: {{model: openai/*, input_cost_per_token: 0, output_cost_per_token: 0}}
router_settings: {{model_group_alias: {{clever: gpt-4o, secret: {{model: local-llama, hidden: true}}}}}}
general_settings: {{master_key: sk-admin, budget_exceeded_models_policy: {policy}}}
extauthz:
  store_failure: allow
  teams:
    broke: {{max_budget: 0}}
    trial: {{shadow_mode: true, models: [gpt-4o]}}
    writers: {{models: [gpt-4o, "open/*", secret]}}
  keys:
    - {{key: sk-rich, models: []}}
    - {{key: sk-any, models: [all-proxy-models]}}
    - {{key: sk-broke, team: broke, models: [gpt-4o, secret, "open/*"]}}
    - {{key: sk-trial, team: trial}}
    - {{key: sk-writer, team: writers, models: ["*l*", secret, clever]}}
    - {{key: sk-verbose, models: [gpt-4o, {long}]}}
"""
WRITER = (("*l*", "secret", "clever"), ("gpt-4o", "open/*", "secret"))
ALL, BLOCKED, FREE_ONLY = ModelsPolicy.ALL, ModelsPolicy.BLOCKED, ModelsPolicy.FREE_ONLY


class AbsentLedger(MemoryLedger):
    """A store that does not answer."""

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Fail."""
        raise StoreUnavailableError("the store is away")


@pytest.fixture(params=ModelsPolicy, ids=str)
def policy(request: pytest.FixtureRequest) -> ModelsPolicy:
    """Give each policy."""
    policy: ModelsPolicy = request.param
    return policy


async def decide(
    folder: Path,
    key: str,
    path: str = "/v1/models",
    *,
    policy: ModelsPolicy,
    filtered: bool = False,
    store: type[MemoryLedger] = MemoryLedger,
    long: str = "a",
    **headers: str,
) -> Decision:
    """Decide about a request for models; `filtered` where the response filter stands."""
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(policy=policy, long=long))
    authorizer = Authorizer(store(lambda: 0, SIGNING_KEY), UsualAnswer(UsualTokens(100), UsualTokens(0)))
    sent = {name.replace("_", "-"): (value,) for name, value in {"authorization": f"Bearer {key}", **headers}.items()}
    facts = RequestFacts("GET", path, sent, context={"extauthz.prune": "on"} if filtered else {})
    return await authorizer.decide(facts, Call("r", "attempt", 1.0), load(file, {}))


@pytest.mark.parametrize("key", ["sk-rich", "sk-any", "sk-admin"])
async def test_without_a_list_of_its_own_a_key_sees_everything(tmp_path: Path, policy: ModelsPolicy, key: str) -> None:
    """The upstream's list passes as it is; LiteLLM's words for everything restrict nothing."""
    decision = await decide(tmp_path, key, policy=policy, filtered=True)

    assert Pass(Reason.DISCOVERY) == decision.verdict


async def test_a_list_is_cut_down_to_the_keys_models(tmp_path: Path, policy: ModelsPolicy) -> None:
    """With money and under every policy, by the key's list and the team's: the filter is told both."""
    decision = await decide(tmp_path, "sk-writer", policy=policy, filtered=True)

    assert Pass(Reason.DISCOVERY, ModelsView.ALLOWED, Listing(lists=WRITER)) == decision.verdict


@pytest.mark.parametrize(
    ("path", "headers", "listing"),
    [
        ("/v1/models", {"anthropic_version": "2023-06-01"}, Listing(Shape.ANTHROPIC, WRITER)),
        ("/v1/models?client_version=1", {}, Listing(Shape.CODEX, WRITER)),
        ("/v1/model/info", {}, Listing(Shape.DEPLOYMENTS, WRITER)),
        ("/v2/model/info?page=2", {}, Listing(Shape.DEPLOYMENT_PAGES, WRITER, Page(50, 2), patterns=True)),
        ("/model_group/info?model_group=x", {}, Listing(Shape.GROUPS, WRITER, name="x")),
        ("/api/tags", {}, Listing(Shape.OLLAMA, WRITER)),
    ],
)
async def test_the_filter_is_told_the_shape(
    tmp_path: Path, path: str, headers: dict[str, Any], listing: Listing
) -> None:
    """So that it can write an empty list that the client understands."""
    decision = await decide(tmp_path, "sk-writer", path, policy=ALL, filtered=True, **headers)

    assert Pass(Reason.DISCOVERY, ModelsView.ALLOWED, listing) == decision.verdict


@pytest.mark.parametrize(
    ("key", "path", "names"),
    [
        ("sk-writer", "/v1/models", ()),
        ("sk-writer", "/v1/models?return_wildcard_routes=true", ()),
        ("sk-broke", "/v1/models", ()),
        ("sk-broke", "/v1/models?return_wildcard_routes=true", ("open/*",)),
        ("sk-broke", "/v2/model/info", ("open/*",)),
        ("sk-verbose", "/v1/models", ("gpt-4o",)),
    ],
)
async def test_elsewhere_the_catalog_is_shown(tmp_path: Path, key: str, path: str, names: tuple[str, ...]) -> None:
    """Its names without hidden aliases, and patterns only where they are asked for."""
    verdict = (await decide(tmp_path, key, path, policy=FREE_ONLY)).verdict

    assert isinstance(verdict, AnswerModels)
    assert names == verdict.names


@pytest.mark.parametrize(("chars", "told"), [(LISTS_CHARS_MAX, True), (LISTS_CHARS_MAX + 1, False)])
async def test_a_very_long_list_of_a_key_is_not_sent_around(
    tmp_path: Path,
    chars: int,
    told: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """The catalog's models are shown then, where the filter stands as well."""
    names = ["x" * 100 for _ in range(chars // 100 - 1)]
    long = ", ".join([*names, "y" * (chars - len("gpt-4o") - sum(map(len, names)))])
    verdict = (await decide(tmp_path, "sk-verbose", policy=ALL, filtered=True, long=long)).verdict

    assert (Pass if told else AnswerModels) is type(verdict)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(
    ("name", "seen"),
    [("gpt-4o", False), ("open/llama", True), ("open/other", False), ("secret", True), ("clever", False), ("x", False)],
)
async def test_an_entry_is_there_for_those_who_may_use_it(
    tmp_path: Path,
    name: str,
    seen: bool,  # noqa: FBT001 - a column of the table
    filtered: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """For others it is a model that does not exist."""
    verdict = (await decide(tmp_path, "sk-writer", f"/v1/models/{name}", policy=ALL, filtered=filtered)).verdict

    expected = (Pass, Reason.DISCOVERY) if seen else (Deny, Reason.MODEL_HIDDEN)
    assert expected == (type(verdict), verdict.reason)


async def test_without_the_store_a_key_sees_its_own_models_still(tmp_path: Path, policy: ModelsPolicy) -> None:
    """And under `free_only` the free ones of them."""
    verdict = (await decide(tmp_path, "sk-writer", policy=policy, filtered=True, store=AbsentLedger)).verdict

    views = {
        ALL: (Reason.DISCOVERY, ModelsView.ALLOWED),
        BLOCKED: (Reason.STORE_FAILURE_ALLOWED, ModelsView.ALLOWED),
        FREE_ONLY: (Reason.DISCOVERY_PRUNED, ModelsView.FREE_ONLY),
    }
    assert Pass(*views[policy], Listing(lists=WRITER)) == verdict


@pytest.mark.parametrize("filtered", [False, True])
async def test_in_shadow_mode_a_list_stays_whole(
    tmp_path: Path,
    policy: ModelsPolicy,
    filtered: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Other models answer there as well; and since nothing would have been refused, nothing is told of."""
    decision = await decide(tmp_path, "sk-trial", policy=policy, filtered=filtered)

    assert (Pass(Reason.DISCOVERY), None) == (decision.verdict, decision.shadowed)
