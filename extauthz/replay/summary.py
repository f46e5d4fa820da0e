"""What a replay found, added up: how much of it there is room for is bounded, and what has no room is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.directory import Directory
from extauthz.domain.money import usd
from extauthz.replay.records import Decided
from extauthz.replay.replayer import Found, Outcome

# Scopes that refuse, and kinds of change, that are told apart.
REFUSALS_MAX = 10_000
CHANGES_MAX = 10_000

# How many of them are shown.
SHOWN_MAX = 20

NOT_SHOWN = (Outcome.SAME, Outcome.UNKNOWN)


@dataclass(slots=True)
class Refusing:
    """A scope that refuses: why, since when, how often, and how often where nothing was refused before."""

    scope: str
    reason: str
    from_ms: int
    count: int = 0
    newly: int = 0


@dataclass(slots=True)
class Change:
    """What changes for one principal and one model, in one way; costs are nano-USD, before and after."""

    outcome: Outcome
    reason: str
    principal: str
    model: str
    from_ms: int
    count: int = 0
    before_nanousd: int = 0
    after_nanousd: int = 0


@dataclass(slots=True)
class Summary:
    """All that was found.

    `unpriced` are costs that were taken over, because nobody knows the tokens behind them. `budgets_left_out` are those
    of which is known what had been spent, and which the configuration does not have.
    """

    directory: Directory
    budgets_left_out: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    whys: Counter[str] = field(default_factory=Counter)
    before_nanousd: int = 0
    after_nanousd: int = 0
    unpriced: int = 0
    from_ms: int | None = None
    until_ms: int | None = None
    not_told_apart: int = 0
    _refusing: dict[tuple[str, str], Refusing] = field(default_factory=dict)
    _changes: dict[tuple[Outcome, str, str, str], Change] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Take note of one finding."""
        self.outcomes[found.outcome] += 1
        if found.outcome is Outcome.UNKNOWN:
            self.whys[found.reason] += 1
        record = found.record
        if record is None:
            return
        self.from_ms = record.at_ms if self.from_ms is None else min(self.from_ms, record.at_ms)
        self.until_ms = record.at_ms if self.until_ms is None else max(self.until_ms, record.at_ms)
        self.before_nanousd += found.cost_before_nanousd
        self.after_nanousd += found.cost_after_nanousd
        self.unpriced += bool(record.exact and record.usage is None and record.cost_nanousd)
        if found.refused and found.scope is not None:
            self._refuse(found, record, found.scope)
        if found.outcome not in NOT_SHOWN:
            self._change(found, record)

    @property
    def records(self) -> int:
        """How many records there were."""
        return self.outcomes.total()

    @property
    def refusing(self) -> tuple[Refusing, ...]:
        """The scopes that refuse, those first that refuse most of what was let through before."""
        return tuple(sorted(self._refusing.values(), key=lambda each: (-each.newly, -each.count, each.scope)))

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes, those first that are about most requests."""
        return tuple(
            sorted(self._changes.values(), key=lambda each: (-each.count, each.from_ms, each.principal, each.model))
        )

    def document(self) -> dict[str, object]:
        """Give it as JSON's values."""
        return {
            "records": self.records,
            "from": _iso(self.from_ms),
            "until": _iso(self.until_ms),
            "outcomes": {outcome.replace(" ", "_"): self.outcomes[outcome] for outcome in Outcome},
            "cost_before_usd": float(usd(self.before_nanousd)),
            "cost_after_usd": float(usd(self.after_nanousd)),
            "costs_taken_over": self.unpriced,
            "budgets_left_out": self.budgets_left_out,
            "cannot_tell": dict(self.whys.most_common()),
            "refusing": [
                {
                    "scope": each.scope,
                    "reason": each.reason,
                    "from": _iso(each.from_ms),
                    "count": each.count,
                    "newly": each.newly,
                }
                for each in self.refusing[:SHOWN_MAX]
            ],
            "changes": [
                {
                    "outcome": each.outcome.replace(" ", "_"),
                    "reason": each.reason,
                    "principal": each.principal,
                    "model": each.model,
                    "from": _iso(each.from_ms),
                    "count": each.count,
                    "cost_before_usd": float(usd(each.before_nanousd)),
                    "cost_after_usd": float(usd(each.after_nanousd)),
                }
                for each in self.changes[:SHOWN_MAX]
            ],
            "not_shown": self.not_shown,
        }

    @property
    def not_shown(self) -> int:
        """How many scopes and changes there are beside those that are shown."""
        listed = (len(self._refusing), len(self._changes))
        return sum(max(0, count - SHOWN_MAX) for count in listed) + self.not_told_apart

    def _refuse(self, found: Found, record: Decided, scope: str) -> None:
        key = (scope, found.reason)
        if key not in self._refusing and len(self._refusing) >= REFUSALS_MAX:
            self.not_told_apart += 1
            return
        refusing = self._refusing.setdefault(key, Refusing(scope, found.reason, record.at_ms))
        refusing.count += 1
        refusing.newly += found.outcome is Outcome.DENIED

    def _change(self, found: Found, record: Decided) -> None:
        key = (found.outcome, found.reason, self._principal(record), record.model or "")
        if key not in self._changes and len(self._changes) >= CHANGES_MAX:
            self.not_told_apart += 1
            return
        change = self._changes.setdefault(key, Change(*key, from_ms=record.at_ms))
        change.count += 1
        change.before_nanousd += found.cost_before_nanousd
        change.after_nanousd += found.cost_after_nanousd

    def _principal(self, record: Decided) -> str:
        if record.principal or record.key_sha256 is None:
            return record.principal
        return self.directory.shown(Scope(ScopeKind.KEY, (record.key_sha256,)))


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
