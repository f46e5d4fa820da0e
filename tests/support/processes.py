"""Processes beside the tests, the ports they listen on, and the one way to wait for something.

Nothing here sleeps for a fixed time and hopes: `eventually` asks until it is so, or fails with what it last saw.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from inspect import isawaitable
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, overload

LOOPBACK = "127.0.0.1"
# Below those of Redis (redis.py), and of those that Linux gives to connections (ip_local_port_range): such a one is
# somebody's connection, now and then, before the program that it was chosen for listens there, or listens again, and a
# client that knocks at a dead server's would be connected to itself.
PORTS = range(4_000, 10_000)
WAIT_SECONDS = 10.0
# A program's start reads much from disk, and on a busy machine it waits for its turn.
START_SECONDS = 40.0
POLL_SECONDS = 0.02
STOP_SECONDS = 10.0
OUTPUT_BYTES_MAX = 256 * 1024
READ_BYTES = 16 * 1024

T = TypeVar("T")


# Each of pytest's processes has a slice of its own, begins anywhere in it and goes round: so one port is not chosen for
# two programs that are still to start.
_SLICES = 3
_SLICE = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _SLICES :: _SLICES]
_BEGIN = secrets.randbelow(len(_SLICE))
_CANDIDATES: Iterator[int] = cycle((*_SLICE[_BEGIN:], *_SLICE[:_BEGIN]))


def free_port() -> int:
    """Give a loopback port that nobody listens on, and that nobody gets who does not ask for it by its number."""
    for port in islice(_CANDIDATES, len(_SLICE)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            return port
    raise OSError(f"every port of {_SLICE} is in use")


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], seconds: float = ..., what: str = ...) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], seconds: float = ..., what: str = ...) -> T: ...
async def eventually(
    predicate: Callable[[], T | Awaitable[T]], seconds: float = WAIT_SECONDS, what: str = "the condition"
) -> T:
    """Ask until the predicate, plain or async, says something true, and give that.

    Raises AssertionError with the last answer when `seconds` have passed.
    """
    last: T | None = None
    try:
        async with asyncio.timeout(seconds) as deadline:
            # Asked as well, for a predicate may lose the cancellation: redis-py does, with Python 3.11's `wait_for`.
            while not deadline.expired():
                answer = predicate()
                last = await answer if isawaitable(answer) else answer
                if last:
                    return last
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        pass
    raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {last!r}")


async def listening(port: int) -> bool:
    """Tell whether a loopback port accepts connections."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


class Process:
    """A program that runs while the `async with` block does.

    Its output is kept up to OUTPUT_BYTES_MAX, the latest, and printed when the block ends: pytest shows that only for
    a test that failed. Leaving the block sends SIGTERM, and SIGKILL after `stop_seconds`. `environment` is added to
    that of the tests.
    """

    def __init__(
        self,
        *command: str | os.PathLike[str],
        environment: Mapping[str, str] | None = None,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self._command = [os.fspath(part) for part in command]
        self._environment = {**os.environ, **(environment or {})}
        self._stop_seconds = stop_seconds
        self._output = bytearray()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, env=self._environment
        )
        self._reader = asyncio.create_task(self._read(), name=f"output of {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()
        try:
            await self.wait(self._stop_seconds)
        except TimeoutError:
            self.kill()
            await self._running.wait()
        finally:
            self._reading.cancel()
        sys.stdout.write(f"--- {self.name}, exit code {self.returncode}\n{self.output}\n")

    @property
    def name(self) -> str:
        """The program's file name."""
        return os.path.basename(self._command[0])  # noqa: PTH119 - a command is a string, not always a path

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs."""
        return self._running.returncode

    @property
    def output(self) -> str:
        """What it wrote so far, standard output and standard error together, at most the last OUTPUT_BYTES_MAX."""
        return self._output.decode(errors="replace")

    def terminate(self) -> None:
        """Ask it to stop; nothing happens when it has."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it at once; nothing happens when it has stopped."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has stopped."""
        if self.returncode is None:
            self._running.send_signal(number)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Stand still inside the block, every thread of it: alive for the kernel, and deaf."""
        self.send(signal.SIGSTOP)
        try:
            await eventually(self._stands, what=f"{self.name} stands still")
            yield
        finally:
            self.send(signal.SIGCONT)

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and for the last of its output, and give the exit code.

        Raises TimeoutError when it still runs after `seconds`.
        """
        async with asyncio.timeout(seconds):
            code = await self._running.wait()
            await asyncio.shield(self._reading)
            return code

    async def wait_for_line(self, text: str, seconds: float = WAIT_SECONDS) -> str:
        """Wait until it writes a line that holds `text`, and give the line."""
        return await eventually(lambda: self._alive_until(self._find(text)), seconds, f"{self.name} writes {text!r}")

    async def wait_for_port(self, port: int, seconds: float = START_SECONDS) -> None:
        """Wait until it listens on a loopback port."""

        async def answers() -> bool:
            return self._alive_until(await listening(port))

        await eventually(answers, seconds, f"{self.name} listens on port {port}")

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "start the process first: async with Process(...)"
        return self._process

    @property
    def _reading(self) -> asyncio.Task[None]:
        assert self._reader is not None, "start the process first: async with Process(...)"
        return self._reader

    def _stands(self) -> bool:
        # The state is the first word after the program's name, which stands in brackets and may hold blanks.
        threads = [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in threads)

    async def _read(self) -> None:
        stream = self._running.stdout
        assert stream is not None
        while chunk := await stream.read(READ_BYTES):
            self._output += chunk
            del self._output[:-OUTPUT_BYTES_MAX]

    def _find(self, text: str) -> str:
        lines = self.output.split("\n")[:-1]
        return next((line for line in lines if text in line), "")

    def _alive_until(self, found: T) -> T:
        """Pass an answer on, and fail at once when there is none and there will be none."""
        assert found or self.returncode is None, f"{self.name} ended with code {self.returncode}:\n{self.output}"
        return found
