"""What a request is: discovery, inference, info or something else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RouteClass(StrEnum):
    """What a request is for. Not sure, under an API prefix, means inference."""

    DISCOVERY = "discovery"
    INFERENCE = "inference"
    INFO = "info"
    OTHER = "other"


class Endpoint(StrEnum):
    """The calls that are understood; OPAQUE is everything else that is inference."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODEL_LIST = "model_list"
    MODEL_ENTRY = "model_entry"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class Route:
    """A classified request.

    `endpoint` is None for info and other routes. `model` is the model that the path names: of an entry of the model
    list, or of an inference path; None when the path names none.
    """

    route_class: RouteClass
    endpoint: Endpoint | None = None
    model: str | None = None
