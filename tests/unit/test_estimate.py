"""What a request is expected to use, and the most it can cost."""

from decimal import Decimal

import pytest

from extauthz.domain.body import Ask
from extauthz.domain.prices import Prices
from extauthz.domain.routes import Endpoint
from extauthz.pricing.catalog import Reach
from extauthz.pricing.estimate import (
    INPUT_OVERHEAD_TOKENS,
    OUTPUT_TOKENS_UNBOUNDED,
    USUAL_MODELS_MAX,
    USUAL_SAMPLES_MAX,
    USUAL_SAMPLES_MIN,
    UsualTokens,
    estimate,
)

# Nano-USD: 1 per input token, 1000 per output token, so that the digits of a cost tell its parts.
PRICES = Prices(Decimal("1e-9"), Decimal("1e-6"))


def reach(*, context: int | None = None, output_max: int | None = None, prices: Prices = PRICES) -> Reach:
    """Make a reach with the given bounds."""
    return Reach((), (), free=False, prices=prices, context_tokens=context, output_tokens_max=output_max)


def ask(
    *, text_bytes: int = 0, images: int = 0, output_max: int | None = None, choices: int = 1, truncated: bool = False
) -> Ask:
    """Make an ask for one model."""
    return Ask(
        models=("m",),
        text_bytes=text_bytes,
        images=images,
        output_tokens_max=output_max,
        choices=choices,
        truncated=truncated,
    )


@pytest.mark.parametrize(
    ("asked", "reached", "endpoint", "tokens"),
    [
        pytest.param(ask(text_bytes=10), reach(), Endpoint.CHAT_COMPLETIONS, (4, 100), id="three bytes a token, up"),
        pytest.param(ask(images=2), reach(), Endpoint.CHAT_COMPLETIONS, (3200, 100), id="pictures count flat"),
        pytest.param(
            ask(text_bytes=900, images=1),
            reach(context=500),
            Endpoint.CHAT_COMPLETIONS,
            (500, 100),
            id="context bounds",
        ),
        pytest.param(
            ask(output_max=7), reach(), Endpoint.CHAT_COMPLETIONS, (0, 7), id="the client's maximum below usual"
        ),
        pytest.param(
            ask(output_max=64_000), reach(), Endpoint.CHAT_COMPLETIONS, (0, 100), id="usual below the maximum"
        ),
        pytest.param(ask(output_max=0), reach(), Endpoint.CHAT_COMPLETIONS, (0, 100), id="a maximum of 0 is none"),
        pytest.param(ask(), reach(output_max=60), Endpoint.COMPLETIONS, (0, 60), id="the model's maximum"),
        pytest.param(ask(choices=3), reach(output_max=60), Endpoint.COMPLETIONS, (0, 180), id="times the choices"),
        pytest.param(ask(text_bytes=3), reach(), Endpoint.EMBEDDINGS, (1, 0), id="embeddings have no output"),
        pytest.param(ask(text_bytes=3), reach(), Endpoint.OPAQUE, (1, 100), id="an opaque call is taken for a chat"),
    ],
)
def test_expected_tokens(asked: Ask, reached: Reach, endpoint: Endpoint, tokens: tuple[int, int]) -> None:
    """The estimate is what such requests need, bounded by what the client, the model and its context allow."""
    result = estimate(asked, reached, endpoint=endpoint, usual_output_tokens=100, image_tokens=1600)

    assert tokens == (result.input_tokens, result.output_tokens)
    assert tokens[0] + 1000 * tokens[1] == result.cost_nanousd


