"""What must be booked for a call: computed from what was served and what was seen, with none of the code under test."""

from __future__ import annotations

from decimal import Decimal

from extauthz.domain.endpoints import Endpoint
from tests.support.apis.prices import FLAT_USD, OUTPUT_TOKENS
from tests.support.apis.rehearsal import Case, Ending, Result
from tests.support.apis.sample import Due, Sample
from tests.support.apis.used import bill, nanousd
from tests.support.apis.wire import Piece

FLAT = nanousd(Decimal(FLAT_USD))
# `on_abort: delivered` takes three bytes for a token, or an event where that is more.
BYTES_PER_TOKEN = 3
# What is delivered of these says little of what was made: a picture becomes clearer, a sound was heard to its end, and
# nobody knows what a run costs.
MADE_WHOLE = frozenset(
    {Endpoint.IMAGE_GENERATIONS, Endpoint.IMAGE_EDITS, Endpoint.SPEECH, Endpoint.TRANSCRIPTIONS, Endpoint.RUNS}
)


def booked(result: Result) -> tuple[int, int]:
    """Tell what must be booked for a call: the least and the most, which nearly always are the same."""
    sample, ending = result.case.sample, result.case.ending
    if ending.error is not None or sample.due is Due.NOTHING:
        return 0, 0
    if ending is Ending.LEFT_AT_ONCE:
        return 0, max(result.held, whole(sample, result.held))
    if ending is Ending.WHOLE:
        return (amount := whole(sample, result.held)), amount
    if not sample.streamed or sample.due is Due.FLAT or sample.endpoint in MADE_WHOLE:
        return result.held, result.held  # on_abort_unary: reserved. Providers bill an answer that nobody waited for
    seen = delivered(sample, result.held, pieces_in(result.case, result, len(result.received)))
    if ending is not Ending.BROKEN:
        return seen, seen
    # A reset may overtake bytes on each of the two connections: the meter has seen what the client got, and perhaps
    # more, up to all that the upstream sent.
    assert result.request is not None
    return seen, delivered(sample, result.held, list(result.case.wire(result.request).half))


def whole(sample: Sample, held: int) -> int:
    """Tell what an answer costs that came whole."""
    match sample.due:
        case Due.BILL:
            return bill(sample.used, sample.prices)
        case Due.HELD:
            return held
        case Due.FLAT:
            return FLAT
        case Due.NOTHING | Due.LATER:
            return 0


def delivered(sample: Sample, held: int, pieces: list[Piece]) -> int:
    """Tell what a stream costs of which these pieces came: its input, what was delivered, and at least what it said."""
    prices = sample.prices
    per_token = nanousd(Decimal(prices["output_cost_per_token"]))
    events = sum(piece.event for piece in pieces)
    text_bytes = sum(len(piece.text.encode()) for piece in pieces)
    tokens = max(events, -(-text_bytes // BYTES_PER_TOKEN))
    return max(input_only(sample, held) + tokens * per_token, bill(sample.told(len(pieces)), prices))


def input_only(sample: Sample, held: int) -> int:
    """Tell what the input costs of a call that holds so much."""
    return held - OUTPUT_TOKENS * nanousd(Decimal(sample.prices["output_cost_per_token"]))


def given_up_at(rule: str, sample: Sample, held: int) -> int:
    """Tell what a call costs that is given up under a rule that does not look at what was delivered."""
    return {"reserved": held, "input": input_only(sample, held), "zero": 0}[rule]


def pieces_in(case: Case, result: Result, received: int) -> list[Piece]:
    """Give the pieces that are whole within the first bytes of an answer."""
    if result.request is None:
        return []
    pieces, left = [], received
    for piece in case.wire(result.request).pieces:
        left -= len(piece.data)
        if left < 0:
            break
        pieces.append(piece)
    return pieces
