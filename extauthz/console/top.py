"""`extauthz top`: a live view of one server, or one picture of it."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
import tty
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from rich.console import Console
from rich.live import Live

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import Server, ServerAwayError, connected
from extauthz.console.frame import View, frame
from extauthz.console.load import next_load
from extauthz.console.target import Target

BUDGETS_MAX = 100
ASK_S = 5.0
# Where the output is no terminal.
ONCE_WIDTH, ONCE_HEIGHT = 120, 60

KEYS_MAX = 64
QUIT = b"qQ"

T = TypeVar("T")


async def show_once(target: Target, interval_s: float) -> None:
    """Print one picture, of one interval: how many a second can only be told from two looks."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=ONCE_WIDTH, height=ONCE_HEIGHT)
    async with connected(target) as server:
        view = await _looked(server, _first(target))
        await asyncio.sleep(interval_s)
        view = await _looked(server, view)
    console.print(frame(view, console.width, console.height))


async def show_live(target: Target, interval_s: float) -> None:
    """Draw again and again until q or Ctrl-C. A server that goes away is looked for; one that refuses ends it."""
    console, stop = Console(highlight=False, emoji=False), asyncio.Event()
    view: View | None = replace(_first(target), hint=f"q ends · a look every {interval_s:g} s")
    with _keys(stop), Live(console=console, screen=True, auto_refresh=False) as live:
        async with connected(target) as server:
            while view is not None:
                live.update(frame(view, console.width, console.height), refresh=True)
                if view.status is not None or view.trouble:
                    await _unless(stop, asyncio.sleep(interval_s))
                view = await _unless(stop, _seen(server, view))


def _first(target: Target) -> View:
    return View(str(target.address), time.time(), None, None, "", "")


async def _looked(server: Server, view: View) -> View:
    """Look at the server. Raises ServerAwayError and ServerRefusedError."""
    status = await server.ask(
        "GetStatus", pb.GetStatusRequest(budgets=BUDGETS_MAX), pb.GetStatusResponse, seconds=ASK_S
    )
    load = next_load(status, time.monotonic(), view.load)
    return replace(view, now_s=time.time(), status=status, load=load, trouble="")


async def _seen(server: Server, view: View) -> View:
    """Look at the server, or say why what is shown is old."""
    try:
        return await _looked(server, view)
    except ServerAwayError as error:
        return replace(view, trouble=f"no answer, trying again: {error}")


async def _unless(stop: asyncio.Event, job: Coroutine[None, None, T]) -> T | None:
    """Do a job; None when it is stopped before its end."""
    working, stopping = asyncio.ensure_future(job), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() and not stop.is_set() else None
    finally:
        working.cancel()
        stopping.cancel()


@contextmanager
def _keys(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at q inside the block, and show no keys. Without a terminal there are none."""
    if not sys.stdin.isatty():
        yield
        return
    stdin, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(stdin)

    def pressed() -> None:
        keys = os.read(stdin, KEYS_MAX)
        if not keys or any(key in QUIT for key in keys):
            stop.set()

    tty.setcbreak(stdin)
    loop.add_reader(stdin, pressed)
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
