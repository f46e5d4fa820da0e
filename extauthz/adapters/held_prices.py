"""Prices as they travel inside a hold: as short as they can be, exact to the last digit.

Each is an object of the rates that are set; those of longer inputs and of tiers say only in what they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from extauthz.domain.prices import Prices, Rates

# One or two letters for each rate, and the rest of what prices have.
_LETTERS: Mapping[str, str] = {
    "input": "i",
    "output": "o",
    "cache_read_input": "r",
    "cache_creation_input": "w",
    "reasoning_output": "t",
    "cache_creation_1h_input": "wh",
    "cache_read_audio_input": "ra",
    "audio_input": "ia",
    "audio_output": "oa",
    "image_input": "ii",
    "image_output": "oi",
    "per_image": "I",
    "per_second": "S",
    "per_character": "C",
    "per_query": "Q",
    "per_search": "W",
    "per_request": "R",
}
_FIELDS = {letters: name for name, letters in _LETTERS.items()}
_ABOVE, _TIERS, _GUESSED_INPUT, _GUESSED_OUTPUT = "A", "T", "gi", "go"

_Object = dict[str, Any]


def prices_to_json(prices: Prices) -> _Object:
    """Write prices as an object."""
    rates = _written(prices)
    tiers = [[name, _of_tier(tier, rates)] for name, tier in prices.tiers]
    return _of_tier(prices, {}) | ({_TIERS: tiers} if tiers else {})


def prices_from_json(document: _Object) -> Prices:
    """Read prices. Raises ValueError, TypeError or ArithmeticError for what are none."""
    rates = _rates({}, document)
    tiers = tuple((name, _tier(rates, tier)) for name, tier in document.get(_TIERS, ()))
    return _tier({}, document, tiers)


def _of_tier(prices: Prices, base: Mapping[str, str]) -> _Object:
    rates = _written(prices)
    above = [[tokens, _difference(_written(longer), rates)] for tokens, longer in prices.above]
    guessed = {_GUESSED_INPUT: prices.guessed_input, _GUESSED_OUTPUT: prices.guessed_output}
    return (
        _difference(rates, base)
        | ({_ABOVE: above} if above else {})
        | {letters: 1 for letters, is_guessed in guessed.items() if is_guessed}
    )


def _tier(base: Mapping[str, str], document: _Object, tiers: tuple[tuple[str, Prices], ...] = ()) -> Prices:
    rates = _rates(base, document)
    return Prices(
        **_read(rates),
        above=tuple((tokens, Rates(**_read(_rates(rates, longer)))) for tokens, longer in document.get(_ABOVE, ())),
        tiers=tiers,
        guessed_input=_GUESSED_INPUT in document,
        guessed_output=_GUESSED_OUTPUT in document,
    )


def _written(rates: Rates) -> dict[str, str]:
    prices = ((letters, getattr(rates, name)) for name, letters in _LETTERS.items())
    return {letters: str(price) for letters, price in prices if price is not None}


def _difference(rates: Mapping[str, str], base: Mapping[str, str]) -> _Object:
    changed = {letters: price for letters, price in rates.items() if base.get(letters) != price}
    return changed | {letters: None for letters in base if letters not in rates}


def _rates(base: Mapping[str, str], document: _Object) -> dict[str, str]:
    rates = {**base, **{letters: price for letters, price in document.items() if letters in _FIELDS}}
    return {letters: price for letters, price in rates.items() if price is not None}


def _read(rates: Mapping[str, str]) -> dict[str, Decimal]:
    return {_FIELDS[letters]: Decimal(price) for letters, price in rates.items()}
