"""What is measured: samples of single runs, and the ratios of pairs of them.

Runs of the subjects take turns, so that what slows the machine down for a while slows all of them. Each pair gives one
ratio; what counts is their median, and how far they lie apart tells what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

US = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One run.

    Latencies are in milliseconds, those until the first byte too; `cpu_us` is what each process took for one request,
    in microseconds.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float = 0.0
    first_p99_ms: float = 0.0
    cpu_us: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """How many requests were answered in a second."""
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """Which share of a core those processes had."""
        return self.total_cpu_us * self.rate / US

    @property
    def total_cpu_us(self) -> float:
        """What all processes that are measured took for one request, in microseconds."""
        return sum(self.cpu_us.values())


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio is to be: at least, or at most, so much."""

    bound: float
    at_least: bool

    def met(self, ratio: float) -> bool:
        """Tell whether a ratio is there."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """Ask for more of what is good."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Ask for less of what is dear."""
    return Target(bound, at_least=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity of two subjects, pair by pair."""

    name: str
    unit: str
    subject: str
    peer: str
    values: tuple[float, ...]
    peer_values: tuple[float, ...]
    target: Target | None = None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Subject by peer, one of each pair; a peer of 0 has none."""
        pairs = zip(self.values, self.peer_values, strict=True)
        return tuple(value / peer for value, peer in pairs if peer > 0)

    @property
    def ratio(self) -> float | None:
        """The median."""
        return median(self.ratios) if self.ratios else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest."""
        return (min(self.ratios), max(self.ratios)) if self.ratios else None

    @property
    def verdict(self) -> str:
        """Whether the median is where it shall be; empty where nothing is asked for."""
        if self.target is None or self.ratio is None:
            return ""
        return "met" if self.target.met(self.ratio) else "missed"


@dataclass(frozen=True, slots=True)
class Results:
    """What a part found: figures, plain measurements beside them, and what it had to leave out."""

    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


class Runs:
    """The samples of a load, by subject, in the order of the rounds."""

    def __init__(self, name: str, samples: Mapping[str, Sequence[Sample]]) -> None:
        self.name = name
        self._samples = samples

    def figure(
        self,
        what: str,
        unit: str,
        of: Callable[[Sample], float],
        subject: str,
        peer: str,
        target: Target | None = None,
    ) -> Figure:
        """Compare a quantity of two subjects."""
        return Figure(
            f"{self.name}: {what}", unit, subject, peer, self.values(subject, of), self.values(peer, of), target
        )

    def values(self, subject: str, of: Callable[[Sample], float]) -> tuple[float, ...]:
        """Give a quantity of one subject, a value for each round."""
        return tuple(of(sample) for sample in self._samples[subject])

    def added(self, subject: str, base: str, of: Callable[[Sample], float]) -> tuple[float, ...]:
        """Give what a subject has more than another one, round by round; less than nothing is noise, and nothing."""
        pairs = zip(self.values(subject, of), self.values(base, of), strict=True)
        return tuple(max(0.0, value - base_value) for value, base_value in pairs)
