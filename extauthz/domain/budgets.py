"""What a budget is attached to, and the counters that it is measured by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from urllib.parse import quote, unquote

from extauthz.domain.value import value
from extauthz.domain.windows import FOREVER, LIFETIME, Window, WindowRule

SCOPE_ID_BYTES_MAX = 256


class ScopeKind(StrEnum):
    """The kinds of scope, by the word that stands in keys, labels and messages."""

    GLOBAL = "global"
    ORGANIZATION = "org"
    TEAM = "team"
    MEMBER = "member"
    USER = "user"
    KEY = "key"
    END_USER = "end_user"
    PROJECT = "project"
    TAG = "tag"
    ANONYMOUS = "anonymous"


# How many ids a scope has; those of the other kinds have one.
_ID_COUNTS = {ScopeKind.GLOBAL: 0, ScopeKind.ANONYMOUS: 0, ScopeKind.MEMBER: 2}


@dataclass(frozen=True, slots=True)
class Scope:
    """One payer: `global`, `org:acme`, `team:research`, `member:research/ana`, `user:ana`, `key:<sha256>`.

    `ids` is empty for `global` and `anonymous`, (team, user) for a member, and one id otherwise. Raises ValueError when
    an id is longer than SCOPE_ID_BYTES_MAX.
    """

    kind: ScopeKind
    ids: tuple[str, ...] = ()
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if any(len(part.encode()) > SCOPE_ID_BYTES_MAX for part in self.ids):
            raise ValueError(f"an id of a {self.kind} is longer than {SCOPE_ID_BYTES_MAX} bytes")
        encoded = "/".join(quote(part, safe="") for part in self.ids)
        object.__setattr__(self, "text", f"{self.kind}:{encoded}" if self.ids else str(self.kind))

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read a scope's text back. Raises ValueError when it is none."""
        word, colon, encoded = text.partition(":")
        kind = ScopeKind(word)
        ids = tuple(unquote(part) for part in encoded.split("/")) if colon else ()
        if len(ids) != _ID_COUNTS.get(kind, 1):
            raise ValueError(f"{text!r} is not a scope")
        return cls(kind, ids)


class Measure(StrEnum):
    """What a budget limits. Amounts are whole numbers of its unit: nano-USD, tokens (input and output), requests."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


class FilterKind(StrEnum):
    """By what of a request a budget can pick those that it is for."""

    MODEL = "model"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Filter:
    """The requests of a scope that a budget is for: those to one entry of the model list, or to one provider."""

    kind: FilterKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}={quote(self.name, safe='')}"

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read a filter's text back. Raises ValueError when it is none."""
        kind, _, name = text.partition("=")
        return cls(FilterKind(kind), unquote(name))


@value
class Spent:
    """What a request used, in every measure: it is booked on each of its counters in that counter's own."""

    cost_nanousd: int = 0
    tokens: int = 0
    requests: int = 0

    def of(self, measure: Measure) -> int:
        """Give the amount in one measure."""
        match measure:
            case Measure.USD:
                return self.cost_nanousd
            case Measure.TOKENS:
                return self.tokens
            case Measure.REQUESTS:
                return self.requests


NOTHING_SPENT = Spent()


