"""Budgets in tokens and requests, of single models and of single providers, as a configuration says them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from extauthz.config.effective import effective
from extauthz.config.load import load
from extauthz.config.payers import BUDGETS_MAX, PART_BUDGETS_MAX
from extauthz.domain.budgets import Budget, Filter, FilterKind, Measure, Scope, ScopeKind
from extauthz.domain.money import AMOUNT_NANOUSD_MAX, NANOUSD_PER_USD
from extauthz.errors import ConfigError

USD, TOKENS, REQUESTS = Measure
GPT = Filter(FilterKind.MODEL, "gpt-4o")
OPENAI = Filter(FilterKind.PROVIDER, "openai")


def budgets(folder: Path, text: str, scope: str = "team:t") -> tuple[Budget, ...]:
    """Load a configuration, and give the budgets of a scope."""
    file = folder / "config.yaml"
    file.write_text(text)
    return load(file, {}).directory.budgets_on(Scope.parse(scope))


def mistakes(folder: Path, text: str) -> list[str]:
    """Load a bad configuration, and give what is said about it."""
    with pytest.raises(ConfigError) as refused:
        budgets(folder, text)
    return [mistake.message for mistake in refused.value.mistakes]


def limits(found: tuple[Budget, ...]) -> list[tuple[str, int]]:
    """Give labels with limits, USD in whole ones."""
    units = {USD: NANOUSD_PER_USD, TOKENS: 1, REQUESTS: 1}
    return [(budget.label, budget.limit // units[budget.measure]) for budget in found]


TABLE = [
    pytest.param("{max_budget: 1}", [("lifetime", 1)], id="usd"),
    pytest.param("{max_tokens: 5}", [("lifetime/tokens", 5)], id="tokens"),
    pytest.param('{max_tokens: "1_000_000"}', [("lifetime/tokens", 1_000_000)], id="digits in groups"),
    pytest.param("{max_tokens: 2e6, budget_duration: 1d}", [("1d/tokens", 2_000_000)], id="an exponent"),
    pytest.param("{max_requests: 0}", [("lifetime/requests", 0)], id="none at all"),
    pytest.param(
        "{max_budget: 1, max_tokens: 2, max_requests: 3, budget_duration: 1mo}",
        [("1mo", 1), ("1mo/tokens", 2), ("1mo/requests", 3)],
        id="all at once",
    ),
    pytest.param(
        "{max_requests: 9, budget_limits: [{max_tokens: 5, budget_duration: 1h}, {max_budget: 2}]}",
        [("lifetime/requests", 9), ("1h/tokens", 5), ("lifetime", 2)],
        id="several windows",
    ),
    pytest.param(
        "{model_max_budget: {gpt-4o: {budget_limit: 1.0, time_period: 1d}}}", [("1d/model=gpt-4o", 1)], id="LiteLLM's"
    ),
    pytest.param(
        "{model_max_budget: {openai/gpt-4o: {max_budget: 2, max_tokens: 7, budget_duration: 7d}}}",
        [("7d/model=openai%2Fgpt-4o", 2), ("7d/tokens/model=openai%2Fgpt-4o", 7)],
        id="other names, and two measures",
    ),
    pytest.param(
        "{provider_max_budget: {openai: {max_requests: 4}}}", [("lifetime/requests/provider=openai", 4)], id="provider"
    ),
]


@pytest.mark.parametrize(("fields", "expected"), TABLE)
def test_what_is_written(tmp_path: Path, fields: str, expected: list[tuple[str, int]]) -> None:
    """Each limit is a budget of its own, named by what sets it apart."""
    assert expected == limits(budgets(tmp_path, f"extauthz: {{teams: {{t: {fields}}}}}"))


@pytest.mark.parametrize(("fields", "expected"), TABLE)
def test_the_effective_configuration_reads_as_the_same(
    tmp_path: Path, fields: str, expected: list[tuple[str, int]]
) -> None:
    """Whatever is limited, what `GetConfig` shows of it is read back."""
    del expected
    found = budgets(tmp_path, f"extauthz: {{teams: {{t: {fields}}}}}")

    written = asyncio.run(effective(load(tmp_path / "config.yaml", {})))

    assert found == budgets(tmp_path, written[: written.index("\nprices:") + 1])


def test_an_anchor_is_not_handed_on(tmp_path: Path) -> None:
    """The first budget's own anchor stays its own in the effective configuration."""
    found = budgets(
        tmp_path,
        "extauthz: {teams: {t: {budget_limits: [{max_budget: 1, budget_duration: 2d, anchor: 2026-01-01}, "
        "{max_tokens: 1, budget_duration: 2d}], model_max_budget: {m: {max_budget: 1, budget_duration: 2d}}}}}",
    )

    written = asyncio.run(effective(load(tmp_path / "config.yaml", {})))

    assert [True, False, False] == [budget.rule.anchor_ms is not None for budget in found]
    assert found == budgets(tmp_path, written[: written.index("\nprices:") + 1])


