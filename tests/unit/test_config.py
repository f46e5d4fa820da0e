"""The configuration file: what a good one gives, and what is said about a bad one."""

from datetime import time
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from textwrap import dedent

import pytest

from extauthz.config.load import load
from extauthz.config.model import ExtauthzSection, Settings
from extauthz.config.snapshot import Snapshot
from extauthz.config.upstream_auth import UpstreamAuthAction
from extauthz.domain.address import Address
from extauthz.domain.budgets import Increase, Scope, ScopeKind
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.measures import amount_text
from extauthz.domain.money import usd_text
from extauthz.domain.policy import Admission, ModelsPolicy, OnAbort
from extauthz.domain.routes import classify
from extauthz.domain.windows import Duration, ResetRules, Unit, WindowRule
from extauthz.errors import ConfigError
from extauthz.ledger.url import parse_store_url

EXAMPLE = Path(__file__).parents[2] / "docs" / "config.example.yaml"
ENVIRON = {
    "EXTAUTHZ_MASTER_KEY": "sk-master",
    "EXTAUTHZ_TOKEN": "shared-secret",
    "EXTAUTHZ_ADMIN_TOKEN": "operators-secret",
    "ANTHROPIC_API_KEY": "sk-upstream",
    "ANA_KEY": "sk-ana",
    "BEN_KEY": "sk-ben",
    "EMPTY": "",
    "STORE": "rediss+sentinel://gate:pw-store@a,b:7000/mymaster?tag=t&sentinel_password=pw-sentinel",
    "BAD_STORE": "redis://gate:pw-store@a:port",
}
STORE_SECRETS = ("gate", "pw-store", "pw-sentinel")

MODELS = """
model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt, input_cost_per_token: 1e-6, output_cost_per_token: 2e-6}
"""

# The key of the example that is written as its hash.
INTERNS = "b6050da2f1fa10ddbd1097386f45dd45cf41250238a1c89f34f56ef6298b3803"


def hashed(key: str) -> str:
    """Give the SHA-256 of a key."""
    return sha256(key.encode()).hexdigest()


class Files:
    """Loads configurations from text."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.yaml"

    def load(self, text: str) -> Snapshot:
        """Load a configuration."""
        self.path.write_text(dedent(text), encoding="utf-8")
        return load(self.path, ENVIRON)

    def mistakes(self, text: str) -> list[str]:
        """Load a bad configuration, and give its mistakes as `line: message`."""
        with pytest.raises(ConfigError) as refused:
            self.load(text)
        return [f"{mistake.line}: {mistake.message}" for mistake in refused.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Load configurations from text."""
    return Files(tmp_path)


class TestExample:
    """docs/config.example.yaml."""

    def test_loads_without_a_notice(self) -> None:
        """The example is right, and has nothing in it that means nothing."""
        assert load(EXAMPLE, ENVIRON).notices == ()

    def test_has_every_setting(self) -> None:
        """A setting that the example does not show would never be found."""
        text = EXAMPLE.read_text(encoding="utf-8")
        names = {field.alias or name for name, field in ExtauthzSection.model_fields.items()}

        assert {name for name in names if f" {name}: " not in text and f" {name}:\n" not in text} == set()

    def test_shows_defaults(self) -> None:
        """Where the example does not say otherwise, it shows what holds anyway."""
        different = {
            "admin_token",
            "api_prefixes",
            "listen",
            "models_policy",
            "timezone",
            "token",
            "upstream_auth",
            "user_headers",
        }
        shown, default = load(EXAMPLE, ENVIRON).settings, Settings()

        assert different == {name for name in Settings.model_fields if getattr(shown, name) != getattr(default, name)}

    def test_hides_secrets(self) -> None:
        """No secret is in what a snapshot prints."""
        printed = repr(load(EXAMPLE, ENVIRON))

        assert [secret for secret in ENVIRON.values() if secret and secret in printed] == []


