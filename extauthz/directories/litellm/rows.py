"""From LiteLLM's rows to the fields of our payers, by the rules of LiteLLM's own code.

Each function gives what would stand in our configuration file for that payer. Raises UnreadableError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from extauthz.directories.litellm.models import spelled, spelled_for_user
from extauthz.directories.litellm.queries import BUDGET_PREFIX, DEFAULT_PREFIX, REPLACED, REVOKED
from extauthz.directories.litellm.values import (
    LIMIT_MAX,
    Row,
    UnreadableError,
    Written,
    amount,
    bounded,
    entries,
    flag,
    identifier,
    mapping,
    moment,
    text,
    texts,
)
from extauthz.domain.budgets import ScopeKind

# The team of the sessions of LiteLLM's own pages, which is none.
PAGES_TEAM = "litellm-dashboard"


def key(row: Row) -> Written:
    """Give a key. One whose user was deactivated through SCIM is blocked."""
    metadata = mapping(row["metadata"], "metadata")
    team = identifier(row["team_id"], "team_id")
    deactivated = mapping(row["user_metadata"], "metadata of its user").get("scim_active") is False
    token, replaced = text(row["token"], "token"), text(row.get(REPLACED), "token")
    ends = [moment(value, "expires") for value in (row["expires"], row.get(REVOKED))]
    expires = min((end for end in ends if end is not None), default=None)
    named: Written = {
        "key_sha256": token if replaced is None else replaced,
        "counts_as": None if replaced is None else token,
        "key_alias": _alias(row["key_alias"]),
        "blocked": flag(row["blocked"], "blocked") or deactivated,
        "expires": None if expires is None else bounded(expires),
        "user": identifier(row["user_id"], "user_id"),
        "team": None if team == PAGES_TEAM else team,
        "organization": identifier(row["organization_id"], "organization_id"),
        "project": identifier(row["project_id"], "project_id"),
        "models": _models_with_aliases(row),
        "tags": texts(row["tags"], "tags"),
    }
    own = amount(row["max_budget"], "max_budget")
    limit = (
        _budget(row, increase=metadata) if own is not None else _budget(row, prefix=BUDGET_PREFIX, increase=metadata)
    )
    models = mapping(row["model_max_budget"], "model_max_budget") or mapping(
        row[f"{BUDGET_PREFIX}model_max_budget"], "model_max_budget"
    )
    # A key has no column of its own for it.
    soft = _soft(row[f"{BUDGET_PREFIX}soft_budget"]) if limit else {}
    return _without_blanks({**named, **limit, **soft, **_windows(row), **_model_budgets(models)})


def team(row: Row) -> Written:
    """Give a team, without its members."""
    limit = _budget(row)
    soft = _soft(row["soft_budget"]) if limit else {}
    named: Written = {
        "organization": identifier(row["organization_id"], "organization_id"),
        "blocked": flag(row["blocked"], "blocked"),
        "models": _models_with_aliases(row),
        "tags": texts(row["tags"], "tags"),
    }
    models = mapping(row["model_max_budget"], "model_max_budget")
    return _without_blanks({**named, **limit, **soft, **_windows(row), **_model_budgets(models)})


def member(row: Row) -> Written | None:
    """Give a member of a team; None for somebody who is not one, where the team has no budget for each of them.

    The member's own limit goes before the team's for all members, where 0 means none. The member's own increase is
    added to either.
    """
    own = amount(row[f"{BUDGET_PREFIX}max_budget"], "max_budget")
    common = amount(row[f"{DEFAULT_PREFIX}max_budget"], "max_budget")
    increase = {name: row[f"{BUDGET_PREFIX}{name}"] for name in ("temp_budget_increase", "temp_budget_expiry")}
    if own is not None:
        limit = _budget(row, prefix=BUDGET_PREFIX, increase=increase)
    elif common:
        limit = _budget(row, prefix=DEFAULT_PREFIX, increase=increase)
    elif flag(row["listed"], "listed"):
        limit = {}
    else:
        return None
    models = mapping(row[f"{BUDGET_PREFIX}model_max_budget"], "model_max_budget")
    allowed = texts(row[f"{BUDGET_PREFIX}allowed_models"], "allowed_models")
    listed: Written = {"models": spelled(allowed, texts(row["grouped_models"], "models of its groups"))}
    return _without_blanks({**listed, **limit, **_model_budgets(models)})


def user(row: Row) -> Written:
    """Give a user."""
    models = mapping(row["model_max_budget"], "model_max_budget")
    listed = texts(row["models"], "models")
    named: Written = {"models": spelled_for_user(listed, texts(row["grouped_models"], "models of its groups"))}
    return _without_blanks({**named, **_budget(row), **_model_budgets(models)})


def organization(row: Row) -> Written:
    """Give an organization. Its list of models is what LiteLLM offers it, and refuses nothing to its keys."""
    return _without_blanks(_limit_of_row(row))


def project(row: Row) -> Written:
    """Give a project."""
    named: Written = {"blocked": flag(row["blocked"], "blocked"), "models": _own_models(row)}
    return _without_blanks({**named, **_limit_of_row(row)})


def tag(row: Row) -> Written:
    """Give a tag."""
    return _without_blanks(_limit_of_row(row))


def end_user(row: Row) -> Written:
    """Give an end user, with the common budget where it has none of its own; the row of that one alone is theirs."""
    if "user_id" not in row:
        return _without_blanks(_limit_of_row(row))
    named: Written = {"blocked": flag(row["blocked"], "blocked"), "models": _own_models(row)}
    prefix = DEFAULT_PREFIX if row[f"{BUDGET_PREFIX}budget_id"] is None else BUDGET_PREFIX
    return _without_blanks({**named, **_limit_of_row(row, prefix)})


def written(kind: ScopeKind, row: Row) -> Written | UnreadableError | None:
    """Give a payer of any kind; None for one who is none after all."""
    try:
        return _WRITERS[kind](row)
    except UnreadableError as error:
        return error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # One odd row must not fail all who are asked for beside it.
        return UnreadableError(f"a value that nothing here expects: {type(error).__name__}")


def _limit_of_row(row: Row, prefix: str = BUDGET_PREFIX) -> Written:
    limit = _budget(row, prefix=prefix)
    soft = _soft(row[f"{prefix}soft_budget"]) if limit else {}
    models = mapping(row[f"{prefix}model_max_budget"], "model_max_budget")
    return {**limit, **soft, **_model_budgets(models)}


def _budget(row: Row, *, prefix: str = "", increase: Mapping[str, object] | None = None) -> Written:
    """Give the limit of some columns, nothing where there is none: a duration alone limits nothing."""
    limit = amount(row[f"{prefix}max_budget"], "max_budget")
    if limit is None:
        return {}
    return {
        "max_budget": limit,
        "budget_duration": text(row[f"{prefix}budget_duration"], "budget_duration"),
        **_increase(limit, increase or {}),
    }


def _increase(limit: Decimal, columns: Mapping[str, object]) -> Written:
    more = amount(columns.get("temp_budget_increase"), "temp_budget_increase")
    until = moment(columns.get("temp_budget_expiry"), "temp_budget_expiry")
    if not more or until is None:
        return {}
    return {"temp_budget_increase": min(more, LIMIT_MAX - limit), "temp_budget_expiry": bounded(until)}


def _soft(value: object) -> Written:
    return {"soft_budget": amount(value, "soft_budget")}


def _windows(row: Row) -> Written:
    """Give the further budgets of a key or a team, each with a window of its own."""
    limits: list[Written] = []
    for entry in entries(row["budget_limits"], "budget_limits"):
        if (limit := amount(entry.get("max_budget"), "budget_limits")) is not None:
            duration = text(entry.get("budget_duration"), "budget_limits")
            limits.append(_without_blanks({"max_budget": limit, "budget_duration": duration}))
    return {"budget_limits": limits}


def _model_budgets(models: Mapping[str, object]) -> Written:
    """Give the budgets of single models; LiteLLM has two names for each of their fields, and minds no other entry."""
    found: dict[str, Written] = {}
    for name, entry in models.items():
        if not isinstance(entry, Mapping):
            raise UnreadableError("model_max_budget is not an object of objects")
        said = entry.get("budget_limit", entry.get("max_budget"))
        limit = amount(said, "model_max_budget")
        # Below 0 it limits nothing here, and all elsewhere.
        gated = isinstance(said, int | float | Decimal) and said >= 0
        duration = text(entry.get("time_period", entry.get("budget_duration")), "model_max_budget")
        if gated and limit is not None and duration is not None:
            found[name] = {"budget_limit": limit, "time_period": duration}
    return {"model_max_budget": found}


def _models_with_aliases(row: Row) -> tuple[str, ...]:
    """Give the list of a key or a team, with the models of its groups and the names that the team has for models."""
    return spelled(
        texts(row["models"], "models"),
        texts(row["granted_models"], "models of its access groups"),
        texts(row["grouped_models"], "models of its groups"),
        mapping(row["team_aliases"], "model aliases"),
    )


def _own_models(row: Row) -> tuple[str, ...]:
    return spelled(texts(row["models"], "models"), texts(row["grouped_models"], "models of its groups"))


def _alias(value: object) -> str | None:
    """Give a name for people, none where it is no use as one: it decides nothing."""
    try:
        return identifier(value, "key_alias")
    except UnreadableError:
        return None


def _without_blanks(fields: Written) -> Written:
    """Leave out what says nothing."""
    return {name: value for name, value in fields.items() if value or isinstance(value, Decimal)}


_WRITERS: Mapping[ScopeKind, Callable[[Row], Written | None]] = {
    ScopeKind.KEY: key,
    ScopeKind.TEAM: team,
    ScopeKind.MEMBER: member,
    ScopeKind.USER: user,
    ScopeKind.ORGANIZATION: organization,
    ScopeKind.PROJECT: project,
    ScopeKind.TAG: tag,
    ScopeKind.END_USER: end_user,
}
