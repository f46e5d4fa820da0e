"""What a model name means: deployments, prices, freedom, and everything that it can lead to."""

from collections.abc import Mapping
from decimal import Decimal

import pytest

from extauthz.domain.prices import Prices, Rates
from extauthz.pricing.amounts import Amount, named
from extauthz.pricing.catalog import REACH_MODELS_MAX, Answered, Catalog, PriceSource
from extauthz.pricing.offers import Alias, CatalogSource, Fallbacks, Offer
from extauthz.pricing.price_list import Listed, find_listed


def amounts(**prices: str) -> tuple[Amount, ...]:
    """Write prices by LiteLLM's names."""
    return tuple(named(name, Decimal(usd)) for name, usd in prices.items())


ZERO = amounts(input_cost_per_token="0", output_cost_per_token="0")
PAID = amounts(input_cost_per_token="2", output_cost_per_token="4")
UNKNOWN = Prices(Decimal(90), Decimal(99))
Leads = Mapping[str, tuple[str, ...]]
LIST = {
    "openai/listed": Listed(
        amounts(
            input_cost_per_token="1",
            output_cost_per_token="3",
            cache_read_input_token_cost="0.5",
            cache_creation_input_token_cost="1.5",
            output_cost_per_reasoning_token="5",
        ),
        context_tokens=8_000,
    ),
    "openai/embedding": Listed(amounts(input_cost_per_token="1")),
    "openai/long": Listed(
        amounts(
            input_cost_per_token="1",
            input_cost_per_token_above_200k_tokens="2",
            output_cost_per_token="3",
            output_cost_per_token_above_200k_tokens="4",
        )
    ),
    "openai/gratis": Listed(amounts(input_cost_per_token="0", output_cost_per_token="0")),
}


def price_list(upstream_model: str, provider: str | None) -> Listed | None:
    """Stand in for the real list: two models."""
    return LIST.get(f"{provider}/{upstream_model}" if provider else upstream_model)


def catalog(*offers: Offer, aliases: tuple[Alias, ...] = (), fallbacks: tuple[Leads, ...] = ()) -> Catalog:
    """Make a catalog with aliases and lists of fallbacks."""
    return Catalog(CatalogSource(offers, aliases, tuple(map(Fallbacks, fallbacks)), UNKNOWN), price_list)


def free(name: str) -> Offer:
    """Make a deployment that is explicitly free."""
    return Offer(name, "openai/llama", amounts=ZERO)


def paid(name: str) -> Offer:
    """Make a deployment that costs money."""
    return Offer(name, "openai/gpt", amounts=PAID)


@pytest.mark.parametrize(
    ("offers", "is_free"),
    [
        pytest.param((free("m"),), True, id="both prices 0"),
        pytest.param((free("m"), free("m")), True, id="both prices 0 on every deployment"),
        pytest.param((Offer("m", "openai/llama"),), False, id="no price"),
        pytest.param((Offer("m", "openai/llama", amounts=ZERO[:1]),), False, id="only the input is 0"),
        pytest.param((Offer("m", "openai/llama", amounts=ZERO[1:]),), False, id="only the output is 0"),
        pytest.param((free("m"), paid("m")), False, id="one of two deployments is paid"),
        pytest.param((free("m"), Offer("m", "openai/llama")), False, id="one of two deployments has no price"),
        pytest.param(
            (Offer("m", "x/y", amounts=(*ZERO, *amounts(output_cost_per_image="0.04"))),),
            False,
            id="a price per image",
        ),
        pytest.param(
            (Offer("m", "x/y", amounts=(*ZERO, *amounts(guardrail_cost_per_unit="0.03"))),),
            False,
            id="a price that nothing is booked by",
        ),
        pytest.param(
            (Offer("m", "x/y", amounts=(*ZERO, *amounts(output_cost_per_image="0"))),), True, id="another price of 0"
        ),
        pytest.param(
            (Offer("m", "x/y", amounts=(*ZERO, *amounts(input_cost_per_token="1"))),), False, id="0 here, 1 there"
        ),
        pytest.param((Offer("m", "x/y", amounts=ZERO, leads_elsewhere=True),), False, id="it has fallbacks of its own"),
        pytest.param((Offer("m", "openai/listed", amounts=ZERO),), True, id="explicit 0 beats the list"),
    ],
)
def test_free_model(offers: tuple[Offer, ...], *, is_free: bool) -> None:
    """Free is only what is explicitly free, on every deployment, in every respect."""
    assert is_free is catalog(*offers).is_free("m")


