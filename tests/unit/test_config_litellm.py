"""LiteLLM's own config.yaml, as its users write it: all of it loads, and what is about money means the same here."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from extauthz.config.effective import effective
from extauthz.config.estimates import UnknownPriceMode
from extauthz.config.includes import INCLUDES_MAX
from extauthz.config.litellm_money import MONEY, TOLD_MAX
from extauthz.config.load import NAMED_IN_A_NOTICE_MAX, load
from extauthz.config.model import ExtauthzSection
from extauthz.config.payers import hashed
from extauthz.config.snapshot import Snapshot
from extauthz.errors import ConfigError

MODELS = """
model_list:
  - {model_name: small, litellm_params: {model: openai/small, input_cost_per_token: 1e-6, output_cost_per_token: 2e-6}}
  - {model_name: large, litellm_params: {model: openai/large, input_cost_per_token: 1e-5, output_cost_per_token: 4e-5}}
  - {model_name: gift, litellm_params: {model: openai/gift, input_cost_per_token: 0, output_cost_per_token: 0}}
"""
SMALL, LARGE = (Decimal("0.000001"), Decimal("0.000002")), (Decimal("0.00001"), Decimal("0.00004"))


class Files:
    """A configuration, and files beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, text: str, environ: dict[str, str] | None = None, **others: str) -> Snapshot:
        """Load a text as the configuration, with `name.yaml` beside it for each of the others."""
        for name, other in {**others, "config": text}.items():
            path = self.folder / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(dedent(other), encoding="utf-8")
        return load(self.folder / "config.yaml", environ or {})

    def mistakes(self, text: str, **others: str) -> list[str]:
        """Load what cannot be, and give the mistakes as `file:line: message`."""
        with pytest.raises(ConfigError) as refused:
            self.load(text, None, **others)
        return [f"{each.file.relative_to(self.folder)}:{each.line}: {each.message}" for each in refused.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Load configurations from a folder of their own."""
    return Files(tmp_path)


def price(snapshot: Snapshot, name: str) -> tuple[Decimal, Decimal]:
    """Give what a token of input and one of output is held at."""
    prices = snapshot.catalog.reach([name]).prices
    return prices.input, prices.output


class TestIncludes:
    """`include` puts files together as LiteLLM does."""

    def test_lists_grow_and_the_rest_is_replaced(self, files: Files) -> None:
        """Models of all files are served, and of two sections the one that was read last counts."""
        snapshot = files.load(
            f"{MODELS}\ninclude: [more.yaml]\ngeneral_settings: {{user_header_name: one}}\n",
            more="""
            model_list: [{model_name: more, litellm_params: {model: openai/gpt-4o}}]
            general_settings: {user_header_name: other}
            """,
        )

        assert ("small", "large", "gift", "more") == snapshot.catalog.listed()
        assert ("other",) == snapshot.settings.user_headers
        assert () == snapshot.notices
        assert ["config.yaml", "more.yaml"] == [path.name for path in snapshot.files]

    def test_files_may_include_files(self, files: Files) -> None:
        """Each is read once, beside the file that names it or else beside the first one; a circle ends."""
        snapshot = files.load(
            "include: [a/one.yaml, a/one.yaml]",
            a__one=f"include: [two.yaml, three.yaml, ../config.yaml]\n{MODELS}",
            a__two="model_list: [{model_name: two, litellm_params: {model: openai/gpt-4o}}]",
            three="model_list: [{model_name: three, litellm_params: {model: openai/gpt-4o}}]",
        )

        assert ("small", "large", "gift", "two", "three") == snapshot.catalog.listed()

    def test_a_change_of_an_included_file_is_a_change(self, files: Files) -> None:
        """The digest is that of all files, and a section changes with the file that it stands in."""
        before = files.load("include: [more.yaml]", more="litellm_settings: {max_budget: 1}")
        after = files.load("include: [more.yaml]", more="litellm_settings: {max_budget: 2}")

        assert before.digest != after.digest
        assert ("litellm_settings",) == after.changed_since(before)

    @pytest.mark.parametrize(
        ("text", "more", "mistakes"),
        [
            pytest.param(
                "include: more.yaml",
                "",
                ["config.yaml:1: include: this must be a list of paths: lines that begin with `- `"],
                id="not a list",
            ),
            pytest.param(
                "include: [no.yaml]",
                "",
                ["no.yaml:1: the file cannot be read: No such file or directory; check the path and its permissions"],
                id="not there",
            ),
            pytest.param(
                "\n\ninclude: [more.yaml]\nmodel_list: [{}]",
                "\n\nmodel_list:\n- {model_name: m, litellm_params: {}}\n- {model_name: , litellm_params: {model: x}}",
                [
                    "config.yaml:4: model_list[0].model_name: this is missing: add it",
                    "config.yaml:4: model_list[0].litellm_params.model: this is missing: add it",
                    "more.yaml:4: model_list[1].litellm_params.model: this is missing: add it",
                    "more.yaml:5: model_list[2].model_name: this is missing: add it",
                ],
                id="each mistake in its own file",
            ),
            pytest.param(
                "include: [more.yaml]",
                "\nextauthz: {}",
                ["more.yaml:2: extauthz: this stands in {config}"],
                id="a section of ours in an included file",
            ),
        ],
    )
    def test_mistakes(self, files: Files, text: str, more: str, mistakes: list[str]) -> None:
        """What is wrong with an included file is told with its name and line."""
        expected = [mistake.format(config=files.folder / "config.yaml") for mistake in mistakes]

        assert expected == files.mistakes(text, more=more)

    def test_only_so_many(self, files: Files) -> None:
        """More files than INCLUDES_MAX are refused."""
        many = {f"f{number}": "{}" for number in range(INCLUDES_MAX + 1)}
        names = ", ".join(f"{name}.yaml" for name in many)

        assert ["config.yaml:1: include: more than 100 files are included"] == files.mistakes(
            f"include: [{names}]", **many
        )


@pytest.mark.parametrize(
    ("variables", "environ", "key"),
    [
        pytest.param("{KEY: sk-file}", {}, "sk-file", id="written"),
        pytest.param("{KEY: sk-file}", {"KEY": "sk-environment"}, "sk-file", id="the file's own counts"),
        pytest.param("{KEY: os.environ/OTHER}", {"OTHER": "sk-other"}, "sk-other", id="another of the environment"),
        pytest.param("{OTHER: sk-above, KEY: os.environ/OTHER}", {}, "sk-above", id="one above"),
        pytest.param("{KEY: os.environ/NONE}", {"KEY": "sk-environment"}, "sk-environment", id="another that is not"),
        pytest.param("{KEY: 1234}", {}, "1234", id="a number"),
        pytest.param("{KEY: }", {"KEY": "sk-environment"}, "sk-environment", id="nothing"),
    ],
)
def test_environment_variables(files: Files, variables: str, environ: dict[str, str], key: str) -> None:
    """`os.environ/NAME` in LiteLLM's sections means what LiteLLM would have put there."""
    snapshot = files.load(
        f"environment_variables: {variables}\ngeneral_settings: {{master_key: os.environ/KEY}}", environ
    )

    assert hashed(key) == snapshot.directory.accounts.admin_sha256


class TestYaml:
    """What LiteLLM's reader of YAML takes."""

    def test_the_last_of_two_counts_in_litellms_sections(self, files: Files) -> None:
        """As in LiteLLM, and the log says so; in ours two are a mistake."""
        twice = "general_settings: {user_header_name: one}\ngeneral_settings: {user_header_name: other}\n"
        snapshot = files.load(twice)

        assert ("other",) == snapshot.settings.user_headers
        assert (
            "`general_settings` stands in config.yaml in lines 1 and 2: the last counts, as in LiteLLM"
            in snapshot.notices
        )
        assert ["config.yaml:3: `teams` stands here a second time, after line 2: keep one"] == files.mistakes(
            "extauthz:\n  teams: {}\n  teams: {}"
        )

    @pytest.mark.parametrize(
        "written", ["0.000001", "1e-6", "!!float 1e-6", '"1e-6"', "1.0E-6", "0.000_001"], ids=lambda text: f"as {text}"
    )
    def test_prices(self, files: Files, written: str) -> None:
        """However a price is written, it is exact."""
        snapshot = files.load(
            f"model_list: [{{model_name: m, litellm_params: "
            f"{{model: x, input_cost_per_token: {written}, output_cost_per_token: 0}}}}]"
        )

        assert Decimal("0.000001") == price(snapshot, "m")[0]

    def test_other_numbers(self, files: Files) -> None:
        """Underscores in numbers, and the words for yes, are those of LiteLLM."""
        snapshot = files.load(
            MODELS
            + """
litellm_settings: {max_budget: 1_000}
router_settings: {model_group_alias: {seen: {model: small, hidden: no}, unseen: {model: small, hidden: yes}}}
"""
        )
        (budget,) = snapshot.directory.accounts.global_budgets

        assert 1_000_000_000_000 == budget.limit
        assert ("small", "large", "gift", "seen") == snapshot.catalog.listed()


class TestRouters:
    """Models that only choose another one."""

    @pytest.mark.parametrize(
        ("parameters", "expected", "free"),
        [
            pytest.param(
                "model: auto_router/complexity_router, complexity_router_config: {tiers: {SIMPLE: small, HARD: large}}",
                LARGE,
                False,
                id="by complexity",
            ),
            pytest.param(
                "model: auto_router/complexity_router, complexity_router_config: {tiers: {SIMPLE: [small, gift]}}",
                SMALL,
                False,
                id="pools",
            ),
            pytest.param(
                "model: auto_router/adaptive_router, adaptive_router_config: {available_models: [small]}",
                SMALL,
                False,
                id="by what it learns",
            ),
            pytest.param(
                "model: auto_router/quality_router, quality_router_default_model: large, "
                "quality_router_config: {available_models: [small]}",
                LARGE,
                False,
                id="by quality, and a default",
            ),
            pytest.param(
                "model: auto_router/mine, auto_router_default_model: gift, "
                """auto_router_config: '{"routes": [{"name": "small", "utterances": ["hello {you}"]}]}'""",
                SMALL,
                False,
                id="by meaning",
            ),
            pytest.param(
                "model: auto_router/mine, auto_router_default_model: gift, auto_router_config_path: routes.json",
                LARGE,
                False,
                id="routes in another file",
            ),
            pytest.param("model: auto_router/mine", LARGE, False, id="nothing said"),
            pytest.param("model: auto_router/mine, auto_router_default_model: gift", (0, 0), True, id="only free ones"),
        ],
    )
    def test_held_at_the_dearest(
        self, files: Files, parameters: str, expected: tuple[Decimal, Decimal], *, free: bool
    ) -> None:
        """A request is held at the dearest of what a router may choose, and free only if all of that is."""
        snapshot = files.load(f"{MODELS}  - {{model_name: clever, litellm_params: {{{parameters}}}}}")

        assert expected == price(snapshot, "clever")
        assert free is snapshot.catalog.is_free("clever")
        assert "clever" in snapshot.catalog.listed()
        assert () == snapshot.notices

    def test_a_router_may_choose_a_router(self, files: Files) -> None:
        """What is chosen in the end counts, and a circle is none."""
        snapshot = files.load(
            MODELS
            + """
  - {model_name: one, litellm_params: {model: auto_router/one, one_router_config: {router: other, models: [gift]}}}
  - {model_name: other, litellm_params: {model: auto_router/x, x_router_config: {models: [small, one]}}}
"""
        )

        assert SMALL == price(snapshot, "one") == price(snapshot, "other")
        assert () == snapshot.notices

    def test_an_answer_is_booked_at_its_own_price(self, files: Files) -> None:
        """What a router chose is expected, and costs what it costs."""
        router = "{model: auto_router/complexity_router, complexity_router_config: {tiers: {A: small, B: large}}}"
        snapshot = files.load(f"{MODELS}  - {{model_name: clever, litellm_params: {router}}}")
        answered = snapshot.catalog.answered("small", "clever")

        assert answered is not None
        assert answered.expected
        assert SMALL == (answered.prices.input, answered.prices.output)

    def test_a_model_that_is_not_there(self, files: Files) -> None:
        """A default that no model of the list is makes the name unknown, and is told."""
        router = "{model: auto_router/x, auto_router_default_model: gone}"
        snapshot = files.load(f"{MODELS}  - {{model_name: clever, litellm_params: {router}}}")

        assert snapshot.catalog.reach(["clever"]).unknown
        assert ("aliases and fallbacks lead to models that are not in model_list: gone",) == snapshot.notices


@pytest.mark.parametrize(
    "settings",
    [
        "general_settings: {completion_model: large}",
        "litellm_settings: {model_fallbacks: [large]}",
        "litellm_settings: {default_fallbacks: [large]}",
        "router_settings: {fallbacks: [{gift: [large]}]}",
        "litellm_settings: {content_policy_fallbacks: [{gift: [large]}]}",
    ],
    ids=lambda text: text.split("{")[1].split(":")[0],
)
def test_what_any_model_leads_to(files: Files, settings: str) -> None:
    """A free model that may lead to one that is paid is not free, whichever setting says so."""
    snapshot = files.load(f"{MODELS}\n{settings}")

    assert not snapshot.catalog.is_free("gift")
    assert LARGE == price(snapshot, "gift")


@pytest.mark.parametrize(
    ("margins", "model", "factor"),
    [
        pytest.param("{openai: 0.1}", "openai/m", "1.1", id="of the provider"),
        pytest.param("{openai: {percentage: 0.1}}", "openai/m", "1.1", id="written at length"),
        pytest.param('{openai: "0.1"}', "openai/m", "1.1", id="in quotes"),
        pytest.param("{global: 0.5, openai: 0.1}", "openai/m", "1.1", id="the provider's own instead of all"),
        pytest.param("{global: 0.5, openai: 0.1}", "azure/m", "1.5", id="of all"),
        pytest.param("{openai: 0.1}", "azure/m", "1", id="of another"),
        pytest.param("{openai: 0.1, azure: 0.3}", "m", "1.3", id="the most where nobody says the provider"),
        pytest.param("{openai: -0.5}", "openai/m", "1", id="nothing is taken off"),
    ],
)
def test_margins(files: Files, margins: str, model: str, factor: str) -> None:
    """What LiteLLM adds to a provider's prices is added here."""
    snapshot = files.load(
        f"""
        model_list:
          - model_name: m
            litellm_params: {{model: {model}, input_cost_per_token: 0.01, output_cost_per_token: 0.02}}
        litellm_settings: {{cost_margin_config: {margins}}}
        """
    )

    assert (Decimal("0.01") * Decimal(factor), Decimal("0.02") * Decimal(factor)) == price(snapshot, "m")


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("litellm_settings: {block_requests_for_models_without_pricing: true}", UnknownPriceMode.DENY),
        ("litellm_settings: {block_requests_for_models_without_pricing: false}", UnknownPriceMode.ESTIMATE),
        (
            "litellm_settings: {block_requests_for_models_without_pricing: true}\nextauthz: {unknown_price: estimate}",
            UnknownPriceMode.ESTIMATE,
        ),
    ],
    ids=["refused", "let through", "ours counts"],
)
def test_models_without_a_price(files: Files, text: str, mode: UnknownPriceMode) -> None:
    """LiteLLM's word for refusing them is one here as well, where our section says nothing."""
    assert mode is files.load(text).settings.unknown_price.mode


