"""The configuration in force, written as a file: defaults included, secrets as `***`.

It is written from what requests are judged by, where keys have long been hashes. With its secrets put back it reads as
the same configuration: the keys of `keys_file` are among `keys`, and what `litellm_file` says is among the sections.
`prices` at its end is for people: what each model costs at its dearest, whoever said so.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar, overload

from pydantic import BaseModel, SecretStr

from extauthz.config.accounts import DEFAULT_END_USER
from extauthz.config.directories import END_USER_BUDGET
from extauthz.config.litellm import (
    ALIASES,
    FALLBACKS,
    GENERAL,
    LITELLM,
    MODEL_LIST,
    OWN_SECTION,
    ROUTER,
    SPECIAL_FALLBACKS,
)
from extauthz.config.litellm_groups import ACCESS_GROUPS
from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.config.upstream_auth import UpstreamAuthAction, UpstreamAuthRule
from extauthz.config.values import MEMORY
from extauthz.domain.address import Address
from extauthz.domain.budgets import Budget, FilterKind, Measure
from extauthz.domain.money import usd
from extauthz.domain.payers import Accounts, Anonymous, Budgets, Key, Payer, Project, Team, User
from extauthz.domain.policy import Admission
from extauthz.domain.windows import Duration
from extauthz.ledger.pieces import PIECE
from extauthz.ledger.url import TAG, StoreUrl
from extauthz.pricing.amounts import UPLIFT, written
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offers import Offer

MASK = "***"

# Texts that need no quotes, and words that do although they look like it.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*@-]*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_UNSEEN = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff]")

# Settings that LiteLLM's own section has.
_THEIRS = ("models_policy", "user_headers", "end_user_budget")
# Files whose content is written out.
_FILES = ("keys_file", "litellm_file")
# Lists of fallbacks all count alike, so it does not matter which of the places a list is read from.
_FALLBACK_PLACES = tuple((section, name) for name in (FALLBACKS, *SPECIAL_FALLBACKS) for section in (LITELLM, ROUTER))

# The fields of limits by their measures, and those of the limits of single models and providers.
_LIMITS = {Measure.USD: "max_budget", Measure.TOKENS: "max_tokens", Measure.REQUESTS: "max_requests"}
_PARTS = {FilterKind.MODEL: "model_max_budget", FilterKind.PROVIDER: "provider_max_budget"}

Section = dict[str, object]
Listed = TypeVar("Listed")


async def effective(snapshot: Snapshot) -> str:
    """Write a configuration as YAML."""
    accounts = snapshot.directory.accounts
    groups: dict[str, list[str]] = {}
    for group, models in accounts.access_groups.items():
        for model in models:
            groups.setdefault(model, []).append(group)
    document: Section = {
        MODEL_LIST: [_model(offer, groups.get(offer.name, [])) for offer in snapshot.catalog.source.offers],
        GENERAL: _general(snapshot.settings, accounts),
        **_routing(snapshot.catalog, snapshot.settings),
        OWN_SECTION: _service(snapshot.settings) | _payers(accounts),
        "prices": {name: _prices(snapshot.catalog, name) for name in snapshot.catalog.listed()},
    }
    # In pieces, between which Checks go on: thousands of keys are many lines.
    lines: list[str] = []
    rest = _lines(document)
    while piece := [*islice(rest, PIECE)]:
        lines += piece
        await asyncio.sleep(0)
    return "\n".join((*lines, ""))


def _model(offer: Offer, groups: Sequence[str]) -> Section:
    limits = {"max_input_tokens": offer.context_tokens, "max_output_tokens": offer.output_tokens_max}
    parameters: Section = {"model": offer.upstream_model}
    if offer.provider is not None:
        parameters["custom_llm_provider"] = offer.provider
    parameters |= {amount.full_name: amount.usd for amount in offer.amounts}
    if offer.uplift != 1:
        parameters[UPLIFT] = offer.uplift
    info: Section = {name: tokens for name, tokens in limits.items() if tokens is not None}
    if groups:
        info[ACCESS_GROUPS] = groups
    return {"model_name": offer.name, "litellm_params": parameters, **({"model_info": info} if info else {})}


def _prices(catalog: Catalog, name: str) -> Section:
    """Tell what a model costs at its dearest, over everything that it leads to, and who says so."""
    reach = catalog.reach([name])
    return {"free": reach.free, "source": reach.source} | {
        amount.full_name: amount.usd for amount in written(reach.prices)
    }


def _general(settings: Settings, accounts: Accounts) -> Section:
    section: Section = {
        "budget_exceeded_models_policy": settings.models_policy,
        "user_header_mappings": [
            {"header_name": name, "litellm_user_role": "customer"} for name in settings.user_headers
        ],
        "apply_user_budget_to_team_keys": accounts.user_budgets_bind_in_teams,
    }
    return section | ({"master_key": MASK} if accounts.admin_sha256 is not None else {})


def _routing(catalog: Catalog, settings: Settings) -> Section:
    aliases = {
        alias.name: {"model": alias.target, "hidden": alias.hidden} if alias.hidden else alias.target
        for alias in catalog.source.aliases
    }
    end_users = {} if settings.end_user_budget is None else {END_USER_BUDGET: settings.end_user_budget}
    routing: dict[str, Section] = {ROUTER: {ALIASES: aliases}, LITELLM: {**end_users}}
    for (section, name), fallbacks in zip(_FALLBACK_PLACES, catalog.source.fallbacks, strict=False):
        routing[section][name] = [{model: [*names]} for model, names in fallbacks.models.items() if names]
    return {name: section for name, section in routing.items() if section}


def _service(settings: Settings) -> Section:
    names = (name for name in Settings.model_fields if name not in _THEIRS)
    section: Section = {name: _written(getattr(settings, name)) for name in names}
    section |= dict.fromkeys(_FILES)
    section["store"] = MEMORY if settings.store is None else _store(settings.store)
    return section


def _written(value: object) -> object:
    """Write a setting as it stands in a file."""
    match value:
        case SecretStr():
            return MASK
        case UpstreamAuthRule(action=UpstreamAuthAction.SET):
            return {"set": MASK}
        case UpstreamAuthRule(action=action):
            return action.value
        case BaseModel():
            fields = type(value).model_fields
            return {field.alias or name: _written(getattr(value, name)) for name, field in fields.items()}
        case Enum():
            return value.value
        case Address() | Path() | Duration() | time():
            return str(value)
        case Mapping():
            return {name: _written(item) for name, item in value.items()}
        case tuple():
            return [*map(_written, value)]
        case _:
            return value


def _store(url: StoreUrl) -> str:
    """Write a store's URL with its passwords as MASK."""
    scheme, _, place = str(url).partition("://")
    login = f"{MASK}@" if url.login.username is not None or url.login.password is not None else ""
    options: dict[str, object] = {} if url.tag == TAG else {"tag": url.tag}
    if url.tls is not None:
        files = {"ca": url.tls.ca, "cert": url.tls.cert, "key": url.tls.key}
        options |= {name: path for name, path in files.items() if path is not None}
    if url.sentinel_login.username is not None or url.sentinel_login.password is not None:
        options |= {"sentinel_username": MASK, "sentinel_password": MASK}
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{scheme}://{login}{place}{'?' if query else ''}{query}"


