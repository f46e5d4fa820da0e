"""The budgets as operators see and change them: in pages, one by one, and by hand.

What cannot be done is told in a sentence that says what to do instead.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from urllib.parse import quote

from extauthz.config.explain import did_you_mean
from extauthz.config.snapshot import Snapshot
from extauthz.directories.lookup import Lookup
from extauthz.domain.budgets import Budget, Measure, Scope, Standing, parse_label
from extauthz.domain.directory import Directory
from extauthz.domain.measures import UNITS, measured
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.windows import LIFETIME, Window, WindowRule, parse_duration
from extauthz.errors import AbsentError, DirectoryUnavailableError, ImpossibleError, UnclearError
from extauthz.ledger.base import Amendment, AmendmentKind, Ledger
from extauthz.ledger.pieces import PIECE, chunks, first, paced
from extauthz.survey import Survey, SurveyedBudget
from extauthz.telemetry.events import Telemetry

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000

# Budgets that one page looks at to find those that are used as much as was asked, and how many at once.
EXAMINED_MAX = 5000
EXAMINED_AT_ONCE = 500

# How long an operator waits for the directory.
LOOKUP_S = 3.0

WHO_BYTES_MAX = 64
SCOPE_CHARS_SHOWN = 64
SCOPE_KINDS = (
    "global, anonymous, org:ID, team:ID, member:TEAM/USER, user:ID, project:ID, key:SHA256, tag:NAME or end_user:ID"
)
_CHANGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# The store remembers changes beside reservations, and neither may pass for the other.
_CHANGE = "change:"

# Where a budget stands in the list: the text of its scope, and its label.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BudgetQuery:
    """Which budgets are asked for, and how many at most.

    Their scopes begin with `prefix`, they come behind the place `after`, and of their limits at least `used_share_min`
    is spent or held.
    """

    prefix: str = ""
    count_max: int = PAGE_SIZE
    after: Place | None = None
    used_share_min: float = 0.0


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """Budgets in the order of their places, and the place to go on behind, None at the end of the list."""

    budgets: tuple[SurveyedBudget, ...]
    end: Place | None


@dataclass(frozen=True, slots=True)
class Amount:
    """How much somebody said, in nano-USD (`in_usd`) or in the unit of a budget in tokens or requests."""

    value: int
    in_usd: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A change that somebody wants: of which kind, on which scope and budget (empty: its only one), and by how much.

    `id` names it, so that one that is sent twice is made once.
    """

    kind: AmendmentKind
    scope: str
    window: str
    amount: Amount | None
    who: str
    id: str


@dataclass(frozen=True, slots=True)
class _Row:
    scope: Scope
    budget: Budget

    @property
    def place(self) -> Place:
        return self.scope.text, self.budget.label


@dataclass(frozen=True, slots=True)
class _Listing:
    """All budgets in the order of their places, of one configuration and one survey."""

    directory: Directory
    survey: Survey
    strangers: frozenset[_Row]
    places: Sequence[Place]
    rows: Sequence[_Row]

    def slice(self, prefix: str, after: Place | None) -> tuple[int, int]:
        """Tell from where to where scopes begin with `prefix`, behind a place."""
        start = bisect_left(self.places, (prefix, ""))
        end = bisect_left(self.places, (prefix + "\U0010ffff", "")) if prefix else len(self.places)
        return (start if after is None else max(start, bisect_right(self.places, after))), end


