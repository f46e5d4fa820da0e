"""What a server's counts say about now: how many decisions a second, from one look to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb

HISTORY_MAX = 60

# What decisions are told apart by: route class, decision, reason.
Kind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Load:
    """Decisions: how many of each kind since the server's start, and how many a second since the look before.

    `history` has the sums of the latest looks, the newest last. `counted_s` is when this look was, by the console's own
    clock; `started_ms` names the process that counted.
    """

    counted_s: float
    started_ms: int
    counts: Mapping[Kind, int]
    rates: Mapping[Kind, float]
    history: tuple[float, ...] = ()

    @property
    def per_second(self) -> float | None:
        """All decisions a second; None at the first look."""
        return self.history[-1] if self.history else None


def next_load(status: pb.GetStatusResponse, counted_s: float, before: Load | None) -> Load:
    """Compare with the look before. A server that was started anew begins anew."""
    counts: dict[Kind, int] = {}
    for count in status.decisions:
        kind = (count.route_class, count.decision, count.reason)
        counts[kind] = counts.get(kind, 0) + count.count
    started_ms = status.started_at.ToMilliseconds()
    if before is None or before.started_ms != started_ms or counted_s <= before.counted_s:
        return Load(counted_s, started_ms, counts, {}, () if before is None else before.history)
    seconds = counted_s - before.counted_s
    rates = {kind: (count - before.counts.get(kind, 0)) / seconds for kind, count in counts.items()}
    return Load(counted_s, started_ms, counts, rates, (*before.history, sum(rates.values()))[-HISTORY_MAX:])