class TestSettings:
    """What the file sets."""

    def test_a_litellm_config_works_as_it_is(self, files: Files) -> None:
        """Without a section of ours everything has its default, and what LiteLLM alone needs is not asked for."""
        snapshot = files.load(
            """
            model_list:
              - model_name: gpt-4o
                litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 6}
            general_settings:
              master_key: os.environ/EXTAUTHZ_MASTER_KEY
              database_url: os.environ/DATABASE_URL
            litellm_settings: {callbacks: [prometheus], max_budget: 0, drop_params: true}
            router_settings: {routing_strategy: simple-shuffle}
            guardrails: [{guardrail_name: none}]
            """
        )

        assert snapshot.settings == Settings()
        assert snapshot.catalog.listed() == ("gpt-4o",)
        (notice,) = snapshot.notices
        assert notice == (
            "settings that mean nothing here: general_settings.database_url, guardrails, "
            "litellm_settings.callbacks, litellm_settings.drop_params, router_settings.routing_strategy"
        )

    def test_the_store_by_default(self, files: Files) -> None:
        """The books are in memory unless the file says otherwise, in words or by saying nothing."""
        for text in ("", "extauthz: {store: memory}", "extauthz: {store: }"):
            settings = files.load(text).settings

            assert settings.store is None
            assert (Decimal("0.25"), False) == (settings.store_timeout_seconds, settings.allow_eviction)
            assert (86_400, 100_000) == (settings.tombstone_seconds, settings.journal_entries_max)

    def test_a_store_at_a_url(self, files: Files) -> None:
        """Its URL stands in the file or in a variable, and its other settings beside it, in quotes as well."""
        settings = files.load(
            """
            extauthz:
              store: os.environ/STORE
              store_timeout_seconds: "0.01"
              allow_eviction: true
              tombstone_seconds: 60
              journal_entries_max: "1000"
            """
        ).settings

        assert settings.store == parse_store_url(ENVIRON["STORE"])
        assert (Decimal("0.01"), True) == (settings.store_timeout_seconds, settings.allow_eviction)
        assert (60, 1000) == (settings.tombstone_seconds, settings.journal_entries_max)
        assert settings.store == files.load(f"extauthz: {{store: '{ENVIRON['STORE']}'}}").settings.store

    def test_nothing_prints_the_stores_login(self, files: Files) -> None:
        """Neither a snapshot nor what is said about a mistake beside the store shows who logs in there, or how."""
        loaded = files.load("extauthz: {store: os.environ/STORE}")
        texts = [f"{loaded!r} {loaded.settings}"]
        for store in ("os.environ/STORE", "os.environ/BAD_STORE", *map(repr, (ENVIRON["STORE"], ENVIRON["BAD_STORE"]))):
            texts += files.mistakes(f"extauthz: {{store: {store}, lease_seconds: 0}}")

        assert [] == [secret for secret in STORE_SECRETS for text in texts if secret in text]

    def test_litellm_sections(self, files: Files) -> None:
        """What LiteLLM's sections say about budgets is taken from there."""
        settings = files.load(
            MODELS
            + """
general_settings: {budget_exceeded_models_policy: all, user_header_name: X-User}
litellm_settings: {timezone: Europe/Berlin, budget_reset_time: "06:30"}
"""
        ).settings

        assert (ModelsPolicy.ALL, ("x-user",), "Europe/Berlin", time(6, 30)) == (
            settings.models_policy,
            settings.user_headers,
            settings.timezone,
            settings.budget_reset_time,
        )

    def test_what_litellm_hands_on_is_inference(self, files: Files) -> None:
        """What stands below a pass-through is paid; what is known there anyway stays known."""
        snapshot = files.load(
            MODELS
            + """
general_settings:
  pass_through_endpoints: [{path: /bria, target: "https://a.example"}, {path: /v1/rerank}, {path: tools/x/}]
extauthz: {api_prefixes: [/llm]}
"""
        )
        prefixes = snapshot.settings.api_prefixes

        assert prefixes == ("/llm", "/bria", "/tools/x")
        assert classify("POST", "/bria/v1/text-to-image", {}, prefixes).endpoint is Endpoint.OPAQUE

    def test_own_section(self, files: Files) -> None:
        """What stands under `extauthz:` is in the settings."""
        settings = files.load(
            """
            extauthz:
              listen: {grpc: "[::1]:9000", http: 0.0.0.0:0}
              admission: strict
              on_abort: zero
              estimate: fixed
              lease_seconds: "900"
              hide_amounts: yes
              budget_exceeded_status: 402
              api_prefixes: [/llm/v1/]
              token:
            """
        ).settings

        assert (Address("::1", 9000), Address("0.0.0.0", 0)) == (settings.listen.grpc, settings.listen.http)
        assert (Admission.STRICT, OnAbort.ZERO, True) == (
            settings.admission,
            settings.on_abort,
            settings.estimate.fixed,
        )
        assert (900, True, 402) == (settings.lease_seconds, settings.hide_amounts, settings.budget_exceeded_status)
        assert (("/llm/v1",), None) == (settings.api_prefixes, settings.token)

    def test_upstream_auth(self, files: Files) -> None:
        """A rule is chosen by the model's name, then by its most specific pattern."""
        auth = files.load(
            MODELS
            + """
extauthz:
  upstream_auth:
    default: remove
    models: {gpt: {set: os.environ/ANTHROPIC_API_KEY}, "local/*": pass}
"""
        ).settings.upstream_auth

        assert [UpstreamAuthAction.SET, UpstreamAuthAction.PASS, UpstreamAuthAction.REMOVE] == [
            auth.rule(name).action for name in ("gpt", "local/llama", "other")
        ]
        key = auth.rule("gpt").key
        assert key is not None
        assert key.get_secret_value() == "sk-upstream"

    def test_listening_elsewhere(self) -> None:
        """An address of the command line replaces the file's, and must not be open either."""
        settings = Settings()

        assert settings.listening(grpc=Address("127.0.0.1", 0)).listen.grpc == Address("127.0.0.1", 0)
        with pytest.raises(ValueError, match="would let anybody in"):
            settings.listening(grpc=Address("0.0.0.0", 9191))

    @pytest.mark.parametrize(
        ("port", "proof"),
        [
            ("grpc", "token: t"),
            ("grpc", "tls: {cert: c, key: k, client_ca: ca}"),
            ("grpc", "insecure_grpc: true"),
            ("admin", "admin_token: t"),
            ("admin", "tls: {cert: c, key: k, client_ca: ca}"),
        ],
    )
    def test_open_port_with_proof(self, files: Files, port: str, proof: str) -> None:
        """Beyond loopback the server listens where callers prove themselves, or the operator vouches for Envoy."""
        listen = files.load(f"extauthz:\n  listen: {{{port}: '0.0.0.0:9191'}}\n  {proof}").settings.listen

        assert not getattr(listen, port).loopback


class TestNotices:
    """Lines for the log."""

    @pytest.mark.parametrize(
        ("text", "notice"),
        [
            pytest.param("", "model_list names no model: only patterns can be asked for, if there are any", id="empty"),
            pytest.param(
                "model_list: [{model_name: m, litellm_params: {model: x/y}}]",
                "models without a price, neither in model_list nor in the price list: m; their tokens cost 0.00003 and "
                "0.00018 USD (extauthz.unknown_price). Write both prices, as 0 if they are free",
                id="no price",
            ),
            pytest.param(
                "model_list: [{model_name: m, litellm_params: {model: x/y}}]\nextauthz: {unknown_price: deny}",
                "models without a price, neither in model_list nor in the price list: m; they are refused "
                "(extauthz.unknown_price). Write both prices, as 0 if they are free",
                id="no price, and that is not wanted",
            ),
            pytest.param(
                "model_list: [{model_name: m, litellm_params: {model: x/y, input_cost_per_token: 1, "
                "output_cost_per_token: 1, output_cost_per_pixel: 1, ocr_cost_per_page_batches: 1}}]",
                "prices by which nothing is booked, for no answer shows what they count: m (output_cost_per_pixel), "
                "m (ocr_cost_per_page)",
                id="prices that nothing is booked by",
            ),
            pytest.param(
                MODELS + "litellm_settings: {fallbacks: [{gpt: [gone]}]}",
                "aliases and fallbacks lead to models that are not in model_list: gone",
                id="a fallback that leads nowhere",
            ),
        ],
    )
    def test_notice(self, files: Files, text: str, notice: str) -> None:
        """What is probably not meant is said, and does not stop anything."""
        assert (notice,) == files.load(text).notices


