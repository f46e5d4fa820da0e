"""Amounts in every measure as one word, as they stand in Redis, and the measure that a counter's key names.

A word is `<nano-USD>,<tokens>,<requests>`, or only the first of them where nothing else is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from extauthz.domain.budgets import Counter, Measure, Spent

_MEASURES = {str(measure): measure for measure in Measure if measure is not Measure.USD}

# What stands behind the name of a window: a scope has no `|` in it, nor a filter a `/` (domain/budgets.py).
_BEHIND_WINDOW = re.compile(r"[^|]*\|[^|/]*/([^|/]*)")


def measure_of(key: str) -> Measure:
    """Give the measure of the counter with that key, without reading all of it; USD for what is no key at all."""
    found = _BEHIND_WINDOW.match(key)
    return Measure.USD if found is None else _MEASURES.get(found[1], Measure.USD)


def counted(spent: Spent, counters: Iterable[Counter]) -> Spent:
    """Give what there is to say of an amount that is booked on counters: of USD alone when all of them are in USD."""
    return spent if any(counter.measure is not Measure.USD for counter in counters) else Spent(spent.cost_nanousd)


def to_word(spent: Spent) -> str:
    """Write amounts in all measures."""
    return f"{spent.cost_nanousd},{spent.tokens},{spent.requests}"


def from_word(word: str) -> Spent:
    """Read a word back. Raises ValueError when it is none."""
    match word.split(","):
        case [cost]:
            return Spent(int(cost))
        case [cost, tokens, requests]:
            return Spent(int(cost), int(tokens), int(requests))
        case _:
            raise ValueError(f"{word!r} says no amounts")
