"""The meter in a real Envoy, on the answers of every API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.support.envoy import ENVOY_VERSIONS
from tests.support.metered import EVENT_STREAM, Answer
from tests.support.metered_shapes import GEMINI_CHUNKS, SHAPES
from tests.support.metered_streams import EVENTS
from tests.support.scene import Scene, exchange_of, set_scene
from tests.support.stage import Ending, Exchange

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

COST = "x-litellm-response-cost"
CHAT = b'{"model":"m","usage":{"prompt_tokens":4,"completion_tokens":2,"cost":0.5}}'
CHAT_TRUTH = {"input_tokens": 4, "output_tokens": 2, "model": "m", "finished": True}
SOUND = bytes(range(256)) * 100
FORGED = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Give a stage with an Envoy of each version."""
    async with set_scene(request.param) as scene:
        yield scene


@pytest.mark.parametrize("answer", [*SHAPES, *EVENTS], ids=str)
async def test_every_documented_shape_arrives_with_the_access_log(scene: Scene, answer: Answer) -> None:
    """What every API says about what was used is told, in two pieces, and no byte is changed."""
    performance = await scene.play(exchange_of(answer, len(answer.body) // 2))

    assert answer.body == performance.received
    assert answer.expected == _kept(await performance.usage())


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        pytest.param("0.00035000000000000005", "0.00035000000000000005", id="more digits than nano-USD have"),
        pytest.param("1.5e-05", "1.5e-05", id="scientific"),
        pytest.param("0", "0.5", id="nothing"),
        pytest.param("0.0", "0.5", id="nothing as a float"),
        pytest.param("-1", "0.5", id="negative"),
        pytest.param("None", "0.5", id="a word"),
        pytest.param("1" * 65, "0.5", id="too long"),
    ],
)
async def test_the_cost_that_litellm_tells_is_passed_on(scene: Scene, cost: str, told: str) -> None:
    """The header counts, as it is written, and what stands in usage only where it says nothing."""
    performance = await scene.play(Exchange((CHAT,), headers=((COST, cost),)))

    assert {**CHAT_TRUTH, "upstream_cost": told} == await performance.usage()


@pytest.mark.parametrize("content_type", ["audio/mpeg", "image/png", "video/mp4", "application/octet-stream"])
async def test_bytes_that_are_no_text_are_not_scanned(scene: Scene, content_type: str) -> None:
    """A sound, picture or film has no usage in it, and is over when its body is; its cost stands in a header."""
    exchange = Exchange((FORGED, SOUND), content_type, headers=((COST, "0.25"),))

    performance = await scene.play(exchange)

    assert FORGED + SOUND == performance.received
    assert {"finished": True, "upstream_cost": "0.25"} == await performance.usage()


async def test_a_sound_that_breaks_off_is_not_finished(scene: Scene) -> None:
    """Without the end of its body nothing says that it was whole."""
    performance = await scene.play(Exchange((SOUND,), "audio/mpeg", ending=Ending.BREAK))

    assert {} == await performance.usage()


async def test_the_cost_of_a_compressed_answer_is_told(scene: Scene) -> None:
    """Compressed bytes cannot be read, and a header can."""
    exchange = Exchange((CHAT,), headers=((COST, "0.25"), ("content-encoding", "gzip")))

    usage = await (await scene.play(exchange)).usage()

    assert {"error": "the upstream compressed its answer", "upstream_cost": "0.25"} == usage


async def test_a_gemini_array_that_breaks_off_has_its_progress(scene: Scene) -> None:
    """What came of an array in its chunks counts as of a stream, and is not finished."""
    body = json.dumps(GEMINI_CHUNKS[:2]).encode()

    performance = await scene.play(replace(Exchange((body[:-1],)), ending=Ending.BREAK))

    assert {
        "input_tokens": 40,
        "output_tokens": 11,
        "reasoning_output_tokens": 9,
        "events": 2,
        "text_bytes": 12,
        "reasoning_bytes": 7,
        "model": "gemini-2.5-flash",
    } == await performance.usage()


@pytest.mark.parametrize(
    ("last", "finished"),
    [
        pytest.param({"type": "response.output_text.delta", "delta": "Hello"}, {}, id="in the middle"),
        pytest.param({"type": "response.completed"}, {"finished": True}, id="at the end"),
    ],
)
async def test_a_response_that_is_left_has_its_progress(
    scene: Scene, last: dict[str, object], finished: dict[str, object]
) -> None:
    """A client that hangs up leaves the text that it was sent, and whether that was all."""
    events = ({"type": "response.output_text.delta", "delta": "Hel"}, last)
    sent = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)
    exchange = Exchange((sent,), EVENT_STREAM, ending=Ending.HANG, leave_after=len(sent))

    usage = await (await scene.play(exchange)).usage()

    assert {"events": 2, "text_bytes": 3 + len(str(last.get("delta", ""))), **finished} == usage


def _kept(usage: dict[str, object]) -> dict[str, object]:
    """Leave out what was told and taken back."""
    return {name: value for name, value in usage.items() if value is not False}
