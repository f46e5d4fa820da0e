"""From the section `extauthz:` to the accounts that the directory is made of.

References are checked on the tree and not on the validated section, so that one mistyped budget does not hide the
unknown team three lines below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from extauthz.config.credentials import takes_unlisted
from extauthz.config.explain import did_you_mean
from extauthz.config.litellm import OWN_SECTION
from extauthz.config.litellm_settings import GeneralSettings, LitellmSettings
from extauthz.config.model import ExtauthzSection, Settings
from extauthz.config.payers import BudgetFields, BudgetLimit, KeyFields, hashed
from extauthz.config.source import Entries, Items, Mistakes, Node, Path, Scalar, child, written
from extauthz.domain.budgets import Budget, Increase
from extauthz.domain.directory import Accounts, Anonymous, Budgets, Key, Team, User
from extauthz.domain.money import limit_nanousd
from extauthz.domain.policy import Admission
from extauthz.domain.windows import Duration, WindowRule

DEFAULT_END_USER = "default"
# The payer whose budgets hold for those that a credential names and that are not listed, where these are let in.
DEFAULT_PAYER = "default"

EPOCH = datetime.fromtimestamp(0, UTC)

# The field that names a payer, and the mapping that has it.
REFERENCES: Mapping[str, str] = {"organization": "organizations", "team": "teams", "user": "users"}


@dataclass(frozen=True, slots=True)
class KeyList:
    """A tree with `keys`, the path that leads to it, and who hears of what is wrong there.

    `general` is where a `master_key` may stand in the same file.
    """

    section: Node
    root: Path
    mistakes: Mistakes
    general: Node | None = None


def check_references(
    section: Node, mistakes: Mistakes, *, known: Node | None = None, root: Path = (OWN_SECTION,)
) -> None:
    """Note every team, user and organization that a section at `root` names and that is not in the `known` one."""
    ids = {plural: _ids(section if known is None else known, plural) for plural in REFERENCES.values()}
    for line, path, plural, named in _references(section):
        if named.missing or str(named.value) in ids[plural]:
            continue
        # What came from the environment is not shown.
        shown = f"`{named.value}`" if named.variable is None else f"the value of {named.variable}"
        hint = did_you_mean(str(named.value), ids[plural]) if named.variable is None else "add it there"
        mistakes.add(line, f"{written((*root, *path))}: {shown} is not in {OWN_SECTION}.{plural}; {hint}")


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


def check_defaults(section: ExtauthzSection, own: Node, mistakes: Mistakes) -> None:
    """Note that payers who are not listed are to be let in, and nothing says by which budgets."""
    mappings = (section.users, section.teams, section.organizations)
    if takes_unlisted(section.jwt, section.mtls, section.trusted_headers) and not any(
        DEFAULT_PAYER in mapping for mapping in mappings
    ):
        sources = (child(own, name) for name in ("jwt", "mtls", "trusted_headers"))
        line = next((node.line for node in sources if node is not None), own.line)
        mistakes.add(
            line,
            f"unknown: default needs somebody called `{DEFAULT_PAYER}` in {OWN_SECTION}.users, teams or organizations: "
            "write its budgets, or {} for none",
        )


def check_keys(lists: Iterable[KeyList]) -> None:
    """Note keys that are written twice, as themselves or as their hash: the second would silently decide who pays."""
    written_at: dict[str, tuple[Mistakes, int]] = {}
    for keys in lists:
        for line, path, key_sha256 in _hashed_keys(keys):
            if key_sha256 in written_at:
                file, first = written_at[key_sha256]
                where = f"line {first}" if file is keys.mistakes else f"{file.file}:{first}"
                keys.mistakes.add(line, f"{written(path)}: this is the key of {where} again: keep one")
            written_at.setdefault(key_sha256, (keys.mistakes, line))


def _hashed_keys(keys: KeyList) -> Iterator[tuple[int, Path, str]]:
    """Give the line, the place and the SHA-256 of every key that is known so far."""
    master_key = child(keys.general, "master_key") if keys.general is not None else None
    if isinstance(master_key, Scalar) and not master_key.missing:
        yield master_key.line, ("general_settings", "master_key"), hashed(str(master_key.value))
    for index, item in enumerate(_list(keys.section, "keys")):
        key, key_sha256 = child(item, "key"), child(item, "key_sha256")
        path = (*keys.root, "keys", index)
        if isinstance(key, Scalar) and not key.missing:
            yield key.line, path, hashed(str(key.value))
        if isinstance(key_sha256, Scalar) and not key_sha256.missing:
            yield key_sha256.line, path, str(key_sha256.value).lower()


def accounts_of(
    section: ExtauthzSection,
    general: GeneralSettings,
    litellm: LitellmSettings,
    more_keys: Iterable[KeyFields],
    settings: Settings,
) -> Accounts:
    """Build the accounts of sections without mistakes; budgets follow the calendar of `settings`."""

    @cache  # budgets alike share a rule, and with it the window that it gave last
    def rule(duration: Duration | None, anchor: datetime | None) -> WindowRule:
        zone = settings.timezone
        anchor_ms = None if anchor is None else _ms(anchor, zone)
        return WindowRule(duration, zone, anchor_ms, settings.budget_reset_time, settings.reset_rules)

    def budgets(fields: BudgetFields) -> Budgets:
        return tuple(_budget(limit, rule(limit.budget_duration, limit.anchor), settings) for limit in fields.limits())

    end_users = {end_user: budgets(fields) for end_user, fields in section.end_users.items()}
    organizations = {organization: budgets(fields) for organization, fields in section.organizations.items()}
    teams = {
        team: Team(
            budgets=budgets(fields),
            organization=fields.organization,
            members={user: budgets(member) for user, member in fields.members.items()},
            models=fields.models,
            shadow_mode=fields.shadow_mode,
        )
        for team, fields in section.teams.items()
    }
    users = {user: User(budgets(fields), fields.organization) for user, fields in section.users.items()}
    unlisted = takes_unlisted(section.jwt, section.mtls, section.trusted_headers)
    anonymous = section.anonymous
    return Accounts(
        global_budgets=budgets(_global_fields(section, litellm)),
        organizations=organizations,
        teams=teams,
        users=users,
        keys=tuple(_key(fields, budgets(fields)) for fields in (*section.keys, *more_keys)),
        default_end_user=end_users.pop(DEFAULT_END_USER, ()),
        end_users=end_users,
        default_user=users.get(DEFAULT_PAYER) if unlisted else None,
        default_team=teams.get(DEFAULT_PAYER) if unlisted else None,
        default_organization=organizations.get(DEFAULT_PAYER) if unlisted else None,
        anonymous=None if anonymous is None else Anonymous(budgets(anonymous), anonymous.models),
        admin_sha256=hashed(general.master_key.get_secret_value()) if general.master_key is not None else None,
        user_budgets_bind_in_teams=general.apply_user_budget_to_team_keys,
    )


def _global_fields(section: ExtauthzSection, litellm: LitellmSettings) -> BudgetFields:
    """Give the global budget: ours, or LiteLLM's, where 0 means that there is none."""
    if "global_" in section.model_fields_set or not litellm.max_budget:
        return section.global_
    return BudgetFields(max_budget=litellm.max_budget).model_copy(update={"budget_duration": litellm.budget_duration})


def _budget(limit: BudgetLimit, rule: WindowRule, settings: Settings) -> Budget:
    return Budget(
        limit=limit_nanousd(limit.max_budget),
        rule=rule,
        soft_limit=None if limit.soft_budget is None else limit_nanousd(limit.soft_budget),
        strict=(limit.admission or settings.admission) is Admission.STRICT,
        increase=_increase(limit, settings.timezone),
    )


def _increase(limit: BudgetLimit, zone: str) -> Increase | None:
    if limit.temp_budget_increase is None or limit.temp_budget_expiry is None:
        return None
    return Increase(limit_nanousd(limit.temp_budget_increase), _ms(limit.temp_budget_expiry, zone))


def _ms(moment: datetime, zone: str) -> int:
    """Give a moment in Unix milliseconds; without an offset it is local time in the zone."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(zone))
    return (aware - EPOCH) // timedelta(milliseconds=1)


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