@dataclass(frozen=True, slots=True)
class Increase:
    """So much more of a limit, until `until_ms` (Unix milliseconds): from that instant on it is the limit again."""

    amount: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one scope for one window, in its measure, for the requests that `only` picks (None: for all).

    `strict` makes the whole maximum of a request fit, not only a part of it. At `soft_limit` somebody is told, and
    nothing is refused. With `rollover`, what was spent beyond the limit of one window is spent in the next one.
    """

    limit: int
    rule: WindowRule
    strict: bool = False
    soft_limit: int | None = None
    increase: Increase | None = None
    measure: Measure = Measure.USD
    only: Filter | None = None
    rollover: bool = False

    def at(self, now_ms: int) -> Budget:
        """Give the budget as it is at an instant: an increase that has not ended is part of its limit."""
        if self.increase is None:
            return self
        amount = self.increase.amount if now_ms < self.increase.until_ms else 0
        return replace(self, limit=self.limit + amount, increase=None)

    def counter(self, scope: Scope, window: Window) -> Counter:
        """Give what it is measured by on a scope, in one of its windows."""
        earlier = self.rule.before(window) if self.rollover else None
        if earlier is None:
            return Counter(scope, window, self.measure, self.only)
        limit = self.at(window.start_ms - 1).limit
        before = Before(Counter(scope, earlier, self.measure, self.only), limit)
        return Counter(scope, window, self.measure, self.only, before)

    @property
    def label(self) -> str:
        """Its name among the budgets of its scope, which is that of its counters."""
        window = LIFETIME if self.rule.duration is None else str(self.rule.duration)
        return _label(window, self.measure, self.only)


_Current = tuple[int, float, tuple[tuple["Counter", Budget | None], ...]]


@dataclass(frozen=True, slots=True)
class ScopeBudgets:
    """A scope of a principal with its budgets. Spend is counted on it even when it has none, or when none binds.

    `binds` is False where a budget only counts: a user's own on the keys of teams, every budget for an admin.
    """

    scope: Scope
    budgets: tuple[Budget, ...] = ()
    binds: bool = True
    # Requests ask for the same ones until a window ends: from when, until when, and which.
    _last: _Current = field(default=(0, 0, ()), init=False, repr=False, compare=False)

    def counters(self, now_ms: int) -> tuple[tuple[Counter, Budget | None], ...]:
        """List its counters at an instant, each with its budget.

        What is spent is always counted there: from the beginning, where no budget in USD is for all requests.
        """
        since_ms, until_ms, current = self._last
        if not since_ms <= now_ms < until_ms:
            current = self._counters(now_ms)
            windows = [counter.window for counter, _ in current]
            since_ms = max(window.start_ms for window in windows)
            until_ms = min((window.end_ms for window in windows if window.end_ms is not None), default=inf)
            object.__setattr__(self, "_last", (since_ms, until_ms, current))
        return current

    def _counters(self, now_ms: int) -> tuple[tuple[Counter, Budget | None], ...]:
        counters = tuple((budget.counter(self.scope, budget.rule.at(now_ms)), budget) for budget in self.budgets)
        if any(budget.measure is Measure.USD and budget.only is None for budget in self.budgets):
            return counters
        return (*counters, (Counter(self.scope, FOREVER), None))


@dataclass(frozen=True, slots=True)
class Counter:
    """Where spent and held of one scope are counted during one window, in one measure.

    `label` names the budget among those of its scope: its window, and what sets it apart from one in USD for all
    requests: `1mo`, `1d/tokens`, `1d/model=gpt-4o`, `lifetime/requests/provider=openai`.

    `key` is its name in every store: a new window is a new key, which is how a budget resets. It says all that there is
    to say, `team:research|1mo|<start ms>|<end ms>` or `team:research|lifetime/tokens`, and has no blank in it.

    `before` is the counter that it takes over the overspend of, where its budget says so. It is the same counter
    with and without.
    """

    scope: Scope
    window: Window
    measure: Measure = Measure.USD
    only: Filter | None = None
    before: Before | None = field(default=None, repr=False, compare=False)
    label: str = field(init=False, repr=False, compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        window = self.window
        object.__setattr__(self, "label", _label(window.name, self.measure, self.only))
        bounds = "" if window.end_ms is None else f"|{window.start_ms}|{window.end_ms}"
        object.__setattr__(self, "key", f"{self.scope.text}|{self.label}{bounds}")

    def __hash__(self) -> int:
        return hash(self.key)

    @classmethod
    def parse(cls, key: str) -> Counter:
        """Read a counter's key back. Raises ValueError when it is none."""
        match key.split("|"):
            case [scope, label, start_ms, end_ms]:
                name, measure, only = parse_label(label)
                window = Window(name, int(start_ms), int(end_ms))
            case [scope, label]:
                name, measure, only = parse_label(label)
                window = Window(name, 0, None)
            case _:
                raise ValueError(f"{key!r} is not the key of a counter")
        if (window.end_ms is None) != (name == LIFETIME):
            raise ValueError(f"{key!r} is not the key of a counter")
        counter = cls(Scope.parse(scope), window, measure, only)
        if counter.key != key:
            raise ValueError(f"{key!r} is not how the key of a counter is spelled, but another one in a store")
        return counter


@dataclass(frozen=True, slots=True)
class Before:
    """The counter of the window before, and the limit beyond which its spend is carried into the next."""

    counter: Counter
    limit: int


def _label(window: str, measure: Measure, only: Filter | None) -> str:
    label = window if measure is Measure.USD else f"{window}/{measure}"
    return label if only is None else f"{label}/{only}"


def parse_label(label: str) -> tuple[str, Measure, Filter | None]:
    """Read the name of a window, a measure and a filter. Raises ValueError when they are none."""
    window, *rest = label.split("/")
    measure = Measure(rest.pop(0)) if rest and "=" not in rest[0] else Measure.USD
    only = Filter.parse(rest.pop(0)) if rest else None
    if rest:
        raise ValueError(f"{label!r} is not the label of a budget")
    return window, measure, only


@value
class Standing:
    """A limited counter as it stands now; amounts are in its measure."""

    counter: Counter
    limit: int
    spent: int
    held: int

    @property
    def available(self) -> int:
        """What a new reservation may still take; below 0 when more was spent than the limit."""
        return self.limit - self.spent - self.held

    @property
    def exhausted(self) -> bool:
        """Whether the money is spent, as opposed to merely held. A limit of 0 is exhausted at once."""
        return self.spent >= self.limit

    @property
    def used_share(self) -> float:
        """How much of the limit is spent or held, 1 for all of it.

        Of a limit of 0, which is meant to let nothing through, nothing is used until there is something on it.
        """
        used_nanousd = self.spent + self.held
        if used_nanousd <= 0:
            return 0.0
        return used_nanousd / self.limit if self.limit > 0 else 1.0
