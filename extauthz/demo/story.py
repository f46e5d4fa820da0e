"""The story that `extauthz demo` plays: what a budget gate is for, in some thirty lines with their expectations.

Each step does one thing through a real Envoy and tells in one line what came of it; the line is right when it reads as
expected, to the letter. The three policies stand side by side as three houses (`stage.py`), each with books of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import openai
from rich.console import Console

from extauthz.demo.books import Books
from extauthz.demo.report import Report, new_console
from extauthz.demo.stage import House, StageError, logs, stage
from extauthz.demo.visitor import Visitor, refused, streamed_body
from extauthz.domain.policy import ModelsPolicy

STEP_SECONDS_MAX = 15.0

PAID, FREE, SLOW = "gpt-4o", "local-llama", "slow-novelist"
ALL_MODELS = "gpt-4o, slow-novelist, fails-500, resets, local-llama"

# 4 tokens read at $2.5 a million, 4 from the cache at $1.25, 48 written at $10: $0.000495. The students have $0.001.
ANSWERED = "answered, 8 tokens in, 48 out"
ANSWERED_FREE = "answered, 8 tokens in, 24 out"
AFTER_TWO = "spent $0.00099, held $0.0"
AFTER_THREE = "spent $0.001485, held $0.0"
REFUSED = "429 budget_exceeded"
REFUSAL = (
    '429 {"error":{"message":"Budget has been exceeded! Team=students Current cost: 0.001485, Max budget: 0.001",'
    '"type":"budget_exceeded","param":null,"code":"429"}}'
)

Happening = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens, and how it must read; an expectation that is known only later is asked for then."""

    title: str
    expected: str | Happening
    happens: Happening


@dataclass(frozen=True, slots=True)
class Act:
    """A part of the story."""

    title: str
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Scene:
    """A house with those who visit it."""

    students: Visitor
    lab: Visitor
    books: Books

    async def students_books(self) -> str:
        """Tell what the students have spent."""
        return str(await self.books.settled("students"))

    async def all_books(self) -> str:
        """Tell what everybody has spent."""
        return str(await self.books.settled("students", "lab"))

    async def upstream_books(self) -> str:
        """Tell what the upstream's answers cost."""
        return str(await self.books.served(streamed_body(SLOW)))

    async def chat_paid(self) -> str:
        """Let the students ask the paid model, and wait until its cost is booked.

        An answer in flight holds all that is left of so small a budget.
        """
        answer = await self.students.chat(PAID)
        await self.books.settled()
        return answer

    async def stream_paid(self) -> str:
        """Let the students stream from the paid model, and wait until its cost is booked."""
        answer = await self.students.stream(PAID)
        await self.books.settled()
        return answer

    async def spend_all(self) -> str:
        """Let the students ask the paid model until they have spent more than they had."""
        answers = [await self.chat_paid() for _ in range(3)]
        return f"{answers.count(ANSWERED)} answered"


async def play(*, keep: bool, console: Console | None = None) -> int:
    """Play the story and give the exit status: 0 when every line read as expected.

    With `keep` everything stays up afterwards, until SIGINT or SIGTERM. The console is standard output by default.
    """
    report = Report(console or new_console())
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with TemporaryDirectory(prefix="extauthz-demo-") as folder:
        try:
            await _perform(report, Path(folder), keep=keep)
        except StageError as error:
            report.failure(str(error))
        except asyncio.CancelledError:
            report.failure("Stopped before the end.")
            return 1
        if report.as_expected:
            return 0
        report.logs(logs(Path(folder)))
        return 1


async def _perform(report: Report, folder: Path, *, keep: bool) -> None:
    """Set the stage, tell the story, and with `keep` wait until somebody ends it."""
    async with AsyncExitStack() as open_until_the_end:
        with report.under_way("starting an Envoy, a server and an upstream for each of the three policies"):
            houses = await open_until_the_end.enter_async_context(stage(folder, os.environ))
        session = await open_until_the_end.enter_async_context(aiohttp.ClientSession())
        scenes = {}
        for house in houses:
            students, lab = Visitor(house.url, "sk-students"), Visitor(house.url, "sk-lab")
            await open_until_the_end.enter_async_context(students.connection)
            await open_until_the_end.enter_async_context(lab.connection)
            scenes[house.policy] = Scene(students, lab, Books(house, session))
        started_s = time.monotonic()
        await _tell(_story(scenes), report)
        report.end(time.monotonic() - started_s)
        if keep:
            report.commands("Still running, until Ctrl-C. Try:", _commands(houses[-1]))
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


async def _tell(story: Sequence[Act], report: Report) -> None:
    report.heading()
    for act in story:
        report.act(act.title)
        for step in act.steps:
            with report.under_way(step.title):
                happened = await _outcome(step.happens)
                expected = step.expected if isinstance(step.expected, str) else await _outcome(step.expected)
            report.line(step.title, expected, happened)


