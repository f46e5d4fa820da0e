"""How long the last Checks and verbs took, for who looks at one replica."""

from __future__ import annotations

import pytest

from extauthz.domain.denials import internal_error
from extauthz.domain.routes import RouteClass
from extauthz.domain.verdict import Decision
from extauthz.telemetry.latencies import KEPT_MAX, Latencies, Latency

DECISION = Decision(internal_error(), RouteClass.INFERENCE)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param([], Latency(0, 0), id="none"),
        pytest.param([3.0], Latency(3, 3), id="one"),
        pytest.param([2.0, 1.0], Latency(2, 2), id="two"),
        pytest.param([float(n) for n in range(100)], Latency(50, 99), id="a hundred"),
    ],
)
def test_of(seconds: list[float], expected: Latency) -> None:
    """Half of them took at most the one, 99 of 100 at most the other, in whatever order they came."""
    assert expected == Latency.of(seconds)


def test_the_last_ones_are_kept() -> None:
    """Checks and verbs are kept apart, a bounded number of each, and lists that nobody waits for are left out."""
    latencies = Latencies()
    for _ in range(KEPT_MAX):
        latencies.decided(DECISION, None, 9.0)
    for _ in range(KEPT_MAX):
        latencies.decided(DECISION, None, 1.0)
    latencies.store_answered("reserve", 2.0)
    latencies.store_answered("audit", 60.0)

    assert Latency(1, 1) == latencies.check
    assert Latency(2, 2) == latencies.store
