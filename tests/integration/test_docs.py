"""The documents for operators, tried word by word: every command they show runs, and prints what they show."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from extauthz.demo.upstream import Upstream
from tests.support.documented import Example, Shell, differing, read_examples
from tests.support.envoy import EnvoyProcess, options_for
from tests.support.processes import LOOPBACK, START_SECONDS, eventually
from tests.support.redis import CACHE, RedisServer
from tests.support.stack import GateProcess, patient

DOCS = Path(__file__).parents[2] / "docs"
# Begins the section that sets the scene.
TRY_IT = "\n## Try it\n"

# Begins what is running here already, what needs a cluster, and what goes on until somebody ends it.
STARTED = ("cp ", "export ", "extauthz serve", "extauthz envoy-config", "envoy ", "python -m extauthz.demo.upstream")
ELSEWHERE = ("kubectl ",)
ENDLESS = "extauthz watch"
# Found in what does something else the second time.
ONCE = re.compile(r"budgets (?:set|unset|grant|reset) |reservations release |/(?:Set|Grant|Reset|Release)")

GRPCURL = shutil.which("grpcurl", path=CACHE / "grpcurl") or shutil.which("grpcurl")

# What clients do while decisions are watched.
ASKED = (
    "curl -s 127.0.0.1:8080/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' "
    """-d '{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "hi"}}]}}'"""
)
ASKED_BY = ("sk-interns", "sk-interns", "sk-research")

TRY_SECONDS_MAX = 30.0

pytestmark = [pytest.mark.envoy, pytest.mark.redis]


@asynccontextmanager
async def house(name: str) -> AsyncIterator[Shell]:
    """Run what a document has running, with its own configuration, and give a shell in front of it."""
    async with AsyncExitStack() as running:
        store = await running.enter_async_context(RedisServer())
        upstream = await running.enter_async_context(Upstream())
        config = f"{(DOCS / f'{name}.yaml').read_text(encoding='utf-8')}  timezone: {where_it_is_noon()}\n"
        gate = await running.enter_async_context(GateProcess(config, environment={"EXTAUTHZ_STORE": store.url}))
        options = patient(options_for(upstream.port, gate.grpc_port))
        await running.enter_async_context(EnvoyProcess(replace(options, heartbeat_seconds=30.0)))
        admin = f"{LOOPBACK}:{gate.admin_port}"
        tools = [Path(sys.executable).parent, *([] if GRPCURL is None else [Path(GRPCURL).parent])]
        environment = {
            "EXTAUTHZ_ADMIN": admin,
            "EXTAUTHZ_STORE": store.url,
            "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
        }
        places = {
            f"{LOOPBACK}:8080": str(options.listen),
            f"{LOOPBACK}:9192": admin,
            f"{LOOPBACK}:9193": f"{LOOPBACK}:{gate.http_port}",
        }
        yield Shell(gate.config.parent, environment, places)


def where_it_is_noon() -> str:
    """Name a time zone in which no day ends while a test runs; POSIX counts them westwards."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


@pytest.mark.parametrize("name", ["diagnose", "rollout"])
async def test_every_command_does_what_is_written(name: str) -> None:
    """All commands of a document run in their order, each with the exit status and the output that it shows."""
    document = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    async with AsyncExitStack() as running:
        shell = await running.enter_async_context(house(name))
        for example in in_order(document):
            if example.command.endswith("&"):
                await running.enter_async_context(shell.begin(example.command))
            else:
                await try_example(shell, example)


def in_order(document: str) -> list[Example]:
    """Give the commands to be tried: the last section's first, which set the scene."""
    assert TRY_IT in document
    scene_line = document[: document.index(TRY_IT)].count("\n")
    left_out = (*STARTED, *ELSEWHERE, *(() if GRPCURL else ("grpcurl ",)))
    wanted = [example for example in read_examples(document) if not example.command.startswith(left_out)]
    return sorted(wanted, key=lambda example: (example.line <= scene_line, example.line))


async def try_example(shell: Shell, example: Example) -> None:
    """Run a command, again and again until it does what is written, but for one that changes something."""
    wrong = ""

    async def right() -> bool:
        nonlocal wrong
        status, written = await tried(shell, example)
        if status != example.status:
            wrong = f"exit status {status}:\n{written}"
        else:
            wrong = "" if example.shown is None else differing(example.shown, written)
        if not wrong and example.shown is not None:
            shell.learn(example.shown, written)
        return not wrong

    if ONCE.search(example.command):
        await right()
    else:
        with suppress(AssertionError):
            await eventually(right, TRY_SECONDS_MAX)
    assert not wrong, f"line {example.line}: {example.command}\n{wrong}"


async def tried(shell: Shell, example: Example) -> tuple[int, str]:
    """Run a command once, and give its exit status and what it wrote."""
    if example.command.startswith(ENDLESS):
        return await watched(shell, example)
    return await shell.run(example.command)


async def watched(shell: Shell, example: Example) -> tuple[int, str]:
    """Watch while clients ask, until all is seen or recorded; then press Ctrl-C."""
    _, _, record = example.command.partition(" > ")

    def complete() -> bool:
        seen = (shell.folder / record).read_text(encoding="utf-8") if record else watching.output
        return len(seen.splitlines()) >= len(example.shown or ASKED_BY)

    async with shell.begin(example.command) as watching:
        await watching.wait_for_line("watching", START_SECONDS)
        for key in ASKED_BY:
            await shell.run(ASKED.format(key=key))
        await eventually(complete, what=f"{example.command} shows what was asked")
        watching.send(signal.SIGINT)
        return await watching.wait(), watching.output
