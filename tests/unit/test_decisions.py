"""What those who watch decisions see of them, and what they miss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count, cycle

import pytest

from extauthz.domain import denials
from extauthz.domain.budgets import Scope
from extauthz.domain.prices import ZERO, Estimate, Prices
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Hold, public_id
from extauthz.domain.verdict import Admit, AnswerModels, Decision, Pass, Reason, Word
from extauthz.errors import TooManyWatchersError
from extauthz.telemetry.decisions import (
    ANSWERED_MODELS_MAX,
    DENIALS_MAX,
    MESSAGE_BYTES_MAX,
    METHOD_CHARS_MAX,
    SUBSCRIPTIONS_MAX,
    TEXT_BYTES_MAX,
    WAITING_MAX,
    DecisionFeed,
    DecisionFilter,
    DecisionRecord,
    Subscription,
)

ALL = DecisionFilter()
FACTS = RequestFacts(
    "POST", "/v1/chat/completions?key=sk-secret", {"authorization": ("Bearer sk-secret",)}, b"a prompt"
)
PAYERS = (Scope.parse("global"), Scope.parse("team:research"))
HOLD = Hold("6f1c", 0, (), "gpt-4o", Prices(ZERO, ZERO), Estimate(1, 1, 1, 1), streamed=False)
ALLOWED = Decision(Admit(Reason.WITHIN_BUDGET, HOLD), "inference", "ana", "gpt-4o", "gpt-4o", PAYERS)
FREE = Decision(Pass(Reason.FREE_MODEL), "inference", "ana", "llama", "llama", PAYERS)
DENIED = Decision(denials.model_not_allowed("o1"), "inference", "bob", "o1", "o1", PAYERS[:1])
SHADOWED = Decision(Pass(Reason.SHADOW_MODE), "other", shadowed=denials.route_closed())


def sure() -> float:
    """Draw every sample."""
    return 0.0


def a_feed(chance: Callable[[], float] = sure, watchers: Callable[[int], None] = lambda _: None) -> DecisionFeed:
    """Make a feed whose clock counts the records."""
    return DecisionFeed(count(1).__next__, chance, watchers)


def hear(feed: DecisionFeed, *decisions: Decision, facts: RequestFacts | None = FACTS) -> None:
    """Let a feed hear decisions."""
    for decision in decisions:
        feed.decided(decision, facts, 0.25)


async def read(subscription: Subscription, number: int) -> list[tuple[DecisionRecord, int]]:
    """Read that many decisions."""
    return [await anext(subscription) for _ in range(number)]


async def rest(subscription: Subscription) -> list[Decision]:
    """Read all that waits, to the end of a closed subscription."""
    subscription.close()
    return [record.decision async for record, _ in subscription]


async def test_decisions_come_in_order() -> None:
    """A reader gets each decision with what is kept of its request: no query, no header, no body."""
    feed = a_feed()
    with feed.subscribe(ALL) as subscription:
        hear(feed, ALLOWED, DENIED)
        first, second = await read(subscription, 2)

    assert (
        DecisionRecord(1, ALLOWED, "POST", "/v1/chat/completions", 0.25, public_id=public_id("6f1c")),
        0,
    ) == first
    assert (DecisionRecord(2, DENIED, "POST", "/v1/chat/completions", 0.25, public_id=None), 0) == second


async def test_a_reader_waits() -> None:
    """A reader that is ahead of the decisions gets the next one as it comes."""
    feed = a_feed()
    with feed.subscribe(ALL) as subscription:
        reading = asyncio.create_task(read(subscription, 1))
        await asyncio.sleep(0)
        assert not reading.done()
        hear(feed, FREE)
        ((record, _),) = await reading

    assert FREE == record.decision


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    """The oldest decisions give way to new ones, and the first one that is read then says how many."""
    feed = a_feed()
    with feed.subscribe(ALL) as slow, feed.subscribe(ALL) as quick:
        hear(feed, *[FREE] * WAITING_MAX)
        await read(quick, WAITING_MAX)
        hear(feed, *[FREE] * 7)
        got = await read(slow, WAITING_MAX)
        hear(feed, FREE)
        (after,) = await read(slow, 1)
        unhurt = await read(quick, 8)

    assert [7, *[0] * (WAITING_MAX - 1)] == [missed for _, missed in got]
    assert [*range(8, WAITING_MAX + 8)] == [record.decided_ms for record, _ in got]
    assert 0 == after[1]
    assert {0} == {missed for _, missed in unhurt}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL, [ALLOWED, FREE, DENIED, SHADOWED]),
        (DecisionFilter(words=frozenset({Word.DENY})), [DENIED]),
        (DecisionFilter(words=frozenset({Word.DENY, Word.SHADOW_DENY})), [DENIED, SHADOWED]),
        (DecisionFilter(reasons=frozenset({Reason.FREE_MODEL})), [FREE]),
        (DecisionFilter(reasons=frozenset({Reason.ROUTE_CLOSED})), [SHADOWED]),
        (DecisionFilter(scope="team:research"), [ALLOWED, FREE]),
        (DecisionFilter(scope="team:resea"), []),
        (DecisionFilter(model="o1"), [DENIED]),
        (DecisionFilter(scope="global", model="gpt-4o"), [ALLOWED]),
        (DecisionFilter(words=frozenset({Word.DENY}), scope="team:research"), []),
    ],
)
async def test_filters(wanted: DecisionFilter, expected: Sequence[Decision]) -> None:
    """All that a filter says must fit; shadow mode's decisions go by the reason that they would have had."""
    feed = a_feed()
    with feed.subscribe(wanted) as subscription:
        hear(feed, ALLOWED, FREE, DENIED, SHADOWED)

        assert expected == await rest(subscription)


