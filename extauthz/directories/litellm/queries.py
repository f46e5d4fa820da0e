"""What LiteLLM's database is asked. Each question is about many payers at once, and answered in one statement."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.directories.litellm.schema import (
    ACCESS_GROUPS,
    BUDGETS,
    END_USERS,
    GROUP_BUDGETS,
    KEYS,
    MEMBERS,
    MODEL_ALIASES,
    MODELS,
    ORGANIZATIONS,
    PROJECTS,
    REPLACED_KEYS,
    TAGS,
    TEAMS,
    USERS,
    WINDOW_SPEND,
    Schema,
    Table,
)
from extauthz.domain.budgets import ScopeKind

# How the columns of a budget are called beside those of its payer.
BUDGET_PREFIX = "budget_"
# The budget of members of a team who have none of their own.
DEFAULT_PREFIX = "default_"
# What a key's row has besides where the key asked for is an older one, that this one replaced.
REPLACED, REVOKED = "replaced", "revoke_at"
# What of a team's metadata names it.
MEMBER_BUDGET = "team_member_budget_id"

_PAGED = {
    ScopeKind.KEY: (KEYS, "token"),
    ScopeKind.TEAM: (TEAMS, "team_id"),
    ScopeKind.USER: (USERS, "user_id"),
    ScopeKind.ORGANIZATION: (ORGANIZATIONS, "organization_id"),
    ScopeKind.PROJECT: (PROJECTS, "project_id"),
}


@dataclass(frozen=True, slots=True)
class Queries:
    """The questions, as a schema can be asked them. Lists are $1 (and $2); pages begin behind the last id."""

    schema: Schema

    def keys(self) -> str:
        """Ask for keys by their SHA-256, with what their users, teams and access groups add."""
        schema, of = self.schema, self.schema.source
        return f"""
            SELECT {schema.columns(KEYS, "v")}, {schema.columns(BUDGETS, "b", BUDGET_PREFIX)},
                {schema.column(USERS, "u", "metadata")} AS user_metadata,
                {schema.column(MODEL_ALIASES, "ta", "aliases")} AS team_aliases,
                {self._granted(schema.column(KEYS, "v", "access_group_ids"))} AS granted_models,
                {self._grouped("v.models")} AS grouped_models, {self._tagged("v.metadata")} AS tags
            FROM {of(KEYS)} v
            LEFT JOIN {of(BUDGETS)} b ON b.budget_id = {schema.column(KEYS, "v", "budget_id")}
            LEFT JOIN {of(USERS)} u ON u.user_id = v.user_id
            LEFT JOIN {of(TEAMS)} t ON t.team_id = v.team_id
            LEFT JOIN {of(MODEL_ALIASES)} ta ON ta.id = {schema.column(TEAMS, "t", "model_id")}
            WHERE v.token = ANY($1::text[])
        """  # noqa: S608 - all names are of the tables above

    def replaced_keys(self) -> str:
        """Ask which keys other ones have replaced, and until when they are taken all the same."""
        return f"""
            SELECT token, active_token_id, revoke_at FROM {self.schema.source(REPLACED_KEYS)}
            WHERE token = ANY($1::text[]) AND revoke_at > (now() AT TIME ZONE 'UTC')
        """  # noqa: S608

    def teams(self) -> str:
        """Ask for teams, with what their access groups and aliases add."""
        schema, of = self.schema, self.schema.source
        return f"""
            SELECT {schema.columns(TEAMS, "t")}, {schema.column(MODEL_ALIASES, "ta", "aliases")} AS team_aliases,
                {self._granted(schema.column(TEAMS, "t", "access_group_ids"))} AS granted_models,
                {self._grouped("t.models")} AS grouped_models, {self._tagged("t.metadata")} AS tags
            FROM {of(TEAMS)} t
            LEFT JOIN {of(MODEL_ALIASES)} ta ON ta.id = {schema.column(TEAMS, "t", "model_id")}
            WHERE t.team_id = ANY($1::text[])
        """  # noqa: S608

    def members(self) -> str:
        """Ask for members, by their teams ($1) and users ($2), with the budget that the team has for all of them."""
        schema, of = self.schema, self.schema.source
        return f"""
            SELECT w.team_id, w.user_id, m.user_id IS NOT NULL AS listed,
                {schema.column(MEMBERS, "m", "spend")} AS spend,
                {schema.columns(BUDGETS, "b", BUDGET_PREFIX)}, {schema.columns(BUDGETS, "d", DEFAULT_PREFIX)},
                {self._grouped(schema.column(BUDGETS, "b", "allowed_models"))} AS grouped_models
            FROM unnest($1::text[], $2::text[]) AS w(team_id, user_id)
            JOIN {of(TEAMS)} t ON t.team_id = w.team_id
            LEFT JOIN {of(MEMBERS)} m ON m.team_id = w.team_id AND m.user_id = w.user_id
            LEFT JOIN {of(BUDGETS)} b ON b.budget_id = m.budget_id
            LEFT JOIN {of(BUDGETS)} d ON d.budget_id = t.metadata->>'{MEMBER_BUDGET}'
        """  # noqa: S608

    def users(self) -> str:
        """Ask for users."""
        schema = self.schema
        return f"""
            SELECT {schema.columns(USERS, "u")}, {self._grouped("u.models")} AS grouped_models
            FROM {schema.source(USERS)} u WHERE u.user_id = ANY($1::text[])
        """  # noqa: S608

    def organizations(self) -> str:
        """Ask for organizations."""
        return self._with_budget(ORGANIZATIONS, "organization_id")

    def end_users(self) -> str:
        """Ask for end users ($1), with the budget of those who have none ($2)."""
        schema, of = self.schema, self.schema.source
        return f"""
            SELECT {schema.columns(END_USERS, "p")}, {schema.columns(BUDGETS, "b", BUDGET_PREFIX)},
                {schema.columns(BUDGETS, "d", DEFAULT_PREFIX)},
                {self._grouped(schema.column(END_USERS, "p", "models"))} AS grouped_models
            FROM {of(END_USERS)} p
            LEFT JOIN {of(BUDGETS)} b ON b.budget_id = p.budget_id
            LEFT JOIN {of(BUDGETS)} d ON d.budget_id = $2::text
            WHERE p.user_id = ANY($1::text[])
        """  # noqa: S608

    def projects(self) -> str:
        """Ask for projects."""
        return self._with_budget(PROJECTS, "project_id")

    def tags(self) -> str:
        """Ask for tags."""
        return self._with_budget(TAGS, "tag_name")

    def budget(self) -> str:
        """Ask for a budget by its id."""
        schema = self.schema
        return f"""
            SELECT {schema.columns(BUDGETS, "b", BUDGET_PREFIX)} FROM {schema.source(BUDGETS)} b WHERE b.budget_id = $1
        """  # noqa: S608

    def window_spend(self) -> str:
        """Ask what was spent in each of the windows of keys and teams ($1: Key or Team, $2: their ids)."""
        return f"""
            SELECT entity_id, window_duration, window_start, spend FROM {self.schema.source(WINDOW_SPEND)}
            WHERE entity_type = $1 AND entity_id = ANY($2::text[])
        """  # noqa: S608

    def group_budgets(self) -> str:
        """Ask how many groups of models have a budget."""
        return f"""
            SELECT count(*) AS count FROM {self.schema.source(GROUP_BUDGETS)} WHERE budget_id IS NOT NULL
        """  # noqa: S608

    def ids(self, kind: ScopeKind) -> str:
        """Ask for the ids of all payers of a kind: a page of so many ($2, for members $3) behind others."""
        schema = self.schema
        match kind:
            case ScopeKind.MEMBER:
                # A team's budget for each member is also for those who have no row, but a key.
                return f"""
                    SELECT team_id, user_id FROM (
                        SELECT team_id, user_id FROM {schema.source(MEMBERS)}
                        UNION SELECT team_id, user_id FROM {schema.source(KEYS)}
                    ) p WHERE team_id IS NOT NULL AND user_id IS NOT NULL AND (team_id, user_id) > ($1, $2)
                    ORDER BY team_id, user_id LIMIT $3
                """  # noqa: S608
            case ScopeKind.END_USER:
                models = schema.column(END_USERS, "p", "models")
                # Others are all whom LiteLLM ever saw, and nothing is said of them.
                said = f"p.budget_id IS NOT NULL OR p.blocked OR cardinality({models}) > 0"
                return self._page(END_USERS, "user_id", said)
            case ScopeKind.TAG:
                return self._page(TAGS, "tag_name", "p.budget_id IS NOT NULL")
            case _:
                return self._page(*_PAGED[kind])

    def _page(self, table: Table, key: str, condition: str = "true") -> str:
        return f"""
            SELECT p.{key} FROM {self.schema.source(table)} p
            WHERE p.{key} > $1 AND ({condition}) ORDER BY p.{key} LIMIT $2
        """  # noqa: S608

    def _with_budget(self, table: Table, key: str) -> str:
        schema = self.schema
        grouped = self._grouped(schema.column(table, "p", "models")) if "models" in table.columns else "NULL::text[]"
        return f"""
            SELECT {schema.columns(table, "p")}, {schema.columns(BUDGETS, "b", BUDGET_PREFIX)},
                {grouped} AS grouped_models
            FROM {schema.source(table)} p LEFT JOIN {schema.source(BUDGETS)} b ON b.budget_id = p.budget_id
            WHERE p.{key} = ANY($1::text[])
        """  # noqa: S608

    def _granted(self, groups: str) -> str:
        """Write the models of access groups, whose ids a column has."""
        return f"""(
            SELECT array_agg(DISTINCT name ORDER BY name)
            FROM {self.schema.source(ACCESS_GROUPS)} g, unnest(g.access_model_names) AS name
            WHERE g.access_group_id = ANY({groups})
        )"""  # noqa: S608

    def _grouped(self, models: str) -> str:
        """Write the models that are in access groups of models, whose names a column has among those of models."""
        return f"""(
            SELECT array_agg(DISTINCT pm.model_name ORDER BY pm.model_name) FROM {self.schema.source(MODELS)} pm
            WHERE cardinality({models}) > 0 AND pm.model_info->'access_groups' ?| {models}
        )"""  # noqa: S608

    def _tagged(self, metadata: str) -> str:
        """Write the tags with a budget that a column of metadata has; the others decide nothing, and may be many."""
        return f"""(
            SELECT array_agg(DISTINCT g.tag_name ORDER BY g.tag_name)
            FROM jsonb_array_elements_text(
                CASE jsonb_typeof({metadata}->'tags') WHEN 'array' THEN {metadata}->'tags' END
            ) AS tag
            JOIN {self.schema.source(TAGS)} g ON g.tag_name = tag
            WHERE g.budget_id IS NOT NULL
        )"""  # noqa: S608
