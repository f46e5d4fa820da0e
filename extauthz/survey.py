"""How all budgets stand, looked at every few seconds: what metrics, alerts, warnings and lists of budgets go by.

No request waits for a survey, and no survey holds up a request: it is taken in slices, and the more budgets there are,
the rarer it becomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Budget, Counter, Measure, Scope, ScopeKind, Standing
from extauthz.domain.directory import Directory
from extauthz.domain.windows import Window, WindowRule
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ledger
from extauthz.ledger.pieces import chunks, first, paced

# From the end of one survey to the beginning of the next, in seconds, and the most of all time that surveys may take:
# where there are very many budgets, the store has other things to do.
INTERVAL_S = 5.0
TIME_SHARE_MAX = 0.05

# Payers whose budgets are listed at once: each may be one of a directory, whose record is made when it is asked for.
LISTED_AT_ONCE = 50

# Budgets in one survey, those of the widest scopes first, and counters that are looked through for end users' spending,
# the most spent first. What is left out is counted.
BUDGETS_MAX = 100_000
BALANCES_MAX = 100_000

# Budgets that the store is asked about at once.
ASKED_AT_ONCE = 500

# Up to so many budgets and counters, who asks for a survey gets a new one, if it comes within so many seconds.
FRESH_MAX = 1000
FRESH_WAIT_S = 2.0

MILLIONTHS = 1_000_000

FOREVER = WindowRule()


@dataclass(frozen=True, slots=True)
class SurveyedBudget:
    """How a budget stands, beside what the configuration says of it for that time."""

    standing: Standing
    budget: Budget


@dataclass(frozen=True, slots=True)
class Totals:
    """Budgets in USD added up, in nano-USD. A request that several budgets count is in it several times."""

    limit: int = 0
    spent: int = 0
    held: int = 0

    @classmethod
    def of(cls, budgets: Sequence[SurveyedBudget]) -> Totals:
        """Add up budgets, leaving out those in tokens and requests."""
        standings = [each.standing for each in budgets if each.standing.counter.measure is Measure.USD]
        return cls(
            sum(standing.limit for standing in standings),
            sum(standing.spent for standing in standings),
            sum(standing.held for standing in standings),
        )

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.limit + other.limit,
            self.spent + other.spent,
            self.held + other.held,
        )

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.limit - other.limit,
            self.spent - other.spent,
            self.held - other.held,
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """How everything stood at `taken_ms`, the store's time; 0 before the first survey.

    `budgets` are those of the configuration, those that a directory told of lately, and those of unlisted payers that
    have spent, the most used share of the
    limit first (spent or held); `totals` are those in USD together, and `left_out` is how many there was no room for.
    `held` is what all open reservations hold, each counted once: on the scope `global`, which every request is
    counted on, in its longest window and the one before. A reservation that is older than that, or was made when the
    global budgets were others, can be missing.
    """

    taken_ms: int = 0
    budgets: tuple[SurveyedBudget, ...] = ()
    totals: Totals = Totals()
    left_out: int = 0
    reservations_open: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """The budgets that a directory names, as far as there is room, and how many more it has."""

    directory: Directory
    budgets: tuple[tuple[Scope, Budget], ...]
    left_out: int


class _Windows:
    """The windows of one moment, each computed once."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self._by_rule: dict[WindowRule, Window] = {}

    def of(self, rule: WindowRule) -> Window:
        window = self._by_rule.get(rule)
        if window is None:
            window = self._by_rule[rule] = rule.at(self.now_ms)
        return window


