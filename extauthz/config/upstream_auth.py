"""What upstreams get for the client's credential, as the configuration file says it."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from extauthz.config.values import Identifier, Secret, Strict
from extauthz.domain.model_names import most_specific


class UpstreamAuthAction(StrEnum):
    """What happens to the client's credential on its way to the upstream."""

    PASS = "pass"  # noqa: S105 - a verb here
    REMOVE = "remove"
    SET = "set"


class UpstreamAuthRule(Strict):
    """What the upstream gets for the client's credential: `pass`, `remove`, or `set: KEY`."""

    action: UpstreamAuthAction = Field(default=UpstreamAuthAction.PASS, description="pass, remove or set.")
    key: Secret | None = Field(default=None, alias="set", description="The upstream's own key, instead.")

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, data: object) -> object:
        match data:
            case str():
                return {"action": data}
            case {"set": key, **rest}:
                return {"action": UpstreamAuthAction.SET, "set": key, **rest}
            case UpstreamAuthRule() | {}:
                return data
            case _:
                raise ValueError("this is not understood: write pass, remove or {set: os.environ/NAME}")

    @model_validator(mode="after")
    def _set_needs_key(self) -> Self:
        if (self.action is UpstreamAuthAction.SET) != (self.key is not None):
            raise ValueError("this is not understood: write pass, remove or {set: os.environ/NAME}")
        return self


class UpstreamAuth(Strict):
    """What upstreams get for the client's credential. LiteLLM wants it, a provider must not see it."""

    default: UpstreamAuthRule = Field(
        default=UpstreamAuthRule(), description="For every model that is not named below: pass, remove or {set: KEY}."
    )
    models: dict[Identifier, UpstreamAuthRule] = Field(
        default_factory=dict, description="By model name or pattern, such as openai/*."
    )

    def rule(self, model: str, entry: str | None = None) -> UpstreamAuthRule:
        """Choose the rule of a model: its own, that of its `entry` in the model list, of a pattern, or the default."""
        if not self.models:
            return self.default
        for name in (model, entry):
            if name in self.models:
                return self.models[name]
        pattern = most_specific(self.models, model)
        return self.default if pattern is None else self.models[pattern]
