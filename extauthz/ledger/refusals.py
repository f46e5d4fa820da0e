"""Counters that have nothing left, remembered for a second, so that who has no money costs the store next to nothing.

Only what is spent counts here, which grows until the window ends, never what is held, which comes back at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extauthz.domain.admission import admit
from extauthz.domain.budgets import Standing
from extauthz.domain.reservation import Claim
from extauthz.ledger.base import Refused

# Somebody may raise a limit or take spend back by another process: that long it goes unnoticed here.
KEPT_S_MAX = 1.0
COUNTERS_MAX = 10_000


class Refusals:
    """Exhausted counters as the store told of them, each by its key and the limit that it was judged by."""

    def __init__(self, clock_s: Callable[[], float], kept_s: float) -> None:
        self._clock_s = clock_s
        self._kept_s = min(kept_s, KEPT_S_MAX)
        self._known: dict[tuple[str, int], tuple[Standing, float]] = {}  # the oldest first

    def find(self, claims: Sequence[Claim]) -> Refused | None:
        """Refuse claims of which one is known to be on an exhausted counter; None where the store has to judge."""
        if not self._known:  # nearly always
            return None
        self._drop()
        standings = [self._standing(claim) for claim in claims]
        if not any(standings):
            return None
        admitted = admit(claims, standings)
        return Refused(admitted) if isinstance(admitted, Standing) else None

    def keep(self, refused: Refused, claims: Sequence[Claim], asked_s: float) -> None:
        """Remember what the store refused by, when asked at `asked_s` of the clock, if it is exhausted."""
        standing = refused.standing
        if not standing.exhausted:
            return
        for claim in claims:
            if claim.counter == standing.counter and claim.limit is not None:
                name = (claim.counter.key, claim.limit)
                self._known.pop(name, None)
                self._known[name] = (standing, asked_s + self._kept_s)

    def clear(self) -> None:
        """Forget all: something may have been given back."""
        self._known.clear()

    def _standing(self, claim: Claim) -> Standing | None:
        known = None if claim.limit is None else self._known.get((claim.counter.key, claim.limit))
        return None if known is None else known[0]

    def _drop(self) -> None:
        """Forget what is too old, and the oldest where there is too much."""
        now_s = self._clock_s()
        while self._known:
            name = next(iter(self._known))
            if self._known[name][1] > now_s and len(self._known) <= COUNTERS_MAX:
                return
            del self._known[name]
