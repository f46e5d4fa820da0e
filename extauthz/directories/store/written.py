"""Payers as records: what is written of one, and how it is read back.

A record is JSON of the fields that were set, by the names of the configuration, and `@`: when it was first written
(Unix seconds) and by whom, whether the key was replaced by another (1), and the key that it replaced. A key's hash is
the name of its record, and not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError

from extauthz.config.explain import validated
from extauthz.config.payers import BudgetFields
from extauthz.config.source import Entries, Entry, Items, Mistakes, Node, Scalar, Value
from extauthz.directories.source import FIELDS
from extauthz.directories.store.records import Place, Table
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import UnclearError

# Of one record; the longest that fields can be is far below.
RECORD_BYTES_MAX = 64 * 1024
DEPTH_MAX = 8

_MADE = "@"
_KEY_FIELDS = ("key", "key_sha256")
_MEMBERS = "members"

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a payer: the fields that were set, when it was first written (Unix seconds), and by whom.

    `replaced` keys have a successor, which knows the key before it (`previous`, its SHA-256). `raw` is how it stands in
    the store, empty where it does not yet. One that is not `readable` has nothing in it.
    """

    scope: Scope
    document: Document
    made_s: int
    made_by: str
    replaced: bool = False
    previous: str | None = None
    raw: bytes = b""
    readable: bool = True

    @property
    def alias(self) -> str | None:
        """The alias of a key."""
        alias = self.document.get("key_alias")
        return str(alias) if self.scope.kind is ScopeKind.KEY and alias is not None else None

    @property
    def end_ms(self) -> int | None:
        """When the key ends, in Unix milliseconds; without an offset it is taken for UTC."""
        expires = self.document.get("expires")
        if expires is None:
            return None
        moment = datetime.fromisoformat(str(expires))
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def place_of(scope: Scope) -> Place:
    """Tell where the record of a scope stands."""
    table = Table(str(scope.kind))
    if table is Table.KEY:
        return Place(table, bytes.fromhex(scope.ids[0]))
    return Place(table, scope.text.partition(":")[2].encode())


def scope_at(place: Place) -> Scope:
    """Tell whose record stands there."""
    kind = ScopeKind(str(place.table))
    return Scope.parse(f"{kind}:{place.name.hex() if place.table is Table.KEY else place.name.decode()}")


def alias_place(alias: str) -> Place:
    """Tell where the hash of the key with an alias stands."""
    return Place(Table.ALIAS, alias.encode())


def to_bytes(record: Record) -> bytes:
    """Write a record."""
    made: list[object] = [record.made_s, record.made_by]
    if record.replaced or record.previous is not None:
        made += [int(record.replaced), record.previous]
    whole = {**record.document, _MADE: made}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"), default=_number).encode()


def from_bytes(scope: Scope, raw: bytes) -> Record:
    """Read a record. Raises ValueError for what is none."""
    document = json.loads(raw, parse_float=Decimal)
    if not isinstance(document, dict):
        raise ValueError("a record is a mapping")  # noqa: TRY004 - no caller's mistake
    match document.pop(_MADE, [0, ""]):  # none where somebody wrote it by hand
        case [int(made_s), str(made_by)]:
            return Record(scope, document, made_s, made_by, raw=raw)
        case [int(made_s), str(made_by), int(replaced), str() | None as previous]:
            return Record(scope, document, made_s, made_by, bool(replaced), previous, raw)
        case _:
            raise ValueError("nobody knows who made this record")


def fields_of(record: Record) -> BudgetFields:
    """Read the fields of a record. Raises ValueError where it was written by hand, and wrongly.

    What a newer version writes and this one does not know counts nothing here.
    """
    model = FIELDS[record.scope.kind]
    document = _whole(record.scope, record.document)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        # Inside a budget, what is not known may be all that it is about.
        unknown = {
            detail["loc"][0]
            for detail in error.errors(include_url=False)
            if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1
        }
        if not unknown:
            raise
        return model.model_validate({name: value for name, value in document.items() if name not in unknown})


def checked(scope: Scope, document: Document) -> Document:
    """Give the fields that are set of those that somebody wrote for a payer. Raises UnclearError, with all mistakes.

    Texts and flags are as they are read: a team that is called 42 is found by that name, whoever wrote a number.
    """
    written = {name: value for name, value in document.items() if value is not None}
    own = [name for name in _KEY_FIELDS if name in written] if scope.kind is ScopeKind.KEY else []
    if own:
        raise UnclearError(f"`{own[0]}` is no field here: the hash of a key is its name")
    if scope.kind is ScopeKind.TEAM and _MEMBERS in written:
        raise UnclearError(f"`{_MEMBERS}` is no field here: each is a payer of its own, member:TEAM/USER")
    mistakes = Mistakes(Path(scope.text))
    fields = validated(FIELDS[scope.kind], _node(_whole(scope, written)), (), mistakes)
    if mistakes or fields is None:
        # A mistake of the whole begins with no field's name.
        raise UnclearError("; ".join(mistake.message.removeprefix(": ") for mistake in mistakes.all()))
    if len(json.dumps(written, default=_number)) > RECORD_BYTES_MAX:
        raise UnclearError(f"the fields are longer than {RECORD_BYTES_MAX} bytes: shorten them")
    return {name: _as_read(value, getattr(fields, name)) for name, value in written.items()}


def _as_read(value: object, read: object) -> object:
    match read:
        case bool():
            return read
        case str():
            return str(read)
        case tuple() if all(isinstance(one, str) for one in read):
            return [*map(str, read)]
        case Mapping() if all(isinstance(one, str) for one in read.values()):
            return {str(name): str(one) for name, one in read.items()}
        case _:
            return value


def _whole(scope: Scope, document: Document) -> dict[str, object]:
    """Put in front what a record has by its place."""
    own = {"key_sha256": scope.ids[0]} if scope.kind is ScopeKind.KEY else {}
    return {**own, **document}


def _node(value: object, depth: int = 0) -> Node:
    """Make of values the tree that a file with them would be."""
    if depth > DEPTH_MAX:
        raise UnclearError(f"the fields are nested deeper than {DEPTH_MAX} levels: make them flatter")
    match value:
        case Mapping():
            return Entries(1, {str(name): Entry(1, _node(item, depth + 1)) for name, item in value.items()})
        case list() | tuple():
            return Items(1, tuple(_node(item, depth + 1) for item in value))
        case float():
            return Scalar(1, Decimal(repr(value)))
        case str() | int() | Decimal() | None:
            known: Value = value
            return Scalar(1, known)
        case _:
            raise UnclearError(f"{type(value).__name__} is no kind of value that a field has")


def _number(value: object) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    return int(value) if value == value.to_integral_value() else float(value)
