"""How a Check tells the response filter which list was asked for, and for whom: one text among the dynamic metadata."""

from __future__ import annotations

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from extauthz.domain.listings import Listing, Page, Shape


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Told:
    """What of a listing the filter goes by; the rest of it the upstream has carried out."""

    shape: Shape
    lists: tuple[tuple[str, ...], ...] = ()
    page: Page | None = None
    hidden: tuple[str, ...] = ()


_TOLD = TypeAdapter(_Told)


def encode_listing(listing: Listing) -> str:
    """Write a listing for the filter."""
    told = _Told(listing.shape, listing.lists, listing.page, listing.hidden)
    # While servers are replaced, one that knows less reads what the others write.
    return _TOLD.dump_json(told, exclude_defaults=True).decode()


def decode_listing(text: str) -> Listing:
    """Read a listing. Raises ValueError when it is none."""
    told = _TOLD.validate_json(text)
    return Listing(shape=told.shape, lists=told.lists, page=told.page, hidden=told.hidden)