class Treasury:
    """Shows and changes budgets. `survey` gives the last one: it knows the end users that have spent."""

    def __init__(
        self,
        ledger: Ledger,
        configuration: Callable[[], Snapshot],
        survey: Callable[[], Survey],
        telemetry: Telemetry,
        lookup: Lookup | None = None,
    ) -> None:
        self._ledger = ledger
        self._lookup = lookup
        self._configuration = configuration
        self._survey = survey
        self._telemetry = telemetry
        self._listing: _Listing | None = None
        self._sorting = asyncio.Lock()

    async def prepare(self) -> None:
        """Put the budgets in order before anybody asks: the first to ask would wait for that."""
        await self._listed()

    async def page(self, query: BudgetQuery) -> BudgetPage:
        """List budgets. A page may have fewer than were asked for, and the list go on all the same."""
        listing = await self._listed()
        start, end = listing.slice(_as_written(query.prefix), query.after)
        found: list[SurveyedBudget] = []
        place: Place | None = None
        last = min(end, start + (EXAMINED_MAX if query.used_share_min > 0 else query.count_max))
        for rows in chunks(listing.rows[start:last], max(query.count_max, EXAMINED_AT_ONCE)):
            for row, surveyed in zip(rows, await self._stand(rows), strict=True):
                if len(found) == query.count_max:
                    return BudgetPage(tuple(found), place)
                if query.used_share_min <= 0 or surveyed.standing.used_share >= query.used_share_min:
                    found.append(surveyed)
                place = row.place
        return BudgetPage(tuple(found), place if last < end else None)

    async def budgets_of(self, scope_text: str) -> tuple[SurveyedBudget, ...]:
        """Show the budgets of one scope. Raises UnclearError, and AbsentError when it has none."""
        return await self._stand(await self._rows_of(scope_text))

    async def change(self, wanted: Change) -> tuple[SurveyedBudget, bool]:
        """Change a budget, and give it as it stands then, and whether this changed it.

        Raises UnclearError, AbsentError and ImpossibleError, with nothing changed.
        """
        if len(wanted.who.encode()) > WHO_BYTES_MAX:
            raise UnclearError(f"`who` is longer than {WHO_BYTES_MAX} bytes: send a shorter name")
        if not wanted.who.isprintable():  # a terminal that shows the log would obey it
            raise UnclearError("`who` has characters that cannot be shown: send a name")
        if not _CHANGE_ID.fullmatch(wanted.id):
            raise UnclearError("`change_id` may have up to 64 letters, digits and . _ : -; or leave it out")
        row = _chosen(await self._rows_of(wanted.scope), wanted)
        amount = _amount(row, wanted)
        (before,) = await self._stand([row])
        if wanted.kind is AmendmentKind.GRANT:
            _check_room(before.standing, amount or 0)
        counter = before.standing.counter
        amendment = Amendment(_CHANGE + wanted.id, wanted.kind, counter, amount, wanted.who)
        changed = await self._ledger.amend(amendment)
        if changed:
            self._telemetry.changed_by_hand(wanted.kind, counter.key, wanted.who, amount, counter.measure)
        (after,) = await self._stand([row])
        return after, changed

    async def _rows_of(self, scope_text: str) -> list[_Row]:
        try:
            scope = Scope.parse(scope_text)
        except ValueError:
            raise UnclearError(f"{scope_text[:SCOPE_CHARS_SHOWN]!r} is not a scope: write {SCOPE_KINDS}") from None
        directory = self._configuration().directory
        await self._look_up(directory.asked((scope,)))
        counted_on = directory.counted_on(scope)
        rows = [_Row(counted_on, budget) for budget in directory.budgets_on(scope)]
        if not rows:
            listing = await self._listed()
            start, end = listing.slice(f"{scope.kind}:" if scope.ids else str(scope.kind), None)
            alike = (text for text, _ in listing.places[start:end])
            # Names of many are compared, and that takes its time.
            hint = await asyncio.to_thread(did_you_mean, scope.text, [*dict.fromkeys(alike)])
            raise AbsentError(f"{scope} has no budget in the configuration; of its kind, {hint}")
        return rows

    async def _look_up(self, scopes: Sequence[Scope]) -> None:
        """Have the directory asked for payers that are not in files."""
        if self._lookup is not None and scopes:
            try:
                await self._lookup.load(scopes, self._lookup.until(LOOKUP_S))
            except DirectoryUnavailableError:
                raise ImpossibleError("the directory does not answer: ask again when it does") from None

    async def _stand(self, rows: Sequence[_Row]) -> tuple[SurveyedBudget, ...]:
        now_ms = self._ledger.now_ms()

        @cache  # many budgets have the same windows
        def window_of(rule: WindowRule) -> Window:
            return rule.at(now_ms)

        budgets = [row.budget.at(now_ms) for row in rows]
        limits = [
            (row.budget.counter(row.scope, window_of(budget.rule)), budget.limit)
            for row, budget in zip(rows, budgets, strict=True)
        ]
        return tuple(map(SurveyedBudget, await self._ledger.standings(limits), budgets))

    async def _listed(self) -> _Listing:
        """Give all budgets in order, sorted once for each configuration and for the end users that surveys meet."""
        async with self._sorting:
            return await self._sorted()

    async def _sorted(self) -> _Listing:
        directory, survey = self._configuration().directory, self._survey()
        listing = self._listing
        if listing is not None and listing.directory is directory and listing.survey is survey:
            return listing
        strangers = await _unlisted(survey, directory)
        if listing is not None and listing.directory is directory and listing.strangers == strangers:
            self._listing = replace(listing, survey=survey)
            return self._listing
        listed = (row for scope in directory.budgeted() for row in _rows(scope, directory))
        every = chain(listed, strangers)
        rows: list[tuple[Place, _Row]] = []
        while piece := [*islice(every, PIECE)]:
            rows += ((row.place, row) for row in piece)
            await asyncio.sleep(0)
        rows = await first(rows, len(rows), key=_place)
        self._listing = _Listing(directory, survey, strangers, [place for place, _ in rows], [row for _, row in rows])
        return self._listing


