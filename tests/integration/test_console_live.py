"""`extauthz watch` and `extauthz top`: what they show of a server that is at work, and of one that goes away."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from google.protobuf.json_format import Parse

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from tests.support.gate import FREE, PAID, a_check
from tests.support.operators import KEYS, RESEARCH, SPENT, House, operated
from tests.support.processes import LOOPBACK, START_SECONDS, Process, eventually, free_port

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

WATCH = (sys.executable, "-m", "extauthz", "watch")
TOP = (sys.executable, "-m", "extauthz", "top", "--interval", "0.2")
WIDTH, HEIGHT = 80, 24
READ_BYTES = 65_536


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Serve."""
    async with operated() as running:
        yield running


@asynccontextmanager
async def watching(house: House, *options: str) -> AsyncIterator[Process]:
    """Watch decisions inside the block, from its beginning on."""
    async with Process(*WATCH, *options, environment=house.environment) as process:
        await process.wait_for_line("watching", START_SECONDS)
        yield process


class TestWatch:
    """`extauthz watch`."""

    async def test_a_line_for_people(self, house: House) -> None:
        """Each decision is a line: what was decided and why, which scope refuses, and who asked for what."""
        async with watching(house) as process:
            await house.check(a_check(key=SPENT))
            line = await process.wait_for_line("budget_exceeded")

        words = ["deny", "budget_exceeded", "(429)", "team:spent", "POST", "/v1/chat/completions", PAID]
        assert words == line.split()[1 : len(words) + 1]

    async def test_json(self, house: House) -> None:
        """With --json a line is the whole message, and protobuf's parser reads it back."""
        async with watching(house, "--json") as process:
            await house.check(a_check(key=RESEARCH))
            line = await process.wait_for_line("within_budget")
        document = json.loads(line)
        message = Parse(line, messages.WatchDecisionsResponse())

        assert {field.name for field in messages.WatchDecisionsResponse.DESCRIPTOR.fields} == set(document)
        assert ("allow", PAID, "research-laptop") == (message.decision.decision, message.model, message.principal)
        assert "team:research" in document["scopes"]
        assert 0 == document["missed"]

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(["--decision", "deny"], id="decision"),
            pytest.param(["--decision", "deny", "--decision", "defer"], id="decisions"),
            pytest.param(["--reason", "budget_exceeded"], id="reason"),
            pytest.param(["--scope", "team:spent"], id="scope"),
            pytest.param(["--model", PAID], id="model"),
        ],
    )
    async def test_filters(self, options: list[str], house: House) -> None:
        """Only what passes the filters is shown."""
        async with watching(house, "--json", "--sample", "1", *options) as process:
            await house.check(a_check(FREE, key=RESEARCH))
            await house.check(a_check(key=SPENT))
            await process.wait_for_line("budget_exceeded")

            assert 1 == process.output.count("decided_at")

    async def test_what_clients_wrote_does_not_steer_the_terminal(self, house: House) -> None:
        """A path with control characters is shown without them."""
        async with watching(house) as process:
            await house.check(a_check(key=RESEARCH, path="/v1/chat/completions\x1b]0;hi"))
            line = await process.wait_for_line("/v1/chat")

            assert "\x1b" not in process.output
            assert "/v1/chat/completions\ufffd]0;hi" in line
            assert 2 == len(process.output.splitlines())

    async def test_an_interrupt_is_its_end(self, house: House) -> None:
        """Ctrl-C ends it with status 0, and not a word."""
        async with watching(house) as process:
            process.send(signal.SIGINT)

            assert 0 == await process.wait()
            assert 1 == len(process.output.splitlines())

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
    async def test_a_server_that_goes_away(self, number: signal.Signals) -> None:
        """A server that stops, or is killed, is told in one line, with status 1."""
        async with operated() as own, watching(own) as process:
            own.gate.process.send(number)

            assert 1 == await process.wait(START_SECONDS)
            told = process.output.splitlines()
        assert 2 == len(told)
        assert told[1].startswith(f"Error: the server at {LOOPBACK}:{own.gate.admin_port} ")

    async def test_keys_are_not_shown(self, house: House) -> None:
        """What is watched has no key in it."""
        async with watching(house, "--json") as process:
            for key in KEYS:
                await house.check(a_check(FREE, key=key))
            await eventually(lambda: process.output.count("decided_at") == len(KEYS), what="all are shown")

            assert not any(key in process.output for key in KEYS)