def test_a_margin_that_is_none(files: Files) -> None:
    """A margin that is no number is a mistake."""
    assert [
        "config.yaml:1: litellm_settings.cost_margin_config.openai: this is not a margin: write 0.1 for 10 %, say"
    ] == files.mistakes("litellm_settings: {cost_margin_config: {openai: much}}")


@pytest.mark.parametrize("place", ["litellm_params", "model_info"])
def test_base_model(files: Files, place: str) -> None:
    """What a deployment of Azure's is by its price stands in either of two places."""
    parts = {"litellm_params": "model: azure/mine", "model_info": "mode: chat"}
    parts[place] += ", base_model: azure/gpt-4o"
    written = ", ".join(f"{name}: {{{part}}}" for name, part in parts.items())
    snapshot = files.load(f"model_list: [{{model_name: m, {written}}}]")

    assert snapshot.catalog.reach(["m"]).unpriced == ()


@pytest.mark.asyncio
async def test_what_is_in_force_reads_as_the_same(files: Files) -> None:
    """Routers, margins and what is always asked are in the configuration that is written out, in other words."""
    router = "{model: auto_router/complexity_router, complexity_router_config: {tiers: {A: small, B: large}}}"
    before = files.load(
        f"{MODELS}  - {{model_name: clever, litellm_params: {router}}}\n"
        "litellm_settings: {cost_margin_config: {openai: 0.1}, default_fallbacks: [large], model_fallbacks: [gift]}\n"
        "general_settings: {completion_model: small}\n"
        "router_settings: {fallbacks: [{small: [gift]}]}"
    )
    after = files.load(await effective(before))

    assert before.catalog.listed() == after.catalog.listed()
    for name in before.catalog.listed():
        assert before.catalog.reach([name]) == after.catalog.reach([name])


