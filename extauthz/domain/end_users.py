"""Which end user a request is for: LiteLLM's order, in one table.

A claim of a token comes before all of it: nobody but the issuer wrote that. Then the headers that LiteLLM always looks
at, those that the operator names, and last the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX

HEADERS = ("x-litellm-customer-id", "x-litellm-end-user-id")

# Where a body may name its end user: a key, or a key in an object.
BODY: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("litellm_metadata", "user"),
    ("metadata", "user_id"),
    ("safety_identifier",),
)


@dataclass(frozen=True, slots=True)
class UnclearEndUser:
    """A request that names its end user in no way that can be counted on, with the reason for the client."""

    message: str


def end_user_of(headers: Mapping[str, tuple[str, ...]], own_headers: Sequence[str] = ()) -> str | UnclearEndUser | None:
    """Find the end user in the headers, None when none names one. The first header that does counts.

    `own_headers` are the operator's own, in any case.
    """
    for name in (*HEADERS, *(header.lower() for header in own_headers)):
        if name not in headers:
            continue
        values = {value.strip() for value in headers[name]} - {""}
        match sorted(values):
            case []:
                continue
            case [value] if "," not in value and len(value.encode(errors="surrogatepass")) <= SCOPE_ID_BYTES_MAX:
                return value
            case _:
                return UnclearEndUser(
                    f"Name one end user in `{name}`, once, in at most {SCOPE_ID_BYTES_MAX} bytes and without a comma."
                )
    return None


def end_user_in(document: Mapping[str, object]) -> str | UnclearEndUser | None:
    """Find the end user in a body, None when it names none. The first place that does counts."""
    for path in BODY:
        if path[0] not in document:
            continue
        value = _at(document, path)
        if isinstance(value, int | float) and not isinstance(value, bool) and len(path) > 1:
            value = str(value)  # as LiteLLM does; clients number their users
        match value:
            case None | "":
                continue
            case str() if len(value.encode(errors="surrogatepass")) <= SCOPE_ID_BYTES_MAX:
                return value
            case _:
                return UnclearEndUser(f"`{'.'.join(path)}` must be text of at most {SCOPE_ID_BYTES_MAX} bytes.")
    return None


def _at(document: Mapping[str, object], path: Sequence[str]) -> object:
    value: object = document
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
