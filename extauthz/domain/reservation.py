"""A reservation: the hold put on every scope of a request before it goes upstream.

It ends exactly once, whatever happens and whoever tells it:

    held ──settle──▶ settled     what was used is booked as spent
    held ──release─▶ released    nothing is booked
    held ──expire──▶ expired     its lease ran out; what the lease says is booked
    expired ──settle──▶ settled  a late answer: the books are put right to its cost, once

Every other verb on an ended reservation changes nothing and says so. A release that arrives before its reserve leaves
an ending behind, and the reserve does nothing. The table below is the only place where this is written; the stores and
their contract suite are checked against it.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

from extauthz.domain.budgets import Counter, Spent
from extauthz.domain.prices import Estimate, Prices, Usage
from extauthz.domain.value import value


class State(StrEnum):
    """The life of a reservation."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class Verb(StrEnum):
    """What ends a reservation."""

    SETTLE = "settle"
    RELEASE = "release"
    EXPIRE = "expire"


class Signal(StrEnum):
    """What told us that a reservation is over."""

    ACCESS_LOG = "access_log"
    CANCELLATION = "cancellation"
    LEASE = "lease"
    OPERATOR = "operator"


TRANSITIONS: dict[tuple[State, Verb], State] = {
    (State.HELD, Verb.SETTLE): State.SETTLED,
    (State.HELD, Verb.RELEASE): State.RELEASED,
    (State.HELD, Verb.EXPIRE): State.EXPIRED,
    (State.EXPIRED, Verb.SETTLE): State.SETTLED,
}


@value
class Hold:
    """All that is needed to end a reservation, anywhere and under any configuration. It travels with the request.

    `id` is unique per request, `reserved_at_ms` is Unix milliseconds by the store's clock, `counters` are those of the
    moment of reserving: a settle is booked in the window it was reserved in, at the prices of that moment. `choices`
    is how many answers were asked for.

    `whole_prices` is set when only the beginning of the body was seen: `prices` are then the dearest that the rest
    could ask for, and these are those of the model that was seen, for when the whole body turns out to name no other.
    `tokens_max` is what the answers can have of input or output at most, by the model's context; None when unknown.

    `priced_by` names the configuration that the prices are from. A `free` hold was never reserved: nothing of it is at
    the store unless its answer turns out to be paid.
    """

    id: str
    reserved_at_ms: int
    counters: tuple[Counter, ...]
    model: str
    prices: Prices
    estimate: Estimate
    streamed: bool
    choices: int = 1
    whole_prices: Prices | None = None
    tokens_max: int | None = None
    priced_by: str = ""
    free: bool = False


@value
class Claim:
    """What a reservation asks of one counter, in the measure of that counter.

    `limit` None counts without limiting. `whole` asks for all of `amount` or a refusal; otherwise a
    part is enough while anything is available, and the rest is not held.
    """

    counter: Counter
    limit: int | None
    amount: int
    whole: bool = False


@value
class Lease:
    """How long a reservation lives without a sign of life, and what is booked as `spent` if none comes."""

    lease_ms: int
    spent: Spent


@value
class Note:
    """What the journal keeps of an ending beside the money: who told of it, and what the answer used if it said so."""

    signal: Signal = Signal.ACCESS_LOG
    usage: Usage | None = None


def promise_name(answer_id: str) -> str:
    """Give the name of an answer that is still to be made: nothing that an upstream wrote stands in a store's keys."""
    return sha256(answer_id.encode()).hexdigest()


# Enough to find one reservation among all that are open.
_PUBLIC_ID_DIGITS = 16


def public_id(reservation_id: str) -> str:
    """Give the name of a reservation that a client may see and quote to support; it ends nothing."""
    return sha256(reservation_id.encode()).hexdigest()[:_PUBLIC_ID_DIGITS]
