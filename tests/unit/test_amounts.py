"""The prices of one deployment as they are written, and what comes of them."""

from decimal import Decimal
from pathlib import Path

import pytest

from extauthz.domain.prices import Prices, Rates
from extauthz.pricing import amounts
from extauthz.pricing.amounts import Amount, named, prices_of, unsettled, written

UNKNOWN = Prices(Decimal(90), Decimal(99), per_image=Decimal(9))
ROOT = Path(__file__).parents[2]
# The fields of LiteLLM's price map that are prices, of two of its releases.
FIELDS = (ROOT / "tests/support/price_fields.txt").read_text().split()
DOCUMENT = (ROOT / "docs/prices.md").read_text()


def prices(**by_name: str) -> Prices:
    """Put prices together that are written by LiteLLM's names."""
    return prices_of([named(name, Decimal(usd)) for name, usd in by_name.items()], UNKNOWN)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_read_or_named(field: str) -> None:
    """No price of LiteLLM's map is overlooked: something is booked by it, or the table says why nothing is."""
    amount = named(field, Decimal(1))
    composed = (amounts.TIERED, amounts.OFF_PEAK)

    assert amount.kind is not None or amount.name in amounts.UNSETTLED or field in {*composed, *amounts.UPLIFTS}
    assert named(amount.full_name, Decimal(1)) == amount


@pytest.mark.parametrize(
    "name",
    [
        *(name for names in amounts.NAMES.values() for name in names),
        amounts.INPUT_IMAGE_PRICE,
        *sorted(amounts.UNSETTLED),
        *sorted(amounts.UPLIFTS),
        amounts.TIERED,
        amounts.OFF_PEAK,
        *(f"_{end}" for end in sorted(amounts.TIERS)),
    ],
)
def test_the_document_has_every_name(name: str) -> None:
    """People find each name in docs/prices.md."""
    assert f"`{name}`" in DOCUMENT


@pytest.mark.parametrize(
    ("full_name", "amount"),
    [
        ("input_cost_per_token", Amount("input_cost_per_token", Decimal(1))),
        ("input_cost_per_token_above_200k_tokens", Amount("input_cost_per_token", Decimal(1), 200_000)),
        ("input_cost_per_token_above_32.768k_tokens", Amount("input_cost_per_token", Decimal(1), 32_768)),
        ("output_cost_per_token_batches", Amount("output_cost_per_token", Decimal(1), 0, "batch")),
        (
            "cache_read_input_token_cost_above_272k_tokens_priority",
            Amount("cache_read_input_token_cost", Decimal(1), 272_000, "priority"),
        ),
        (
            "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
            Amount("cache_creation_input_token_cost_above_1hr", Decimal(1), 200_000),
        ),
        ("output_cost_per_image_0.5K", Amount("output_cost_per_image_0.5K", Decimal(1))),
        ("output_cost_per_second_1080p", Amount("output_cost_per_second_1080p", Decimal(1))),
    ],
)
def test_names_and_their_ends(full_name: str, amount: Amount) -> None:
    """A name says what is priced, above which length of input, and at which tier; it can be written again."""
    assert amount == named(full_name, Decimal(1))
    assert full_name == amount.full_name


@pytest.mark.parametrize(
    ("written_as", "read"),
    [
        pytest.param({}, UNKNOWN.input, id="nothing"),
        pytest.param({"input_cost_per_token": "2"}, Decimal(2), id="the price"),
        pytest.param({"input_cost_per_audio_token": "3", "input_cost_per_image_token": "4"}, Decimal(4), id="others"),
        pytest.param({"cache_read_input_token_cost": "3"}, UNKNOWN.input, id="what is cached says nothing of the rest"),
    ],
)
def test_plain_input(written_as: dict[str, str], read: Decimal) -> None:
    """Plain tokens without a price cost what the dearest of their like do, else what an unknown model's do."""
    assert read == prices(**written_as).input


