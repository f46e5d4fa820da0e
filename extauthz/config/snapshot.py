"""A configuration in force."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.config.model import Settings
from extauthz.domain.directory import Directory
from extauthz.pricing.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a request is judged by. A request reads it once; a reload replaces it whole.

    `notices` are lines for the log about what the file says in vain, or leaves open.
    """

    settings: Settings
    catalog: Catalog
    directory: Directory
    notices: tuple[str, ...] = ()