# A configuration, and what is told of it beside the line that names what means nothing.
TOLD = [
    pytest.param("litellm_settings: {max_internal_user_budget: 1, internal_user_budget_duration: 1mo}", id="users"),
    pytest.param("litellm_settings: {default_internal_user_params: {max_budget: 1, budget_duration: 30d}}", id="new"),
    pytest.param("litellm_settings: {max_end_user_budget: 0.1, max_end_user_budget_id: free}", id="end users"),
    pytest.param("litellm_settings: {upperbound_key_generate_params: {max_budget: 100}}", id="keys"),
    pytest.param("litellm_settings: {default_key_generate_params: {max_budget: 1.5, duration: }}", id="new keys"),
    pytest.param("litellm_settings: {default_team_params: {max_budget: 1, models: [m]}}", id="new teams"),
    pytest.param("litellm_settings: {default_team_settings: [{team_id: t, max_budget: 1}]}", id="teams"),
    pytest.param("litellm_settings: {tag_budget_config: {t: {max_budget: 1}}}", id="tags"),
    pytest.param("litellm_settings: {cost_discount_config: {openai: 0.1}}", id="discounts"),
    pytest.param("litellm_settings: {cost_margin_config: {openai: {fixed_amount: 0.1}}}", id="amounts for a request"),
    pytest.param("general_settings: {disable_reset_budget: true}", id="no resets"),
    pytest.param("general_settings: {enable_jwt_auth: true, litellm_jwtauth: {}}", id="tokens"),
    pytest.param("general_settings: {litellm_key_header_name: X-Key}", id="another header"),
    pytest.param(
        "general_settings: {pass_through_endpoints: [{path: /rerank, cost_per_request: 0.1}]}", id="a path's price"
    ),
    pytest.param(
        "model_list: [{model_name: m, litellm_params: {model: openai/gpt-4o, max_budget: 1, budget_duration: 1d}}]",
        id="deployments",
    ),
    pytest.param("mcp_servers: {s: {mcp_info: {mcp_server_cost_info: {default_cost_per_query: 1}}}}", id="tools"),
    pytest.param("agents: [{agent_name: a, litellm_params: {output_cost_per_token: 1e-6}}]", id="agents"),
]