class Surveyor:
    """Takes surveys. The books are read anew for each; where the store does not answer, the last one stays."""

    def __init__(
        self,
        ledger: Ledger,
        configuration: Callable[[], Snapshot],
        clock_s: Callable[[], float],
        *,
        budgets_max: int = BUDGETS_MAX,
        fresh_max: int = FRESH_MAX,
    ) -> None:
        self._ledger = ledger
        self._configuration = configuration
        self._clock_s = clock_s
        self._budgets_max = budgets_max
        self._fresh_max = fresh_max
        self._latest = Survey()
        self._known: _Known | None = None
        self._by_counter: dict[str, SurveyedBudget] = {}
        self._turn = asyncio.Lock()
        self._begun = 0
        self._looked_at = 0
        self._pause_s = 0.0

    @property
    def latest(self) -> Survey:
        """The last survey that was taken."""
        return self._latest

    async def survey(self) -> Survey:
        """Take a survey. Raises StoreUnavailableError; the last one stays then."""
        async with self._turn:
            return await self._take()

    async def next(self) -> Survey:
        """Wait until the next survey is due, and take it: the first at once. Raises StoreUnavailableError."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = INTERVAL_S
        started_s = self._clock_s()
        survey = await self.survey()
        self._pause_s = max(INTERVAL_S, (self._clock_s() - started_s) / TIME_SHARE_MAX)
        return survey

    async def fresh(self) -> Survey:
        """Give a survey that began after this call, where one costs little and comes in time; else the last one.

        All who ask while one is under way share the one after it.
        """
        asked = self._begun
        if self._looked_at <= self._fresh_max:
            with suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(FRESH_WAIT_S), self._turn:
                    if self._begun == asked and self._looked_at <= self._fresh_max:
                        await self._take()
        return self._latest

    async def _take(self) -> Survey:
        self._begun += 1
        directory = self._configuration().directory
        now_ms = self._ledger.now_ms()
        windows = _Windows(now_ms)
        # First of all: what has ended by then is in everything that is read afterwards.
        reservations_open = await self._ledger.open_count()
        held = await self._held(directory, windows)

        known = await self._budgets_of(directory)
        room = self._budgets_max - len(known.budgets)
        elsewhere, unheard = await _listed(directory, directory.budgeted_elsewhere(), room)
        strangers, examined, omitted = await self._strangers(directory, room - len(elsewhere))
        asked = (*known.budgets, *elsewhere, *strangers)
        self._looked_at = len(asked) + examined
        budgets = await self._standings(asked, windows)
        by_use = await first(budgets, len(budgets), key=_by_use)
        totals = Totals()
        async for piece in paced(by_use):
            totals += Totals.of(piece)
        self._latest = Survey(
            taken_ms=now_ms,
            budgets=tuple(by_use),
            totals=totals,
            left_out=known.left_out + unheard + omitted,
            reservations_open=reservations_open,
            held=held,
        )
        return self._latest

    async def _held(self, directory: Directory, windows: _Windows) -> int:
        """Add up what is held on the scope that counts every request, each request once."""
        everybody = Scope(ScopeKind.GLOBAL)
        counted = {FOREVER.at(0)}  # what no global budget limits is counted there, too
        budgets = directory.budgets_on(everybody)
        rules = [budget.rule for budget in budgets if budget.measure is Measure.USD and budget.only is None]
        if rules and FOREVER.at(0) not in map(windows.of, rules):
            longest = max(rules, key=lambda rule: _length_ms(windows.of(rule)))
            window = windows.of(longest)
            counted |= {window, longest.at(window.start_ms - 1)}
        standings = await self._ledger.standings([(Counter(everybody, window), 0) for window in counted])
        return sum(standing.held for standing in standings)

    async def _budgets_of(self, directory: Directory) -> _Known:
        """List the budgets of a configuration, once for each."""
        if self._known is not None and self._known.directory is directory:
            return self._known
        found, left_out = await _listed(directory, directory.budgeted(), self._budgets_max)
        self._known = _Known(directory, tuple(found), left_out)
        return self._known

    async def _strangers(self, directory: Directory, room: int) -> tuple[list[tuple[Scope, Budget]], int, int]:
        """Find payers that have spent and that the configuration does not name, but has budgets for.

        Gives their budgets, how many counters were looked at, and how many budgets there was no room for.
        """
        if not directory.takes_strangers:
            return [], 0, 0
        balances = await self._ledger.balances(BALANCES_MAX)
        scopes: dict[Scope, None] = {}
        async for piece in paced(balances):
            scopes.update(
                (balance.counter.scope, None) for balance in piece if directory.is_stranger(balance.counter.scope)
            )
        budgets = [(scope, budget) for scope in scopes for budget in directory.budgets_on(scope)]
        return budgets[:room], len(balances), max(0, len(budgets) - room)

    async def _standings(self, asked: tuple[tuple[Scope, Budget], ...], windows: _Windows) -> list[SurveyedBudget]:
        surveyed: list[SurveyedBudget] = []
        by_counter: dict[str, SurveyedBudget] = {}
        for piece in chunks(asked, ASKED_AT_ONCE):
            budgets = [budget.at(windows.now_ms) for _, budget in piece]
            limits = [
                (configured.counter(scope, windows.of(configured.rule)), budget.limit)
                for (scope, configured), budget in zip(piece, budgets, strict=True)
            ]
            standings = await self._ledger.standings(limits)
            for standing, budget in zip(standings, budgets, strict=True):
                found = self._as_before(SurveyedBudget(standing, budget))
                by_counter[standing.counter.key] = found
                surveyed.append(found)
            await asyncio.sleep(0)
        self._by_counter = by_counter
        return surveyed

    def _as_before(self, surveyed: SurveyedBudget) -> SurveyedBudget:
        """Give the value of the last survey where it is the same: then no garbage piles up of what never changes."""
        before = self._by_counter.get(surveyed.standing.counter.key)
        return before if before is not None and before == surveyed else surveyed


async def _listed(
    directory: Directory, scopes: Iterator[Scope | None], room: int
) -> tuple[list[tuple[Scope, Budget]], int]:
    """Give the budgets on some scopes, as far as there is room, and how many more there are."""
    found: list[tuple[Scope, Budget]] = []
    left_out = 0
    while piece := list(islice(scopes, LISTED_AT_ONCE)):
        budgets = [(scope, budget) for scope in piece if scope is not None for budget in directory.budgets_on(scope)]
        left_out += max(0, len(budgets) - (room - len(found)))
        found += budgets[: room - len(found)]
        await asyncio.sleep(0)
    return found, left_out


def _by_use(surveyed: SurveyedBudget) -> tuple[int | str, ...]:
    standing = surveyed.standing
    return -int(standing.used_share * MILLIONTHS), -standing.limit, standing.counter.key


def _length_ms(window: Window) -> int:
    return 0 if window.end_ms is None else window.end_ms - window.start_ms
