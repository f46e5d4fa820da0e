"""From the section `extauthz:` to the accounts that the directory is made of.

References are checked on the tree and not on the validated section, so that one mistyped budget does not hide the
unknown team three lines below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from extauthz.config.credentials import takes_unlisted
from extauthz.config.explain import did_you_mean
from extauthz.config.litellm import OWN_SECTION
from extauthz.config.litellm_settings import GeneralSettings, LitellmSettings, RouterSettings
from extauthz.config.model import ExtauthzSection, Settings
from extauthz.config.payers import BudgetFields, KeyFields, hashed
from extauthz.config.records import RecordMaker
from extauthz.config.source import FILE_LINES_MAX, Entries, Items, Mistakes, Node, Path, Scalar, child, written
from extauthz.domain.payers import Accounts, Anonymous

DEFAULT_END_USER = "default"
# The payer whose budgets hold for those that a credential names and that are not listed, where these are let in.
DEFAULT_PAYER = "default"

# The field that names a payer, and the mapping that has it.
REFERENCES: Mapping[str, str] = {
    "organization": "organizations",
    "team": "teams",
    "user": "users",
    "project": "projects",
}
# Those that name others, and the list in which they name tags.
_NAMING = ("teams", "users", "projects")
_TAGS = "tags"


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
    """Note every payer that a section at `root` names and that is not in the `known` one."""
    ids = {plural: _ids(section if known is None else known, plural) for plural in (*REFERENCES.values(), _TAGS)}
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
        *((node, (plural, name)) for plural in _NAMING for name, node in _entries(section, plural)),
        *((node, ("keys", index)) for index, node in enumerate(_list(section, "keys"))),
    ]
    for payer, path in payers:
        for field, plural in REFERENCES.items():
            named = child(payer, field)
            if isinstance(named, Scalar):
                yield named.line, (*path, field), plural, named
        for index, tag in enumerate(_list(payer, _TAGS)):
            if isinstance(tag, Scalar):
                yield tag.line, (*path, _TAGS, index), _TAGS, tag
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
                where = f"line {first % FILE_LINES_MAX}" if file is keys.mistakes else f"{file.file}:{first}"
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
    global_: BudgetFields,
    more_keys: Iterable[KeyFields],
    settings: Settings,
    access_groups: Mapping[str, tuple[str, ...]],
) -> Accounts:
    """Build the accounts of sections without mistakes; budgets follow the calendar of `settings`."""
    make = RecordMaker(settings)
    end_users = {end_user: make.payer(fields) for end_user, fields in section.end_users.items()}
    organizations = {organization: make.payer(fields) for organization, fields in section.organizations.items()}
    teams = {team: make.team(fields) for team, fields in section.teams.items()}
    users = {user: make.user(fields) for user, fields in section.users.items()}
    unlisted = takes_unlisted(section.jwt, section.mtls, section.trusted_headers)
    anonymous = section.anonymous
    return Accounts(
        global_budgets=make.budgets(global_),
        organizations=organizations,
        teams=teams,
        users=users,
        projects={project: make.project(fields) for project, fields in section.projects.items()},
        keys=tuple(make.key(fields) for fields in (*section.keys, *more_keys)),
        tags={tag: make.payer(fields) for tag, fields in section.tags.items()},
        default_end_user=end_users.pop(DEFAULT_END_USER, None),
        end_users=end_users,
        default_user=users.get(DEFAULT_PAYER) if unlisted else None,
        default_team=teams.get(DEFAULT_PAYER) if unlisted else None,
        default_organization=organizations.get(DEFAULT_PAYER) if unlisted else None,
        anonymous=None if anonymous is None else Anonymous(make.budgets(anonymous), anonymous.models),
        admin_sha256=hashed(general.master_key.get_secret_value()) if general.master_key is not None else None,
        user_budgets_bind_in_teams=general.apply_user_budget_to_team_keys,
        access_groups=access_groups,
    )


def global_fields(section: ExtauthzSection, litellm: LitellmSettings, router: RouterSettings) -> BudgetFields:
    """Give the budgets of all together: ours, else LiteLLM's, where 0 means that there is none."""
    own = section.global_
    fields = (
        own
        if "global_" in section.model_fields_set or not litellm.max_budget
        else own.model_copy(update={"max_budget": litellm.max_budget, "budget_duration": litellm.budget_duration})
    )
    theirs = {
        provider: limit
        for provider, limit in router.provider_budget_config.items()
        if any(amount > 0 for _, amount in limit.amounts())
    }
    return fields.model_copy(update={"provider_max_budget": {**theirs, **own.provider_max_budget}})


def _entries(section: Node, key: str) -> Iterator[tuple[str, Node]]:
    node = child(section, key)
    if isinstance(node, Entries):
        yield from ((name, entry.node) for name, entry in node.entries.items())


def _list(section: Node, key: str) -> tuple[Node, ...]:
    node = child(section, key)
    return node.items if isinstance(node, Items) else ()


def _ids(section: Node, plural: str) -> frozenset[str]:
    return frozenset(name for name, _ in _entries(section, plural))
