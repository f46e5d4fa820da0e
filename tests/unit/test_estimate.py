"""What a request is expected to use, and the most it can cost."""

from dataclasses import replace
from decimal import Decimal

import pytest

from extauthz.domain.ask import Ask
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.prices import ZERO, Prices, Units
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
        pytest.param(ask(text_bytes=3), reach(), Endpoint.RERANK, (1, 0), id="reranking has no output"),
        pytest.param(ask(text_bytes=3), reach(), Endpoint.MODERATIONS, (1, 0), id="moderation has no output"),
        pytest.param(ask(text_bytes=900), reach(context=100), Endpoint.EMBEDDINGS, (300, 0), id="many texts at once"),
        pytest.param(
            ask(text_bytes=900, choices=2, output_max=1),
            reach(context=100),
            Endpoint.COMPLETIONS,
            (200, 2),
            id="each prompt has a context of its own",
        ),
        pytest.param(
            Ask(("m",), file_bytes=8_000),
            reach(),
            Endpoint.TRANSCRIPTIONS,
            (64, 8),
            id="a sound is heard, and written down",
        ),
        pytest.param(
            Ask(("m",), text_bytes=3, units=Units(images=2)),
            reach(),
            Endpoint.IMAGE_GENERATIONS,
            (1, 2_200),
            id="pictures are drawn",
        ),
        pytest.param(
            Ask(("m",), text_bytes=3, units=Units(characters=3)),
            reach(),
            Endpoint.SPEECH,
            (1, 6),
            id="a text is read aloud",
        ),
        pytest.param(
            Ask(("m",)), reach(), Endpoint.REALTIME, (INPUT_OVERHEAD_TOKENS, 100), id="a session begins with something"
        ),
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


ENDPOINT_UNITS = [
    (Endpoint.IMAGE_GENERATIONS, Ask(("m",), units=Units(images=3)), Units(images=3)),
    (Endpoint.SPEECH, Ask(("m",), units=Units(characters=9)), Units(characters=9)),
    (Endpoint.VIDEOS, Ask(("m",), units=Units(milliseconds=8_000)), Units(milliseconds=8_000)),
    (Endpoint.RERANK, Ask(("m",), units=Units(queries=2)), Units(queries=2)),
    (Endpoint.TRANSCRIPTIONS, Ask(("m",), file_bytes=4_001), Units(milliseconds=1_001)),
    (Endpoint.TRANSLATIONS, Ask(("m",), file_bytes=4_001), Units(milliseconds=1_001)),
]
BY_UNITS = Prices(
    ZERO,
    ZERO,
    per_image=Decimal("1e-9"),
    per_second=Decimal("1e-6"),
    per_character=Decimal("1e-9"),
    per_query=Decimal("1e-9"),
)


@pytest.mark.parametrize(("endpoint", "asked", "units"), ENDPOINT_UNITS)
def test_units(endpoint: Endpoint, asked: Ask, units: Units) -> None:
    """What is asked for besides tokens is in the estimate, and costs what it costs."""
    result = estimate(asked, reach(prices=BY_UNITS), endpoint=endpoint, usual_output_tokens=100, image_tokens=1600)

    assert units == result.units
    assert units.images + units.milliseconds + units.characters + units.queries == result.cost_nanousd
    assert result.cost_nanousd <= result.cost_nanousd_max


def test_a_sound_is_at_most_as_long_as_speech_can_be() -> None:
    """A file of 4 kB is a second of sound, or more than five at the least bit rate."""
    asked = Ask(("m",), file_bytes=4_000)
    result = estimate(
        asked,
        reach(prices=BY_UNITS),
        endpoint=Endpoint.TRANSCRIPTIONS,
        usual_output_tokens=0,
        image_tokens=0,
    )

    assert (result.cost_nanousd, result.cost_nanousd_max) == (1_000, 5_334)


def test_the_unseen_end_of_a_form_is_its_file() -> None:
    """What is missing of a form that has begun with its file is no text."""
    asked = Ask(("m",), file_bytes=1_000, truncated=True)
    result = estimate(
        asked, reach(), endpoint=Endpoint.TRANSCRIPTIONS, usual_output_tokens=0, image_tokens=0, unseen_bytes=3_000
    )

    assert result.units == Units(milliseconds=1_000)


def flat(asked: Ask, endpoint: Endpoint, prices: Prices = PRICES) -> tuple[int, int]:
    """Estimate something where the flat amount is a thousand nano-USD."""
    result = estimate(
        asked, reach(prices=prices), endpoint=endpoint, usual_output_tokens=5, image_tokens=0, flat_nanousd=1_000
    )
    return result.cost_nanousd, result.cost_nanousd_max


def test_what_nobody_can_estimate() -> None:
    """A call that says nothing of its cost has the flat amount; a model's dear tokens may be more."""
    assert flat(Ask((), text_bytes=9_000), Endpoint.OPAQUE) == (1_000, 1_000)
    assert flat(Ask(()), Endpoint.BATCHES) == (1_000, 1_000)
    assert flat(ask(), Endpoint.SEARCH)[0] == 5_000
    assert flat(ask(), Endpoint.SEARCH, Prices(ZERO, ZERO))[0] == 1_000
    assert flat(ask(output_max=1), Endpoint.OPAQUE, Prices(ZERO, Decimal("1e-9")))[0] == 1
    assert flat(replace(ask(output_max=1), guessed=True), Endpoint.OPAQUE, Prices(ZERO, Decimal("1e-9")))[0] == 1_000
    assert flat(replace(ask(), guessed=True), Endpoint.OPAQUE)[0] == 5_000
    assert flat(ask(output_max=1), Endpoint.CHAT_COMPLETIONS, Prices(ZERO, Decimal("1e-9")))[0] == 1


@pytest.mark.parametrize(
    ("tier", "cost_nanousd", "cost_nanousd_max"),
    [(None, 2, 2), ("flex", 1, 2), ("priority", 6, 6), ("auto", 2, 2), ("unknown", 2, 2)],
)
def test_tiers(tier: str | None, cost_nanousd: int, cost_nanousd_max: int) -> None:
    """A tier that is asked for is estimated by, and never relied on to be cheaper."""
    one, two, six = (Prices(ZERO, Decimal(f"{price}e-9")) for price in (1, 2, 6))
    prices = Prices(two.input, two.output, tiers=(("flex", one), ("priority", six)))
    result = estimate(
        replace(ask(output_max=1), service_tier=tier),
        reach(prices=prices),
        endpoint=Endpoint.RESPONSES,
        usual_output_tokens=5,
        image_tokens=0,
    )

    assert (result.cost_nanousd, result.cost_nanousd_max) == (cost_nanousd, cost_nanousd_max)


def test_what_is_stored_upstream_is_in_the_maximum() -> None:
    """A response that builds on a stored conversation may read as much as the context holds."""
    bounded, unbounded = (
        estimate(
            replace(ask(output_max=1), recalls=True),
            reach(context=context),
            endpoint=Endpoint.RESPONSES,
            usual_output_tokens=1,
            image_tokens=0,
        )
        for context in (50_000, None)
    )

    assert bounded.cost_nanousd_max == 50_000 + 1_000
    assert unbounded.cost_nanousd_max == OUTPUT_TOKENS_UNBOUNDED + INPUT_OVERHEAD_TOKENS + 1_000
    assert bounded.input_tokens == 0


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
