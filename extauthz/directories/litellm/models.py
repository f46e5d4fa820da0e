"""Which models LiteLLM lets a payer use, as lists of our own: of names and patterns, where an empty list allows all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from extauthz.domain.model_names import UNRESTRICTED

ALL_TEAM = "all-team-models"
# LiteLLM's word for a user who has models in teams alone. No model is called so: a list with it alone allows none.
NOTHING = "no-default-models"


def spelled(listed: Sequence[str], *more: Iterable[str]) -> tuple[str, ...]:
    """Give the list of a key, team or any other payer; `more` are models of its groups, and its aliases."""
    if not listed or not UNRESTRICTED.isdisjoint(listed):
        return ()
    return tuple(dict.fromkeys((*listed, *(name for names in more for name in names))))


def spelled_for_user(listed: Sequence[str], *more: Iterable[str]) -> tuple[str, ...]:
    """Give a user's list, which counts on keys without a team, so that a team's models are none of it."""
    if NOTHING in listed:
        return (NOTHING,)
    own = [name for name in listed if name != ALL_TEAM]
    return spelled(own, *more) if own or not listed else (NOTHING,)
