"""One call with its documented answer, what that used, and what must be booked when it comes whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from extauthz.domain.endpoints import Api, Endpoint
from tests.support.apis import anthropic_messages, gemini_content, openai_text
from tests.support.apis.asking import Asking
from tests.support.apis.prices import PRICES
from tests.support.apis.used import Fields, Used
from tests.support.apis.wire import Wire
from tests.support.upstream import PLAY_HEADER, Received


class Due(Enum):
    """What must be booked when an answer came whole."""

    BILL = auto()  # what it used, by the prices of its model
    HELD = auto()  # what was held: it does not say what it used, and the request did not tell
    FLAT = auto()  # the configured amount
    NOTHING = auto()
    LATER = auto()  # nothing yet, and all of it stays held: the answer only promises another


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A call and its answer.

    `model` is one of PRICES; None where the call runs none. `told` is what the first pieces of a stream say of usage.
    `by` are the prices that count where they are not those of the model.
    """

    name: str
    endpoint: Endpoint
    asking: Asking
    answer: Callable[[Received], Wire]
    model: str | None = None
    used: Used = field(default_factory=Used)
    due: Due = Due.BILL
    api: Api = Api.OPENAI
    streamed: bool = False
    told: Callable[[int], Used] = lambda _: Used()
    by: Fields | None = None

    @property
    def prices(self) -> Fields:
        """What its tokens and units cost."""
        return self.by or PRICES.get(self.model or "", {})

    def __str__(self) -> str:
        return self.name

    def error(self, status: int) -> Wire:
        """Give an error in the API's own shape."""
        match self.api:
            case Api.OPENAI:
                return openai_text.error(status)
            case Api.ANTHROPIC:
                return anthropic_messages.error(status)
            case Api.GEMINI:
                return gemini_content.error(status)


def id_of(request: Received) -> str:
    """Give the id of what a request is promised: each has its own."""
    return f"promise_{request.header(PLAY_HEADER)}"


def constant(wire: Wire) -> Callable[[Received], Wire]:
    """Answer everything with the same."""
    return lambda _: wire