@pytest.mark.parametrize(
    ("fallbacks", "is_free"),
    [
        pytest.param((), True, id="none"),
        pytest.param(({"m": ("paid",)},), False, id="a paid fallback"),
        pytest.param(({"m": ("free",)},), True, id="a free fallback"),
        pytest.param(({"m": ("free",), "free": ("paid",)},), False, id="a paid one behind a free one"),
        pytest.param(({"m": ("free",), "free": ("m",)},), True, id="a circle"),
        pytest.param(({"other": ("paid",)},), True, id="another model's"),
        pytest.param(({"*": ("paid",)},), False, id="the default for all"),
        pytest.param(({"m": ("free",), "*": ("paid",)},), False, id="the default, behind the free one"),
        pytest.param(({"m": ("m",), "*": ("paid",)},), True, id="no default for those that are named"),
        pytest.param(({"m": ("free",)}, {"m": ("paid",)}), False, id="in another list"),
        pytest.param(({"m": ("nowhere",)},), False, id="one that is not there"),
    ],
)
def test_free_model_with_fallbacks(fallbacks: tuple[Leads, ...], *, is_free: bool) -> None:
    """A free model that may lead to a paid one is paid."""
    assert is_free is catalog(free("m"), free("free"), paid("paid"), fallbacks=fallbacks).is_free("m")


def test_fallbacks_without_the_provider() -> None:
    """LiteLLM also takes a model's fallbacks under its name without the provider."""
    led = catalog(free("local/llama"), paid("paid"), fallbacks=({"llama": ("paid",)},))

    assert not led.is_free("local/llama")


def test_fallbacks_of_an_alias() -> None:
    """Fallbacks may be written under the name that clients use."""
    led = catalog(free("m"), paid("paid"), aliases=(Alias("other", "m"),), fallbacks=({"other": ("paid",)},))

    assert led.is_free("m")
    assert not led.is_free("other")


class TestFind:
    """From a name to a model."""

    def test_exact_alias_pattern(self) -> None:
        """A name is looked up as itself, as an alias, and by the most specific pattern."""
        found = catalog(
            paid("gpt"), free("*"), paid("openai/*"), aliases=(Alias("best", "gpt"), Alias("far", "openai/far"))
        )

        assert [
            model and (model.name, model.deployments[0].free)
            for model in map(found.find, ("gpt", "best", "openai/any", "far", "other"))
        ] == [("gpt", False), ("gpt", False), ("openai/any", False), ("openai/far", False), ("other", True)]

    def test_unknown(self) -> None:
        """A name that nothing matches is not there, and neither is an alias of one."""
        found = catalog(paid("gpt"), aliases=(Alias("dangling", "nowhere"),))

        assert found.find("nope") is None
        assert found.find("dangling") is None
        assert found.astray() == ("nowhere",)

    def test_alias_with_the_name_of_a_model(self) -> None:
        """Which of the two answers is up to the upstream, so a request reaches both."""
        led = catalog(free("m"), paid("paid"), aliases=(Alias("m", "paid"),))

        assert not led.is_free("m")

    def test_pattern_prices_each_model(self) -> None:
        """What the pattern left open names the upstream's model, and its price is looked up."""
        model = catalog(Offer("openai/*", "openai/*")).find("openai/listed")

        assert model is not None
        assert model.deployments[0].prices.input == 1

    def test_listed(self) -> None:
        """The public list has models and aliases, no patterns and no hidden aliases, each once."""
        found = catalog(
            paid("b"), paid("b"), free("a"), free("x/*"), aliases=(Alias("c", "a"), Alias("d", "a", hidden=True))
        )

        assert found.listed() == ("b", "a", "c")
        assert found.is_free("d")