class TestCatalog:
    """LiteLLM's model list, as the catalog has it."""

    def test_prices(self, files: Files) -> None:
        """Prices are exact decimals, wherever LiteLLM lets them stand and however they are written."""
        model = files.load(
            """
            model_list:
              - model_name: m
                litellm_params: {model: openai/x, input_cost_per_token: "1.5e-7"}
                model_info: {output_cost_per_token: 0.0000006, max_input_tokens: 100, max_tokens: 10, mode: chat}
            """
        ).catalog.find("m")

        assert model is not None
        assert (Decimal("1.5e-7"), Decimal("6e-7")) == (
            model.deployments[0].prices.input,
            model.deployments[0].prices.output,
        )
        assert (100, 10) == (model.context_tokens, model.output_tokens_max)

    @pytest.mark.parametrize(
        ("params", "above"),
        [
            pytest.param(
                "tiered_pricing: [{range: [0, 32000], input_cost_per_token: 1, output_cost_per_token: 4}, "
                "{range: [32000.0, 128000], input_cost_per_token: 2, output_cost_per_token: 5}]",
                ((32_000, 2, 5),),
                id="by ranges of the input",
            ),
            pytest.param(
                "tiered_pricing: [{max_results_range: [0, 25], input_cost_per_token: 1, output_cost_per_token: 4}]",
                (),
                id="by ranges of something else",
            ),
            pytest.param(
                "input_cost_per_token: 0.5, output_cost_per_token: 4, "
                "off_peak_pricing: {input_cost_per_token: 1, hours_utc: '00:00-01:00', windows: [{weekdays: [6, 7]}]}",
                (),
                id="by hours: the dearer",
            ),
            pytest.param(
                "input_cost_per_token: 1, output_cost_per_token: 4, input_cost_per_token_above_200k_tokens: 3",
                ((200_000, 3, 4),),
                id="by name",
            ),
            pytest.param(
                "input_cost_per_token: 0.8, output_cost_per_token: 3.2, "
                "regional_processing_uplift_multiplier_eu: 1.25, regional_processing_uplift_multiplier_us: 1.1",
                (),
                id="raised by the highest",
            ),
        ],
    )
    def test_prices_of_several(self, files: Files, params: str, above: tuple[tuple[int, int, int], ...]) -> None:
        """A price may depend on the length of the input; of what is not seen the dearest counts."""
        text = f"model_list: [{{model_name: m, litellm_params: {{model: x/y, {params}}}}}]"
        model = files.load(text).catalog.find("m")

        assert model is not None
        (deployment,) = model.deployments
        prices = deployment.prices
        assert (Decimal(1), Decimal(4)) == (prices.input, prices.output)
        assert above == tuple((tokens, int(rates.input), int(rates.output)) for tokens, rates in prices.above)

    def test_unknown_price(self, files: Files) -> None:
        """What a model without any price costs stands in the configuration, for units as well."""
        text = (
            "model_list: [{model_name: m, litellm_params: {model: x/y}}]\n"
            "extauthz: {unknown_price: {input_cost_per_token: 0.1, cost_per_image: 7, cost_per_query: 0.5}}"
        )
        prices = files.load(text).catalog.reach(["m"]).prices

        assert (Decimal("0.1"), Decimal("0.00018"), Decimal(7)) == (prices.input, prices.output, prices.per_image)
        assert (Decimal("0.1"), Decimal("0.0003")) == (prices.per_second, prices.per_character)
        assert (Decimal("0.5"), Decimal("0.5")) == (prices.per_query, prices.per_search)

    @pytest.mark.parametrize(
        ("extra", "is_free"),
        [
            pytest.param("", True, id="nothing else"),
            pytest.param("output_cost_per_image: 0.04", False, id="an image price"),
            pytest.param("output_cost_per_image: null", True, id="an image price that is null"),
            pytest.param("search_context_cost_per_query: {low: 0.03}", False, id="a price inside"),
            pytest.param("tiered_pricing: [{range: [0, 32000], input_cost_per_token: 0}]", True, id="a free tier"),
            pytest.param("tiered_pricing: [{range: [0, 32000], input_cost_per_token: 1e-9}]", False, id="a paid tier"),
            pytest.param("off_peak_pricing: {start: '16:30', input_cost_per_token: 0}", True, id="hours"),
            pytest.param("off_peak_pricing: {weekdays: [1, 2], input_cost_per_token: 0}", True, id="days"),
            pytest.param("input_cost_per_token_priority: 1e-9", False, id="a paid tier of service"),
            pytest.param("regional_endpoint_uplift_multiplier: 1.1", True, id="what multiplies prices is none"),
            pytest.param("guardrail_cost_per_unit: {wordPolicyUnits: 0.01, unit: per 1k}", False, id="of anything"),
            pytest.param("fallbacks: [paid]", False, id="fallbacks of its own"),
        ],
    )
    def test_free(self, files: Files, extra: str, *, is_free: bool) -> None:
        """A model is free when both prices are 0 and nothing else in the deployment costs anything."""
        lines = ["model: openai/llama", "input_cost_per_token: 0", "output_cost_per_token: 0.0", extra]
        text = "model_list: [{model_name: m, litellm_params: {" + ", ".join(filter(None, lines)) + "}}]"

        assert is_free is files.load(text).catalog.is_free("m")

    @pytest.mark.parametrize(
        ("settings", "is_free"),
        [
            pytest.param("litellm_settings: {fallbacks: [{m: [gpt]}]}", False, id="litellm_settings"),
            pytest.param("router_settings: {fallbacks: [{m: [gpt]}]}", False, id="router_settings"),
            pytest.param("router_settings: {fallbacks: [{m: [{model: gpt}]}]}", False, id="as a mapping"),
            pytest.param("router_settings: {content_policy_fallbacks: [{m: [gpt]}]}", False, id="content policy"),
            pytest.param("router_settings: {context_window_fallbacks: [{x: [y]}, {m: [gpt]}]}", False, id="context"),
            pytest.param("litellm_settings: {default_fallbacks: [gpt]}", False, id="default"),
            pytest.param(
                "litellm_settings: {default_fallbacks: [gpt], fallbacks: [{m: [m]}]}", True, id="default, not for m"
            ),
            pytest.param(
                "litellm_settings: {default_fallbacks: [gpt], fallbacks: [{m: [m]}]}\n"
                "router_settings: {fallbacks: [{x: [m]}]}",
                False,
                id="default, and the router's own list knows no m",
            ),
            pytest.param("router_settings: {model_group_alias: {m: gpt}}", False, id="an alias of its name"),
            pytest.param("router_settings: {model_group_alias: {other: gpt}}", True, id="another alias"),
        ],
    )
    def test_free_with_fallbacks(self, files: Files, settings: str, *, is_free: bool) -> None:
        """Every list of fallbacks counts, in both sections."""
        free = "  - {model_name: m, litellm_params: {model: x/y, input_cost_per_token: 0, output_cost_per_token: 0}}\n"

        assert is_free is files.load(MODELS + free + settings).catalog.is_free("m")

    def test_aliases(self, files: Files) -> None:
        """An alias is a name, or a mapping that can hide it."""
        catalog = files.load(
            MODELS + "router_settings: {model_group_alias: {a: gpt, b: {model: gpt, hidden: true}, c: {model: gpt}}}"
        ).catalog

        assert catalog.listed() == ("gpt", "a", "c")
        assert catalog.find("b") == catalog.find("gpt")