@pytest.mark.parametrize("text", TOLD)
def test_money_is_told_by_itself(files: Files, text: str) -> None:
    """A setting that limits or prices something elsewhere alone is never one among many in a list."""
    written = [name for name in re.findall(r"(\w+):", text) if name in MONEY or "cost_per_" in name]
    notices = files.load(text).notices
    listed = " ".join(notice for notice in notices if notice.startswith("settings that mean nothing here"))
    told = [notice for notice in notices if ": " in notice and notice.partition(": ")[0].split(".")[-1] in written]

    assert told
    assert not set(written) & set(re.findall(r"\w+", listed))
    # Of what stands below another such name, that name is told.
    assert {notice.partition(": ")[0].rpartition(".")[2] for notice in told} <= {*written}


def test_what_is_told_is_bounded(files: Files) -> None:
    """Of very many the first are told, and the number of the others."""
    teams = ", ".join(f"t{number}: {{max_budget: 1}}" for number in range(TOLD_MAX + 3))
    notices = [notice for notice in files.load(f"teams: {{{teams}}}").notices if not notice.startswith("model_list")]

    assert "settings that mean nothing here: teams" == notices[0]
    assert TOLD_MAX + 2 == len(notices)
    assert "3 more settings of budgets and prices mean nothing here" == notices[-1]