class TestPrices:
    """What a deployment's tokens cost."""

    @pytest.mark.parametrize(
        ("offer", "prices"),
        [
            pytest.param(paid("m"), Prices(Decimal(2), Decimal(4)), id="configured"),
            pytest.param(
                Offer("m", "openai/listed"),
                Prices(Decimal(1), Decimal(3), Decimal("0.5"), Decimal("1.5"), Decimal(5)),
                id="listed",
            ),
            pytest.param(Offer("m", "listed", provider="openai"), None, id="listed, under its provider"),
            pytest.param(
                Offer("m", "openai/listed", amounts=PAID),
                Prices(Decimal(2), Decimal(4)),
                id="configured beats the list",
            ),
            pytest.param(
                Offer("m", "openai/listed", amounts=amounts(cache_read_input_token_cost="0.7")),
                Prices(Decimal(1), Decimal(3), Decimal("0.7"), Decimal("1.5"), Decimal(5)),
                id="one kind configured",
            ),
            pytest.param(
                Offer("m", "x/y", amounts=(*PAID, *amounts(input_cost_per_token_above_200k_tokens="6"))),
                Prices(Decimal(2), Decimal(4), above=((200_000, Rates(Decimal(6), Decimal(4))),)),
                id="a length of input",
            ),
            pytest.param(
                Offer("m", "openai/long", amounts=amounts(input_cost_per_token="9")),
                Prices(Decimal(9), Decimal(3), above=((200_000, Rates(Decimal(9), Decimal(4))),)),
                id="input configured, at any length",
            ),
            pytest.param(
                Offer("m", "openai/long", amounts=amounts(input_cost_per_token_above_200k_tokens="9")),
                Prices(Decimal(1), Decimal(3), above=((200_000, Rates(Decimal(9), Decimal(4))),)),
                id="a length configured",
            ),
            pytest.param(
                Offer("m", "openai/listed", amounts=amounts(input_cost_per_token_flex="0.1")),
                Prices(
                    Decimal(1),
                    Decimal(3),
                    Decimal("0.5"),
                    Decimal("1.5"),
                    Decimal(5),
                    tiers=(
                        (
                            "flex",
                            Prices(Decimal("0.1"), Decimal(3), Decimal("0.5"), Decimal("1.5"), Decimal(5)),
                        ),
                    ),
                ),
                id="a tier configured",
            ),
            pytest.param(
                Offer("m", "x/y", amounts=amounts(output_cost_per_image="0.04")),
                Prices(
                    UNKNOWN.input,
                    UNKNOWN.output,
                    per_image=Decimal("0.04"),
                    guessed_input=True,
                    guessed_output=True,
                ),
                id="by the picture",
            ),
            pytest.param(
                Offer("m", "x/y", amounts=(*ZERO, *amounts(output_cost_per_image="0.04"))),
                Prices(Decimal(0), Decimal(0), per_image=Decimal("0.04")),
                id="by the picture alone, and said so",
            ),
            pytest.param(
                Offer("m", "x/y", amounts=(*ZERO, *amounts(output_cost_per_pixel="0.1"))),
                UNKNOWN,
                id="by what no answer shows",
            ),
            pytest.param(Offer("m", "openai/gratis"), UNKNOWN, id="free by hearsay"),
            pytest.param(
                Offer("m", "openai/listed", uplift=Decimal("1.1"), amounts=PAID),
                Prices(Decimal("2.2"), Decimal("4.4")),
                id="raised for a region",
            ),
            pytest.param(Offer("m", "x/y"), UNKNOWN, id="unknown"),
            pytest.param(Offer("m", "openai/embedding"), Prices(Decimal(1), Decimal(99)), id="no output listed"),
        ],
    )
    def test_source_of_prices(self, offer: Offer, prices: Prices | None) -> None:
        """The configuration comes first, then the list, then the price of the unknown."""
        model = catalog(offer).find("m")
        expected = prices or Prices(Decimal(1), Decimal(3), Decimal("0.5"), Decimal("1.5"), Decimal(5))

        assert model is not None
        assert expected == model.deployments[0].prices

    def test_unpriced(self) -> None:
        """Models that nobody has a price for can be named to the operator."""
        found = catalog(
            paid("a"), Offer("b", "x/y"), Offer("c", "openai/listed"), free("d"), Offer("e", "openai/embedding")
        )

        assert found.unpriced() == ("b",)