MISTAKES = [
    pytest.param(
        "extauthz: {lease_second: 3}",
        "1: extauthz.lease_second: unknown key; did you mean `lease_seconds`?",
        id="unknown key",
    ),
    pytest.param(
        "extauthz:\n  users:\n    ana: {colour: 1}",
        "3: extauthz.users.ana.colour: unknown key; known here: admission, anchor, budget_duration, budget_limits, "
        "max_budget, max_requests, max_tokens, model_max_budget, models, organization, provider_max_budget, "
        "soft_budget, temp_budget_expiry, temp_budget_increase",
        id="unknown key, nothing like it",
    ),
    pytest.param(
        "extauhz: {}",
        "1: extauhz: unknown key; did you mean `extauthz`?",
        id="a slip in our own section's name",
    ),
    pytest.param(
        "general_settings:\n  budget_exceeded_model_policy: all",
        "2: general_settings.budget_exceeded_model_policy: unknown key; did you mean `budget_exceeded_models_policy`?",
        id="a slip in the policy's name",
    ),
    pytest.param(
        "extauthz:\n  global: {max_budget: -5}",
        "2: extauthz.global.max_budget: -5 is not an amount of money: write a number of USD that is 0 or more",
        id="negative budget",
    ),
    pytest.param(
        "extauthz:\n  global:\n    max_budget: ten",
        "3: extauthz.global.max_budget: this is not a number: write one, such as 5, 0.25 or 1.5e-7",
        id="budget not a number",
    ),
    pytest.param(
        "extauthz:\n  global: {max_budget: 10000000}",
        "2: extauthz.global.max_budget: 10000000 USD is above 9007199.254740991, the most that one budget can hold",
        id="budget too large to count",
    ),
    pytest.param(
        "extauthz:\n  global: {max_budget: 1, budget_duration: 7x}",
        "2: extauthz.global.budget_duration: '7x' is not a duration: write a whole number and a unit (s, "
        "m, h, d, w, mo for months), such as 24h, 7d or 1mo, or one of hourly, daily, weekly, monthly",
        id="bad duration",
    ),
    pytest.param(
        "extauthz:\n  global: {budget_duration: 7d}",
        "2: extauthz.global: budget_duration stands without a limit: write max_budget, max_tokens "
        "or max_requests beside it",
        id="duration without budget",
    ),
    pytest.param(
        "extauthz:\n  global: {budget_limits: [{budget_duration: 7d}]}",
        "2: extauthz.global.budget_limits[0]: write one of max_budget (USD), max_tokens and max_requests, and another "
        "entry for another",
        id="window without budget",
    ),
    pytest.param(
        "extauthz:\n  teams: {research: {}}\n  keys:\n    - {key: k, team: reserch}",
        "4: extauthz.keys[0].team: `reserch` is not in extauthz.teams; did you mean `research`?",
        id="unknown team",
    ),
    pytest.param(
        "extauthz:\n  teams:\n    research: {organization: acme}",
        "3: extauthz.teams.research.organization: `acme` is not in extauthz.organizations; there are none",
        id="unknown organization",
    ),
    pytest.param(
        "extauthz:\n  users: {ana: {}}\n  keys:\n    - key: k\n      user: ben",
        "5: extauthz.keys[0].user: `ben` is not in extauthz.users; known here: ana",
        id="unknown user",
    ),
    pytest.param(
        "extauthz:\n  teams:\n    t:\n      members:\n        ana: {max_budget: 1}",
        "5: extauthz.teams.t.members: `ana` is not in extauthz.users; there are none",
        id="unknown member",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - key: sk-1\n    - key: sk-1",
        "4: extauthz.keys[1]: this is the key of line 3 again: keep one",
        id="duplicate key",
    ),
    pytest.param(
        f"extauthz:\n  keys:\n    - key: os.environ/ANA_KEY\n    - key_sha256: {hashed('sk-ana').upper()}",
        "4: extauthz.keys[1]: this is the key of line 3 again: keep one",
        id="duplicate key by its hash",
    ),
    pytest.param(
        "general_settings: {master_key: sk-1}\nextauthz:\n  keys:\n    - key: sk-1",
        "4: extauthz.keys[0]: this is the key of line 1 again: keep one",
        id="a key that is the master key",
    ),
    pytest.param(
        "extauthz:\n  users:\n    ana: {}\n    ana: {}",
        "4: `ana` stands here a second time, after line 3: keep one",
        id="duplicate key of YAML",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - {team: x, key: os.environ/NO_KEY}\n  teams: {x: }",
        "3: the environment variable NO_KEY is not set: set it where extauthz starts",
        id="missing variable",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - {key: os.environ/EMPTY}",
        "3: extauthz.keys[0].key: the value of EMPTY does not fit: look up what may stand here",
        id="empty variable",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - {key: k, max_budget: os.environ/ANA_KEY, user: os.environ/ANA_KEY}",
        "3: extauthz.keys[0].max_budget: the value of ANA_KEY does not fit: look up what may stand here\n"
        "3: extauthz.keys[0].user: the value of ANA_KEY is not in extauthz.users; add it there",
        id="a variable that does not fit is not shown",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - {user: }",
        "3: extauthz.keys[0]: write either key (best as os.environ/NAME) or key_sha256",
        id="no key",
    ),
    pytest.param(
        "extauthz:\n  keys:\n    - {key_sha256: abc}",
        "3: extauthz.keys[0].key_sha256: this is not a SHA-256: write its 64 hex digits, as `printf %s "
        "KEY | sha256sum` prints them",
        id="no hash",
    ),
    pytest.param(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: x/y\n      input_cost_per_token: cheap",
        "5: model_list[0].litellm_params.input_cost_per_token: this is not a price: write a number from "
        "0 to 1000 in USD",
        id="price not a number",
    ),
    pytest.param(
        "model_list: [{model_name: m, litellm_params: {model: x/y, output_cost_per_image: -1}}]",
        "1: model_list[0].litellm_params.output_cost_per_image: this is not a price: write a number from "
        "0 to 1000 in USD",
        id="negative price",
    ),
    pytest.param(
        "model_list: [{model_name: m, litellm_params: {model: x/y}, "
        "model_info: {tiered_pricing: [{input_cost_per_token: x}]}}]",
        "1: model_list[0].model_info.tiered_pricing[0].input_cost_per_token: this is not a price: write "
        "a number from 0 to 1000 in USD",
        id="price inside a price",
    ),
    pytest.param(
        "model_list:\n  - litellm_params: {model: x}\n  - model_name: m\n  - 5",
        "2: model_list[0].model_name: this is missing: add it\n"
        "3: model_list[1].litellm_params.model: this is missing: add it\n"
        "4: model_list[2].litellm_params.model: this is missing: add it\n"
        "4: model_list[2].model_name: this is missing: add it",
        id="half a deployment",
    ),
    pytest.param(
        "model_list: {m: x}",
        "1: model_list: this must be a list: lines that begin with `- `",
        id="not a list",
    ),
    pytest.param(
        "model_list: [{model_name: m, litellm_params: {model: x}, model_info: {max_input_tokens: many}}]",
        "1: model_list[0].model_info.max_input_tokens: this is not a number of tokens: write a whole number, 1 or more",
        id="context not a number",
    ),
    pytest.param(
        "router_settings: {model_group_alias: {a: [b]}, fallbacks: {a: b}}",
        "1: router_settings.fallbacks: this must be a list: lines that begin with `- `\n"
        "1: router_settings.model_group_alias.a: this must be text: put it in quotes",
        id="aliases and fallbacks",
    ),
    pytest.param(
        "extauthz: {listen: {grpc: '0.0.0.0:9191'}}",
        "1: extauthz.listen: grpc at 0.0.0.0:9191 would let anybody in who reaches it: set token or "
        "tls.client_ca, listen on 127.0.0.1, or write insecure_grpc: true where the mesh proves who calls",
        id="open",
    ),
    pytest.param(
        "extauthz: {listen: {admin: '[::]:9192'}, tls: {cert: c, key: k}}",
        "1: extauthz.listen: admin at [::]:9192 would let anybody in who reaches it: set admin_token or tls.client_ca, "
        "or listen on 127.0.0.1",
        id="open admin: TLS alone does not prove who calls",
    ),
    pytest.param(
        "extauthz: {listen: {admin: '0.0.0.0:9192'}, token: t}",
        "1: extauthz.listen: admin at 0.0.0.0:9192 would let anybody in who reaches it: set admin_token or "
        "tls.client_ca, or listen on 127.0.0.1",
        id="open admin: Envoy's token is not the operators'",
    ),
    pytest.param(
        "extauthz: {listen: {admin: '0.0.0.0:9192'}, insecure_grpc: true}",
        "1: extauthz.listen: admin at 0.0.0.0:9192 would let anybody in who reaches it: set admin_token or "
        "tls.client_ca, or listen on 127.0.0.1",
        id="open admin: no mesh vouches for operators",
    ),
    pytest.param(
        "extauthz: {listen: {grpc: '0.0.0.0:9191'}, admin_token: t}",
        "1: extauthz.listen: grpc at 0.0.0.0:9191 would let anybody in who reaches it: set token or "
        "tls.client_ca, listen on 127.0.0.1, or write insecure_grpc: true where the mesh proves who calls",
        id="open: the operators' token is not Envoy's",
    ),
    pytest.param(
        "extauthz:\n  admin_token: ''\n  shadow_mode: perhaps\n  shadow_paths: [v1]\n  tracing: 2",
        "2: extauthz.admin_token: the secret is empty: write it, or os.environ/NAME\n"
        "3: extauthz.shadow_mode: write true or false\n"
        "4: extauthz.shadow_paths: `v1` is not a path: write it from its first slash, such as /llm/v1\n"
        "5: extauthz.tracing: write true or false",
        id="operators and shadows",
    ),
    pytest.param(
        "extauthz:\n  log:\n    level: loud\n    allowed_share: 1.5\n    levle: info",
        "3: extauthz.log.level: write one of: debug, info, warning, error\n"
        "4: extauthz.log.allowed_share: the most is 1\n"
        "5: extauthz.log.levle: unknown key; did you mean `level`?",
        id="log",
    ),
    pytest.param(
        "extauthz:\n  alerts:\n    percentages: [80, 0]\n    warning_percentage: 1001\n"
        "    webhook: {timeout_seconds: 0}",
        "3: extauthz.alerts.percentages: a percentage is not between 1 and 1000: write whole numbers, such as 80\n"
        "4: extauthz.alerts.warning_percentage: the most is 1000\n"
        "5: extauthz.alerts.webhook.timeout_seconds: the least is 0.1\n"
        "5: extauthz.alerts.webhook.url: this is missing: add it",
        id="alerts",
    ),
    *(
        pytest.param(
            f"extauthz:\n  alerts:\n    webhook: {{url: '{url}'}}",
            "3: extauthz.alerts.webhook.url: this is not a URL: write one with http:// or https:// and a host",
            id=f"webhook {url}",
        )
        for url in (
            "hooks.chat/secret",
            "ftp://hooks.chat/secret",
            "https://",
            "https://[secret",
            "http://chat:99999/s",
        )
    ),
    pytest.param(
        "extauthz:\n  users: {ana: {soft_budget: 1}}\n"
        "  teams: {t: {shadow_mode: some, budget_limits: [{soft_budget: 1}]}}",
        "2: extauthz.users.ana: soft_budget stands without max_budget: write max_budget beside it\n"
        "3: extauthz.teams.t.budget_limits[0]: write one of max_budget (USD), max_tokens and max_requests, and "
        "another entry for another\n"
        "3: extauthz.teams.t.shadow_mode: write true or false",
        id="soft budgets",
    ),
    pytest.param(
        "extauthz: {keys_file: [a]}",
        "1: extauthz.keys_file: write the path of a file",
        id="a keys file that is no path",
    ),
    pytest.param(
        "extauthz: {listen: {grpc: 'nowhere'}}",
        "1: extauthz.listen.grpc: `nowhere` is not an address: write host:port, such as 127.0.0.1:9191 or [::1]:9191",
        id="no address",
    ),
    pytest.param(
        "extauthz: {store: 'redsi://user:pw@host'}",
        "1: extauthz.store: this is not a store: write memory, or a URL that starts with redis://, rediss://, "
        "redis+sentinel:// or redis+cluster:// (rediss+… for TLS)",
        id="a typo in the store's protocol",
    ),
    pytest.param(
        "extauthz: {store: memroy}",
        "1: extauthz.store: this is not a store: write memory, or a URL that starts with redis://, rediss://, "
        "redis+sentinel:// or redis+cluster:// (rediss+… for TLS)",
        id="a typo in memory",
    ),
    pytest.param(
        "extauthz:\n  store: {url: 'redis://host'}",
        "2: extauthz.store: this is not a store: write memory, or a URL that starts with redis://, rediss://, "
        "redis+sentinel:// or redis+cluster:// (rediss+… for TLS)",
        id="a store that is no text",
    ),
    pytest.param(
        "extauthz:\n  hide_amounts: true\n  store: 'redis://user:pw@host:port/1'",
        "3: extauthz.store: a host in the store's URL is not host:port; percent-encode @ : / ? # in passwords",
        id="a store without a port",
    ),
    pytest.param(
        "extauthz: {store: os.environ/BAD_STORE}",
        "1: extauthz.store: the value of BAD_STORE does not fit: look up what may stand here",
        id="a variable that is no store is not shown",
    ),
    pytest.param(
        "extauthz: {store: os.environ/NO_STORE}",
        "1: the environment variable NO_STORE is not set: set it where extauthz starts",
        id="a store in a variable that is not set",
    ),
    pytest.param(
        "extauthz:\n  store_timeout_seconds: 0\n  tombstone_seconds: 59\n  journal_entries_max: 999",
        "2: extauthz.store_timeout_seconds: the least is 0.01\n"
        "3: extauthz.tombstone_seconds: the least is 60\n"
        "4: extauthz.journal_entries_max: the least is 1000",
        id="too little for the store",
    ),
    pytest.param(
        "extauthz:\n  store_timeout_seconds: 10.1\n  tombstone_seconds: 604801\n  journal_entries_max: 100000001",
        "2: extauthz.store_timeout_seconds: the most is 10\n"
        "3: extauthz.tombstone_seconds: the most is 604800\n"
        "4: extauthz.journal_entries_max: the most is 100000000",
        id="too much for the store",
    ),
    pytest.param(
        "extauthz:\n  store_timeout_seconds: soon\n  allow_eviction: perhaps\n  tombstone_seconds: 1h\n"
        "  journal_entries_max: 1000.5",
        "2: extauthz.store_timeout_seconds: this is not a number: write one, such as 5, 0.25 or 1.5e-7\n"
        "3: extauthz.allow_eviction: write true or false\n"
        "4: extauthz.tombstone_seconds: this is not a number: write one, such as 5, 0.25 or 1.5e-7\n"
        "5: extauthz.journal_entries_max: write a whole number",
        id="no numbers for the store",
    ),
    pytest.param(
        "extauthz: {stroe: memory, store_timeout: 1}",
        "1: extauthz.store_timeout: unknown key; did you mean `store_timeout_seconds`?\n"
        "1: extauthz.stroe: unknown key; did you mean `store`?",
        id="typos in the store's settings",
    ),
    pytest.param(
        "extauthz: {server: native, tls: {cert: c, key: k}}",
        "1: extauthz.server: native has no TLS: write grpcio or auto, or leave tls out",
        id="native with TLS",
    ),
    pytest.param(
        "extauthz:\n  store_failure: dney\n  budget_exceeded_status: 500\n  hide_amounts: maybe",
        "2: extauthz.store_failure: write one of: deny, allow, defer\n"
        "3: extauthz.budget_exceeded_status: write one of: 429, 402, 403, 422\n"
        "4: extauthz.hide_amounts: write true or false",
        id="not one of",
    ),
    pytest.param(
        "extauthz:\n  lease_seconds: 1.5\n  drain_seconds: -1\n  max_request_bytes: 4194304",
        "2: extauthz.lease_seconds: write a whole number\n"
        "3: extauthz.drain_seconds: the least is 0\n"
        "4: extauthz.max_request_bytes: the most is 3145728",
        id="numbers out of range",
    ),
    pytest.param(
        "extauthz: {timezone: Mars/Base}",
        "1: extauthz.timezone: 'Mars/Base' is not a time zone: write an IANA name, such as Europe/Berlin or UTC",
        id="time zone",
    ),
    pytest.param(
        "extauthz: {budget_reset_time: 24:00}\nlitellm_settings: {budget_reset_time: 6:30}",
        "1: extauthz.budget_reset_time: `24:00` is not a time of day: write 24-hour HH:MM or HH:MM:SS in quotes, such "
        "as '06:30'\n"
        "2: litellm_settings.budget_reset_time: `6:30` is not a time of day: write 24-hour HH:MM or HH:MM:SS in "
        "quotes, such as '06:30'",
        id="reset time",
    ),
    pytest.param(
        "extauthz: {reset_rules: calendar}",
        "1: extauthz.reset_rules: write one of: litellm, exact",
        id="reset rules",
    ),
    pytest.param(
        "extauthz:\n  global: {max_budget: 1, temp_budget_increase: 1}\n"
        "  users: {ana: {temp_budget_increase: 1, temp_budget_expiry: 2026-12-01}}\n"
        "  teams: {t: {budget_limits: [{max_budget: 9e6, temp_budget_increase: 1e6, temp_budget_expiry: 2026-12-01}]}}",
        "2: extauthz.global: temp_budget_increase and temp_budget_expiry stand together: write both or neither\n"
        "3: extauthz.users.ana: temp_budget_increase stands without max_budget: write max_budget beside it\n"
        "4: extauthz.teams.t.budget_limits[0]: 1.0E+7 USD is above 9007199.254740991, the most that one budget can "
        "hold",
        id="increase",
    ),
    pytest.param(
        "extauthz: {global: {max_budget: 1, anchor: soon}}",
        "1: extauthz.global.anchor: `soon` is not a date: write 2026-01-31 or 2026-01-31T08:00:00+01:00",
        id="anchor",
    ),
    pytest.param(
        "extauthz:\n  teams: [a]\n  keys: {a: b}\n  users: {ana: 5}",
        "2: extauthz.teams: this must be a mapping: lines of `name: value` below it\n"
        "3: extauthz.keys: this must be a list: lines that begin with `- `\n"
        "4: extauthz.users.ana: this must be a mapping: lines of `name: value` below it",
        id="wrong shapes",
    ),
    pytest.param(
        "extauthz: 5",
        "1: extauthz: this must be a mapping: lines of `name: value` below it",
        id="no section",
    ),
    pytest.param(
        f"extauthz: {{users: {{{'x' * 257}: {{}}}}}}",
        f"1: extauthz.users.{'x' * 257}: an id is longer than 256 bytes: shorten it",
        id="an id that is too long",
    ),
    pytest.param(
        MODELS.strip() + "\nextauthz:\n  upstream_auth: {models: {gtp: remove}, default: keep}",
        "5: extauthz.upstream_auth.default: write one of: pass, remove, set\n"
        "5: extauthz.upstream_auth.models: `gtp` is not in model_list; did you mean `gpt`?",
        id="a rule for a model that is not there",
    ),
    pytest.param(
        "extauthz: {unknown_price: {input_cost_per_token: 2500}}",
        "1: extauthz.unknown_price.input_cost_per_token: 2500 is not a price: write USD per token, from "
        "0 to 1000, such as 0.0000025",
        id="a price per million",
    ),
    pytest.param(
        "extauthz: {api_prefixes: [v1]}",
        "1: extauthz.api_prefixes: `v1` is not a path: write it from its first slash, such as /llm/v1",
        id="a prefix that is no path",
    ),
    pytest.param(
        "general_settings: {budget_exceeded_models_policy: free, master_key: os.environ/NOT_SET}",
        "1: general_settings.budget_exceeded_models_policy: write one of: blocked, all, free_only\n"
        "1: the environment variable NOT_SET is not set: set it where extauthz starts",
        id="LiteLLM's sections",
    ),
]


