"""LiteLLM's database as a source, where what it is read by is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from extauthz.directories.litellm.url import parse_database_url
from extauthz.errors import ExtraMissingError, UnclearError

if TYPE_CHECKING:
    from extauthz.directories.litellm.source import LitellmSource


def litellm_source(url: str, end_user_budget: str | None, unreadable: Callable[[str, str], None]) -> LitellmSource:
    """Give the source; nothing is asked before it is. `unreadable` hears of rows that say nothing, and why.

    Raises ExtraMissingError without the extra `litellm`, and UnclearError for a URL that is none.
    """
    try:
        from extauthz.directories.litellm.database import Database  # noqa: PLC0415 - needs the extra `litellm`
        from extauthz.directories.litellm.source import LitellmSource  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            f"`directory: litellm` is written, and {error.name} is missing: pip install 'extauthz[litellm]'"
        ) from error
    try:
        place = parse_database_url(url)
    except ValueError as error:
        raise UnclearError(f"directory_url: {error}") from None
    return LitellmSource(Database(place), end_user_budget, unreadable)
