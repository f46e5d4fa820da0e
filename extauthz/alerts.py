"""Who is told that a budget comes to its end: operators by an alert, callers by a header of their answers.

Both go by surveys, so neither costs a request a question to the store. Of many replicas that see the same, one tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter, Standing
from extauthz.domain.thresholds import PERCENT, Alert, Threshold, ThresholdKind, crossed, spent_percent
from extauthz.ledger.base import Ledger
from extauthz.ledger.pieces import paced
from extauthz.survey import Survey, SurveyedBudget
from extauthz.telemetry.events import Telemetry

# A budget that never resets is told of again after a year, unless the same replica has seen it all the time.
ANNOUNCED_MS_MAX = 366 * 86_400_000

# Crossed thresholds that the store is asked about after one survey, the most used budgets first; the others wait for
# the next survey.
ANNOUNCED_AT_ONCE = 500

# Thresholds that were crossed, left behind, and may be crossed again.
RELAPSES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Crossing:
    """A threshold of one budget, with the limit in force, that what is spent has reached."""

    name: str
    threshold: Threshold


class Alerts:
    """Tells of each threshold once in a window of its budget.

    A percentage is another threshold as soon as the limit in force is another: it is told of again when that is
    crossed. So is any threshold once this replica has seen what is spent fall below it, which a reset does. Which
    replica tells is settled by announcing the threshold in the store: whoever is the first does. An alert is lost when
    that replica dies, or does not get the store's answer, just then; metrics show the budget all the same.
    """

    def __init__(
        self,
        ledger: Ledger,
        configuration: Callable[[], Snapshot],
        telemetry: Telemetry,
        send: Callable[[Alert], None],
    ) -> None:
        self._ledger = ledger
        self._configuration = configuration
        self._telemetry = telemetry
        self._send = send
        # What is crossed and was announced, by whomever, with the end of its window.
        self._known: dict[str, int | None] = {}
        self._relapses: dict[str, int] = {}  # how often what is spent fell below it

    async def consider(self, survey: Survey) -> None:
        """Tell of what was crossed since the last survey. Raises StoreUnavailableError; the rest is told later."""
        config = self._configuration()
        news: list[tuple[SurveyedBudget, tuple[_Crossing, ...]]] = []
        crossed_now: set[str] = set()
        async for piece in paced(survey.budgets):
            for surveyed in piece:
                crossings = _crossings(surveyed, config.settings)
                crossed_now.update(crossing.name for crossing in crossings)
                if any(crossing.name not in self._known for crossing in crossings):
                    news.append((surveyed, crossings))
        await self._forget(crossed_now, survey.taken_ms)
        asked = 0
        for surveyed, crossings in news:
            asked += len(crossings)
            if asked > ANNOUNCED_AT_ONCE:
                return
            await self._announce(surveyed.standing, crossings, survey.taken_ms, config)

    async def _announce(
        self, standing: Standing, crossings: tuple[_Crossing, ...], now_ms: int, config: Snapshot
    ) -> None:
        end_ms = standing.counter.window.end_ms
        ttl_ms = ANNOUNCED_MS_MAX if end_ms is None else max(1, min(end_ms - now_ms, ANNOUNCED_MS_MAX))
        # Who is told of 100 % need not be told of 80 % as well.
        highest = next((crossing.threshold for crossing in crossings if _is_percentage(crossing.threshold)), None)
        for crossing in crossings:
            if crossing.name in self._known:
                continue
            relapses = self._relapses.get(crossing.name, 0)
            first = await self._ledger.announce(f"{crossing.name}|{relapses}" if relapses else crossing.name, ttl_ms)
            self._known[crossing.name] = end_ms
            if first and (crossing.threshold == highest or not _is_percentage(crossing.threshold)):
                shown = config.directory.shown(standing.counter.scope)
                alert = Alert(crossing.threshold, standing, shown, config.settings.hide_amounts)
                self._telemetry.alerted(alert)
                self._send(alert)

    async def _forget(self, crossed_now: set[str], now_ms: int) -> None:
        """Note what is not crossed any more, though its window goes on."""
        async for piece in paced([*self._known]):
            for name in piece:
                if name in crossed_now:
                    continue
                end_ms = self._known.pop(name)
                if end_ms is None or now_ms < end_ms:
                    self._relapses[name] = self._relapses.pop(name, 0) + 1
        while len(self._relapses) > RELAPSES_MAX:
            del self._relapses[next(iter(self._relapses))]


@dataclass(frozen=True, slots=True)
class _Warned:
    """What is said of a budget near its limit."""

    spent_percent: int
    name: str


class Warnings:
    """Knows the budgets that are near their limit, by the counters of their windows: a new window has a new one."""

    def __init__(self) -> None:
        self._by_counter: dict[str, _Warned] = {}

    async def learn(self, survey: Survey, config: Snapshot) -> None:
        """Go by another survey."""
        near_percent = config.settings.alerts.warning_percentage
        warned: dict[str, _Warned] = {}
        async for piece in paced(survey.budgets):
            if piece[0].standing.used_share * PERCENT < near_percent - 1:
                break  # they are in order, the most used first
            for surveyed in piece:
                standing = surveyed.standing
                counter = standing.counter
                percent = spent_percent(standing)
                if percent is not None and percent >= near_percent:
                    warned[counter.key] = _Warned(percent, f"{config.directory.shown(counter.scope)} {counter.label}")
        self._by_counter = warned

    def of(self, counters: Iterable[Counter], *, hide: bool) -> str | None:
        """Say which of the budgets is nearest to its limit, None when none is near; `hide` says no figure."""
        if not self._by_counter:
            return None
        found = [self._by_counter[counter.key] for counter in counters if counter.key in self._by_counter]
        if not found:
            return None
        nearest = max(found, key=lambda warned: warned.spent_percent)
        return f"{nearest.name} {'near its limit' if hide else f'{nearest.spent_percent}% used'}"


def _crossings(surveyed: SurveyedBudget, settings: Settings) -> tuple[_Crossing, ...]:
    standing = surveyed.standing
    thresholds = crossed(standing, surveyed.budget.soft_limit, settings.alerts.percentages)
    of_limit = f"{standing.counter.key}|{standing.limit}"
    return tuple(
        _Crossing(f"{of_limit if _is_percentage(threshold) else standing.counter.key}|{threshold}", threshold)
        for threshold in thresholds
    )


def _is_percentage(threshold: Threshold) -> bool:
    return threshold.kind is ThresholdKind.PERCENTAGE