class TestAnswered:
    """What an answer costs by the model that it names."""

    CATALOG = catalog(
        Offer("cheap", "openai/gpt", amounts=amounts(input_cost_per_token="1", output_cost_per_token="1")),
        Offer("dear", "openai/gpt-pro", amounts=PAID),
        Offer("gpt", "azure/gpt", amounts=amounts(input_cost_per_token="8", output_cost_per_token="8")),
        free("llama"),
        free("local/*"),
        Offer("wild/*", "openai/*"),
        aliases=(Alias("best", "dear"),),
        fallbacks=({"cheap": ("dear",), "dear": ("llama",)},),
    )

    @pytest.mark.parametrize(
        ("named", "asked", "usd", "is_expected"),
        [
            pytest.param("dear", "dear", 2, True, id="the one that was asked for"),
            pytest.param("gpt-pro", "dear", 2, True, id="as its upstream calls it"),
            pytest.param("openai/gpt-pro", "dear", 2, True, id="as LiteLLM calls it"),
            pytest.param("best", "best", 2, True, id="an alias"),
            pytest.param("dear", "best", 2, True, id="what an alias leads to"),
            pytest.param("dear", "cheap", 2, True, id="a fallback"),
            pytest.param("gpt", "cheap", 1, True, id="what was asked for, under the name of another"),
            pytest.param("llama", "dear", 0, True, id="a free fallback"),
            pytest.param("gpt", "dear", 8, False, id="another of the list"),
            pytest.param("gpt-pro", "llama", 2, False, id="another, as its upstream calls it"),
            pytest.param("llama", "gpt", 0, False, id="a free one that nothing leads to"),
            pytest.param("local/any", "local/any", 0, True, id="one that a pattern stands for"),
            pytest.param("local/other", "dear", None, False, id="a pattern says nothing of others"),
            pytest.param("gpt-4o-2024-11-20", "dear", None, False, id="one that nobody knows"),
        ],
    )
    def test_answered(self, named: str, asked: str, usd: int | None, *, is_expected: bool) -> None:
        """A name is looked for near what was asked first, then in the list, then among upstreams' names."""
        answered = self.CATALOG.answered(named, asked)
        found = None if answered is None else (answered.prices.input, answered.free, answered.expected)

        assert found == (None if usd is None else (Decimal(usd), usd == 0, is_expected))

    def test_the_dearest_of_several(self) -> None:
        """Which of a model's deployments answered is not known."""
        two = catalog(Offer("m", "a/x", amounts=PAID), free("m"))

        assert Answered(Prices(Decimal(2), Decimal(4)), free=False, expected=True) == two.answered("m", "m")


