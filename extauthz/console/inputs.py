"""What the commands were given, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extauthz.domain.verdict import Word


@dataclass(frozen=True, slots=True)
class Amendment:
    """Which budget is changed, and what the journal is told. `window` is empty where the scope has one budget.

    A change that is sent twice under one `id` is made once.
    """

    scope: str
    window: str
    who: str
    id: str


@dataclass(frozen=True, slots=True)
class ReservationFilter:
    """Which open reservations are wanted; what is empty or 0 does not matter."""

    scope: str
    model: str
    age_seconds_min: float


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Which decisions are wanted; what is empty does not matter. `sample` is the share of them that is shown."""

    decisions: tuple[str, ...]
    reasons: tuple[str, ...]
    scope: str
    model: str
    sample: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key, or what stands for one. All are empty for nobody."""

    key: str = field(default="", repr=False)
    key_sha256: str = ""
    key_alias: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A request in short. `model` makes a body where none is given; `context` is what Envoy's route says."""

    caller: Caller
    method: str
    path: str
    model: str
    body: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a Check should be answered; any status will do where none is named."""

    word: Word
    status: int | None = None

    def __str__(self) -> str:
        return str(self.word) if self.status is None else f"{self.word} {self.status}"


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys are wanted, and how many at most; what is empty does not matter."""

    team: str
    user: str
    organization: str
    project: str
    limit: int


@dataclass(frozen=True, slots=True)
class Signature:
    """Who changes something, and what this change is called: sent twice, it is made once."""

    who: str
    change_id: str