async def _unlisted(survey: Survey, directory: Directory) -> frozenset[_Row]:
    """Find the budgets of payers that a survey met and that do not stand in the configuration."""
    scopes: set[Scope] = set()
    async for piece in paced(survey.budgets):
        scopes.update(surveyed.standing.counter.scope for surveyed in piece)
    rows: set[_Row] = set()
    async for some in paced([*scopes]):
        rows.update(row for scope in some if not directory.is_listed(scope) for row in _rows(scope, directory))
    return frozenset(rows)


def _rows(scope: Scope, directory: Directory) -> Iterator[_Row]:
    return (_Row(scope, budget) for budget in directory.budgets_on(scope))


def _place(row: tuple[Place, _Row]) -> Place:
    return row[0]


def _as_written(prefix: str) -> str:
    """Write the beginning of a scope as scopes are written; what is encoded already stays."""
    kind, colon, ids = prefix.partition(":")
    return f"{kind}{colon}{quote(ids, safe='/%')}"


def _chosen(rows: Sequence[_Row], wanted: Change) -> _Row:
    """Choose the budget with the label that is meant."""
    labels = [row.budget.label for row in rows]
    if not wanted.window:
        if len(rows) > 1:
            raise UnclearError(f"{wanted.scope} has several budgets: name the `window` of one, {' or '.join(labels)}")
        return rows[0]
    label = _as_labelled(wanted.window)
    if label not in labels:
        raise ImpossibleError(
            f"{wanted.scope} has no budget with the window {label}, but with {' and '.join(labels)}: name one of them, "
            "or write a budget with this window into the configuration"
        )
    return rows[labels.index(label)]


def _as_labelled(text: str) -> str:
    """Write the label of a budget as it is written in lists. Raises UnclearError for what is none."""
    window, slash, rest = text.partition("/")
    try:
        if window != LIFETIME:
            window = str(parse_duration(window))
        if slash:
            parse_label(f"{window}/{rest}")
    except ValueError as error:
        raise UnclearError(f"`window`: {error}, or {LIFETIME}; behind it the rest as lists show it") from None
    return f"{window}{slash}{rest}"


def _amount(row: _Row, wanted: Change) -> int | None:
    """Give the amount of a change in the measure of its budget. Raises UnclearError where it is in another one."""
    measure = row.budget.measure
    if wanted.amount is not None and wanted.amount.in_usd != (measure is Measure.USD):
        field = "limit" if wanted.kind is AmendmentKind.LIMIT else "amount"
        name = f"{field}_usd" if measure is Measure.USD else field
        raise UnclearError(f"the budget {row.budget.label} of {wanted.scope} is in {UNITS[measure]}: send `{name}`")
    return None if wanted.amount is None else wanted.amount.value


def _check_room(standing: Standing, amount: int) -> None:
    if amount > AMOUNT_NANOUSD_MAX - standing.limit:
        most = measured(AMOUNT_NANOUSD_MAX, standing.counter.measure)
        raise UnclearError(f"the limit would be above {most}, the most that a budget holds")
