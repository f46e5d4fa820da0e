"""The prices of one deployment as they were written, by the names of LiteLLM's price map, and what comes of them.

Every field of the map is in one of the two tables below: it is read, or it is named because no answer shows what it
is paid by. docs/prices.md says the same for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from extauthz.domain.prices import Prices, Rates
from extauthz.pricing.cost import CALL_KINDS, EXACT, INPUT_KINDS, KINDS, OUTPUT_KINDS, own_rate

INPUT_PRICE = "input_cost_per_token"
OUTPUT_PRICE = "output_cost_per_token"

# What each kind of token or unit is called. Of several names the dearest counts: it is not seen which one applies, or
# they are two words for the same.
NAMES: Mapping[str, tuple[str, ...]] = {
    "input": (INPUT_PRICE,),
    "output": (OUTPUT_PRICE,),
    "cache_read_input": (
        "cache_read_input_token_cost",
        "input_cost_per_token_cache_hit",
        "explicit_cache_read_input_token_cost",
    ),
    "cache_creation_input": ("cache_creation_input_token_cost",),
    "cache_creation_1h_input": (
        "cache_creation_input_token_cost_above_1hr",
        "cache_creation_input_token_cost_above_12hr",
    ),
    "cache_read_audio_input": ("cache_read_input_audio_token_cost",),
    "audio_input": ("input_cost_per_audio_token",),
    "image_input": ("input_cost_per_image_token",),
    "reasoning_output": ("output_cost_per_reasoning_token",),
    "audio_output": ("output_cost_per_audio_token",),
    "image_output": ("output_cost_per_image_token",),
    "per_image": (
        "output_cost_per_image",
        "output_cost_per_image_0.5K",
        "output_cost_per_image_1K",
        "output_cost_per_image_2K",
        "output_cost_per_image_4K",
        "output_cost_per_image_512",
        "output_cost_per_image_1024",
        "output_cost_per_image_1536",
    ),
    "per_second": (
        "input_cost_per_second",
        "output_cost_per_second",
        "output_cost_per_second_480p",
        "output_cost_per_second_720p",
        "output_cost_per_second_768p",
        "output_cost_per_second_1080p",
        "output_cost_per_second_2k",
        "output_cost_per_second_4k",
        "output_cost_per_video_per_second",
        "input_cost_per_audio_per_second",
        "input_cost_per_video_per_second",
        "input_cost_per_video_per_second_above_8s_interval",
        "input_cost_per_video_per_second_above_15s_interval",
    ),
    "per_character": ("input_cost_per_character", "output_cost_per_character"),
    "per_query": ("input_cost_per_query",),
    "per_search": ("search_context_cost_per_query",),
    "per_request": ("input_cost_per_request",),
}

# A picture that is made costs this besides: LiteLLM adds the two.
INPUT_IMAGE_PRICE = "input_cost_per_image"

# What is paid by something that no answer shows, with what that is.
UNSETTLED: Mapping[str, str] = {
    "input_cost_per_pixel": "pixels",
    "output_cost_per_pixel": "pixels",
    "input_cost_per_video_token": "tokens of a film, which are counted as input",
    "output_cost_per_video_token": "tokens of a film, which are counted as output",
    "cache_read_input_image_token_cost": "pictures in the cache, which are counted as cached input",
    "cache_creation_input_audio_token_cost": "sound written to the cache, which is counted as text",
    "input_dbu_cost_per_token": "units of Databricks",
    "output_dbu_cost_per_token": "units of Databricks",
    "cost_per_second": "seconds of capacity that is rented",
    "input_cost_per_text_message": "messages of a conversation by voice",
    "citation_cost_per_token": "tokens of what was cited",
    "google_maps_grounding_cost_per_query": "look-ups in a map",
    "code_interpreter_cost_per_session": "sessions of a tool",
    "computer_use_input_cost_per_1k_tokens": "tokens of a tool",
    "computer_use_output_cost_per_1k_tokens": "tokens of a tool",
    "file_search_cost_per_1k_calls": "calls of a tool",
    "file_search_cost_per_gb_per_day": "storage",
    "vector_store_cost_per_gb_per_day": "storage",
    "ocr_cost_per_page": "pages",
    "ocr_cost_per_credit": "credits",
    "annotation_cost_per_page": "pages",
    "guardrail_cost_per_unit": "units of a guardrail",
}

# Not prices, but what all of a deployment's prices are multiplied by; where a request runs is not seen.
UPLIFT = "regional_endpoint_uplift_multiplier"
UPLIFTS = frozenset({UPLIFT, "regional_processing_uplift_multiplier_eu", "regional_processing_uplift_multiplier_us"})

# Fields in which several prices stand: for hours of the day, and for lengths of the input.
OFF_PEAK = "off_peak_pricing"
TIERED = "tiered_pricing"

# The ends of names: the length of the input that a price is for, the tier of service that it is for.
TIERS: Mapping[str, str] = {
    "batches": "batch",
    "priority": "priority",
    "flex": "flex",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
    "decisions": "decisions",
}
_LENGTH = re.compile(r"_above_(\d{1,9}(?:\.\d{1,6})?)k_tokens")
_TIER = re.compile(rf"_({'|'.join(TIERS)})$")
_ENDS = {tier: end for end, tier in TIERS.items()}
TOKENS_PER_K = 1000

# Kinds of input that say what the others cost, where these have no rate: what is cached is cheaper than what is not.
PLAIN_INPUT = ("input", "audio_input", "image_input")

_KIND_OF = {name: kind for kind, names in NAMES.items() for name in names} | {INPUT_IMAGE_PRICE: "per_image"}


@dataclass(frozen=True, slots=True)
class Amount:
    """One price: `name` without its ends, USD, the length of input above which it counts, the tier that it is for."""

    name: str
    usd: Decimal
    above_tokens: int = 0
    tier: str = ""

    @property
    def kind(self) -> str | None:
        """The kind of token or unit that it is for; None when no answer shows how many there were."""
        return _KIND_OF.get(self.name)

    @property
    def plain(self) -> bool:
        """Whether it is for inputs of any length, at the base tier."""
        return not self.above_tokens and not self.tier

    @property
    def full_name(self) -> str:
        """The name with its ends, as LiteLLM has it."""
        thousands = Decimal(self.above_tokens) / TOKENS_PER_K
        length = f"_above_{thousands.normalize():f}k_tokens" if self.above_tokens else ""
        return f"{self.name}{length}{f'_{_ENDS[self.tier]}' if self.tier else ''}"


def named(full_name: str, usd: Decimal) -> Amount:
    """Read a price by its name, whichever way its ends are put together."""
    tier = _TIER.search(full_name)
    name = full_name[: tier.start()] if tier is not None else full_name
    lengths = _LENGTH.findall(name)
    return Amount(
        name=_LENGTH.sub("", name),
        usd=usd,
        above_tokens=int(max(map(Decimal, lengths), default=Decimal(0)) * TOKENS_PER_K),
        tier=TIERS[tier[1]] if tier is not None else "",
    )


def dearest_of_each(amounts: Iterable[Amount]) -> tuple[Amount, ...]:
    """Keep one of several prices for the same: the highest."""
    kept: dict[tuple[str, int, str], Amount] = {}
    for amount in amounts:
        of = (amount.name, amount.above_tokens, amount.tier)
        if of not in kept or kept[of].usd < amount.usd:
            kept[of] = amount
    return tuple(kept.values())


def written(prices: Prices) -> tuple[Amount, ...]:
    """Write prices under the first name of each kind, with those of longer inputs and of tiers."""
    amounts: list[Amount] = []
    for tier, of_tier in (("", prices), *prices.tiers):
        for tokens, rates in ((0, of_tier), *of_tier.above):
            said = ((kind, own_rate(rates, kind)) for kind in KINDS)
            amounts += [Amount(NAMES[kind][0], usd, tokens, tier) for kind, usd in said if usd is not None]
    return tuple(amounts)


def unsettled(amounts: Iterable[Amount]) -> tuple[str, ...]:
    """Name the prices above 0 that are paid by something that no answer shows."""
    return tuple(dict.fromkeys(amount.name for amount in amounts if amount.kind is None and amount.usd > 0))


def completed(own: tuple[Amount, ...], listed: tuple[Amount, ...]) -> tuple[Amount, ...]:
    """Complete a deployment's own prices from a list of prices.

    Who says what input costs says it for all kinds and lengths of input, and likewise for output. Of what is left, the
    list says what nobody else does.
    """
    said = kinds_of(own)
    for plain, kinds in (("input", INPUT_KINDS), ("output", OUTPUT_KINDS)):
        if plain in said:
            said |= {*kinds}
    exactly = {(amount.kind, amount.above_tokens, amount.tier) for amount in own}
    return (
        *own,
        *(
            amount
            for amount in listed
            if amount.kind not in said and (amount.kind, amount.above_tokens, amount.tier) not in exactly
        ),
    )


def kinds_of(amounts: Iterable[Amount]) -> set[str | None]:
    """Give the kinds that have a price for any input at the base tier."""
    return {amount.kind for amount in amounts if amount.plain}


def prices_of(amounts: Iterable[Amount], unknown: Prices, uplift: Decimal = Decimal(1)) -> Prices:
    """Put prices together: at each length and tier, with what is not said for it taken from the plainer one.

    Tokens of which nothing is said cost what an unknown model's do.
    """
    sheet = _Sheet(amounts, unknown, uplift)
    return sheet.prices()


class _Sheet:
    """All prices of one deployment, by name, length and tier."""

    def __init__(self, amounts: Iterable[Amount], unknown: Prices, uplift: Decimal) -> None:
        self._unknown = unknown
        self._uplift = uplift
        self._usd: dict[tuple[str, str], dict[int, Decimal]] = {}
        for amount in dearest_of_each(amounts):
            self._usd.setdefault((amount.name, amount.tier), {})[amount.above_tokens] = amount.usd

    def prices(self) -> Prices:
        """Give the prices of the base, with those of all tiers in them."""
        tiers = dict.fromkeys(tier for name, tier in self._usd if tier and name in _KIND_OF)
        return self._of_tier("", tuple((tier, self._of_tier(tier)) for tier in tiers))

    def _of_tier(self, tier: str, tiers: tuple[tuple[str, Prices], ...] = ()) -> Prices:
        lengths = sorted(
            {
                tokens
                for (name, of_tier), by_length in self._usd.items()
                if name in _KIND_OF and of_tier in ("", tier)
                for tokens in by_length
                if tokens
            }
        )
        rates = self._rates(tier, 0)
        by_the_call = not rates.keys().isdisjoint(CALL_KINDS)
        return Prices(
            **self._with_tokens(rates),
            above=tuple((tokens, Rates(**self._with_tokens(self._rates(tier, tokens)))) for tokens in lengths),
            tiers=tiers,
            guessed_input=by_the_call and rates.keys().isdisjoint(PLAIN_INPUT),
            guessed_output=by_the_call and rates.keys().isdisjoint(OUTPUT_KINDS),
        )

    def _with_tokens(self, rates: dict[str, Decimal]) -> dict[str, Decimal]:
        """Give plain tokens a rate where nothing is said of them: that of the dearest kind, or an unknown model's."""
        plain = {
            "input": max((rates[kind] for kind in PLAIN_INPUT if kind in rates), default=self._unknown.input),
            "output": max((rates[kind] for kind in OUTPUT_KINDS if kind in rates), default=self._unknown.output),
        }
        return plain | rates

    def _rates(self, tier: str, tokens: int) -> dict[str, Decimal]:
        """Give the rates of all kinds of which something is said."""
        rates: dict[str, Decimal] = {}
        with localcontext(EXACT):
            for kind in KINDS:
                said = [price for name in NAMES[kind] if (price := self._price(name, tier, tokens)) is not None]
                if kind == "per_image" and (read := self._price(INPUT_IMAGE_PRICE, tier, tokens)) is not None:
                    said = [read + max(said, default=Decimal(0))]
                if said:
                    rates[kind] = max(said) * self._uplift
        return rates

    def _price(self, name: str, tier: str, tokens: int) -> Decimal | None:
        """Give a price at a tier and above a length.

        A tier that has no price of its own for long inputs costs no less than the base does there.
        """
        base, base_length = self._at(name, "", tokens)
        own, own_length = self._at(name, tier, tokens)
        if own is None or base is None or own_length >= base_length:
            return base if own is None else own
        return max(own, base)

    def _at(self, name: str, tier: str, tokens: int) -> tuple[Decimal | None, int]:
        by_length = self._usd.get((name, tier), {})
        length = max((length for length in by_length if length <= tokens), default=-1)
        return by_length.get(length), length
