"""One budget as the configuration file says it: so much of one measure, in so long, for which models."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from extauthz.config.values import Count, DurationText, Moment, Strict, Usd
from extauthz.domain.budgets import Measure
from extauthz.domain.money import AMOUNT_NANOUSD_MAX, limit_nanousd
from extauthz.domain.policy import Admission
from extauthz.domain.windows import Duration

# One counter holds as many of whatever it counts.
Whole = Annotated[Count, Field(ge=0, le=AMOUNT_NANOUSD_MAX)]

ONE_MEASURE = "write one of max_budget (USD), max_tokens and max_requests, and another entry for another"


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
    """One budget: so much in so long, of USD, tokens or requests."""

    max_budget: Usd | None = Field(default=None, description="The limit in USD; 0 is exhausted at once.")
    max_tokens: Whole | None = Field(
        default=None, description="The limit in tokens instead, input and output together; 0 is exhausted at once."
    )
    max_requests: Whole | None = Field(
        default=None, description="The limit in requests instead; 0 is exhausted at once."
    )
    soft_budget: Usd | None = Field(
        default=None,
        description="Somebody is told when so many USD are spent of max_budget; nothing is refused. See `alerts`.",
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
    def _has_one_measure(self) -> Self:
        if len(self.amounts()) != 1:
            raise ValueError(ONE_MEASURE)
        if self.soft_budget is not None and self.max_budget is None:
            raise ValueError("soft_budget is an amount of max_budget: write that beside it")
        if self.temp_budget_increase is not None and self.max_budget is None:
            raise ValueError("temp_budget_increase raises max_budget: write that beside it")
        self.check_increased(self.max_budget or Decimal(0))
        return self

    def amounts(self) -> tuple[tuple[Measure, int], ...]:
        """Give what it limits, and to how much; it is one, once this is read."""
        return written_amounts(self.max_budget, self.max_tokens, self.max_requests)


class PartLimit(Strict):
    """What limits one model or one provider, by LiteLLM's names and ours."""

    max_budget: Usd | None = Field(
        default=None, description="The limit in USD; 0 is exhausted at once, none is no limit."
    )
    budget_limit: Usd | None = Field(default=None, description="LiteLLM's other name for max_budget.")
    max_tokens: Whole | None = Field(default=None, description="The limit in tokens, input and output together.")
    max_requests: Whole | None = Field(default=None, description="The limit in requests.")
    budget_duration: DurationText | None = Field(
        default=None, description="How long until all of them reset: 30s, 15m, 24h, 7d, 1mo. Without it, never."
    )
    time_period: DurationText | None = Field(default=None, description="LiteLLM's other name for budget_duration.")
    admission: Admission | None = Field(default=None, description="As `admission` above, for these budgets alone.")
    anchor: Moment | None = Field(
        default=None, description="The moment that windows are counted from, instead of Mondays and firsts of months."
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if self.max_budget is not None and self.budget_limit is not None:
            raise ValueError("budget_limit and max_budget are two names for one limit: keep one")
        if self.budget_duration is not None and self.time_period is not None:
            raise ValueError("time_period and budget_duration are two names for one thing: keep one")
        return self

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.amounts():
            raise ValueError("nothing is limited here: write max_budget (USD), max_tokens or max_requests")
        return self

    @property
    def duration(self) -> Duration | None:
        """How long until it resets, under either name."""
        return self.budget_duration or self.time_period

    def amounts(self) -> tuple[tuple[Measure, int], ...]:
        """Give what it limits, and to how much each."""
        usd = self.budget_limit if self.max_budget is None else self.max_budget
        return written_amounts(usd, self.max_tokens, self.max_requests)


class ProviderLimit(PartLimit):
    """The same in a section of LiteLLM's, where what is not known here (`rpm_limit`, say) is its own affair."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        return self


def written_amounts(usd: Decimal | None, tokens: int | None, requests: int | None) -> tuple[tuple[Measure, int], ...]:
    """List what is limited, and to how much, in the unit of each measure."""
    amounts = (
        (Measure.USD, None if usd is None else limit_nanousd(usd)),
        (Measure.TOKENS, tokens),
        (Measure.REQUESTS, requests),
    )
    return tuple((measure, amount) for measure, amount in amounts if amount is not None)
