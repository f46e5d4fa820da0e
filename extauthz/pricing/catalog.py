"""The models that a deployment serves, and what may be reached by naming one."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.domain.prices import Prices


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream behind a model name.

    `free` only when its configuration says 0 for input and output explicitly and prices nothing else.
    """

    prices: Prices
    free: bool


@dataclass(frozen=True, slots=True)
class Model:
    """A model name with its deployments. `context_tokens` and `output_tokens_max` are None when unknown."""

    name: str
    deployments: tuple[Deployment, ...]
    context_tokens: int | None = None
    output_tokens_max: int | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that a request can end up at: the models it names, their fallbacks, and the fallbacks it brings.

    `unknown` are names that the catalog does not have. `prices` is the dearest of each kind over all that is reached.
    `context_tokens` and `output_tokens_max` are the largest, None as soon as one is unknown.
    """

    models: tuple[Model, ...]
    unknown: tuple[str, ...]
    free: bool
    prices: Prices
    context_tokens: int | None
    output_tokens_max: int | None
