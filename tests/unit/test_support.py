"""The helpers that other tests trust: the scripted upstream does each of its steps, and processes tell how they end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from extauthz.demo.answers import unknown_model
from extauthz.demo.upstream import Outcome
from extauthz.domain.prices import Usage
from tests.support.processes import Process, eventually, free_port, listening
from tests.support.upstream import PLAY_HEADER, USAGE, Cue, Head, Play, ScriptedUpstream, chunks

CHAT = "/v1/chat/completions"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Run the scripted upstream."""
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def session(upstream: ScriptedUpstream) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client of it that fails rather than hangs."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{upstream.port}", timeout=timeout) as running:
        yield running


async def read(session: aiohttp.ClientSession, play: str = "", **body: object) -> bytes:
    """Ask for a chat and read the whole answer."""
    async with session.post(CHAT, json={"model": "gpt-4o", **body}, headers={PLAY_HEADER: play}) as response:
        return await response.read()


async def test_answers_as_asked(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """Without a play, the answer is JSON or a stream as the body asks, with usage in the stream only when asked for."""
    plain = await read(session)
    silent = await read(session, stream=True)
    asked = await read(session, stream=True, stream_options={"include_usage": True})

    assert b'"completion_tokens":20' in plain
    assert silent.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in silent
    assert b'"completion_tokens":20' in asked
    assert (USAGE, USAGE, USAGE) == upstream.served
    assert [2, 23, 24] == [played.writes for played in upstream.played]


async def test_keeps_what_it_received(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """A request is kept as it arrived: method, path with query, headers, body."""
    async with session.put("/any//path%2f?q=1", data=b"\x00{", headers={"X-Twice": "a"}) as response:
        await response.read()

    (received,) = upstream.requests
    assert ("PUT", "a", b"\x00{", "") == (received.method, received.header("x-twice"), received.body, received.model)
    assert received.path.endswith("?q=1")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/models", 200), ("/models/gpt-4o", 200), ("/v1/models/nope", 404), ("/health", 200)]
)
async def test_serves_the_model_list(session: aiohttp.ClientSession, path: str, status: int) -> None:
    """The model list and its entries are there for tests of discovery, the 404 in the real one's words."""
    async with session.get(path) as response:
        assert status == response.status
        assert status == 200 or unknown_model("nope") == await response.json()
    async with session.head(path) as response:
        assert (status, b"") == (response.status, await response.read())


async def test_finds_a_play_by_header_model_and_path(
    upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    """The header goes before the model, the model before the path."""
    upstream.plays |= {"named": chunks(b"header"), "gpt-4o": chunks(b"model"), CHAT: chunks(b"path")}

    assert b"header" == await read(session, "named")
    assert b"model" == await read(session)
    assert b"path" == await read(session, model="other")


async def test_sends_each_chunk_as_it_is(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """Given bytes go out unchanged and in the given pieces."""
    upstream.plays["cut"] = chunks(b"\xff\x00", b"b", status=418, content_type="text/odd", usage=Usage(1, 2))
    async with session.post(CHAT, headers={PLAY_HEADER: "cut"}) as response:
        pieces = [data async for data, _ in response.content.iter_chunks() if data]

    assert (418, "text/odd", [b"\xff\x00", b"b"]) == (response.status, response.content_type, pieces)
    assert (Usage(1, 2),) == upstream.served


async def test_waits_at_the_gate(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """No request that waits is answered before the gate is set, and all are after."""
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(read(session, "waits")) for _ in range(5)]
        await eventually(lambda: len(upstream.requests) == 5)
        assert not upstream.played
        assert not any(answer.done() for answer in answers)
        upstream.gate.set()

    assert 5 == len(upstream.served)


@pytest.mark.parametrize(
    ("play", "stream", "writes", "error"),
    [
        ("resets", False, 0, aiohttp.ClientOSError),
        ("resets", True, 0, aiohttp.ClientOSError),
        ("breaks", False, 1, aiohttp.ClientError),
        ("breaks", True, 11, aiohttp.ClientError),
    ],
)
async def test_resets_the_connection(
    upstream: ScriptedUpstream,
    session: aiohttp.ClientSession,
    play: str,
    stream: bool,  # noqa: FBT001 - a column of the table
    writes: int,
    error: type[Exception],
) -> None:
    """A reset is an error at the client, before the headers or in the middle of the body."""
    with pytest.raises(error):
        await read(session, play, stream=stream)

    (played,) = upstream.played
    assert (Outcome.FAILED, writes) == (played.outcome, played.writes)
    assert () == upstream.served


async def test_hangs_before_the_headers(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """A request that hangs gets nothing, and is noted as aborted when the client leaves."""
    answer = asyncio.create_task(read(session, "hangs"))
    await eventually(lambda: upstream.requests)
    assert not upstream.played
    answer.cancel()

    (played,) = await eventually(lambda: upstream.played)
    assert (Outcome.ABORTED, 0) == (played.outcome, played.writes)


@pytest.mark.parametrize(("stream", "writes"), [(False, 1), (True, 11)], ids=["plain", "stream"])
async def test_stalls_in_the_body(
    upstream: ScriptedUpstream,
    session: aiohttp.ClientSession,
    stream: bool,  # noqa: FBT001 - a column of the table
    writes: int,
) -> None:
    """An answer that stalls brings its first half, and is noted as aborted when the client leaves."""
    body = {"model": "gpt-4o", "stream": stream}
    async with session.post(CHAT, json=body, headers={PLAY_HEADER: "stalls"}) as response:
        assert await response.content.readany()
        assert not upstream.played
        response.close()

    (played,) = await eventually(lambda: upstream.played)
    assert (Outcome.ABORTED, writes) == (played.outcome, played.writes)
    assert () == upstream.served


async def test_fails_with_an_error_that_costs_nothing(
    upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    """A 500 has an error in its body, and no usage."""
    assert b'"type":"server_error"' in await read(session, "fails")
    assert () == upstream.served


async def test_plays_any_steps(upstream: ScriptedUpstream, session: aiohttp.ClientSession) -> None:
    """A test can write a play of its own."""
    upstream.plays["own"] = lambda _: Play((Head(), b"a", Cue.GATE, b"b"))
    async with session.post(CHAT, headers={PLAY_HEADER: "own"}) as response:
        first = await response.content.readany()
        upstream.gate.set()

        assert (b"a", b"b") == (first, await response.content.read())


async def test_eventually_fails_with_what_it_saw() -> None:
    """A condition that never comes true fails by name, with the last answer."""
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: rain; last seen: \[\]"):
        await eventually(list, 0.05, "rain")


async def test_eventually_ends_when_its_cancellation_is_lost() -> None:
    """A condition that swallows the one cancellation that it gets does not keep the wait alive."""
    forever = asyncio.Event()

    async def deaf() -> bool:
        if not forever.is_set():
            with suppress(asyncio.CancelledError):
                await forever.wait()
            forever.set()
        return False

    with pytest.raises(AssertionError, match="last seen: False"):
        await eventually(deaf, 0.05)


async def test_eventually_gives_the_answer() -> None:
    """Plain and async conditions are both asked until they say something, and that is the result."""
    plain, later = iter([0, 0, 7]), iter([None, "x"])

    async def ask() -> str | None:
        return next(later)

    assert 7 == await eventually(lambda: next(plain))
    assert "x" == await eventually(ask)


async def test_process_speaks_and_stops() -> None:
    """Lines of either output are found, and leaving the block stops the program."""
    code = (
        "import sys, signal; print('ready now', file=sys.stderr, flush=True); print('out', flush=True); signal.pause()"
    )
    async with Process(sys.executable, "-c", code) as process:
        assert "ready now" == await process.wait_for_line("ready")
        assert "out" == await process.wait_for_line("out")
        assert process.returncode is None

    assert -15 == process.returncode


async def test_process_that_ends_is_not_waited_for() -> None:
    """Waiting for a program that has ended fails at once, with its output."""
    async with Process(sys.executable, "-c", "import sys; sys.exit('no such thing')") as process:
        with pytest.raises(AssertionError, match=r"ended with code 1:\nno such thing"):
            await process.wait_for_line("ready")


async def test_process_that_ignores_sigterm_is_killed() -> None:
    """A program that does not stop when asked is killed."""
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"
    async with Process(sys.executable, "-c", code, stop_seconds=0.1) as process:
        await process.wait_for_line("ready")

    assert -9 == process.returncode


async def test_runs_the_demo_upstream_as_a_program() -> None:
    """`python -m extauthz.demo.upstream` says where it listens, and ends in order on SIGTERM."""
    port = free_port()
    async with Process(sys.executable, "-m", "extauthz.demo.upstream", "--port", str(port)) as process:
        await process.wait_for_port(port)
        line = await process.wait_for_line("listens")

        assert f"http://127.0.0.1:{port}/v1" in line

    assert 0 == process.returncode
    assert not await listening(port)
