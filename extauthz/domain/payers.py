"""The payers that are known: each with its budgets, its list of models, and who pays with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extauthz.domain.budgets import Budget

Budgets = tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Payer:
    """What every payer has: budgets, the `models` that may be used for it (empty: everything), and whether it may pay.

    A tag and a member of a team have nothing else.
    """

    budgets: Budgets = ()
    models: tuple[str, ...] = field(default=(), kw_only=True)
    blocked: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class User(Payer):
    """A person; `organization` counts for keys that have neither one of their own nor a team in one."""

    organization: str | None = None


@dataclass(frozen=True, slots=True)
class Team(Payer):
    """A team; `members` are those whose budgets inside it stand with it, `tags` are on all its requests.

    In `shadow_mode` nothing is refused to its keys.
    """

    organization: str | None = None
    members: Mapping[str, Payer] = field(default_factory=dict)
    shadow_mode: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project(Payer):
    """A project; `team` pays for its keys that have none."""

    team: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, known only by its SHA-256 in hex; `alias` is its name for people, `metadata` are their notes.

    It is refused from `expires_ms` on (Unix milliseconds). `tags` are on all its requests. `counts_as` is the key whose
    place it takes, and whose scope it goes on with.
    """

    sha256: str
    alias: str | None = None
    budgets: Budgets = ()
    organization: str | None = None
    team: str | None = None
    user: str | None = None
    models: tuple[str, ...] = ()
    project: str | None = None
    blocked: bool = False
    expires_ms: int | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    counts_as: str | None = None

    @property
    def counted_as(self) -> str:
        """The id of its scope."""
        return self.counts_as or self.sha256


Record = Payer | Key


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Everybody who sends no credential, together; `models` are what they may use (empty: everything)."""

    budgets: Budgets = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """All payers that the operator wrote down, with their budgets. Whoever is named by one of them is there.

    `default_end_user` stands for end users that `end_users` does not list. `admin_sha256` is the hash of the key that
    no budget binds. A user's own budget binds on the keys of teams only with `user_budgets_bind_in_teams`, which is
    LiteLLM's rule.

    `default_user`, `default_team` and `default_organization` are what holds for payers that a token or certificate
    names and that are not listed; None where there are to be none. `anonymous` are the budgets of requests without any
    credential, None where these are refused. `access_groups` are names that stand for several models in a list.
    """

    global_budgets: Budgets = ()
    organizations: Mapping[str, Payer] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    projects: Mapping[str, Project] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    tags: Mapping[str, Payer] = field(default_factory=dict)
    end_users: Mapping[str, Payer] = field(default_factory=dict)
    default_end_user: Payer | None = None
    default_user: User | None = None
    default_team: Team | None = None
    default_organization: Payer | None = None
    anonymous: Anonymous | None = None
    admin_sha256: str | None = None
    user_budgets_bind_in_teams: bool = False
    access_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
