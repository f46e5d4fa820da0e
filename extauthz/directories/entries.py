"""What was heard of payers, and when: in bounded segments, those used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from extauthz.config.payers import BudgetFields
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.payers import Record

# Payers who are not known, of whom clients can name any number.
ABSENT_MAX = 10_000

# What clients themselves name. Others are named by records, or by credentials that somebody vouches for.
NAMED_BY_CLIENTS = frozenset({ScopeKind.KEY, ScopeKind.END_USER, ScopeKind.TAG})
_OF_REQUESTS = frozenset({ScopeKind.END_USER, ScopeKind.TAG})

Make = Callable[[BudgetFields], Record]

# The field of a key that took the place of another, and the one that names it for people.
_SUCCEEDING, _ALIAS = "counts_as", "key_alias"

# One of them is written where anything is limited.
_LIMITING = frozenset(
    {"max_budget", "max_tokens", "max_requests", "budget_limits", "model_max_budget", "provider_max_budget"}
)

# The epoch of an entry of which the directory would not tell a change.
UNFOLLOWED = -1


@dataclass(frozen=True, slots=True)
class Said:
    """Fields of a payer without those that nobody wrote: a fourth of what pydantic's models take of memory."""

    kind: type[BudgetFields]
    values: tuple[tuple[str, object], ...]

    @classmethod
    def of(cls, fields: BudgetFields) -> Said:
        """Take fields apart."""
        kind, written = type(fields), fields.model_fields_set
        return cls(kind, tuple((name, getattr(fields, name)) for name in kind.model_fields if name in written))

    def fields(self) -> BudgetFields:
        """Put the fields together again."""
        construct: Callable[..., BudgetFields] = self.kind.model_construct
        return construct(**dict(self.values))

    @property
    def limited(self) -> bool:
        """Whether anything may be limited by what was written."""
        return any(name in _LIMITING for name, _ in self.values)

    @property
    def alias(self) -> object:
        """The alias of a key, None where there is none."""
        return self.value(_ALIAS)

    def value(self, name: str) -> object:
        """Give what was written in one field, None where nothing was."""
        return next((value for field, value in self.values if field == name), None)


@dataclass(slots=True)
class Entry:
    """What a directory says of a payer, None for one whom it does not know; as of `read_s`.

    In the `epoch` in which it was read the directory tells of changes. `record` is made of what was said when somebody
    asks for it, by `made_by`.
    """

    scope: Scope
    said: Said | None
    read_s: float
    epoch: int
    record: Record | None = None
    made_by: Make | None = None

    @property
    def foreign(self) -> bool:
        """Whether it is about somebody whom a client named and nobody knows."""
        return self.said is None and self.scope.kind in NAMED_BY_CLIENTS

    @property
    def succeeds(self) -> str | None:
        """The SHA-256 of the key whose place this one took, None where it took none."""
        sha256 = None if self.said is None else self.said.value(_SUCCEEDING)
        return sha256 if isinstance(sha256, str) else None


class Entries:
    """Entries by the texts of their scopes, in three segments, so that none pushes out what another holds.

    Whom records name is with the keys that are known. End users and tags that are known are apart, for one client may
    go through many; so are all those that clients name and nobody knows.
    """

    def __init__(self, entries_max: int) -> None:
        self._lasting: OrderedDict[str, Entry] = OrderedDict()
        self._of_requests: OrderedDict[str, Entry] = OrderedDict()
        self._foreign: OrderedDict[str, Entry] = OrderedDict()
        self._entries_max = entries_max
        self._successors: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._lasting) + len(self._of_requests) + len(self._foreign)

    def get(self, scope: Scope) -> Entry | None:
        """Give the entry of a payer."""
        text = scope.text
        return self._lasting.get(text) or self._of_requests.get(text) or self._foreign.get(text)

    def use(self, entry: Entry) -> None:
        """Note that an entry is in use."""
        segment, _ = self._segment(entry)
        segment.move_to_end(entry.scope.text)

    def put(self, entry: Entry) -> None:
        """Keep an entry in the place of the one before; the one that was used longest ago goes, if there is no room."""
        text = entry.scope.text
        self._drop(text)
        segment, entries_max = self._segment(entry)
        segment[text] = entry
        if entry.succeeds is not None:
            self._successors[entry.succeeds] = text
        while len(segment) > entries_max:
            self._drop(next(iter(segment)))

    def successor(self, key_sha256: str) -> Entry | None:
        """Give the entry of a key that took the place of another."""
        text = self._successors.get(key_sha256)
        return None if text is None else self._lasting.get(text)

    def known(self) -> Iterator[Entry]:
        """List those who are known now; entries may come and go meanwhile."""
        for segment in (self._lasting, self._of_requests):
            yield from (entry for entry in [*segment.values()] if entry.said is not None)

    def _segment(self, entry: Entry) -> tuple[OrderedDict[str, Entry], int]:
        if entry.foreign:
            return self._foreign, min(ABSENT_MAX, self._entries_max)
        return (self._of_requests if entry.scope.kind in _OF_REQUESTS else self._lasting), self._entries_max

    def _drop(self, text: str) -> None:
        for segment in (self._lasting, self._of_requests, self._foreign):
            dropped = segment.pop(text, None)
            succeeded = None if dropped is None else dropped.succeeds
            # Of a key that was rotated more than once there are several.
            if succeeded is not None and self._successors.get(succeeded) == text:
                del self._successors[succeeded]