async def test_samples() -> None:
    """A sample is drawn from what passes the filter, and what is not drawn is not missed."""
    draws = cycle([0.0, 0.3, 0.6, 0.9])
    feed = a_feed(lambda: next(draws))
    with feed.subscribe(DecisionFilter(frozenset({Word.ALLOW}), sample=0.5)) as subscription:
        hear(feed, *[ALLOWED, DENIED] * 4)
        subscription.close()
        got = [(record.decided_ms, missed) async for record, missed in subscription]

    assert 2 == len(got)
    assert {0} == {missed for _, missed in got}


def test_the_last_refusals_are_kept() -> None:
    """Refusals are remembered though nobody watches, the newest first, up to a maximum; allows are not."""
    feed = a_feed()
    hear(feed, SHADOWED, *[DENIED, ALLOWED] * DENIALS_MAX, SHADOWED)

    kept = feed.denials()
    assert DENIALS_MAX == len(kept)
    assert [SHADOWED, *[DENIED] * (DENIALS_MAX - 1)] == [record.decision for record in kept]


def test_nobody_watching_costs_nothing() -> None:
    """An allow that nobody wants is not even given a time."""

    def never() -> int:
        raise AssertionError("a record was made")

    feed = DecisionFeed(never, sure, lambda _: None)
    hear(feed, ALLOWED)
    with feed.subscribe(DecisionFilter(words=frozenset({Word.DENY}))):
        hear(feed, ALLOWED)


def test_readers_are_bounded_and_counted() -> None:
    """One reader too many is refused with what to do; one that leaves makes room."""
    counted: list[int] = []
    feed = a_feed(watchers=counted.append)
    with ExitStack() as readers:
        for _ in range(SUBSCRIPTIONS_MAX - 1):
            readers.enter_context(feed.subscribe(ALL))
        with feed.subscribe(ALL), pytest.raises(TooManyWatchersError, match="end one of them"), feed.subscribe(ALL):
            pass
        with feed.subscribe(ALL):
            pass

    assert [*range(1, SUBSCRIPTIONS_MAX + 1), 31, 32, *range(31, -1, -1)] == counted


async def test_closing_ends_every_reader() -> None:
    """A server that drains ends those who wait, after what they have not read yet, and those who still come."""
    feed = a_feed()
    with feed.subscribe(ALL) as waiting, feed.subscribe(ALL) as behind:
        reading = asyncio.create_task(anext(waiting))
        await asyncio.sleep(0)
        hear(feed, FREE)
        feed.close()
        assert FREE == (await reading)[0].decision
        assert [FREE] == [record.decision async for record, _ in behind]
        assert [] == [record async for record, _ in waiting]
    with feed.subscribe(ALL) as late:
        assert [] == [record async for record, _ in late]


async def test_a_reader_can_be_cancelled() -> None:
    """A reader that is cancelled while it waits is gone, and so is its place."""
    counted: list[int] = []
    feed = a_feed(watchers=counted.append)

    async def watch() -> None:
        with feed.subscribe(ALL) as subscription:
            await anext(subscription)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching

    assert [1, 0] == counted


def test_what_clients_make_long_is_cut() -> None:
    """Methods, paths, models, refusals that repeat them, and answered lists are kept up to their maxima."""
    feed = a_feed()
    name = "ä" * 5_000
    facts = RequestFacts("X" * 100, f"/v1/models/{name}?q", {})
    hear(feed, Decision(denials.model_hidden(name), "discovery", "ana", name), facts=facts)
    answer = AnswerModels(Reason.DISCOVERY_PRUNED, tuple(map(str, range(10_000))))
    hear(feed, Decision(Pass(Reason.SHADOW_MODE), "discovery", shadowed=denials.model_hidden(name)), facts=None)
    with feed.subscribe(ALL) as subscription:
        hear(feed, Decision(answer, "discovery"))
        subscription.close()
        answered = asyncio.run(anext(subscription))[0].decision.verdict

    unread, denied = feed.denials()
    refusal = denied.decision.verdict
    assert isinstance(refusal, type(DENIED.verdict))
    assert "X" * METHOD_CHARS_MAX == denied.method
    assert TEXT_BYTES_MAX - 1 == len(denied.path.encode())  # a character of two bytes is not cut in two
    assert TEXT_BYTES_MAX == len((denied.decision.model or "").encode())
    assert MESSAGE_BYTES_MAX >= len(getattr(refusal, "message", "").encode())
    assert ("", "") == (unread.method, unread.path)
    assert MESSAGE_BYTES_MAX >= len(getattr(unread.decision.judged, "message", "").encode())
    assert AnswerModels(Reason.DISCOVERY_PRUNED, tuple(map(str, range(ANSWERED_MODELS_MAX)))) == answered