@dataclass(slots=True)
class Screen:
    """A terminal with a program in it, and everything that the program has written."""

    terminal: int
    process: asyncio.subprocess.Process
    written: bytearray = field(default_factory=bytearray)

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self.terminal, key.encode())

    async def shows(self, text: str, *, times: int = 1) -> None:
        """Wait until it has written a text so many times."""

        def so_often() -> bool:
            return self.written.decode(errors="replace").count(text) >= times

        await eventually(so_often, START_SECONDS, f"the screen shows {text!r} {times} times: {self.written[-2000:]!r}")


@asynccontextmanager
async def screen(*command: str, house: House) -> AsyncIterator[Screen]:
    """Run a program in a terminal of 80 columns and 24 lines inside the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, **house.environment, "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    shown = Screen(ours, process)

    def read() -> None:
        try:
            shown.written += os.read(ours, READ_BYTES)
        except OSError:  # the program has ended
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.get_running_loop().add_reader(ours, read)
    os.close(theirs)
    try:
        yield shown
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(ours)


class TestTop:
    """`extauthz top`."""

    async def test_once(self, house: House) -> None:
        """One picture needs no terminal; it shows load, decisions, what is held, budgets, the store and refusals."""
        await house.check(a_check(key=SPENT))
        await house.check(a_check(key=RESEARCH))

        run = await house.run("top", "--once", "--interval", "0.3")
        lines = run.out.splitlines()

        assert (0, "") == (run.code, run.err)
        assert f"at {LOOPBACK}:{house.gate.admin_port}" in lines[0]
        assert ["load", "store"] == [line.split()[0] for line in lines[1:3]]
        assert "/s" in lines[1]
        assert "up  redis://" in lines[2]
        assert any(line.split()[:3] == ["deny", "budget_exceeded", "inference"] for line in lines)
        assert any("429 budget_exceeded" in line and "team:spent" in line for line in lines)
        assert any(line.startswith("team:research") for line in lines)
        assert not any(key in run.out for key in KEYS)

    @pytest.mark.parametrize("end", ["q", "Q", signal.SIGINT], ids=["q", "Q", "Ctrl-C"])
    async def test_live(self, end: str | signal.Signals, house: House) -> None:
        """In a terminal it draws again and again, in 80 columns and 24 lines, until q or Ctrl-C."""
        async with screen(*TOP, house=house) as shown:
            await shown.shows("most used budgets", times=3)
            frame = shown.written.decode().split("\x1b[H")[-2]
            if isinstance(end, signal.Signals):
                shown.process.send_signal(end)
            else:
                shown.press(end)

            assert 0 == await asyncio.wait_for(shown.process.wait(), START_SECONDS)
        assert HEIGHT >= len(frame.splitlines())
        assert "\x1b[?1049l" in shown.written.decode()  # back to the screen as it was

    async def test_a_server_that_goes_away_and_comes_back(self) -> None:
        """A server that is away is looked for, and shown again once it is back."""
        async with operated() as own, screen(*TOP, house=own) as shown:
            await shown.shows("most used budgets")
            await own.gate.process.__aexit__(None, None, None)
            await shown.shows("no answer, trying again: ")
            async with own.gate.process:
                await own.gate.process.wait_for_port(own.gate.grpc_port)
                before = shown.written.decode(errors="replace").count("up 0 s")
                await shown.shows("up 0 s", times=before + 1)
            shown.press("q")

            assert 0 == await asyncio.wait_for(shown.process.wait(), START_SECONDS)

    async def test_a_server_that_is_not_there_yet(self, house: House) -> None:
        """It waits for a server, with the reason on the screen."""
        nowhere = f"{LOOPBACK}:{free_port()}"
        async with screen(*TOP, "--admin", nowhere, house=house) as shown:
            await shown.shows(f"no answer, trying again: nobody listens on {nowhere}", times=2)
            shown.press("q")

            assert 0 == await asyncio.wait_for(shown.process.wait(), START_SECONDS)

    async def test_a_server_that_refuses(self, house: House) -> None:
        """A wrong token does not become right by waiting: one line, and status 1."""
        async with screen("env", "EXTAUTHZ_ADMIN_TOKEN=wrong", *TOP, house=house) as shown:
            assert 1 == await asyncio.wait_for(shown.process.wait(), START_SECONDS)
            await shown.shows("wants another token than was sent")