class TestMistakes:
    """What is said about a bad file."""

    @pytest.mark.parametrize(("text", "mistakes"), MISTAKES)
    def test_mistake(self, files: Files, text: str, mistakes: str) -> None:
        """A mistake is one line: where, what, and what to do; a secret is never shown."""
        assert sorted(mistakes.splitlines()) == sorted(files.mistakes(text))

    def test_all_in_one_run(self, files: Files) -> None:
        """A file with one of each says all of it at once, in the order of its lines."""
        text = """
            model_list:
              - {model_name: m, litellm_params: {model: x/y, input_cost_per_token: free}}
            extauthz:
              lease: 5
              teams:
                research: {max_budget: -1, organization: acme}
              keys:
                - {key: os.environ/NOT_SET, team: resaerch}
                - {key: k, budget_limits: [{max_budget: 1, budget_duration: soon}]}
                - {key: k}
            """

        lines = [int(mistake.partition(":")[0]) for mistake in files.mistakes(text)]

        assert lines == [3, 5, 7, 7, 9, 9, 10, 11]

    def test_file_line_message(self, files: Files) -> None:
        """The exception's text is what an editor can jump to."""
        with pytest.raises(ConfigError) as refused:
            files.load("\nextauthz: 5")

        assert str(refused.value).startswith(f"{files.path}:2: extauthz: ")

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            pytest.param(None, "the file cannot be read: No such file or directory", id="no file"),
            pytest.param(b"a: 1\nb: \xff", "this is not UTF-8", id="not UTF-8"),
            pytest.param(b"#" * (4 * 1024 * 1024 + 1), "the file is larger than", id="too large"),
        ],
    )
    def test_unreadable_file(self, tmp_path: Path, content: bytes | None, sentence: str) -> None:
        """A file that cannot be read at all is a mistake like the others."""
        path = tmp_path / "config.yaml"
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(ConfigError, match=sentence):
            load(path, {})


