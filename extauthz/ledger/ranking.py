"""Which counters come first in a list that has a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest

from extauthz.domain.budgets import Measure
from extauthz.ledger.amounts import measure_of
from extauthz.ledger.pieces import first, paced

# A counter's key, what is spent and what is held on it.
Count = tuple[str, int, int]


async def most_spent_in_turn(counts: Sequence[Count], count_max: int) -> list[Count]:
    """Give the most spent of each measure, then the second of each, and so on: amounts of two cannot be compared."""
    by_measure: dict[Measure, list[Count]] = {measure: [] for measure in Measure}
    async for piece in paced(counts):
        for count in piece:
            by_measure[measure_of(count[0])].append(count)
    ranked = [await first(alike, count_max, key=_most_spent) for alike in by_measure.values()]
    turns = zip_longest(*ranked)
    return [*islice((count for turn in turns for count in turn if count is not None), count_max)]


def _most_spent(count: Count) -> tuple[int, int, str]:
    key, spent, held = count
    return -spent, -held, key