def test_what_parts_take_over(tmp_path: Path) -> None:
    """Admission and anchor of the payer hold for limits of models unless these say otherwise; the window does not."""
    plain, kept, other = budgets(
        tmp_path,
        "extauthz: {teams: {t: {max_budget: 1, budget_duration: 1d, admission: strict, anchor: 2026-01-01, "
        "model_max_budget: {a: {max_tokens: 1}, b: {max_tokens: 1, admission: until_exhausted}}}}}",
    )

    assert (True, True, False) == (plain.strict, kept.strict, other.strict)
    assert plain.rule.anchor_ms == kept.rule.anchor_ms
    assert (True, None) == (plain.rule.duration is not None, kept.rule.duration)


@pytest.mark.parametrize("scope", ["org:x", "user:x", "member:x/x", "end_user:x", f"key:{'0' * 64}", "global"])
def test_every_payer_has_them(tmp_path: Path, scope: str) -> None:
    """Keys, users, teams, members, end users, organizations, and all together."""
    fields = "{max_tokens: 1, model_max_budget: {gpt-4o: {budget_limit: 1}}}"
    text = f"""
extauthz:
  global: {fields}
  organizations: {{x: {fields}}}
  users: {{x: {fields}}}
  teams: {{x: {{members: {{x: {fields}}}}}}}
  end_users: {{x: {fields}}}
  keys: [{{key_sha256: "{"0" * 64}", max_tokens: 1, model_max_budget: {{gpt-4o: {{budget_limit: 1}}}}}}]
"""

    assert [("lifetime/tokens", 1), ("lifetime/model=gpt-4o", 1)] == limits(budgets(tmp_path, text, scope))


