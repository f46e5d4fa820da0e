"""How a request is estimated, and what it costs where nobody has said a price."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from functools import cached_property

from pydantic import Field, model_validator

from extauthz.config.values import Count, Price, Strict, Usd
from extauthz.domain.money import cost_nanousd

TOKENS_MAX = 10_000_000


class EstimateMode(StrEnum):
    """How many output tokens a request is expected to need: as learnt from the model's answers, or a fixed number."""

    USUAL = "usual"
    FIXED = "fixed"


class EstimateSettings(Strict):
    """How a request is estimated before its cost is known. A text stands for its `mode`."""

    mode: EstimateMode = Field(
        default=EstimateMode.USUAL,
        description="usual: as many output tokens as 95 of 100 of the model's last answers had, starting at "
        "output_tokens. fixed: always output_tokens. A client's own lower maximum wins.",
    )
    output_tokens: Count = Field(
        default=512, ge=1, le=TOKENS_MAX, description="Output tokens of one answer, until more is known or for good."
    )
    image_tokens: Count = Field(
        default=1600,
        ge=0,
        le=TOKENS_MAX,
        description="Input tokens of one picture. 1600 is what Anthropic's largest picture counts and more than "
        "gpt-4o's (1445). Raise it for models that count more, such as gpt-4o-mini.",
    )
    flat_usd: Usd = Field(
        default=Decimal("0.1"),
        description="USD that is held and booked for a call of which nothing says what it costs: one that is not "
        "known and names no model, a batch, a search.",
    )

    @cached_property
    def flat_nanousd(self) -> int:
        """The same in nano-USD."""
        return cost_nanousd(self.flat_usd)

    @property
    def fixed(self) -> bool:
        """Whether nothing is learnt from answers."""
        return self.mode is EstimateMode.FIXED

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        return {"mode": data} if isinstance(data, str) else data


class UnknownPriceMode(StrEnum):
    """What becomes of a model that nobody has a price for."""

    ESTIMATE = "estimate"
    DENY = "deny"


class UnknownPrice(Strict):
    """What is paid where neither the configuration nor the price list has a price. No price is never free.

    A text stands for its `mode`.
    """

    mode: UnknownPriceMode = Field(
        default=UnknownPriceMode.ESTIMATE,
        description="estimate: a model without a price costs what stands below. deny: it is refused (403), to admins "
        "as well, since their spend is in the books too.",
    )
    input_cost_per_token: Price = Field(
        default=Decimal("0.00003"), description="USD per input token. The default is what the dearest models cost."
    )
    output_cost_per_token: Price = Field(
        default=Decimal("0.00018"), description="USD per output token. The default is what the dearest models cost."
    )
    cost_per_image: Price = Field(default=Decimal("0.25"), description="USD per picture that is made.")
    cost_per_second: Price = Field(default=Decimal("0.1"), description="USD per second of sound or film.")
    cost_per_character: Price = Field(
        default=Decimal("0.0003"), description="USD per character of a text that is read aloud."
    )
    cost_per_query: Price = Field(default=Decimal("0.02"), description="USD per query of a reranker, or search.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        return {"mode": data} if isinstance(data, str) else data
