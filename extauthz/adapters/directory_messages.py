"""Keys and payers of the store, to and from the messages of `extauthz.diagnostics.v1.Directory`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as messages
from extauthz.adapters.explanations import timestamp
from extauthz.adapters.operator_messages import scope as read_scope
from extauthz.directories.source import FIELDS
from extauthz.directories.store.archive import Author
from extauthz.directories.store.listing import PAGE_SIZE, PAGE_SIZE_MAX, PayerPage, PayerQuery
from extauthz.directories.store.records import Entry
from extauthz.directories.store.registry import Done
from extauthz.directories.store.written import RECORD_BYTES_MAX, Document, Record
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import UnclearError

LOGGED, LOGGED_MAX = 100, 1000
_SCOPE = "scope"
_NAMED = ("team", "user", "organization", "project")

ChangeRequest = (
    messages.CreateKeyRequest
    | messages.RotateKeyRequest
    | messages.UpdateKeyRequest
    | messages.BlockKeyRequest
    | messages.UnblockKeyRequest
    | messages.RevokeKeyRequest
    | messages.PutPayerRequest
    | messages.DeletePayerRequest
    | messages.ImportPayersRequest
)


def author(request: ChangeRequest, peer: str, new_id: Callable[[], str]) -> Author:
    """Read who wants a change; who does not say so is the `peer`."""
    return Author(request.who or peer, request.change_id or new_id())


def scope(text: str) -> Scope:
    """Read whose record is meant. Raises UnclearError."""
    found = read_scope(text)
    if found.kind not in FIELDS:
        raise UnclearError(f"{found.kind} has no record: it stands in the configuration alone")
    if found.kind is ScopeKind.KEY and not _is_hash(found.ids[0]):
        raise UnclearError("a key's scope is key: and the SHA-256 of the key, in 64 hex digits")
    return Scope(found.kind, tuple(part.lower() for part in found.ids)) if found.kind is ScopeKind.KEY else found


def document(fields: Struct) -> Document:
    """Read fields, by their names; numbers without a fraction are whole."""
    return {name: _exact(value) for name, value in sorted(MessageToDict(fields).items())}


def imported(payers: Iterable[str]) -> Iterator[tuple[Scope, Document]]:
    """Read payers that are JSON. Raises UnclearError."""
    for text in payers:
        if len(text) > RECORD_BYTES_MAX:
            raise UnclearError(f"a payer is longer than {RECORD_BYTES_MAX} bytes: shorten it")
        try:
            fields = json.loads(text, parse_float=Decimal)
            whose = fields.pop(_SCOPE)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UnclearError("a payer is a JSON object of its fields and its `scope`") from None
        yield scope(str(whose)), fields


def keys_query(request: messages.ListKeysRequest) -> PayerQuery:
    """Read which keys are asked for. Raises UnclearError."""
    named = {name: value for name in _NAMED if (value := getattr(request, name))}
    return PayerQuery((ScopeKind.KEY,), named, _count(request.page_size), request.page_token)


def payers_query(request: messages.ListPayersRequest) -> PayerQuery:
    """Read which payers are asked for. Raises UnclearError."""
    kinds = tuple(kind for kind in FIELDS if request.kind == kind or (not request.kind and kind is not ScopeKind.KEY))
    if not kinds:
        raise UnclearError(f"{request.kind[:32]!r} is not a kind of payer: send one of {', '.join(FIELDS)}")
    return PayerQuery(kinds, {}, _count(request.page_size), request.page_token)


def payer_page(page: PayerPage, total: int, now_ms: float) -> messages.ListPayersResponse:
    """Write a page of payers."""
    return messages.ListPayersResponse(
        payers=(payer(record, now_ms) for record in page.records), next_page_token=page.end, total=total
    )


def payer(record: Record, now_ms: float) -> messages.Payer:
    """Write a payer."""
    written = messages.Payer(
        scope=record.scope.text,
        created_at=timestamp(record.made_s * 1000),
        created_by=record.made_by,
        status=_status(record, now_ms),
        replaced=record.replaced,
    )
    ParseDict(_plain(record.document), written.fields)
    return written


def issued(done: Done, now_ms: float) -> messages.IssueKeyResponse:
    """Write a key that was made."""
    return messages.IssueKeyResponse(
        api_key=done.key or "",
        payer=None if done.after is None else payer(done.after, now_ms),
        replaced=None if done.before is None else payer(done.before, now_ms),
        changed=done.changed,
    )


def changed(done: Done, now_ms: float) -> messages.ChangePayerResponse:
    """Write a payer before and after a change."""
    return messages.ChangePayerResponse(
        before=None if done.before is None else payer(done.before, now_ms),
        after=None if done.after is None else payer(done.after, now_ms),
        changed=done.changed,
    )


def changes_count(request: messages.ListChangesRequest) -> int:
    """Read how many changes are asked for. Raises UnclearError."""
    if not 0 <= request.limit <= LOGGED_MAX:
        raise UnclearError(f"`limit` must be between 1 and {LOGGED_MAX}, or left out for {LOGGED}")
    return request.limit or LOGGED


def changes(entries: Iterable[Entry]) -> messages.ListChangesResponse:
    """Write who changed what."""
    return messages.ListChangesResponse(changes=map(_change, entries))


def _change(entry: Entry) -> messages.ListChangesResponse.Change:
    change = entry.change
    return messages.ListChangesResponse.Change(
        made_at=timestamp(entry.made_ms),
        what=change.what,
        payers=change.remark,
        scopes=change.scopes,
        who=change.who,
        change_id=change.id,
    )


def _status(record: Record, now_ms: float) -> str:
    if record.scope.kind is not ScopeKind.KEY:
        return ""
    if record.end_ms is not None and record.end_ms <= now_ms:
        return "expired"
    return "blocked" if record.document.get("blocked") else "active"


def _plain(document: Document) -> dict[str, object]:
    """Give what a Struct can hold: its numbers are doubles."""
    return {name: _value(value) for name, value in document.items()}


def _exact(value: object) -> object:
    match value:
        case float():
            return int(value) if value.is_integer() else Decimal(repr(value))
        case dict():
            return {name: _exact(item) for name, item in value.items()}
        case list():
            return [_exact(item) for item in value]
        case _:
            return value


def _value(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case dict():
            return _plain(value)
        case list():
            return [_value(item) for item in value]
        case _:
            return value


def _count(asked: int) -> int:
    if not 0 <= asked <= PAGE_SIZE_MAX:
        raise UnclearError(f"`page_size` must be between 1 and {PAGE_SIZE_MAX}, or left out for {PAGE_SIZE}")
    return asked or PAGE_SIZE


def _is_hash(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == 32 and len(text) == 64  # noqa: PLR2004 - of a SHA-256
    except ValueError:
        return False