def test_what_means_nothing_is_one_line(files: Files) -> None:
    """It is named once, in the order of the alphabet, and no more of it than a line takes."""
    names = ", ".join(f"z{number:02}: 1" for number in reversed(range(NAMED_IN_A_NOTICE_MAX + 7)))
    first, *others = files.load(f"litellm_settings: {{{names}}}\ncallback_settings: {{}}").notices

    assert first.startswith("settings that mean nothing here: callback_settings, litellm_settings.z00, ")
    assert first.endswith("litellm_settings.z48 and 8 more")
    assert not [notice for notice in others if "mean nothing here" in notice]


def test_advice_names_what_there_is() -> None:
    """What a person is told to write can be written."""
    advised = {name for sentence in MONEY.values() for name in re.findall(r"extauthz\.(\w+)", sentence)}

    assert advised <= {field.alias or name for name, field in ExtauthzSection.model_fields.items()}
    assert {"keys", "users", "teams", "end_users"} <= advised


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        pytest.param("guardrails: [{guardrail_name: g, litellm_params: {mode: pre_call}}]", "guardrails", id="rules"),
        pytest.param(
            "credential_list: [{credential_name: c, credential_values: {api_key: os.environ/NONE}}]",
            "credential_list",
            id="credentials",
        ),
        pytest.param("litellm_settings: {cache: true, cache_params: {type: redis}}", "litellm_settings", id="caches"),
        pytest.param("litellm_settings: {priority_reservation: {prod: 0.9}}", "litellm_settings", id="priorities"),
        pytest.param(
            "router_settings: {allowed_fails_policy: {TimeoutErrorRetries: 3}}", "router_settings", id="tries"
        ),
        pytest.param("general_settings: {alerting: [slack], alert_types: [x]}", "general_settings", id="alerts"),
        pytest.param("vector_store_registry: [{vector_store_name: v}]", "vector_store_registry", id="stores"),
        pytest.param("prompts: [{prompt_id: p}]", "prompts", id="prompts"),
        pytest.param("general_settings:\nlitellm_settings:\nrouter_settings:\nmodel_list:", "", id="nothing in any"),
        pytest.param("model_list: []\nenvironment_variables: {}", "", id="empty"),
        pytest.param(
            "router_settings: {fallbacks: [{a: [{model: b}]}, c], default_fallbacks: [a]}", "", id="forms of fallbacks"
        ),
        pytest.param("model_list: [{model_name: '*', litellm_params: {model: '*'}}]", "", id="any model"),
        pytest.param(
            "model_list: [{model_name: m, litellm_params: {model: x, litellm_credential_name: c, rpm: 1, tags: [t]}, "
            "model_info: {mode: chat, access_groups: [g], supports_vision: true, id: 1}}]",
            "",
            id="all sorts of parameters",
        ),
    ],
)
def test_what_has_no_meaning_loads(files: Files, text: str, listed: str) -> None:
    """Whatever else LiteLLM's file has loads, and is named at most."""
    notices = [notice for notice in files.load(text).notices if notice.startswith("settings that mean nothing here")]

    assert bool(listed) == bool(notices)
    assert all(listed in notice for notice in notices)
