"""The kinds of value in the configuration file, each read with a sentence for the person who mistyped it.

No sentence shows a secret: what came from the environment is hidden by whoever reports the mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from extauthz.config.source import number
from extauthz.domain.address import Address, parse_address
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX
from extauthz.domain.money import limit_nanousd
from extauthz.domain.windows import Duration, WindowRule, parse_duration
from extauthz.ledger.url import StoreUrl, parse_store_url

# A price above this is a slip of units (USD per million tokens, say).
PRICE_USD_MAX = Decimal(1000)

# How the store in this process's memory is called.
MEMORY = "memory"

MOMENT_YEAR_MIN = 1971
MOMENT_YEAR_MAX = 2099


def _text(value: object) -> object:
    """Take a number for the text that it was written as: names such as 42 need no quotes."""
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _identifier(text: str) -> str:
    if not text:
        raise ValueError("an id is empty: write one")
    if len(text.encode()) > SCOPE_ID_BYTES_MAX:
        raise ValueError(f"an id is longer than {SCOPE_ID_BYTES_MAX} bytes: shorten it")
    return text


def _number(value: object) -> object:
    """Read numbers in quotes and with underscores as well: LiteLLM does, and environment variables are text."""
    read = number(value.strip().replace("_", "")) if isinstance(value, str) else value
    if isinstance(read, bool) or not isinstance(read, int | Decimal):
        raise ValueError("this is not a number: write one, such as 5, 0.25 or 1.5e-7")  # noqa: TRY004 - pydantic's
    return read


def _limit(value: Decimal) -> Decimal:
    limit_nanousd(value)
    return value


def _price(value: Decimal) -> Decimal:
    if not 0 <= value <= PRICE_USD_MAX:
        raise ValueError(f"{value} is not a price: write USD per token, from 0 to {PRICE_USD_MAX}, such as 0.0000025")
    return value


def _duration(value: object) -> Duration:
    return parse_duration(str(value))


def _time_zone(name: str) -> str:
    return WindowRule(zone=name).zone


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"`{value}` is not a date: write 2026-01-31 or 2026-01-31T08:00:00+01:00") from None
    if not MOMENT_YEAR_MIN <= moment.year <= MOMENT_YEAR_MAX:
        raise ValueError(f"`{value}` is not between {MOMENT_YEAR_MIN} and {MOMENT_YEAR_MAX}: check the year")
    return moment


def _reset_time(value: object) -> time:
    found = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?", str(value))
    if found is None:
        raise ValueError(f"`{value}` is not a time of day: write 24-hour HH:MM or HH:MM:SS in quotes, such as '06:30'")
    return time(int(found[1]), int(found[2]), int(found[3] or 0))


def _store(value: object) -> StoreUrl | None:
    return None if value is None or value == MEMORY else parse_store_url(str(value))


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise ValueError("the secret is empty: write it, or os.environ/NAME")
    return value


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("this is not a SHA-256: write its 64 hex digits, as `printf %s KEY | sha256sum` prints them")
    return text.lower()


Text = Annotated[str, BeforeValidator(_text)]
Identifier = Annotated[str, AfterValidator(_identifier), BeforeValidator(_text)]
Secret = Annotated[SecretStr, AfterValidator(_secret), BeforeValidator(_text)]
Sha256 = Annotated[str, AfterValidator(_sha256), BeforeValidator(_text)]
Count = Annotated[int, BeforeValidator(_number)]
Seconds = Annotated[Decimal, BeforeValidator(_number)]
Share = Annotated[Decimal, Field(ge=0, le=1), BeforeValidator(_number)]
Usd = Annotated[Decimal, AfterValidator(_limit), BeforeValidator(_number)]
Price = Annotated[Decimal, AfterValidator(_price), BeforeValidator(_number)]
DurationText = Annotated[Duration, PlainValidator(_duration), WithJsonSchema({"type": "string"})]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Moment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string"})]
ResetTime = Annotated[time, PlainValidator(_reset_time), WithJsonSchema({"type": "string"})]
StoreText = Annotated[StoreUrl | None, PlainValidator(_store), WithJsonSchema({"type": "string"})]
AddressText = Annotated[Address, PlainValidator(parse_address), WithJsonSchema({"type": "string"})]


class Lenient(BaseModel):
    """A section of LiteLLM's: keys that are not named here are its own affair."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        """Take `name:` with nothing behind it for not written, and an empty section for an empty mapping."""
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class Strict(Lenient):
    """A section of our own: a key that is not named here is a mistake."""

    model_config = ConfigDict(extra="forbid")
