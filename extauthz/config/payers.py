"""Who pays, as the configuration file says it: the part of `extauthz:` with the budgets."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from typing import Self

from pydantic import Field, model_validator

from extauthz.config.values import DurationText, Identifier, Moment, Secret, Sha256, Strict, Text, Usd
from extauthz.domain.money import limit_nanousd
from extauthz.domain.policy import Admission

# A request is held and counted on each of them.
BUDGETS_MAX = 8


class Increase(Strict):
    """So much more of a limit until a moment, by LiteLLM's names."""

    temp_budget_increase: Usd | None = Field(
        default=None, description="So many USD more of max_budget, until temp_budget_expiry."
    )
    temp_budget_expiry: Moment | None = Field(
        default=None,
        description="The moment from which max_budget holds again, such as 2026-01-31T08:00:00+01:00; without an "
        "offset it is local time in `timezone`.",
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.temp_budget_increase is None) != (self.temp_budget_expiry is None):
            raise ValueError("temp_budget_increase and temp_budget_expiry stand together: write both or neither")
        return self

    def check_increased(self, limit: Decimal) -> None:
        """Raise ValueError where a limit with its increase is more than a budget holds."""
        limit_nanousd(limit + (self.temp_budget_increase or 0))


class BudgetLimit(Increase):
    """One budget: so much in so long."""

    max_budget: Usd = Field(description="The limit in USD; 0 is exhausted at once.")
    soft_budget: Usd | None = Field(
        default=None, description="Somebody is told when so many USD are spent; nothing is refused. See `alerts`."
    )
    budget_duration: DurationText | None = Field(
        default=None,
        description="How long until it resets: 30s, 15m, 24h, 7d, 1mo. Days and months follow the calendar of "
        "`timezone`. Without it the budget never resets.",
    )
    admission: Admission | None = Field(default=None, description="As `admission` above, for this budget alone.")
    anchor: Moment | None = Field(
        default=None, description="The moment that windows are counted from, instead of Mondays and firsts of months."
    )

    @model_validator(mode="after")
    def _holds_the_increase(self) -> Self:
        self.check_increased(self.max_budget)
        return self


class BudgetFields(Increase):
    """What limits a payer: `max_budget` with `budget_duration`, several windows in `budget_limits`, or both."""

    max_budget: Usd | None = Field(
        default=None, description="The limit in USD; 0 is exhausted at once, none is no limit."
    )
    soft_budget: Usd | None = Field(
        default=None, description="Somebody is told when so many USD are spent of max_budget; nothing is refused."
    )
    budget_duration: DurationText | None = Field(
        default=None, description="How long until max_budget resets: 30s, 15m, 24h, 7d, 1mo. Without it, never."
    )
    budget_limits: tuple[BudgetLimit, ...] = Field(
        default=(), max_length=BUDGETS_MAX - 1, description="More budgets, each with its own window; at most seven."
    )
    admission: Admission | None = Field(default=None, description="As `admission` above, for this payer's budgets.")
    anchor: Moment | None = Field(
        default=None, description="The moment that windows are counted from, instead of Mondays and firsts of months."
    )

    @model_validator(mode="after")
    def _duration_needs_budget(self) -> Self:
        if self.budget_duration is not None and self.max_budget is None:
            raise ValueError("budget_duration stands without max_budget: write max_budget beside it")
        if self.soft_budget is not None and self.max_budget is None:
            raise ValueError("soft_budget stands without max_budget: write max_budget beside it")
        if self.temp_budget_increase is not None and self.max_budget is None:
            raise ValueError("temp_budget_increase stands without max_budget: write max_budget beside it")
        self.check_increased(self.max_budget or Decimal(0))
        return self

    def limits(self) -> tuple[BudgetLimit, ...]:
        """Give all budgets alike, those of `budget_limits` with what they take over from here."""
        inherited = tuple(
            limit.model_copy(
                update={"admission": limit.admission or self.admission, "anchor": limit.anchor or self.anchor}
            )
            for limit in self.budget_limits
        )
        if self.max_budget is None:
            return inherited
        own = BudgetLimit.model_construct(
            max_budget=self.max_budget,
            soft_budget=self.soft_budget,
            budget_duration=self.budget_duration,
            admission=self.admission,
            anchor=self.anchor,
            temp_budget_increase=self.temp_budget_increase,
            temp_budget_expiry=self.temp_budget_expiry,
        )
        return (own, *inherited)


class UserFields(BudgetFields):
    """A user. Its own budget does not bind on keys of teams, unless apply_user_budget_to_team_keys says so."""

    organization: Identifier | None = Field(default=None, description="Pays with its user where no team does.")


class TeamFields(BudgetFields):
    """A team."""

    organization: Identifier | None = Field(default=None, description="Pays with its team.")
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that the team's keys may use; none written allows all."
    )
    shadow_mode: bool = Field(
        default=False, description="Let the team's requests through whatever its budgets say, and only tell; see above."
    )
    members: dict[Identifier, BudgetFields] = Field(
        default_factory=dict, description="Budgets of single users inside this team, by user id."
    )


class KeyFields(BudgetFields):
    """An API key, written as itself or as its SHA-256."""

    key: Secret | None = Field(default=None, description="The key, best as os.environ/NAME. Only its hash is kept.")
    key_sha256: Sha256 | None = Field(default=None, description="The SHA-256 of the key in hex, instead of `key`.")
    key_alias: Identifier | None = Field(default=None, description="A name for people, shown instead of the hash.")
    user: Identifier | None = Field(default=None, description="Whose key it is, one of `users`.")
    team: Identifier | None = Field(default=None, description="The team that pays, one of `teams`.")
    organization: Identifier | None = Field(
        default=None, description="The organization that pays, if no team names one."
    )
    models: tuple[Text, ...] = Field(
        default=(), description="The models, or patterns, that this key may use; the team's list counts as well."
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
