"""Who pays, as the configuration file says it: the part of `extauthz:` with the budgets."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Self

from pydantic import Field, model_validator

from extauthz.config.limits import BudgetLimit, Increase, PartLimit, Whole, written_amounts
from extauthz.config.values import DurationText, Identifier, Moment, Secret, Sha256, Strict, Text, Usd
from extauthz.domain.budgets import Filter, FilterKind, Measure
from extauthz.domain.policy import Admission

# A request is held and counted on each of them, and on those of the model that it asks for.
BUDGETS_MAX = 8
PART_BUDGETS_MAX = 64

# A request has a scope for each of its tags that is known.
TAGS_MAX = 16
METADATA_MAX = 16
METADATA_TEXT_MAX = 256


Note = Annotated[Text, Field(max_length=METADATA_TEXT_MAX)]


class BudgetFields(Increase):
    """What limits a payer: amounts with one `budget_duration`, several windows in `budget_limits`, or both.

    Models and providers can have limits of their own besides.
    """

    max_budget: Usd | None = Field(
        default=None, description="The limit in USD; 0 is exhausted at once, none is no limit."
    )
    max_tokens: Whole | None = Field(
        default=None, description="The limit in tokens, input and output together, in the same budget_duration."
    )
    max_requests: Whole | None = Field(default=None, description="The limit in requests, in the same budget_duration.")
    soft_budget: Usd | None = Field(
        default=None, description="Somebody is told when so many USD are spent of max_budget; nothing is refused."
    )
    budget_duration: DurationText | None = Field(
        default=None, description="How long until these limits reset: 30s, 15m, 24h, 7d, 1mo. Without it, never."
    )
    budget_limits: tuple[BudgetLimit, ...] = Field(
        default=(),
        max_length=BUDGETS_MAX - 1,
        description="More budgets, each with its own window; at most seven, and eight with those above.",
    )
    model_max_budget: dict[Identifier, PartLimit] = Field(
        default_factory=dict,
        description="Limits of single models, by the name that is asked for or the one in model_list; one for gpt-4o "
        "is also for openai/gpt-4o. A payer has at most 64 limits of models and providers.",
    )
    provider_max_budget: dict[Identifier, PartLimit] = Field(
        default_factory=dict,
        description="Limits of single providers, by LiteLLM's names for them: openai, anthropic, azure.",
    )
    admission: Admission | None = Field(default=None, description="As `admission` above, for this payer's budgets.")
    anchor: Moment | None = Field(
        default=None, description="The moment that windows are counted from, instead of Mondays and firsts of months."
    )

    @model_validator(mode="after")
    def _duration_needs_budget(self) -> Self:
        if self.budget_duration is not None and not self._own_amounts():
            raise ValueError(
                "budget_duration stands without a limit: write max_budget, max_tokens or max_requests beside it"
            )
        if self.soft_budget is not None and self.max_budget is None:
            raise ValueError("soft_budget stands without max_budget: write max_budget beside it")
        if self.temp_budget_increase is not None and self.max_budget is None:
            raise ValueError("temp_budget_increase stands without max_budget: write max_budget beside it")
        self.check_increased(self.max_budget or Decimal(0))
        return self

    @model_validator(mode="after")
    def _are_not_too_many(self) -> Self:
        if len(self.limits()) > BUDGETS_MAX:
            raise ValueError(f"a payer has at most {BUDGETS_MAX} budgets: leave some of budget_limits out")
        if sum(len(part.amounts()) for _, part in self.parts()) > PART_BUDGETS_MAX:
            raise ValueError(f"a payer has at most {PART_BUDGETS_MAX} limits of models and providers: leave some out")
        return self

    @property
    def limited(self) -> bool:
        """Whether anything limits this payer."""
        return bool(self.limits() or self.parts())

    def limits(self) -> tuple[BudgetLimit, ...]:
        """Give all budgets for whatever is asked for alike, with what they take over from here."""
        inherited = tuple(
            limit.model_copy(
                update={"admission": limit.admission or self.admission, "anchor": limit.anchor or self.anchor}
            )
            for limit in self.budget_limits
        )
        return (*self._own_limits(), *inherited)

    def parts(self) -> tuple[tuple[Filter, PartLimit], ...]:
        """Give the limits of single models and providers, with what they take over from here."""
        named = (
            *((Filter(FilterKind.MODEL, name), part) for name, part in self.model_max_budget.items()),
            *((Filter(FilterKind.PROVIDER, name), part) for name, part in self.provider_max_budget.items()),
        )
        return tuple(
            (
                only,
                part.model_copy(
                    update={"admission": part.admission or self.admission, "anchor": part.anchor or self.anchor}
                ),
            )
            for only, part in named
        )

    def _own_amounts(self) -> tuple[tuple[Measure, int], ...]:
        return written_amounts(self.max_budget, self.max_tokens, self.max_requests)

    def _own_limits(self) -> Iterator[BudgetLimit]:
        window = BudgetLimit.model_construct(
            budget_duration=self.budget_duration, admission=self.admission, anchor=self.anchor
        )
        if self.max_budget is not None:
            yield window.model_copy(
                update={
                    "max_budget": self.max_budget,
                    "soft_budget": self.soft_budget,
                    "temp_budget_increase": self.temp_budget_increase,
                    "temp_budget_expiry": self.temp_budget_expiry,
                }
            )
        if self.max_tokens is not None:
            yield window.model_copy(update={"max_tokens": self.max_tokens})
        if self.max_requests is not None:
            yield window.model_copy(update={"max_requests": self.max_requests})


class OrganizationFields(BudgetFields):
    """An organization."""

    blocked: bool = Field(default=False, description="Refuse whoever pays with it (401).")
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that its keys may use; none written allows all."
    )


class UserFields(BudgetFields):
    """A user. Its own budget does not bind on keys of teams, unless apply_user_budget_to_team_keys says so."""

    organization: Identifier | None = Field(
        default=None, description="Pays where neither the key nor a team names one."
    )
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that it may use where no team pays; none written allows all."
    )


class MemberFields(BudgetFields):
    """A user inside a team."""

    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that it may use there; none written leaves it to the team."
    )


class ProjectFields(BudgetFields):
    """A project: some keys, of one team or of several."""

    team: Identifier | None = Field(default=None, description="The team that pays for keys that name none.")
    blocked: bool = Field(default=False, description="Refuse its keys (401).")
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that its keys may use; none written allows all."
    )


class EndUserFields(BudgetFields):
    """A customer of the application."""

    blocked: bool = Field(default=False, description="Refuse requests for it (401).")
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that may be used for it; none written allows all."
    )


class TagFields(BudgetFields):
    """A tag, of a key or of a request. One that is not listed counts nothing."""


class TeamFields(BudgetFields):
    """A team."""

    organization: Identifier | None = Field(default=None, description="Pays with its team, unless a key names another.")
    blocked: bool = Field(default=False, description="Refuse the team's keys (401).")
    tags: tuple[Identifier, ...] = Field(
        default=(), max_length=TAGS_MAX, description="Tags that all requests of the team have, each of `tags`."
    )
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that the team's keys may use; none written allows all."
    )
    shadow_mode: bool = Field(
        default=False, description="Let the team's requests through whatever its budgets say, and only tell; see above."
    )
    members: dict[Identifier, MemberFields] = Field(
        default_factory=dict, description="Budgets of single users inside this team, by user id."
    )


class KeyFields(BudgetFields):
    """An API key, written as itself or as its SHA-256."""

    key: Secret | None = Field(default=None, description="The key, best as os.environ/NAME. Only its hash is kept.")
    key_sha256: Sha256 | None = Field(default=None, description="The SHA-256 of the key in hex, instead of `key`.")
    key_alias: Identifier | None = Field(default=None, description="A name for people, shown instead of the hash.")
    counts_as: Sha256 | None = Field(
        default=None,
        description="The SHA-256 of the key in whose place this one came: its counters are gone on with, and so are "
        "its budgets. A key that is rotated in the store has it.",
    )
    user: Identifier | None = Field(default=None, description="Whose key it is, one of `users`.")
    team: Identifier | None = Field(default=None, description="The team that pays, one of `teams`.")
    organization: Identifier | None = Field(
        default=None, description="The organization that pays; without one, its team's, or else its user's."
    )
    project: Identifier | None = Field(default=None, description="The project that pays, one of `projects`.")
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that this key may use; the team's list counts as well."
    )
    blocked: bool = Field(default=False, description="Refuse the key (401).")
    expires: Moment | None = Field(
        default=None,
        description="The moment from which the key is refused (401), such as 2026-01-31T08:00:00+01:00; without an "
        "offset it is local time in `timezone`.",
    )
    tags: tuple[Identifier, ...] = Field(
        default=(), max_length=TAGS_MAX, description="Tags that all requests of the key have, each of `tags`."
    )
    metadata: dict[Identifier, Note] = Field(
        default_factory=dict, max_length=METADATA_MAX, description="Notes of your own; they decide nothing."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.key is None) == (self.key_sha256 is None):
            raise ValueError("write either key (best as os.environ/NAME) or key_sha256")
        return self

    @property
    def sha256(self) -> str:
        """The key's SHA-256 in lower-case hex, all that is known of it from here on."""
        return hashed(self.key.get_secret_value()) if self.key is not None else self.key_sha256 or ""


class KeysFile(Strict):
    """A list of keys in a file of its own."""

    keys: tuple[KeyFields, ...] = Field(default=(), description="API keys.")


def hashed(key: str) -> str:
    """Give the SHA-256 of a key, in lower-case hex."""
    return sha256(key.encode()).hexdigest()
