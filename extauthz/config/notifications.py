"""Who is told what, as the configuration file says it: the log, and alerts about budgets."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from extauthz.config.values import Count, Seconds, Secret, Share, Strict

PERCENTAGE_MAX = 1000


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogSettings(Strict):
    """What is logged. Every refusal is, at level info; of a flood some, and how many more there were."""

    level: LogLevel = Field(default=LogLevel.INFO, description="debug, info, warning or error.")
    allowed_share: Share = Field(
        default=Decimal(0), description="The share of requests let through that get a line as well, from 0 to 1."
    )


class WebhookSettings(Strict):
    """Where alerts are sent."""

    url: Secret = Field(description="The URL, best as os.environ/NAME. It gets JSON as Slack's incoming webhooks do.")
    timeout_seconds: Seconds = Field(
        default=Decimal(5), ge=Decimal("0.1"), le=60, description="How long one try may take."
    )

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: SecretStr) -> SecretStr:
        try:
            url = urlsplit(value.get_secret_value())
            understood = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            understood = False
        if not understood:
            raise ValueError("this is not a URL: write one with http:// or https:// and a host")
        return value


class AlertSettings(Strict):
    """Who is told, and when, that a budget comes to its end. Each is told once in a window, whatever the replicas."""

    percentages: tuple[Count, ...] = Field(
        default=(80, 100), max_length=10, description="Percentages of a limit that are worth telling, 1 to 1000."
    )
    warning_percentage: Count = Field(
        default=80,
        ge=1,
        le=1000,
        description="From here on, answers have the header x-extauthz-warning, which names the budget.",
    )
    webhook: WebhookSettings | None = Field(default=None, description="Where alerts are sent, besides log and metrics.")

    @field_validator("percentages")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= percentage <= PERCENTAGE_MAX for percentage in value):
            raise ValueError(f"a percentage is not between 1 and {PERCENTAGE_MAX}: write whole numbers, such as 80")
        return tuple(sorted(set(value)))