def _payers(accounts: Accounts) -> Section:
    default = {} if accounts.default_end_user is None else {DEFAULT_END_USER: accounts.default_end_user}
    return {
        "global": _budgets(accounts.global_budgets),
        "organizations": _Each(accounts.organizations, _payer),
        "teams": _Each(accounts.teams, _team),
        "users": _Each(accounts.users, _user),
        "projects": _Each(accounts.projects, _project),
        "keys": _EachOf(accounts.keys, _key),
        "tags": _Each(accounts.tags, _payer),
        "end_users": _Each({**accounts.end_users, **default}, _payer),
        "anonymous": None if accounts.anonymous is None else _anonymous(accounts.anonymous),
    }


class _Each(Mapping[str, Section], Generic[Listed]):
    """Payers by their names, each turned into a section only when its turn comes."""

    def __init__(self, payers: Mapping[str, Listed], write: Callable[[Listed], Section]) -> None:
        self._payers = payers
        self._write = write

    def __getitem__(self, name: str) -> Section:
        return self._write(self._payers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._payers)

    def __len__(self) -> int:
        return len(self._payers)


class _EachOf(Sequence[Section], Generic[Listed]):
    """The same for a list."""

    def __init__(self, payers: Sequence[Listed], write: Callable[[Listed], Section]) -> None:
        self._payers = payers
        self._write = write

    @overload
    def __getitem__(self, index: int) -> Section: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Section]: ...
    def __getitem__(self, index: int | slice) -> Section | Sequence[Section]:
        if isinstance(index, slice):
            return _EachOf(self._payers[index], self._write)
        return self._write(self._payers[index])

    def __len__(self) -> int:
        return len(self._payers)


