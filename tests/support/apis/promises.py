"""Answers that were promised, and what is booked when somebody has seen them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from extauthz.domain.endpoints import Endpoint
from tests.support.apis import openai_media as media
from tests.support.apis import openai_text as text
from tests.support.apis.asking import read
from tests.support.apis.due import FLAT
from tests.support.apis.media_samples import FILM, FILM_SECONDS
from tests.support.apis.prices import PRICES
from tests.support.apis.rehearsal import Case, Ending
from tests.support.apis.sample import Due, Sample, constant, id_of
from tests.support.apis.samples import SAMPLES, TEXT
from tests.support.apis.used import bill
from tests.support.apis.wire import Wire, document
from tests.support.upstream import PLAY_HEADER, Received


@dataclass(frozen=True, slots=True)
class Promise:
    """A call that is answered later: its sample, where its result is asked for, the result by its id, and its cost."""

    name: str
    sample: str
    path: str
    result: Callable[[str], Wire]
    due: int

    def __str__(self) -> str:
        return self.name

    @property
    def case(self) -> Case:
        """The call itself."""
        (sample,) = (sample for sample in SAMPLES if sample.name == self.sample)
        return Case(replace(sample, name=self.name), Ending.WHOLE, number=1)

    @property
    def look(self) -> Case:
        """Asking for its result."""
        id_ = id_of(Received("POST", "/", ((PLAY_HEADER, self.case.name),), b""))
        asking, answer = read(f"{self.path}/{id_}"), constant(self.result(id_))
        api = self.case.sample.api
        sample = Sample(f"result of a {self.name}", Endpoint.RESULTS, asking, answer, due=Due.NOTHING, api=api)
        return Case(sample, Ending.WHOLE)


# What nobody knows the model of costs this by default: what the dearest models do.
UNKNOWN = {
    "input_cost_per_token": "0.00003",
    "cache_read_input_token_cost": "0.00003",
    "output_cost_per_token": "0.00018",
    "output_cost_per_reasoning_token": "0.00018",
}


def film(status: str, id_: str) -> Wire:
    """Say how far a film is."""
    return media.video("director", seconds=FILM_SECONDS, status=status, id_=id_)


def message_batch(id_: str) -> Wire:
    """Say that a batch of messages is over, which does not say what they used."""
    return document({"id": id_, "type": "message_batch", "processing_status": "ended"})


PROMISES = (
    Promise(
        "response",
        "background response",
        "/v1/responses",
        lambda id_: text.response_result(TEXT, "omni", id_),
        bill(TEXT, PRICES["omni"]),
    ),
    Promise("film", "film", "/v1/videos", partial(film, "completed"), bill(FILM, PRICES["director"])),
    Promise("film that failed", "film", "/v1/videos", partial(film, "failed"), 0),
    Promise(
        "batch",
        "batch",
        "/v1/batches",
        lambda id_: media.batch(status="completed", used=TEXT, id_=id_),
        bill(TEXT, UNKNOWN),
    ),
    Promise("message batch", "message batch", "/v1/messages/batches", message_batch, FLAT),
)