class TestAccounts:
    """From the file to the budgets that bind."""

    def limits(self, snapshot: Snapshot, key: str) -> dict[str, list[str]]:
        """Tell the budgets of a key as `limit/window`, by kind of scope; `!` marks a strict one."""
        principal = snapshot.directory.find(key if key == INTERNS else hashed(key))
        assert principal is not None
        return {
            str(scope.scope.kind): [
                f"{amount_text(budget.limit, budget.measure)}/{budget.label}{'!' * budget.strict}"
                for budget in scope.budgets
            ]
            for scope in principal.scopes
        }

    def test_example(self) -> None:
        """Every payer of a key has the budgets that the file gives it."""
        snapshot = load(EXAMPLE, ENVIRON)

        assert self.limits(snapshot, "sk-ana") == {
            "global": ["1000.0/30d", "100.0/1d/provider=anthropic"],
            "org": ["500.0/1mo"],
            "team": ["10.0/1mo"],
            "member": ["2.0/7d"],
            "user": ["5.0/lifetime", "2000000/7d/tokens", "1.0/1d/model=gpt-4o"],
            "key": ["1.0/24h", "3.0/7d!"],
        }
        assert self.limits(snapshot, INTERNS)["team"] == ["0.0/1d", "1000/1d/requests"]

    def test_admin(self) -> None:
        """LiteLLM's master key is the admin's."""
        admin = load(EXAMPLE, ENVIRON).directory.find(hashed("sk-master"))

        assert admin is not None
        assert admin.admin

    def test_zone_and_anchor(self) -> None:
        """Windows follow the configured zone; an anchor without an offset is local time there."""
        principal = load(EXAMPLE, ENVIRON).directory.find(hashed("sk-ana"))
        assert principal is not None
        rule = principal.scopes[-1].budgets[1].rule

        assert (rule.zone, rule.anchor_ms) == ("Europe/Berlin", 1_767_222_000_000)

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            pytest.param("", WindowRule(Duration(30, Unit.DAY)), id="LiteLLM's rules"),
            pytest.param(
                "reset_rules: exact", WindowRule(Duration(30, Unit.DAY), rules=ResetRules.EXACT), id="exact rules"
            ),
            pytest.param(
                "budget_reset_time: 23:59:30",
                WindowRule(Duration(30, Unit.DAY), reset_time=time(23, 59, 30)),
                id="reset time",
            ),
        ],
    )
    def test_rule(self, files: Files, text: str, rule: WindowRule) -> None:
        """Windows follow the rules and the time of day that the file says, ours before LiteLLM's."""
        theirs = 'litellm_settings: {max_budget: 7, budget_duration: 30d, budget_reset_time: "00:00"}'
        (budget,) = files.load(f"{theirs}\nextauthz: {{{text}}}").directory.budgets_on(Scope(ScopeKind.GLOBAL))

        assert rule == budget.rule

    def test_increase(self, files: Files) -> None:
        """An increase ends when the file says, to the millisecond; without an offset that is local time in the zone."""
        budgets = files.load(
            """
            extauthz:
              timezone: Europe/Berlin
              global:
                max_budget: 10
                temp_budget_increase: 2.5
                temp_budget_expiry: 2026-12-01T08:00:00.029
                budget_limits: [{max_budget: 1, temp_budget_increase: 1, temp_budget_expiry: 2026-12-01T08:00:00+02:00}]
            """
        ).directory.budgets_on(Scope(ScopeKind.GLOBAL))
        eight_ms = 1_796_108_400_000

        assert [Increase(2_500_000_000, eight_ms + 29), Increase(1_000_000_000, eight_ms - 3_600_000)] == [
            budget.increase for budget in budgets
        ]

    @pytest.mark.parametrize(
        ("text", "global_budgets"),
        [
            pytest.param("litellm_settings: {max_budget: 7, budget_duration: 30d}", ["7.0/30d"], id="LiteLLM's"),
            pytest.param("litellm_settings: {max_budget: 0}", [], id="LiteLLM's 0 is none"),
            pytest.param(
                "litellm_settings: {max_budget: 7}\nextauthz: {global: {max_budget: 0}}", ["0.0/None"], id="ours wins"
            ),
            pytest.param("extauthz: {admission: strict, global: {max_budget: 1}}", ["1.0/None!"], id="strict for all"),
            pytest.param(
                "extauthz:\n  admission: strict\n  global:\n    max_budget: 1\n    admission: until_exhausted\n"
                "    budget_limits: [{max_budget: 2, budget_duration: 1d, admission: strict}, {max_budget: 3}]",
                ["1.0/None", "2.0/1d!", "3.0/None"],
                id="the nearest admission counts",
            ),
        ],
    )
    def test_global_budget(self, files: Files, text: str, global_budgets: list[str]) -> None:
        """The global budget is ours, else LiteLLM's; each budget is strict as the nearest setting says."""
        scope = Scope(ScopeKind.GLOBAL)

        assert global_budgets == [
            f"{usd_text(budget.limit)}/{budget.rule.duration}{'!' * budget.strict}"
            for budget in files.load(text).directory.budgets_on(scope)
        ]

    def test_user_budgets_in_teams(self, files: Files) -> None:
        """LiteLLM's switch is passed on."""
        text = "extauthz: {teams: {t: }, users: {u: {max_budget: 1}}, keys: [{key: k, team: t, user: u}]}\n"
        on = "general_settings: {apply_user_budget_to_team_keys: true}"

        def binds(snapshot: Snapshot) -> list[bool]:
            principal = snapshot.directory.find(hashed("k"))
            assert principal is not None
            return [scope.binds for scope in principal.scopes if scope.scope.kind is ScopeKind.USER]

        assert binds(files.load(text)) == [False]
        assert binds(files.load(text + on)) == [True]


def test_known_names_are_shown_up_to_a_number(files: Files) -> None:
    """A mistake stays one line of readable length, however many teams there are."""
    teams = ", ".join(f"team{number}: {{}}" for number in range(500))

    (mistake,) = files.mistakes(f"extauthz: {{teams: {{{teams}}}, keys: [{{key: k, team: nothing-like-it}}]}}")

    assert mistake.endswith(", …")
    assert len(mistake) < 300
