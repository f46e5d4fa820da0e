"""Files of payers for `extauthz payers import`: a configuration, or a list, of any length.

They are read event by event, so that a million keys take no more memory than a hundred. Of a configuration only payers
are read; what else it says is left alone. A list has keys, and what `payers export` writes: payers by their `scope`. A
key that stands there as itself is hashed here: it is not sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import yaml

from extauthz.config.litellm import OWN_SECTION
from extauthz.config.payers import hashed
from extauthz.config.source import Mistakes, plain, read_part, resolved
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import ConfigError

# In the order in which they are written: who is named comes before who names.
SECTIONS: Mapping[str, ScopeKind] = {
    "organizations": ScopeKind.ORGANIZATION,
    "tags": ScopeKind.TAG,
    "users": ScopeKind.USER,
    "teams": ScopeKind.TEAM,
    "projects": ScopeKind.PROJECT,
    "end_users": ScopeKind.END_USER,
}
KEYS, MEMBERS = "keys", "members"
ORDER = (*(kind for kind in SECTIONS.values() if kind is not ScopeKind.END_USER), ScopeKind.MEMBER, ScopeKind.END_USER)


@dataclass(frozen=True, slots=True)
class Written:
    """A payer in a file: the line where it begins, its scope and its fields."""

    line: int
    scope: Scope
    fields: Mapping[str, object]


class PayerFile:
    """Reads one file. Raises ConfigError for mistakes of its form; those of fields are the server's to tell."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._mistakes = Mistakes(path)

    def read(self, file: TextIO) -> Iterator[Written]:
        """Give all payers: those of every other kind before the keys, where these come last in the file."""
        events = iter(yaml.parse(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        try:
            yield from self._document(events)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or "it has a character that is not text"
            self._mistakes.add(1 if mark is None else mark.line + 1, f"this is not YAML: {problem}")
        self._check()

    def _check(self) -> None:
        if self._mistakes:
            raise ConfigError(self._mistakes.all())

    def _document(self, events: Iterator[yaml.Event]) -> Iterator[Written]:
        for event in events:
            match event:
                case yaml.SequenceStartEvent():
                    yield from self._keys(events)
                case yaml.MappingStartEvent():
                    waiting: list[Written] = []
                    yield from self._sections(events, waiting)
                    yield from _in_order(waiting)

    def _sections(self, events: Iterator[yaml.Event], waiting: list[Written]) -> Iterator[Written]:
        """Read a mapping with sections of payers; what comes before keys waits for its order."""
        for key, value in _pairs(events):
            if key == OWN_SECTION and isinstance(value, yaml.MappingStartEvent):
                yield from self._sections(events, waiting)
            elif key == KEYS and isinstance(value, yaml.SequenceStartEvent):
                yield from _in_order(waiting)
                waiting.clear()
                yield from self._keys(events)
            elif key in SECTIONS and isinstance(value, yaml.MappingStartEvent):
                waiting += self._payers(SECTIONS[key], events)
            else:
                _skip(value, events)

    def _payers(self, kind: ScopeKind, events: Iterator[yaml.Event]) -> Iterator[Written]:
        for name, value in _pairs(events):
            line = _line(value)
            fields = self._fields(value, events)
            members = fields.pop(MEMBERS, None) if kind is ScopeKind.TEAM else None
            yield from self._written(line, kind, (name,), fields)
            for user, member in (members if isinstance(members, dict) else {}).items():
                yield from self._written(line, ScopeKind.MEMBER, (name, user), member or {})

    def _keys(self, events: Iterator[yaml.Event]) -> Iterator[Written]:
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            line = _line(event)
            fields = self._fields(event, events)
            key, sha256, scope = (fields.pop(name, None) for name in ("key", "key_sha256", "scope"))
            if [key, sha256, scope].count(None) != 2:  # noqa: PLR2004 - of three there is one
                self._mistakes.add(line, "write one of key (best as os.environ/NAME), key_sha256 and scope")
            elif scope is not None:
                yield from self._at(line, str(scope), fields)
            else:
                name = str(sha256).lower() if key is None else hashed(str(key))
                yield from self._written(line, ScopeKind.KEY, (name,), fields)
            self._check()

    def _fields(self, event: yaml.Event, events: Iterator[yaml.Event]) -> dict[str, object]:
        node = resolved(read_part(event, events, self._mistakes), self._environ, self._mistakes)
        fields = plain(node)
        if fields is not None and not isinstance(fields, dict):
            self._mistakes.add(node.line, "a payer is a mapping: lines of `name: value`, or {} for nothing")
        self._check()
        return fields if isinstance(fields, dict) else {}

    def _at(self, line: int, text: str, fields: Mapping[str, object]) -> Iterator[Written]:
        try:
            yield Written(line, Scope.parse(text), fields)
        except ValueError:
            self._mistakes.add(line, "this is not a scope: write team:ID, member:TEAM/USER, key:SHA256 and so on")

    def _written(
        self, line: int, kind: ScopeKind, ids: tuple[str, ...], fields: Mapping[str, object]
    ) -> Iterator[Written]:
        try:
            yield Written(line, Scope(kind, ids), fields)
        except ValueError as error:
            self._mistakes.add(line, str(error))


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _in_order(payers: Sequence[Written]) -> Iterator[Written]:
    return iter(sorted(payers, key=lambda payer: ORDER.index(payer.scope.kind)))


def _pairs(events: Iterator[yaml.Event]) -> Iterator[tuple[str, yaml.Event]]:
    """Give the keys of a mapping that has begun, each with the event that its value begins with."""
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        if not isinstance(key, yaml.ScalarEvent):
            _skip(key, events)
        yield (key.value if isinstance(key, yaml.ScalarEvent) else ""), next(events)


def _skip(event: yaml.Event, events: Iterator[yaml.Event]) -> None:
    """Leave out what begins with an event."""
    depth = 0
    while True:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth == 0:
            return
        event = next(events)
