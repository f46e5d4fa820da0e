"""The rows of payers in LiteLLM's database, of many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from extauthz.directories.litellm.database import Reading
from extauthz.directories.litellm.queries import REPLACED, REVOKED, Queries
from extauthz.directories.litellm.values import Row
from extauthz.domain.budgets import Scope, ScopeKind

# Whose budgets hold for end users that are not listed, by the name that our configuration gives them.
DEFAULT_END_USER = Scope(ScopeKind.END_USER, ("default",))


class Records:
    """Reads payers of one moment. `end_user_budget` is the id of the budget of end users without one."""

    def __init__(self, reading: Reading, end_user_budget: str | None) -> None:
        self._reading = reading
        self._queries = Queries(reading.schema)
        self._end_user_budget = end_user_budget

    async def rows(self, scopes: Iterable[Scope]) -> Mapping[Scope, Row]:
        """Read payers; those that are not known are left out."""
        by_kind: dict[ScopeKind, list[Scope]] = {}
        for scope in scopes:
            by_kind.setdefault(scope.kind, []).append(scope)
        found: dict[Scope, Row] = {}
        for kind, alike in by_kind.items():
            found.update(await self._of_kind(kind, alike))
        return found

    async def _of_kind(self, kind: ScopeKind, scopes: Sequence[Scope]) -> Mapping[Scope, Row]:
        queries = self._queries
        match kind:
            case ScopeKind.KEY:
                return await self._keys(scopes)
            case ScopeKind.TEAM:
                return await self._by_id(queries.teams(), "team_id", scopes)
            case ScopeKind.MEMBER:
                return await self._members(scopes)
            case ScopeKind.USER:
                return await self._by_id(queries.users(), "user_id", scopes)
            case ScopeKind.ORGANIZATION:
                return await self._by_id(queries.organizations(), "organization_id", scopes)
            case ScopeKind.PROJECT:
                return await self._by_id(queries.projects(), "project_id", scopes)
            case ScopeKind.TAG:
                return await self._by_id(queries.tags(), "tag_name", scopes)
            case ScopeKind.END_USER:
                return await self._end_users(scopes)
            case _:
                return {}

    async def _by_id(self, query: str, column: str, scopes: Sequence[Scope], *more: object) -> Mapping[Scope, Row]:
        by_id = {scope.ids[0]: scope for scope in scopes if _can_be_asked(scope)}
        found = await self._reading.fetch(query, list(by_id), *more)
        return {by_id[row[column]]: row for row in found}

    async def _keys(self, scopes: Sequence[Scope]) -> Mapping[Scope, Row]:
        """Read keys. One that was replaced counts for a while as the one that replaced it, until it is revoked."""
        found = dict(await self._by_id(self._queries.keys(), "token", scopes))
        missing = {scope.ids[0]: scope for scope in scopes if scope not in found}
        replaced = await self._reading.fetch(self._queries.replaced_keys(), list(missing)) if missing else ()
        if not replaced:
            return found
        successors = {row["active_token_id"]: Scope(ScopeKind.KEY, (row["active_token_id"],)) for row in replaced}
        rows = await self._by_id(self._queries.keys(), "token", list(successors.values()))
        for row in replaced:
            successor = rows.get(successors[row["active_token_id"]])
            if successor is not None:
                found[missing[row["token"]]] = {**successor, REPLACED: row["token"], REVOKED: row["revoke_at"]}
        return found

    async def _members(self, scopes: Sequence[Scope]) -> Mapping[Scope, Row]:
        asked = [scope.ids for scope in scopes if _can_be_asked(scope)]
        teams, users = [team for team, _ in asked], [user for _, user in asked]
        found = await self._reading.fetch(self._queries.members(), teams, users)
        return {Scope(ScopeKind.MEMBER, (row["team_id"], row["user_id"])): row for row in found}

    async def _end_users(self, scopes: Sequence[Scope]) -> Mapping[Scope, Row]:
        """Read end users; for one who was never seen holds what holds for all, where LiteLLM has such a budget."""
        found = await self._by_id(self._queries.end_users(), "user_id", scopes, self._end_user_budget)
        if len(found) == len(scopes) or self._end_user_budget is None:
            return found
        common = await self._reading.fetch(self._queries.budget(), self._end_user_budget)
        return {**dict.fromkeys(scopes, common[0]), **found} if common else found


def _can_be_asked(scope: Scope) -> bool:
    """Tell whether PostgreSQL can have such an id: it fails on a NUL, and with it all who are asked for beside it."""
    return not any("\0" in name for name in scope.ids)