class TestSources:
    """Who says what a model costs."""

    @pytest.mark.parametrize(
        ("offer", "source"),
        [
            pytest.param(paid("m"), PriceSource.CONFIG, id="the configuration"),
            pytest.param(Offer("m", "x/y", amounts=amounts(output_cost_per_image="1")), PriceSource.CONFIG, id="units"),
            pytest.param(Offer("m", "openai/listed"), PriceSource.LIST, id="the list"),
            pytest.param(Offer("m", "openai/embedding"), PriceSource.LIST, id="the list, of a model without output"),
            pytest.param(
                Offer("m", "openai/listed", amounts=amounts(search_context_cost_per_query="1")),
                PriceSource.LIST,
                id="the list, for all but searches",
            ),
            pytest.param(Offer("m", "x/y"), PriceSource.UNKNOWN, id="nobody"),
            pytest.param(
                Offer("m", "x/y", amounts=amounts(input_cost_per_token="1")), PriceSource.UNKNOWN, id="half of it"
            ),
            pytest.param(
                Offer("m", "x/y", amounts=amounts(input_cost_per_token_flex="1", output_cost_per_token_flex="1")),
                PriceSource.UNKNOWN,
                id="a tier alone",
            ),
        ],
    )
    def test_source(self, offer: Offer, source: PriceSource) -> None:
        """A price of its own, one of the list, or none; a model without a price is named."""
        reach = catalog(offer).reach(("m",))

        assert (source, ("m",) if source is PriceSource.UNKNOWN else ()) == (reach.source, reach.unpriced)

    def test_the_least_sure_counts(self) -> None:
        """Of several that may answer, the one that is known least says how sure the price is."""
        found = catalog(paid("a"), Offer("b", "openai/listed"), Offer("c", "x/y"))

        assert found.reach(("a", "b")).source is PriceSource.LIST
        assert found.reach(("a", "b", "c")).source is PriceSource.UNKNOWN

    def test_prices_that_nothing_is_booked_by(self) -> None:
        """They are named with their models, those of 0 are not."""
        found = catalog(
            Offer("a", "x/y", amounts=(*PAID, *amounts(output_cost_per_pixel="1", ocr_cost_per_page_batches="1"))),
            Offer("b", "x/y", amounts=(*PAID, *amounts(input_cost_per_pixel="0", somebodys_own_cost="3"))),
        )

        assert (
            ("a", "output_cost_per_pixel"),
            ("a", "ocr_cost_per_page"),
            ("b", "somebodys_own_cost"),
        ) == found.unsettled()


class TestReach:
    """Everything that a request can end up at."""

    def test_dearest_and_largest(self) -> None:
        """A request is priced at the dearest it can reach, in the largest context."""
        reach = catalog(
            Offer("a", "x/y", amounts=PAID, context_tokens=10, output_tokens_max=5),
            Offer("b", "openai/listed", output_tokens_max=7),
        ).reach(("a",), ("b",))

        assert (Decimal(2), Decimal(4)) == (reach.prices.input, reach.prices.output)
        assert Decimal(5) == reach.prices.reasoning_output
        assert (8_000, 7) == (reach.context_tokens, reach.output_tokens_max)

    def test_one_unknown_limit_is_no_limit(self) -> None:
        """The largest of known and unknown is unknown."""
        reach = catalog(Offer("a", "x/y", context_tokens=10), Offer("b", "x/y")).reach(("a", "b"))

        assert reach.context_tokens is None

    def test_unknown_names(self) -> None:
        """An unknown name costs the unknown price and is never free; a fallback of ours is not the client's fault."""
        found = catalog(free("a"), fallbacks=({"a": ("astray",)},))

        assert found.reach(("a", "nope")).unknown == ("nope",)
        assert found.reach(("a",)).unknown == ()
        assert found.reach(("a",)).prices.input == UNKNOWN.input

    def test_nothing_named(self) -> None:
        """A request that names nothing is not free."""
        reach = catalog(free("a")).reach(())

        assert (False, UNKNOWN.output, None) == (reach.free, reach.prices.output, reach.context_tokens)

    def test_bounded(self) -> None:
        """What lies beyond the maximum counts as unknown."""
        names = tuple(f"m{number}" for number in range(REACH_MODELS_MAX + 1))
        reach = catalog(*map(free, names)).reach(names)

        assert len(reach.models) == REACH_MODELS_MAX
        assert len(reach.unknown) == 1
        assert not reach.free


