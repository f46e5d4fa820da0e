"""A real Prometheus beside the tests, and promtool: rules and queries are judged by the program that will run them."""

from __future__ import annotations

from asyncio import create_subprocess_exec, timeout
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import aiohttp
import pytest
import yaml

from tests.support.processes import LOOPBACK, START_SECONDS, WAIT_SECONDS, Process, eventually

FOLDER = Path(__file__).parents[2] / ".cache/prometheus"
JOB = "extauthz"
SCRAPE_SECONDS = 0.5


def _program(name: str) -> Path:
    """Find a program; skip the test when there is none."""
    program = FOLDER / name
    if not program.exists():
        pytest.skip("needs Prometheus: this machine has none, and Debian's cannot be fetched")
    return program


async def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Run promtool to its end: its exit code and all that it wrote."""
    process = await create_subprocess_exec(_program("promtool"), *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    async with timeout(START_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and its values from the oldest to the newest."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert as Prometheus sees it. `health` is `unknown` before the first evaluation, then `ok` or `err`.

    `alerts` counts what is pending or firing.
    """

    name: str
    health: str
    error: str
    alerts: int


class QueryError(ValueError):
    """Prometheus refused a query, and said why."""


class Prometheus:
    """A Prometheus that scrapes /metrics of a loopback port twice a second while the `async with` block runs.

    It evaluates the rule files as often, and remembers nothing afterwards.
    """

    def __init__(self, port: int, *, rules: Sequence[Path] = ()) -> None:
        self._program = _program("prometheus")
        every = f"{round(SCRAPE_SECONDS * 1000)}ms"
        self._config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}]}],
        }
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="prometheus-")))
            config = folder / "prometheus.yaml"
            config.write_text(yaml.safe_dump(self._config), encoding="utf-8")
            process = await stack.enter_async_context(
                Process(
                    *(self._program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
                    f"--web.listen-address={LOOPBACK}:0",
                )
            )
            line = await process.wait_for_line('msg="Listening on"', START_SECONDS)
            address = line.rpartition("address=")[2].split()[0]
            self._session = await stack.enter_async_context(
                aiohttp.ClientSession(f"http://{address}", timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS))
            )
            await eventually(self._scraped, START_SECONDS, "Prometheus has scraped its target")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def query(self, expression: str) -> list[Series]:
        """Evaluate an expression now. Raises QueryError when it is none."""
        match await self._get("query", query=expression):
            case {"resultType": "vector", "result": [*result]}:
                return [Series(each["metric"], (float(each["value"][1]),)) for each in result]
            case {"resultType": "scalar", "result": [_, value]}:
                return [Series({}, (float(value),))]
            case answer:
                raise AssertionError(answer)

    async def rules(self) -> list[Rule]:
        """Give every rule, in the files' order."""
        answer = await self._get("rules")
        assert isinstance(answer, dict)
        rules = [rule for group in answer["groups"] for rule in group["rules"]]
        return [Rule(rule["name"], rule["health"], rule.get("lastError", ""), len(rule["alerts"])) for rule in rules]

    async def _scraped(self) -> bool:
        try:
            up = await self.query(f'up{{job="{JOB}"}}')
        except aiohttp.ClientError:
            return False
        return [(1.0,)] == [series.values for series in up]

    async def _get(self, path: str, **parameters: str) -> object:
        assert self._session is not None, "start Prometheus first: async with Prometheus(...)"
        async with self._session.get(f"/api/v1/{path}", params=parameters) as answer:
            if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:  # it still starts
                raise aiohttp.ClientError
            body = await answer.json()
        if body["status"] != "success":
            raise QueryError(f"{body['error']}: {parameters}")
        return body["data"]