def test_litellms_budgets_of_providers(tmp_path: Path) -> None:
    """They limit all together; where LiteLLM has none (0, or no limit), there is none, and ours go before."""
    text = """
router_settings:
  provider_budget_config:
    openai: {budget_limit: 100, time_period: 1d, rpm_limit: 5}
    azure: {budget_limit: 0, time_period: 1d}
    vertex_ai: {time_period: 1d}
    anthropic: {max_budget: 5, budget_duration: 7d}
extauthz: {global: {provider_max_budget: {anthropic: {max_budget: 9, budget_duration: 1d}}}}
"""

    assert [("1d/provider=openai", 100), ("1d/provider=anthropic", 9)] == limits(budgets(tmp_path, text, "global"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("{budget_limits: [{}]}", "t.budget_limits[0]: write one of max_budget (USD), max_tokens and max_requests"),
        ("{budget_limits: [{max_tokens: 1, max_requests: 1}]}", "and another entry for another"),
        ("{budget_limits: [{max_tokens: 1, soft_budget: 1}]}", "soft_budget is an amount of max_budget"),
        (
            "{budget_limits: [{max_tokens: 1, temp_budget_increase: 1, temp_budget_expiry: 2026-12-01}]}",
            "temp_budget_increase raises max_budget",
        ),
        ("{max_tokens: 1.5}", "t.max_tokens: write a whole number"),
        ("{max_tokens: -1}", "t.max_tokens: the least is 0"),
        ("{max_requests: 1e16}", f"t.max_requests: the most is {AMOUNT_NANOUSD_MAX}"),
        ("{max_requests: many}", "t.max_requests: this is not a number"),
        ("{model_max_budget: {m: {}}}", "t.model_max_budget.m: nothing is limited here"),
        ("{model_max_budget: {m: {max_budget: 1, budget_limit: 1}}}", "two names for one limit: keep one"),
        ("{model_max_budget: {m: {max_tokens: 1, budget_duration: 1d, time_period: 1d}}}", "two names for one thing"),
        ("{model_max_budget: {m: {max_budgets: 1}}}", "t.model_max_budget.m.max_budgets: unknown key; did you mean"),
        ("{model_max_budget: {m: 5}}", "t.model_max_budget.m: this must be a mapping"),
        (
            f"{{max_budget: 1, max_tokens: 1, budget_limits: [{', '.join(['{max_tokens: 1}'] * (BUDGETS_MAX - 1))}]}}",
            "a payer has at most 8 budgets",
        ),
        (
            f"{{model_max_budget: {{{', '.join(f'm{n}: {{max_tokens: 1}}' for n in range(PART_BUDGETS_MAX + 1))}}}}}",
            "a payer has at most 64 limits of models and providers",
        ),
    ],
    ids=range(15),
)
def test_mistakes(tmp_path: Path, fields: str, sentence: str) -> None:
    """Each is told in a sentence that says what to write."""
    (told,) = mistakes(tmp_path, f"extauthz: {{teams: {{t: {fields}}}}}")

    assert sentence in told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            (
                "router_settings: {provider_budget_config: {openai: {budget_limit: 1, time_period: 1d}}}\n"
                "extauthz: {store: 'redis://h', shard_by: organization}"
            ),
            "router_settings.provider_budget_config: there is no budget of all with shard_by: organization",
        ),
        (
            "extauthz: {store: 'redis://h', shard_by: organization, global: {max_requests: 5}}",
            "extauthz.global: there is no budget of all together with shard_by: organization; leave it out",
        ),
        (
            "router_settings: {provider_budget_config: {openai: {budget_limit: 1, time_period: often}}}",
            "router_settings.provider_budget_config.openai.time_period: 'often' is not a duration",
        ),
    ],
    ids=["theirs", "ours", "a period"],
)
def test_mistakes_about_all_together(tmp_path: Path, text: str, sentence: str) -> None:
    """Budgets of all together are no more possible with shards than they were."""
    (told,) = mistakes(tmp_path, text)

    assert told.startswith(sentence)


def test_who_sends_no_credential_may_be_limited_by_requests(tmp_path: Path) -> None:
    """Any limit is an end to what anybody can spend; one of a single model is none."""
    assert [("1d/requests", 5)] == limits(
        budgets(tmp_path, "extauthz: {anonymous: {max_requests: 5, budget_duration: 1d}}", str(ScopeKind.ANONYMOUS))
    )
    (told,) = mistakes(tmp_path, "extauthz: {anonymous: {model_max_budget: {gpt-4o: {max_budget: 1}}}}")
    assert "anybody could spend without end" in told


@pytest.mark.parametrize(
    ("model_list", "named"),
    [
        ("[{model_name: gpt-4o, litellm_params: {model: openai/gpt-4o}}]", "claude, openai/gpt-5, vertex_ai"),
        ("[{model_name: openai/*, litellm_params: {model: openai/*}}]", "vertex_ai"),
        ("[{model_name: '*', litellm_params: {model: '*'}}]", None),
        ("[{model_name: x, litellm_params: {model: nobody-knows}}]", "claude, gpt-4o, openai/gpt-5"),
    ],
    ids=["one model", "a provider's", "whatever is asked", "nobody's"],
)
def test_names_that_nothing_counts_on_are_told(tmp_path: Path, model_list: str, named: str | None) -> None:
    """A slip in the name of a model or provider would limit nothing, and nobody would know."""
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model_list: {model_list}\nextauthz: {{teams: {{t: {{model_max_budget: {{gpt-4o: {{max_tokens: 1}}, "
        "claude: {max_tokens: 1}, openai/gpt-5: {max_tokens: 1}}, provider_max_budget: {openai: {max_tokens: 1}, "
        "vertex_ai: {max_tokens: 1}}}}}"
    )

    told = [notice for notice in load(file, {}).notices if "limit nothing" in notice]

    expected = f"budgets of models and providers that model_list does not have limit nothing: {named}"
    assert ([] if named is None else [expected]) == told
