"""A client that hangs up as soon as it has read the finish, before the usage comes, pays all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from extauthz.demo import answers
from extauthz.demo.answers import Answer, Api
from extauthz.domain.prices import Usage
from tests.support.abort import calling
from tests.support.envoy import ENVOY_VERSIONS
from tests.support.stack import Stack, stack
from tests.support.storm import (
    CONFIG,
    Job,
    Storm,
    Way,
    by_scope,
    cost,
    patient,
    settled,
)
from tests.support.upstream import EVENT_STREAM, Cue, Head, Play, Received

pytestmark = [pytest.mark.envoy, pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Run everything, on each Envoy."""
    async with stack(CONFIG, version=request.param, options=patient) as started:
        yield started


def finishing(truth: Usage, cut: Cue | None = None) -> Callable[[Received], Play]:
    """Answer all, or up to the finish and then the cue."""

    def play(request: Received) -> Play:
        answer = Answer(Api.CHAT, "scripted", "gpt-4o", truth, "stop")
        pieces = [piece.data for piece in answers.pieces(answer, include_usage=request.include_usage)]
        finish = next(number for number, piece in enumerate(pieces) if is_finish(piece))
        steps = pieces if cut is None else [*pieces[: finish + 1], cut]
        return Play((Head(content_type=EVENT_STREAM), *steps), truth)

    return play


def is_finish(stream: bytes) -> bool:
    """Tell whether a stream came to its finish."""
    return b'"finish_reason":"stop"' in stream


async def booked_by_hang_ups(running: Stack, times: int = 100) -> int:
    """Let clients hang up as soon as they have read the finish, and tell what was booked for all of them."""

    async def hang_up(number: int) -> None:
        job = Job(number, Way("hung up at the finish", "finishes"), streamed=True, payer="sk-bob")
        async with calling(running.envoy.options.listen.port, job.body, job.headers) as call:
            await call.until(lambda call: is_finish(call.received))
            assert is_finish(call.received)

    before = by_scope((await settled(running)).spent).get("team:blue", 0)
    for start in range(0, times, 10):
        await asyncio.gather(*map(hang_up, range(start, start + 10)))
    return by_scope((await settled(running)).spent)["team:blue"] - before


@pytest.mark.parametrize("cut", [None, Cue.HANG], ids=["usage follows at once", "usage never comes"])
async def test_hanging_up_at_the_finish_saves_no_money(running: Stack, cut: Cue | None) -> None:
    """A client that reads up to `finish_reason` and hangs up, 100 times, pays 0.9 of the truth at least."""
    truth = Usage(input_tokens=90, output_tokens=300)  # far above the estimate, which must not be what saves us
    running.upstream.plays["finishes"] = finishing(truth, cut)

    assert 0.9 <= await booked_by_hang_ups(running) / (100 * cost(truth)) <= 2


async def test_hanging_up_at_the_finish_saves_no_money_on_reasoning() -> None:
    """Most of the output was never shown: what the model's answers usually need is booked, as learnt from others."""
    truth = Usage(input_tokens=90, output_tokens=300, reasoning_output_tokens=220)
    async with stack(CONFIG.replace("estimate: {mode: fixed, output_tokens: 64}", "estimate: usual")) as started:
        started.upstream.plays["finishes"] = finishing(truth)
        storm = Storm(started)
        await storm.run(
            [Job(number, Way("answered", "finishes"), streamed=True, payer="sk-ana") for number in range(40)]
        )
        await settled(started)
        started.upstream.plays["finishes"] = finishing(truth, Cue.HANG)
        booked_nanousd = await booked_by_hang_ups(started)

    assert [True] * 40 == [seen.whole for seen in storm.seen]
    assert 0.9 <= booked_nanousd / (100 * cost(truth)) <= 2