# Of gemini-2.5-pro, in USD, by the length above which they count.
LONG_INPUT = (("0.00000125", 0), ("0.0000025", 200_000))


def plain(listed: Listed) -> dict[str | None, Decimal]:
    """Give the prices of short inputs, by their kinds."""
    return {amount.kind: amount.usd for amount in listed.amounts if amount.plain}


class TestPriceList:
    """The price list that comes with the package genai-prices."""

    @pytest.mark.parametrize(
        ("upstream_model", "provider"),
        [
            ("openai/gpt-4o", None),
            ("gpt-4o", None),
            ("gpt-4o", "openai"),
            ("azure/gpt-4o", None),
            ("openai/gpt-4o", "openai"),
        ],
    )
    def test_finds_a_model(self, upstream_model: str, provider: str | None) -> None:
        """A model is found as LiteLLM writes it; prices are USD per token."""
        listed = find_listed(upstream_model, provider)

        assert listed is not None
        assert {"input": Decimal("0.0000025"), "output": Decimal("0.00001")}.items() <= plain(listed).items()

    @pytest.mark.parametrize("upstream_model", ["openai/llama", "ollama/llama3", "nobody", "", "/", "a/b/c"])
    def test_knows_what_it_does_not_know(self, upstream_model: str) -> None:
        """A model that is not in the list has no price."""
        assert find_listed(upstream_model) is None

    def test_has_lengths_of_input(self) -> None:
        """Long prompts are dearer at some providers, and only those."""
        listed = find_listed("vertex_ai/gemini-2.5-pro")

        assert listed is not None
        assert [Amount("input_cost_per_token", Decimal(usd), tokens) for usd, tokens in LONG_INPUT] == [
            amount for amount in listed.amounts if amount.name == "input_cost_per_token"
        ]

    def test_has_sound_and_searches(self) -> None:
        """What is paid by the hour is here by the second, rounded up behind what money is counted in."""
        whisper, claude = find_listed("groq/whisper-large-v3"), find_listed("anthropic/claude-sonnet-4-5")

        assert whisper is not None
        assert claude is not None
        (second,) = (amount.usd for amount in whisper.amounts if amount.kind == "per_second")
        assert Decimal("0.00003083333333333333333333333334") == second
        assert Amount("search_context_cost_per_query", Decimal("0.01")) in claude.amounts
        assert Amount("cache_creation_input_token_cost_above_1hr", Decimal("0.000006")) in claude.amounts

    def test_takes_the_newest_price(self) -> None:
        """A price that was cut counts as it is now: o3 came at 10 USD per million input tokens."""
        listed = find_listed("openai/o3")

        assert listed is not None
        assert Decimal("0.000002") == plain(listed)["input"]


@pytest.mark.parametrize(
    ("offers", "name", "provider"),
    [
        pytest.param((Offer("m", "openai/gpt"),), "m", "openai", id="as LiteLLM writes it"),
        pytest.param((Offer("m", "gpt", provider="azure"),), "m", "azure", id="by itself"),
        pytest.param((Offer("m", "gpt"),), "m", None, id="not named"),
        pytest.param((Offer("m", "openai/gpt"), Offer("m", "azure/gpt")), "m", None, id="several"),
        pytest.param((Offer("anthropic/*", "anthropic/*"),), "anthropic/claude", "anthropic", id="a pattern"),
        pytest.param((Offer("*", "*/gpt"),), "whatever", None, id="left open by a pattern"),
        pytest.param((Offer("m", "openai/gpt"),), "other", None, id="no such model"),
        pytest.param((Offer("m", "openai/gpt"),), "alias", "openai", id="an alias"),
    ],
)
def test_who_serves_a_model(offers: tuple[Offer, ...], name: str, provider: str | None) -> None:
    """The provider is known where all deployments name the same one."""
    assert provider == catalog(*offers, aliases=(Alias("alias", "m"),)).provider(name)
