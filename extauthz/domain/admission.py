"""Admission: whether claims pass, and what each counter then holds.

All claims pass or none. The stores decide by this rule, in memory by this very code, on Redis by the same rule in
ledger/scripts/reserve.lua; their contract suite holds one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extauthz.domain.budgets import Counter, Measure, Standing
from extauthz.domain.reservation import Claim

# USD before tokens, tokens before requests: amounts of several measures cannot be compared.
_RANKS = {measure: rank for rank, measure in enumerate(Measure)}


@dataclass(frozen=True, slots=True)
class Granted:
    """The claims pass.

    `amounts` is what each counter is to hold, in its measure; `available_nanousd` is the least that any limited counter
    in USD has left after that, None when none is limited.
    """

    available_nanousd: int | None
    amounts: Mapping[Counter, int]


def admit(claims: Sequence[Claim], standings: Sequence[Standing | None]) -> Granted | Standing:
    """Decide about claims by how the counter of each stands against its limit, None for a claim without one.

    Gives the standing that refuses, if any does: an exhausted one before the others, then one in USD before one in
    tokens, and that before one in requests, then the one with the least available.
    """
    refusing = [
        standing
        for claim, standing in zip(claims, standings, strict=True)
        if standing is not None and _refuses(standing, claim)
    ]
    if refusing:
        return min(refusing, key=_binding)
    amounts = _amounts(claims, standings)
    return Granted(least_available(standings, amounts), amounts)


def least_available(standings: Sequence[Standing | None], amounts: Mapping[Counter, int]) -> int | None:
    """Give the least that is left of any limit in USD when so much more is held; None when nothing is limited."""
    return min(
        (
            standing.available - amounts.get(standing.counter, 0)
            for standing in standings
            if standing is not None and standing.counter.measure is Measure.USD
        ),
        default=None,
    )


def _binding(standing: Standing) -> tuple[bool, int, int]:
    return not standing.exhausted, _RANKS[standing.counter.measure], standing.available


def _refuses(standing: Standing, claim: Claim) -> bool:
    needed = claim.amount if claim.whole else 1
    return standing.exhausted or standing.available < needed


def _amounts(claims: Sequence[Claim], standings: Sequence[Standing | None]) -> dict[Counter, int]:
    """Give what passing claims hold on each counter, once where several of them name the same."""
    amounts: dict[Counter, int] = {}
    # Partial claims share what the tightest limit leaves; after that whole ones get all that they asked for.
    for claim, standing in sorted(zip(claims, standings, strict=True), key=lambda asked: asked[0].whole):
        amount = claim.amount
        if standing is not None:
            amount = min(amount, standing.available)
        choose = max if claim.whole else min
        amounts[claim.counter] = choose(amounts.get(claim.counter, amount), amount)
    return amounts
