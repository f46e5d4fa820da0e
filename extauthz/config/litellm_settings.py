"""What counts of LiteLLM's own settings, read leniently: whatever else stands there is LiteLLM's business."""

from __future__ import annotations

from pydantic import Field, field_validator

from extauthz.config.limits import ProviderLimit
from extauthz.config.values import DurationText, Lenient, ResetTime, Secret, Text, TimeZone, Usd
from extauthz.domain.policy import ModelsPolicy


class UserHeader(Lenient):
    """An entry of LiteLLM's `user_header_mappings`: a header, and whom it names."""

    header_name: Text = Field(description="The header.")
    litellm_user_role: Text = Field(default="", description="`customer` for end users.")

    @property
    def names_end_user(self) -> bool:
        """Whether it names an end user: any client can write a header, so it names nobody who pays."""
        return self.litellm_user_role.lower() == "customer"


class PassThrough(Lenient):
    """An entry of LiteLLM's `pass_through_endpoints`: a path, and everything below it, that leads to a provider."""

    path: Text = Field(description="The path.")


class GeneralSettings(Lenient):
    """What counts here of LiteLLM's `general_settings:`."""

    budget_exceeded_models_policy: ModelsPolicy = Field(
        default=ModelsPolicy.BLOCKED,
        description="What the model list answers once a budget is exhausted: blocked (429), all, or free_only.",
    )
    master_key: Secret | None = Field(default=None, description="The admin's key: no budget binds it.")
    user_header_name: Text | None = Field(default=None, description="The header that names the end user.")
    user_header_mappings: tuple[UserHeader, ...] = Field(
        default=(), description="The same, for several headers. Those of internal users mean nothing here."
    )
    apply_user_budget_to_team_keys: bool = Field(
        default=False, description="Whether a user's own budget also binds on keys of teams."
    )
    pass_through_endpoints: tuple[PassThrough, ...] = Field(
        default=(), description="Paths that LiteLLM hands on to providers; what stands there counts as inference."
    )

    @field_validator("user_header_mappings", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value

    @property
    def user_headers(self) -> tuple[str, ...]:
        """The headers that name the end user, lower-case, in LiteLLM's order."""
        mapped = [header.header_name for header in self.user_header_mappings if header.names_end_user]
        return tuple(name.lower() for name in (*mapped, self.user_header_name) if name)


class LitellmSettings(Lenient):
    """What counts here of LiteLLM's `litellm_settings:`, apart from fallbacks."""

    max_budget: Usd | None = Field(
        default=None, description="The global budget where extauthz.global has none; 0 is none."
    )
    budget_duration: DurationText | None = Field(default=None, description="How long until max_budget resets.")
    timezone: TimeZone | None = Field(default=None, description="The zone where extauthz.timezone says none.")
    budget_reset_time: ResetTime | None = Field(
        default=None, description="The time of day where extauthz.budget_reset_time says none."
    )
    budget_rollover: bool | None = Field(
        default=None, description="The same as extauthz.budget_rollover, where that says nothing."
    )
    block_requests_for_models_without_pricing: bool = Field(
        default=False, description="The same as extauthz.unknown_price: deny, where that says nothing."
    )


class RouterSettings(Lenient):
    """What counts here of LiteLLM's `router_settings:`, apart from fallbacks and aliases."""

    provider_budget_config: dict[Text, ProviderLimit] = Field(
        default_factory=dict,
        description="Budgets of all together for single providers, by their names: budget_limit (USD) and time_period. "
        "What extauthz.global.provider_max_budget says of a provider counts instead.",
    )
