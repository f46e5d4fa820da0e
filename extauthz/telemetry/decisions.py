"""Decisions as they are made, for those who watch: the last refusals, and live streams with filters.

Everything is bounded. Whoever reads too slowly loses the oldest decisions and is told how many; the Checks that make
them wait for nobody. Nothing of a request's headers or body is kept, and of its path no query.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import public_id
from extauthz.domain.verdict import Admit, AnswerModels, Decision, Deny, Reason, Verdict, Word
from extauthz.errors import TooManyWatchersError
from extauthz.telemetry.events import Telemetry

# Refusals that are remembered, whether anybody watches or not.
DENIALS_MAX = 100

# Readers at once, and the decisions that wait for each of them.
SUBSCRIPTIONS_MAX = 32
WAITING_MAX = 1_000

# What is kept of texts and lists that clients or catalogs make long.
METHOD_CHARS_MAX = 16
TEXT_BYTES_MAX = 256
MESSAGE_BYTES_MAX = 1_024
ANSWERED_MODELS_MAX = 100


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision with what is kept of its request.

    `decided_ms` is Unix milliseconds by this process's clock, `seconds` how long the decision took. `path` has no
    query. `public_id` is what the client saw of its reservation's id, None where nothing was reserved.
    """

    decided_ms: int
    decision: Decision
    method: str
    path: str
    seconds: float
    public_id: str | None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Which decisions a reader wants: an empty set, or None, wants all.

    `scope` is the text of one that the request is counted on, `model` the name as it was asked for, `sample` the share
    of what passes the rest.
    """

    words: frozenset[Word] = frozenset()
    reasons: frozenset[Reason] = frozenset()
    scope: str | None = None
    model: str | None = None
    sample: float = 1.0

    def passes(self, decision: Decision) -> bool:
        """Tell whether a decision is wanted, apart from the sample."""
        return (
            (not self.words or decision.word in self.words)
            and (not self.reasons or decision.judged.reason in self.reasons)
            and (self.model is None or decision.model == self.model)
            and (self.scope is None or any(payer.text == self.scope for payer in decision.payers))
        )


class Subscription:
    """The decisions that one reader has not read yet: an iterator of each with how many it missed before that one.

    It ends when it is closed, once everything that waits is read.
    """

    def __init__(self, wanted: DecisionFilter) -> None:
        self.wanted = wanted
        self._waiting: deque[DecisionRecord] = deque()
        self._missed = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, record: DecisionRecord) -> None:
        """Let a decision wait for the reader; the oldest gives way when too many do."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(record)
        self._changed.set()

    def close(self) -> None:
        """End the subscription."""
        self._closed = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[DecisionRecord, int]:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        # What was lost is always older than all that waits, so the gap is right here.
        missed, self._missed = self._missed, 0
        return self._waiting.popleft(), missed


class DecisionFeed(Telemetry):
    """Hears of every decision, and passes on those that somebody wants.

    `chance` gives numbers from 0 to below 1 and draws the samples; `watchers` hears how many readers there are.
    """

    def __init__(
        self, unix_ms: Callable[[], int], chance: Callable[[], float], watchers: Callable[[int], None]
    ) -> None:
        self._unix_ms = unix_ms
        self._chance = chance
        self._watchers = watchers
        self._denials: deque[DecisionRecord] = deque(maxlen=DENIALS_MAX)
        self._subscriptions: list[Subscription] = []
        self._closed = False

    def denials(self) -> tuple[DecisionRecord, ...]:
        """List the last refusals, those that shadow mode let through among them, the newest first."""
        return tuple(reversed(self._denials))

    @contextmanager
    def subscribe(self, wanted: DecisionFilter) -> Iterator[Subscription]:
        """Read decisions inside the block. Raises TooManyWatchersError when SUBSCRIPTIONS_MAX others do."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise TooManyWatchersError(
                f"{SUBSCRIPTIONS_MAX} readers watch the decisions of this replica already: end one of them first"
            )
        subscription = Subscription(wanted)
        self._subscriptions.append(subscription)
        self._watchers(len(self._subscriptions))
        if self._closed:
            subscription.close()
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            self._watchers(len(self._subscriptions))

    def close(self) -> None:
        """End every subscription, and those to come at once: this server drains."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Remember a refusal, and pass the decision on to those who want it; without them an allow costs nothing."""
        refused = isinstance(decision.judged, Deny)
        if not refused and not self._subscriptions:
            return
        readers = [each for each in self._subscriptions if each.wanted.passes(decision) and self._drawn(each.wanted)]
        if not refused and not readers:
            return
        record = self._record(decision, facts, seconds)
        if refused:
            self._denials.append(record)
        for reader in readers:
            reader.put(record)

    def _drawn(self, wanted: DecisionFilter) -> bool:
        return wanted.sample >= 1 or self._chance() < wanted.sample

    def _record(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> DecisionRecord:
        verdict = decision.verdict
        return DecisionRecord(
            decided_ms=self._unix_ms(),
            decision=_bounded(decision),
            method="" if facts is None else facts.method[:METHOD_CHARS_MAX],
            path="" if facts is None else _cut(facts.path.partition("?")[0], TEXT_BYTES_MAX),
            seconds=seconds,
            public_id=public_id(verdict.hold.id) if isinstance(verdict, Admit) else None,
            truncated=facts is not None and facts.truncated,
        )


def _bounded(decision: Decision) -> Decision:
    """Cut what is long in a decision: a path may name a model of 8,000 characters, and a refusal repeats it."""
    verdict = _bounded_verdict(decision.verdict)
    shadowed = None if decision.shadowed is None else _bounded_verdict(decision.shadowed)
    model = None if decision.model is None else _cut(decision.model, TEXT_BYTES_MAX)
    if verdict is decision.verdict and shadowed is decision.shadowed and model is decision.model:
        return decision  # as nearly all are
    return replace(decision, verdict=verdict, shadowed=shadowed, model=model)


def _bounded_verdict(verdict: Verdict) -> Verdict:
    match verdict:
        case Deny(message=message) if (shorter := _cut(message, MESSAGE_BYTES_MAX)) is not message:
            return replace(verdict, message=shorter)
        case AnswerModels(names=names) if len(names) > ANSWERED_MODELS_MAX:
            return replace(verdict, names=names[:ANSWERED_MODELS_MAX])
        case _:
            return verdict


def _cut(text: str, bytes_max: int) -> str:
    """Keep the beginning of a text, in whole characters."""
    return text if len(text.encode()) <= bytes_max else text.encode()[:bytes_max].decode(errors="ignore")
