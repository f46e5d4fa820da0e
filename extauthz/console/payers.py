"""`extauthz keys` and `extauthz payers`: who is known in the store, and changing that while servers run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from rich.console import Console

from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
from extauthz.console.connection import CALL_S, Server, ServerRefusedError
from extauthz.console.documents import fields_of, json_line, yaml_line
from extauthz.console.inputs import KeyFilter
from extauthz.console.payer_files import ORDER, Written
from extauthz.console.text import cell, new_console, new_table, scope_short
from extauthz.domain.budgets import ScopeKind

SERVICE = pb.DESCRIPTOR.services_by_name["Directory"].full_name

PAGE = 1000
# No list is longer; a server that goes on for ever is broken.
PAGES_MAX = 100_000
# Payers that are written in one step, and how long that may take.
BATCH = 250
IMPORT_S = 60.0

KEY_COLUMNS = ("key", "alias", "status", "team", "user", "budget", "expires", "created", "by")
PAYER_COLUMNS = ("payer", "budget", "fields", "created", "by")
CHANGE_COLUMNS = ("when", "what", "whom", "who")

M = TypeVar("M", bound=Message)
Fields = Mapping[str, object]


async def ask(server: Server, rpc: str, request: Message, answer: type[M], *, seconds: float = CALL_S) -> M:
    """Call an RPC of Directory."""
    return await server.ask(rpc, request, answer, seconds=seconds, service=SERVICE)


def to_struct(fields: Fields) -> Struct:
    """Write fields as the wire has them."""
    return ParseDict({name: _plain(value) for name, value in fields.items()}, Struct())


async def listed_keys(server: Server, wanted: KeyFilter) -> tuple[Sequence[pb.Payer], int]:
    """Give keys, at most as many as are wanted, and how many there are in all."""
    request = pb.ListKeysRequest(
        team=wanted.team, user=wanted.user, organization=wanted.organization, project=wanted.project, page_size=PAGE
    )
    return await _listed(server, "ListKeys", request, wanted.limit)


async def listed_payers(server: Server, kind: str, limit: int) -> tuple[Sequence[pb.Payer], int]:
    """Give payers of a kind, all but keys where it is empty, and how many there are in all."""
    return await _listed(server, "ListPayers", pb.ListPayersRequest(kind=kind, page_size=PAGE), limit)


async def import_payers(
    server: Server, payers: Iterable[Written], who: str, change_id: str, told: Callable[[int], None]
) -> int:
    """Write payers in batches, each all or none; tell how many there were by now, and give how many in the end.

    A batch that was written under the same `change_id` before is not written again. Raises ServerRefusedError.
    """
    rest = iter(payers)
    done = 0
    while batch := [*islice(rest, BATCH)]:
        request = pb.ImportPayersRequest(payers=map(_line, batch), who=who, change_id=f"{change_id}.{done}")
        try:
            await ask(server, "ImportPayers", request, pb.ImportPayersResponse, seconds=IMPORT_S)
        except ServerRefusedError as error:
            lines = f"lines {batch[0].line} to {batch[-1].line}"
            raise ServerRefusedError(f"{lines}, of which nothing is written: {error}; {done:,} were before") from error
        done += len(batch)
        told(done)
    return done


async def export_payers(server: Server, write: Callable[[str], None]) -> int:
    """Write all payers and keys, a line each, in the order in which they can be imported; give how many there were."""
    count = 0
    for kind in (*ORDER, ScopeKind.KEY):
        request = pb.ListPayersRequest(kind=kind, page_size=PAGE)
        while True:
            page = await ask(server, "ListPayers", request, pb.ListPayersResponse)
            for payer in page.payers:
                write(f"- {yaml_line({'scope': payer.scope, **fields_of(payer.fields)})}")
            count += len(page.payers)
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    return count


def show_keys(keys: Sequence[pb.Payer]) -> None:
    """Print a table of keys."""
    console = new_console()
    if not keys:
        console.print("no such keys")
        return
    table = new_table(*KEY_COLUMNS)
    for key in keys:
        fields = fields_of(key.fields)
        texts = (
            scope_short(key.scope),
            _text(fields.get("key_alias")),
            f"{key.status}, replaced" if key.replaced else key.status,
            _text(fields.get("team")),
            _text(fields.get("user")),
            _budget(fields),
            _text(fields.get("expires")),
            *_created(key),
        )
        table.add_row(*map(cell, texts))
    console.print(table)
    if any(key.scope != scope_short(key.scope) for key in keys):
        console.print("… --json shows keys' hashes whole")


def show_payers(payers: Sequence[pb.Payer]) -> None:
    """Print a table of payers."""
    console = new_console()
    if not payers:
        console.print("no such payers")
        return
    table = new_table(*PAYER_COLUMNS)
    for payer in payers:
        fields = fields_of(payer.fields)
        table.add_row(*map(cell, (scope_short(payer.scope), _budget(fields), _rest(fields), *_created(payer))))
    console.print(table)


def show_payer(payer: pb.Payer) -> None:
    """Print one payer with all that is known of it."""
    console = new_console()
    state = {"created": " by ".join(_created(payer)), "status": payer.status}
    if payer.replaced:
        state["status"] += ", and another key came in its place"
    console.print(payer.scope)
    _show_pairs(console, {**{name: value for name, value in state.items() if value}, **fields_of(payer.fields)})


def show_change(answer: pb.ChangePayerResponse, what: str) -> None:
    """Print what became of a payer."""
    console = new_console()
    if not answer.changed:
        console.print("nothing happened: this change was made before")
    elif answer.HasField("after"):
        console.print(f"{what}:")
    else:
        console.print(f"{what}: {scope_short(answer.before.scope)}")
    if answer.HasField("after"):
        show_payer(answer.after)


def show_changes(changes: Sequence[pb.ListChangesResponse.Change]) -> None:
    """Print who changed what."""
    console = new_console()
    if not changes:
        console.print("nothing was changed")
        return
    table = new_table(*CHANGE_COLUMNS)
    for change in changes:
        table.add_row(*map(cell, (change.made_at.ToJsonString(), change.what, change.payers, change.who)))
    console.print(table)


def of_issued(answer: pb.IssueKeyResponse, change_id: str) -> str:
    """Say what to know about a key that was made, beside the key."""
    payer = answer.payer
    if not answer.changed:
        return f"nothing happened: the change {change_id} was made before. A key is shown once; rotate it for another"
    name = fields_of(payer.fields).get("key_alias")
    known = scope_short(payer.scope) if name is None else f"{scope_short(payer.scope)} ({name})"
    if not answer.HasField("replaced"):
        return f"this is the key {known}: it is shown this once"
    return f"this is the key {known} in the place of {scope_short(answer.replaced.scope)}: it is shown this once"


def cut_off(shown: int, total: int) -> str | None:
    """Say that a list has more than was shown."""
    return f"{shown:,} of {total:,}: a higher --limit shows more" if shown < total else None


async def _listed(
    server: Server, rpc: str, request: pb.ListKeysRequest | pb.ListPayersRequest, limit: int
) -> tuple[Sequence[pb.Payer], int]:
    found: dict[str, pb.Payer] = {}
    for _ in range(PAGES_MAX):
        page = await ask(server, rpc, request, pb.ListPayersResponse)
        found |= {payer.scope: payer for payer in page.payers}
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return sorted(found.values(), key=lambda payer: payer.scope)[:limit], len(found)
        if len(found) >= limit:
            return sorted(found.values(), key=lambda payer: payer.scope)[:limit], page.total
    raise ServerRefusedError(f"the list has no end after {PAGES_MAX:,} pages: name what you look for")


def _line(payer: Written) -> str:
    return json_line({**{name: _plain(value) for name, value in payer.fields.items()}, "scope": payer.scope.text})


def _plain(value: object) -> object:
    """Give what JSON can write; the server reads the digits of a number as they are."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _created(payer: pb.Payer) -> tuple[str, str]:
    return payer.created_at.ToJsonString(), payer.created_by


def _budget(fields: Fields) -> str:
    """Write the budget that most have."""
    limit = fields.get("max_budget")
    if limit is None:
        return ""
    window = fields.get("budget_duration")
    return f"{limit} USD" if window is None else f"{limit} USD / {window}"


def _rest(fields: Fields) -> str:
    """Write what is set besides."""
    shown = {"max_budget", "budget_duration"}
    return ", ".join(f"{name}={_text(value)}" for name, value in fields.items() if name not in shown)


def _show_pairs(console: Console, pairs: Fields) -> None:
    table = new_table("", "")
    table.show_header = False
    for name, value in pairs.items():
        table.add_row(cell(f"  {name}"), cell(_text(value)))
    console.print(table)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json_line(value)