@pytest.mark.parametrize(
    ("asked", "reached", "endpoint", "cost_nanousd_max"),
    [
        pytest.param(
            ask(text_bytes=10, output_max=7),
            reach(),
            Endpoint.CHAT_COMPLETIONS,
            10 + INPUT_OVERHEAD_TOKENS + 7_000,
            id="a token for every byte, and the overhead",
        ),
        pytest.param(
            ask(output_max=7, choices=2),
            reach(),
            Endpoint.CHAT_COMPLETIONS,
            INPUT_OVERHEAD_TOKENS + 14_000,
            id="choices",
        ),
        pytest.param(
            ask(text_bytes=9_000),
            reach(context=500),
            Endpoint.CHAT_COMPLETIONS,
            500 + 500_000,
            id="the context bounds both",
        ),
        pytest.param(
            ask(output_max=99),
            reach(output_max=60),
            Endpoint.CHAT_COMPLETIONS,
            INPUT_OVERHEAD_TOKENS + 60_000,
            id="model",
        ),
        pytest.param(
            ask(),
            reach(),
            Endpoint.CHAT_COMPLETIONS,
            INPUT_OVERHEAD_TOKENS + 1000 * OUTPUT_TOKENS_UNBOUNDED,
            id="nothing bounds the output: the dear default",
        ),
        pytest.param(ask(), reach(), Endpoint.EMBEDDINGS, INPUT_OVERHEAD_TOKENS, id="embeddings have no output"),
        pytest.param(
            ask(output_max=1),
            reach(prices=Prices(Decimal("1e-9"), Decimal("1e-6"), None, Decimal("2e-9"), Decimal("3e-6"))),
            Endpoint.CHAT_COMPLETIONS,
            2 * INPUT_OVERHEAD_TOKENS + 3_000,
            id="the dearest kind of token",
        ),
    ],
)
def test_most_that_it_can_cost(asked: Ask, reached: Reach, endpoint: Endpoint, cost_nanousd_max: int) -> None:
    """The maximum takes every bound for reached."""
    result = estimate(asked, reached, endpoint=endpoint, usual_output_tokens=5, image_tokens=1600)

    assert cost_nanousd_max == result.cost_nanousd_max


def test_the_most_is_never_below_the_estimate() -> None:
    """A model whose answers are longer than the dear default has them in its maximum too."""
    usual = OUTPUT_TOKENS_UNBOUNDED * 2
    result = estimate(ask(), reach(), endpoint=Endpoint.OPAQUE, usual_output_tokens=usual, image_tokens=0)

    assert result.cost_nanousd <= result.cost_nanousd_max


def test_every_model_of_a_list_reads_the_input() -> None:
    """A request that names three models is read three times."""
    one, three = (
        estimate(
            Ask(names, text_bytes=300), reach(), endpoint=Endpoint.EMBEDDINGS, usual_output_tokens=1, image_tokens=0
        )
        for names in (("a",), ("a", "b", "c"))
    )

    assert three.input_tokens == 3 * one.input_tokens
    assert three.cost_nanousd_max == 3 * one.cost_nanousd_max


def test_unseen_bytes_count_as_text() -> None:
    """What is missing of a truncated body is held as if it were text."""
    seen = estimate(
        ask(text_bytes=3000), reach(), endpoint=Endpoint.OPAQUE, usual_output_tokens=1, image_tokens=0, unseen_bytes=0
    )
    unseen = estimate(
        ask(text_bytes=1000, truncated=True),
        reach(),
        endpoint=Endpoint.OPAQUE,
        usual_output_tokens=1,
        image_tokens=0,
        unseen_bytes=2000,
    )

    assert seen == unseen


class TestUsualTokens:
    """What answers of a model usually need."""

    def test_starts_at_the_configured_value(self) -> None:
        """A few answers are no habit yet."""
        usual = UsualTokens(512)
        for _ in range(USUAL_SAMPLES_MIN - 1):
            usual.observe("m", 10)

        assert usual.of("m") == 512

    def test_follows_the_answers(self) -> None:
        """Of a hundred answers, 95 need no more than that."""
        usual = UsualTokens(512)
        for output_tokens in range(1, 101):
            usual.observe("m", output_tokens)

        assert usual.of("m") == 95
        assert usual.of("another") == 512

    def test_forgets_old_answers(self) -> None:
        """Only the last answers count."""
        usual = UsualTokens(512)
        for output_tokens in [9_000] * USUAL_SAMPLES_MAX + [10] * USUAL_SAMPLES_MAX:
            usual.observe("m", output_tokens)

        assert usual.of("m") == 10

    def test_fixed_learns_nothing(self) -> None:
        """`estimate: fixed` pins the value."""
        usual = UsualTokens(512, fixed=True)
        for _ in range(USUAL_SAMPLES_MIN):
            usual.observe("m", 10)

        assert usual.of("m") == 512

    def test_remembers_a_bounded_number_of_models(self) -> None:
        """The model that has been silent longest is forgotten."""
        usual = UsualTokens(512)
        for name in ["busy", *(str(number) for number in range(USUAL_MODELS_MAX - 1)), "busy", "one too many"]:
            for _ in range(USUAL_SAMPLES_MIN):
                usual.observe(name, 10)

        assert usual.of("busy") == 10
        assert usual.of("0") == 512
        assert usual.of("1") == 10