def _payer(payer: Payer) -> Section:
    """Write what every payer has; a kind that has no list of models, say, is never given one."""
    section = _budgets(payer.budgets)
    if payer.models:
        section["models"] = [*payer.models]
    if payer.blocked:
        section["blocked"] = True
    return section


def _team(team: Team) -> Section:
    return {
        **_named(organization=team.organization),
        **_payer(team),
        "models": [*team.models],
        "tags": [*team.tags],
        "shadow_mode": team.shadow_mode,
        "members": {name: _payer(member) for name, member in team.members.items()},
    }


def _user(user: User) -> Section:
    return {**_named(organization=user.organization), **_payer(user)}


def _project(project: Project) -> Section:
    return {**_named(team=project.team), **_payer(project)}


def _anonymous(anonymous: Anonymous) -> Section:
    return {**_budgets(anonymous.budgets), "models": [*anonymous.models]}


def _key(key: Key) -> Section:
    return {
        "key_sha256": key.sha256,
        **_named(
            counts_as=key.counts_as,
            key_alias=key.alias,
            user=key.user,
            team=key.team,
            organization=key.organization,
            project=key.project,
            expires=None if key.expires_ms is None else _moment(key.expires_ms),
        ),
        **_budgets(key.budgets),
        "models": [*key.models],
        "blocked": key.blocked,
        "tags": [*key.tags],
        "metadata": dict(key.metadata),
    }


def _named(**names: str | None) -> Section:
    return {name: value for name, value in names.items() if value is not None}


def _budgets(budgets: Budgets) -> Section:
    """Write budgets: the first in the payer's own fields, the others in `budget_limits`, those of models by name."""
    limits = [budget for budget in budgets if budget.only is None]
    # The others would take the anchor of the first over.
    apart = (
        bool(limits)
        and limits[0].rule.anchor_ms is not None
        and any(budget.rule.anchor_ms is None for budget in budgets)
    )
    own, more = ([], limits) if apart else (limits[:1], limits[1:])
    section = _budget(own[0]) if own else {}
    if more:
        section["budget_limits"] = [*map(_budget, more)]
    for kind, name in _PARTS.items():
        parts: Section = {}
        for budget in budgets:
            if budget.only is not None and budget.only.kind is kind:
                parts[budget.only.name] = {**_part(parts.get(budget.only.name)), **_budget(budget)}
        if parts:
            section[name] = parts
    return section


def _part(written: object) -> Section:
    """Give what is written of a model already, under another measure."""
    return {str(name): value for name, value in written.items()} if isinstance(written, Mapping) else {}


def _budget(budget: Budget) -> Section:
    rule = budget.rule
    section: Section = {
        _LIMITS[budget.measure]: usd(budget.limit) if budget.measure is Measure.USD else budget.limit,
        "admission": (Admission.STRICT if budget.strict else Admission.UNTIL_EXHAUSTED).value,
    }
    if budget.soft_limit is not None:
        section["soft_budget"] = usd(budget.soft_limit)
    if rule.duration is not None:
        section["budget_duration"] = str(rule.duration)
    if rule.anchor_ms is not None:
        section["anchor"] = _moment(rule.anchor_ms)
    if budget.increase is not None:
        section["temp_budget_increase"] = usd(budget.increase.amount)
        section["temp_budget_expiry"] = _moment(budget.increase.until_ms)
    return section


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


def _lines(value: Mapping[str, object] | Sequence[object], indent: str = "") -> Iterator[str]:
    """Write a mapping or a list that is not empty as lines of YAML."""
    items = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for name, item in items:
        begin = f"{indent}-" if name is None else f"{indent}{_scalar(name)}:"
        if isinstance(item, str) or not isinstance(item, Mapping | Sequence) or not item:
            yield f"{begin} {_scalar(item)}"
        elif name is None:
            first, *more = _lines(item, indent + "  ")
            yield f"{begin}{first[len(begin) :]}"
            yield from more
        else:
            yield begin
            yield from _lines(item, indent + "  ")


def _scalar(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Decimal():
            return f"{value:f}"
        case Mapping():
            return "{}"
        case Sequence() if not isinstance(value, str):
            return "[]"
        case int():
            return str(value)
        case _:
            text = str(value)
            return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    """Write a text as JSON does, which is YAML but for some characters that YAML takes for ends of lines."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
