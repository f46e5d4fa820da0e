"""Who pays: the credential of a request, and the principal that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.domain.budgets import ScopeBudgets


@dataclass(frozen=True, slots=True)
class Principal:
    """Who pays for a request.

    `scopes` are all that its spend is counted on, each with the budgets that bind. `models` are the lists of allowed
    model names (key's, team's); a model must be on each of them, and no list allows everything.
    """

    name: str
    scopes: tuple[ScopeBudgets, ...]
    models: tuple[tuple[str, ...], ...] = ()
    admin: bool = False