@pytest.mark.parametrize(
    ("written_as", "kind", "usd"),
    [
        pytest.param({"cache_read_input_token_cost": "1"}, "cache_read_input", "1", id="cached"),
        pytest.param({"input_cost_per_token_cache_hit": "1"}, "cache_read_input", "1", id="cached, as DeepSeek says"),
        pytest.param(
            {"cache_read_input_token_cost": "1", "explicit_cache_read_input_token_cost": "3"},
            "cache_read_input",
            "3",
            id="two kinds of cache",
        ),
        pytest.param({"cache_creation_input_token_cost": "1"}, "cache_creation_input", "1", id="written"),
        pytest.param(
            {"cache_creation_input_token_cost_above_1hr": "1", "cache_creation_input_token_cost_above_12hr": "2"},
            "cache_creation_1h_input",
            "2",
            id="written for hours",
        ),
        pytest.param({"cache_read_input_audio_token_cost": "1"}, "cache_read_audio_input", "1", id="cached sound"),
        pytest.param({"input_cost_per_audio_token": "1"}, "audio_input", "1", id="sound in"),
        pytest.param({"output_cost_per_audio_token": "1"}, "audio_output", "1", id="sound out"),
        pytest.param({"input_cost_per_image_token": "1"}, "image_input", "1", id="pictures in"),
        pytest.param({"output_cost_per_image_token": "1"}, "image_output", "1", id="pictures out"),
        pytest.param({"output_cost_per_reasoning_token": "1"}, "reasoning_output", "1", id="reasoning"),
        pytest.param({"output_cost_per_image": "2", "input_cost_per_image": "1"}, "per_image", "3", id="both added"),
        pytest.param({"input_cost_per_image": "1"}, "per_image", "1", id="a picture, by its input"),
        pytest.param(
            {"output_cost_per_image_1K": "2", "output_cost_per_image_4K": "5"},
            "per_image",
            "5",
            id="sizes: the dearest",
        ),
        pytest.param(
            {"input_cost_per_second": "2", "output_cost_per_second": "2"}, "per_second", "2", id="seconds, not twice"
        ),
        pytest.param(
            {"output_cost_per_second_720p": "2", "output_cost_per_second_4k": "3"}, "per_second", "3", id="resolutions"
        ),
        pytest.param({"input_cost_per_character": "1"}, "per_character", "1", id="characters"),
        pytest.param({"input_cost_per_query": "1"}, "per_query", "1", id="queries"),
        pytest.param({"search_context_cost_per_query": "1"}, "per_search", "1", id="searches"),
        pytest.param({"input_cost_per_request": "1"}, "per_request", "1", id="requests"),
    ],
)
def test_each_kind(written_as: dict[str, str], kind: str, usd: str) -> None:
    """Each kind has its rate; of several names for it the dearest counts."""
    assert Decimal(usd) == getattr(prices(input_cost_per_token="1", output_cost_per_token="1", **written_as), kind)


def test_longer_inputs_build_on_shorter_ones() -> None:
    """What is not said for a length is what is said for the next shorter one."""
    long = prices(
        input_cost_per_token="1",
        input_cost_per_token_above_128k_tokens="2",
        output_cost_per_token="5",
        output_cost_per_token_above_256k_tokens="6",
        cache_read_input_token_cost="0.1",
    )
    cached = Decimal("0.1")

    assert (
        (128_000, Rates(Decimal(2), Decimal(5), cached)),
        (256_000, Rates(Decimal(2), Decimal(6), cached)),
    ) == long.above


@pytest.mark.parametrize(
    ("tier", "rates", "longer"),
    [
        pytest.param("priority", (2, 5), (3, 5), id="a tier that is cheaper than a long input at the base"),
        pytest.param("flex", ("0.5", 5), (3, 5), id="a tier that says nothing of long inputs"),
        pytest.param("batch", (1, 4), ("1.5", 4), id="a tier that does"),
    ],
)
def test_tiers_build_on_the_base(
    tier: str, rates: tuple[str | int, str | int], longer: tuple[str | int, str | int]
) -> None:
    """A tier has what is said of it, and for the rest the base; long inputs are never cheaper by an omission."""
    tiers = dict(
        prices(
            input_cost_per_token="1",
            output_cost_per_token="5",
            input_cost_per_token_above_200k_tokens="3",
            input_cost_per_token_priority="2",
            input_cost_per_token_flex="0.5",
            output_cost_per_token_batches="4",
            input_cost_per_token_above_200k_tokens_batches="1.5",
        ).tiers
    )
    found = tiers[tier]

    assert tuple(map(Decimal, rates)) == (found.input, found.output)
    assert ((200_000, Rates(*map(Decimal, longer))),) == found.above


def test_guesses() -> None:
    """Who is paid by the unit, and says nothing of tokens, has a guess of them; searches are no unit of that sort."""
    both, one = prices(output_cost_per_image="1"), prices(output_cost_per_image="1", input_cost_per_token="1")
    searching = prices(search_context_cost_per_query="1")

    assert (True, True) == (both.guessed_input, both.guessed_output)
    assert (False, True) == (one.guessed_input, one.guessed_output)
    assert (False, False) == (searching.guessed_input, searching.guessed_output)


def test_written_again() -> None:
    """Prices can be written by LiteLLM's names, and read as the same."""
    names = {
        "input_cost_per_token": "1",
        "output_cost_per_token": "2",
        "input_cost_per_token_above_200k_tokens": "3",
        "output_cost_per_token_flex": "0.5",
        "output_cost_per_image": "7",
    }

    assert prices(**names) == prices_of(written(prices(**names)), UNKNOWN)


def test_what_nothing_is_booked_by() -> None:
    """A price of something that no answer shows is named once, unless it is 0."""
    said = ("output_cost_per_pixel", "output_cost_per_pixel_batches", "a_cost_of_their_own", "input_cost_per_token")

    assert ("output_cost_per_pixel", "a_cost_of_their_own") == unsettled(named(name, Decimal(1)) for name in said)
    assert () == unsettled(named(name, Decimal(0)) for name in said)