async def _outcome(happening: Happening) -> str:
    """Let something happen; what prevents it is an outcome too."""
    try:
        async with asyncio.timeout(STEP_SECONDS_MAX):
            return await happening()
    except openai.APIStatusError as refusal:
        return refused(refusal)
    except (openai.OpenAIError, aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
        return f"{type(error).__name__}: {error}"


def _story(scenes: Mapping[ModelsPolicy, Scene]) -> Sequence[Act]:
    blocked, full, free_only = (scenes[policy] for policy in ModelsPolicy)
    students = free_only.students
    return (
        Act(
            "There is money: a team with a budget of $0.001",
            (
                Step("list the models", ALL_MODELS, students.list_models),
                Step(f"chat with {PAID}", ANSWERED, free_only.chat_paid),
                Step(f"stream from {PAID}", "streamed 40 words, 0 usage events", free_only.stream_paid),
                Step("the books", AFTER_TWO, free_only.students_books),
            ),
        ),
        Act(
            "The budget runs out: an answer that has begun is not taken back, the next one is refused",
            (
                Step(f"chat with {PAID}", ANSWERED, free_only.chat_paid),
                Step("the books", AFTER_THREE, free_only.students_books),
                Step(f"chat with {PAID}, to the letter", REFUSAL, lambda: students.chat_body(PAID)),
                Step("three chats under `blocked`", "3 answered", blocked.spend_all),
                Step("three chats under `all`", "3 answered", full.spend_all),
            ),
        ),
        _exhausted(ModelsPolicy.BLOCKED, blocked, listed=REFUSED, free=REFUSED, paid=REFUSED),
        _exhausted(ModelsPolicy.ALL, full, listed=ALL_MODELS, free=FREE, paid=PAID),
        _exhausted(ModelsPolicy.FREE_ONLY, free_only, listed=FREE, free=FREE, paid="404 model_not_found"),
        Act(
            "Requests that end badly: another team, with $1",
            (
                Step(f"hang up on {SLOW}", "hung up after 4 words", lambda: free_only.lab.hang_up(SLOW, 4)),
                Step("the upstream fails", "500 server_error", lambda: free_only.lab.chat("fails-500")),
                Step("the upstream resets the connection", "503", lambda: free_only.lab.chat("resets")),
            ),
        ),
        Act(
            "The books: what the upstreams served, the aborted stream by what it delivered; nothing stays held",
            tuple(
                Step(f"the books under `{policy}`", scene.upstream_books, scene.all_books)
                for policy, scene in scenes.items()
            ),
        ),
    )


def _exhausted(policy: ModelsPolicy, scene: Scene, *, listed: str, free: str, paid: str) -> Act:
    students = scene.students
    return Act(
        f"The budget is spent, under `{policy}`",
        (
            Step("list the models", listed, students.list_models),
            Step(f"retrieve {FREE}", free, lambda: students.retrieve(FREE)),
            Step(f"retrieve {PAID}", paid, lambda: students.retrieve(PAID)),
            Step(f"chat with {PAID}", REFUSED, scene.chat_paid),
            Step(f"chat with {FREE}", ANSWERED_FREE, lambda: students.chat(FREE)),
        ),
    )


def _commands(house: House) -> Mapping[str, str]:
    """Give what to try on a house, ready to be copied."""
    key = "authorization: Bearer sk-students"
    body = json.dumps({"model": PAID, "messages": [{"role": "user", "content": "hello"}]})
    stream = json.dumps({"model": PAID, "stream": True, "messages": [{"role": "user", "content": "hello"}]})
    http = {"method": "GET", "path": "/v1/models", "headers": {"authorization": "Bearer sk-students"}}
    check = json.dumps({"attributes": {"request": {"http": http}}})
    chat = f"{house.url}/chat/completions -H 'content-type: application/json'"
    return {
        "the model list of a team whose budget is spent": f"curl -s {house.url}/models -H '{key}'",
        "its paid chat": f"curl -si {chat} -H '{key}' -d '{body}'",
        "a stream of the team that has money": f"curl -sN {chat} -H 'authorization: Bearer sk-lab' -d '{stream}'",
        "the books": f"curl -s http://{house.http}/metrics | grep extauthz_budget",
        "what the upstream served": f"curl -s http://{house.upstream}/served",
        "the services for Envoy": f"grpcurl -plaintext {house.grpc} list",
        "a Check without Envoy": (
            f"grpcurl -plaintext -d '{check}' {house.grpc} envoy.service.auth.v3.Authorization/Check"
        ),
        "the configuration": f"cat {house.config}",
    }
