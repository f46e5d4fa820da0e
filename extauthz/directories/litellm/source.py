"""LiteLLM's database as a source of payers, beside a LiteLLM that goes on writing it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from extauthz.config.payers import BudgetFields
from extauthz.directories.litellm.database import Database
from extauthz.directories.litellm.records import Records
from extauthz.directories.litellm.rows import written
from extauthz.directories.litellm.values import Row, UnreadableError, Written
from extauthz.directories.source import FIELDS, Changes, stand_in
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.ledger.pieces import chunks

# Rows that are read at once: up to 5 ms, in which no Check goes on.
AT_ONCE = 32
# Whom nobody need be told of again.
TOLD_MAX = 1000
# A key is named by the beginning of its hash, and an alias by no more.
NAME_CHARS_MAX = 64
HASH_SHOWN = 8
HASH_CHARS = 64


class LitellmSource:
    """Gives payers as they are in the database now.

    LiteLLM tells nobody of a change, and writes the time of one with every amount that it books, so that entries are
    read again because they are old. `unreadable` hears of a payer whose row says nothing that can be understood: its
    name, and what is wrong; a key is then unknown, and for anybody else nothing may be spent.
    """

    def __init__(self, database: Database, end_user_budget: str | None, unreadable: Callable[[str, str], None]) -> None:
        self._database = database
        self._end_user_budget = end_user_budget
        self._unreadable = unreadable
        self._told: OrderedDict[Scope, str] = OrderedDict()

    async def fetch(self, scopes: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
        """Give what is known of payers now. Raises DirectoryUnavailableError."""
        async with self._database.reading() as reading:
            rows = await Records(reading, self._end_user_budget).rows(scopes)
        found: dict[Scope, BudgetFields] = {}
        for piece in chunks([*rows.items()], AT_ONCE):
            found.update(self._fields(piece))
            await asyncio.sleep(0)
        return found

    def _fields(self, rows: Iterable[tuple[Scope, Row]]) -> Iterator[tuple[Scope, BudgetFields]]:
        for scope, row in rows:
            match fields_of(scope.kind, written(scope.kind, row)):
                case None:
                    continue
                case UnreadableError() as error:
                    self._tell(scope, str(error))
                    if (refusal := stand_in(scope.kind)) is not None:
                        yield scope, refusal
                case fields:
                    self._told.pop(scope, None)
                    yield scope, fields

    async def changes(self) -> Changes | None:
        """Tell nothing: see above.

        But as long as nothing was read, look whether it is LiteLLM's database, so that one that is not is told at the
        start and not to the first client. Raises DirectoryUnavailableError.
        """
        if not self._database.known:
            async with self._database.reading():
                pass
        return None

    async def close(self) -> None:
        """Let go of the connections."""
        await self._database.close()

    def _tell(self, scope: Scope, why: str) -> None:
        """Tell once of each payer what is wrong with it, however often it is asked for."""
        if self._told.get(scope) == why:
            return
        self._told[scope] = why
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        self._unreadable(shown(scope), why)


def fields_of(kind: ScopeKind, record: Written | UnreadableError | None) -> BudgetFields | UnreadableError | None:
    """Read a payer's fields as if they stood in our configuration; what would be a mistake there cannot be read."""
    if not isinstance(record, dict):
        return record
    try:
        return FIELDS[kind].model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return UnreadableError(f"{where}: {message}" if where else message)


def shown(scope: Scope) -> str:
    """Write a scope for a line of the log; a very old LiteLLM has keys that are not hashed."""
    if scope.kind is ScopeKind.KEY:
        (token,) = scope.ids
        return f"key:{token[:HASH_SHOWN]}" if len(token) == HASH_CHARS else "a key that is not hashed"
    return scope.text[:NAME_CHARS_MAX]
