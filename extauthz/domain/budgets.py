"""What a budget is attached to, and the counters that it is measured by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote, unquote

from extauthz.domain.windows import LIFETIME, Window, WindowRule

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


@dataclass(frozen=True, slots=True)
class Increase:
    """So much more of a limit, until `until_ms` (Unix milliseconds): from that instant on it is the limit again."""

    amount_nanousd: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one scope for one window. `strict` makes the whole maximum of a request fit, not only a part of it.

    At `soft_limit_nanousd` somebody is told, and nothing is refused.
    """

    limit_nanousd: int
    rule: WindowRule
    strict: bool = False
    soft_limit_nanousd: int | None = None
    increase: Increase | None = None

    def at(self, now_ms: int) -> Budget:
        """Give the budget as it is at an instant: an increase that has not ended is part of its limit."""
        if self.increase is None:
            return self
        amount_nanousd = self.increase.amount_nanousd if now_ms < self.increase.until_ms else 0
        return replace(self, limit_nanousd=self.limit_nanousd + amount_nanousd, increase=None)


@dataclass(frozen=True, slots=True)
class ScopeBudgets:
    """A scope of a principal with its budgets. Spend is counted on it even when it has none, or when none binds.

    `binds` is False where a budget only counts: a user's own on the keys of teams, every budget for an admin.
    """

    scope: Scope
    budgets: tuple[Budget, ...] = ()
    binds: bool = True


@dataclass(frozen=True, slots=True)
class Counter:
    """Where spent and held of one scope are counted during one window.

    `key` is its name in every store: a new window is a new key, which is how a budget resets. It says all that there is
    to say, `team:research|1mo|<start ms>|<end ms>` or `team:research|lifetime`, and has no blank in it.
    """

    scope: Scope
    window: Window
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        window = self.window
        bounds = "" if window.end_ms is None else f"|{window.start_ms}|{window.end_ms}"
        object.__setattr__(self, "key", f"{self.scope.text}|{window.name}{bounds}")

    @classmethod
    def parse(cls, key: str) -> Counter:
        """Read a counter's key back. Raises ValueError when it is none."""
        match key.split("|"):
            case [scope, name, start_ms, end_ms] if name != LIFETIME:
                counter = cls(Scope.parse(scope), Window(name, int(start_ms), int(end_ms)))
            case [scope, name] if name == LIFETIME:
                counter = cls(Scope.parse(scope), Window(LIFETIME, 0, None))
            case _:
                raise ValueError(f"{key!r} is not the key of a counter")
        if counter.key != key:
            raise ValueError(f"{key!r} is not how the key of a counter is spelled, but another one in a store")
        return counter


@dataclass(frozen=True, slots=True)
class Standing:
    """A limited counter as it stands now."""

    counter: Counter
    limit_nanousd: int
    spent_nanousd: int
    held_nanousd: int

    @property
    def available_nanousd(self) -> int:
        """What a new reservation may still take; below 0 when more was spent than the limit."""
        return self.limit_nanousd - self.spent_nanousd - self.held_nanousd

    @property
    def exhausted(self) -> bool:
        """Whether the money is spent, as opposed to merely held. A limit of 0 is exhausted at once."""
        return self.spent_nanousd >= self.limit_nanousd

    @property
    def used_share(self) -> float:
        """How much of the limit is spent or held, 1 for all of it.

        Of a limit of 0, which is meant to let nothing through, nothing is used until there is something on it.
        """
        used_nanousd = self.spent_nanousd + self.held_nanousd
        if used_nanousd <= 0:
            return 0.0
        return used_nanousd / self.limit_nanousd if self.limit_nanousd > 0 else 1.0
