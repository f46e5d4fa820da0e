"""How long the last Checks and the last verbs of the store took, for who looks at one replica."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Decision
from extauthz.telemetry.events import Telemetry

# Of the last of each: enough that one in a hundred is ten.
KEPT_MAX = 1000

# Verbs that a Check or an ending waits for; lists and audits take their time, and nobody waits.
TIMED_VERBS = frozenset({"reserve", "settle", "release", "renew", "expire", "amend"})


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that half of them took at most, and 99 of 100; 0 when there were none."""

    p50_s: float
    p99_s: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """Look at single durations."""
        ordered = sorted(seconds)
        return cls(_at(ordered, 0.5), _at(ordered, 0.99))


class Latencies(Telemetry):
    """Keeps the last KEPT_MAX durations of each kind."""

    def __init__(self) -> None:
        self._checks: deque[float] = deque(maxlen=KEPT_MAX)
        self._verbs: deque[float] = deque(maxlen=KEPT_MAX)

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:  # noqa: ARG002
        """Keep how long a Check took."""
        self._checks.append(seconds)

    def store_answered(self, verb: str, seconds: float) -> None:
        """Keep how long a verb took."""
        if verb in TIMED_VERBS:
            self._verbs.append(seconds)

    @property
    def check(self) -> Latency:
        """The last Checks."""
        return Latency.of(self._checks)

    @property
    def store(self) -> Latency:
        """The store's last verbs."""
        return Latency.of(self._verbs)


def _at(ordered: Sequence[float], share: float) -> float:
    """Give the value below which a share of all is, itself included (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
