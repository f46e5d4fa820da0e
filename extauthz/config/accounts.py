"""From the section `extauthz:` to the accounts that the directory is made of.

References are checked on the tree and not on the validated section, so that one mistyped budget does not hide the
unknown team three lines below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from extauthz.config.explain import did_you_mean
from extauthz.config.litellm import OWN_SECTION
from extauthz.config.model import ExtauthzSection, GeneralSettings, LitellmSettings
from extauthz.config.payers import BudgetFields, BudgetLimit, KeyFields, hashed
from extauthz.config.source import Entries, Items, Mistakes, Node, Path, Scalar, child, written
from extauthz.domain.budgets import Budget
from extauthz.domain.directory import Accounts, Budgets, Key, Team, User
from extauthz.domain.money import limit_nanousd
from extauthz.domain.policy import Admission
from extauthz.domain.windows import WindowRule

DEFAULT_END_USER = "default"

# The field that names a payer, and the mapping that has it.
REFERENCES: Mapping[str, str] = {"organization": "organizations", "team": "teams", "user": "users"}


def check_references(section: Node, mistakes: Mistakes) -> None:
    """Note every team, user and organization that is named and not there."""
    known = {plural: _ids(section, plural) for plural in REFERENCES.values()}
    for line, path, plural, named in _references(section):
        if named.missing or str(named.value) in known[plural]:
            continue
        # What came from the environment is not shown.
        shown = f"`{named.value}`" if named.variable is None else f"the value of {named.variable}"
        hint = did_you_mean(str(named.value), known[plural]) if named.variable is None else "add it there"
        mistakes.add(line, f"{written((OWN_SECTION, *path))}: {shown} is not in {OWN_SECTION}.{plural}; {hint}")


def _references(section: Node) -> Iterator[tuple[int, Path, str, Scalar]]:
    """Give everything that names another payer: its line, where it stands, the mapping it belongs to, the name."""
    payers: list[tuple[Node, Path]] = [
        *((node, (plural, name)) for plural in ("teams", "users") for name, node in _entries(section, plural)),
        *((node, ("keys", index)) for index, node in enumerate(_list(section, "keys"))),
    ]
    for payer, path in payers:
        for field, plural in REFERENCES.items():
            named = child(payer, field)
            if isinstance(named, Scalar):
                yield named.line, (*path, field), plural, named
        members = child(payer, "members")
        if isinstance(members, Entries):
            for user, entry in members.entries.items():
                yield entry.line, (*path, "members"), "users", Scalar(entry.line, user)


def check_keys(section: Node, general: Node, mistakes: Mistakes) -> None:
    """Note keys that are written twice, as themselves or as their hash: the second would silently decide who pays."""
    written_at: dict[str, int] = {}
    for line, path, key_sha256 in _hashed_keys(section, general):
        if key_sha256 in written_at:
            mistakes.add(line, f"{written(path)}: this is the key of line {written_at[key_sha256]} again: keep one")
        written_at.setdefault(key_sha256, line)


def _hashed_keys(section: Node, general: Node) -> Iterator[tuple[int, Path, str]]:
    """Give the line, the place and the SHA-256 of every key that is known so far."""
    master_key = child(general, "master_key")
    if isinstance(master_key, Scalar) and not master_key.missing:
        yield master_key.line, ("general_settings", "master_key"), hashed(str(master_key.value))
    for index, item in enumerate(_list(section, "keys")):
        key, key_sha256 = child(item, "key"), child(item, "key_sha256")
        path = (OWN_SECTION, "keys", index)
        if isinstance(key, Scalar) and not key.missing:
            yield key.line, path, hashed(str(key.value))
        if isinstance(key_sha256, Scalar) and not key_sha256.missing:
            yield key_sha256.line, path, str(key_sha256.value).lower()


def accounts_of(section: ExtauthzSection, general: GeneralSettings, litellm: LitellmSettings, zone: str) -> Accounts:
    """Build the accounts of sections without mistakes; budgets follow the calendar of `zone`."""

    def budgets(fields: BudgetFields) -> Budgets:
        return tuple(_budget(limit, section.admission, zone) for limit in fields.limits())

    end_users = {end_user: budgets(fields) for end_user, fields in section.end_users.items()}
    return Accounts(
        global_budgets=budgets(_global_fields(section, litellm)),
        organizations={organization: budgets(fields) for organization, fields in section.organizations.items()},
        teams={
            team: Team(
                budgets=budgets(fields),
                organization=fields.organization,
                members={user: budgets(member) for user, member in fields.members.items()},
                models=fields.models,
            )
            for team, fields in section.teams.items()
        },
        users={user: User(budgets(fields), fields.organization) for user, fields in section.users.items()},
        keys=tuple(_key(fields, budgets(fields)) for fields in section.keys),
        default_end_user=end_users.pop(DEFAULT_END_USER, ()),
        end_users=end_users,
        admin_sha256=hashed(general.master_key.get_secret_value()) if general.master_key is not None else None,
        user_budgets_bind_in_teams=general.apply_user_budget_to_team_keys,
    )


def _global_fields(section: ExtauthzSection, litellm: LitellmSettings) -> BudgetFields:
    """Give the global budget: ours, or LiteLLM's, where 0 means that there is none."""
    if "global_" in section.model_fields_set or not litellm.max_budget:
        return section.global_
    return BudgetFields(max_budget=litellm.max_budget).model_copy(update={"budget_duration": litellm.budget_duration})


def _budget(limit: BudgetLimit, admission: Admission, zone: str) -> Budget:
    return Budget(
        limit_nanousd=limit_nanousd(limit.max_budget),
        rule=WindowRule(limit.budget_duration, zone, _anchor_ms(limit.anchor, zone)),
        strict=(limit.admission or admission) is Admission.STRICT,
    )


def _anchor_ms(anchor: datetime | None, zone: str) -> int | None:
    """Give an anchor in Unix milliseconds; without an offset it is local time in the zone."""
    if anchor is None:
        return None
    moment = anchor if anchor.tzinfo is not None else anchor.replace(tzinfo=ZoneInfo(zone))
    return int(moment.timestamp() * 1000)


def _key(fields: KeyFields, budgets: Budgets) -> Key:
    return Key(
        sha256=fields.sha256,
        alias=fields.key_alias,
        budgets=budgets,
        organization=fields.organization,
        team=fields.team,
        user=fields.user,
        models=fields.models,
    )


def _entries(section: Node, key: str) -> Iterator[tuple[str, Node]]:
    node = child(section, key)
    if isinstance(node, Entries):
        yield from ((name, entry.node) for name, entry in node.entries.items())


def _list(section: Node, key: str) -> tuple[Node, ...]:
    node = child(section, key)
    return node.items if isinstance(node, Items) else ()


def _ids(section: Node, plural: str) -> frozenset[str]:
    return frozenset(name for name, _ in _entries(section, plural))
