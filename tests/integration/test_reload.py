"""Hot reload of a running server: under load, with money held, and through files that are wrong for a while."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import os
import re
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import grpc
import grpc.aio
import pytest

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter as BudgetCounter
from extauthz.domain.budgets import ScopeKind
from extauthz.domain.directory import Directory
from extauthz.envoy.names import AVAILABLE_HEADER, HOLD_KEY, TOKEN_METADATA
from extauthz.ledger.base import Reserve, ReserveResult
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.catalog import Catalog
from extauthz.server import Ports, running
from extauthz.telemetry.log import new_logger
from tests.support.configmap import ConfigMap
from tests.support.gate import a_check, an_ending
from tests.support.processes import LOOPBACK, eventually
from tests.support.stack import GateProcess, Metrics

# A server holds its state in the books and its configuration in files, and a reload writes neither: one that is killed
# in the middle of a swap starts with whatever the link leads to. There is nothing that such a test could find broken.

RELOADS = 1_000
CALLERS = 8
CALL_SECONDS_MAX = 10.0

RELOADS_TOTAL, FAILURES_TOTAL = "extauthz_config_reloads_total", "extauthz_failures_total"
RELOAD_FAILED = "extauthz_config_reload_failed"
REFUSED, ALLOWED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK

# What the store takes before and after it reserves: a reload must find Checks in their middle.
STORE_S = 0.001

# What the team `broke` has spent, in tokens of 0.000001 USD: more than any limit of it.
SPENT_TOKENS = 5_000_000

# Nobody tells how the requests of the load end.
BRIEF = "  lease_seconds: 1"


@dataclass(frozen=True, slots=True)
class Flavour:
    """A configuration that differs from another in all that an answer shows."""

    name: str
    status: int
    limit_usd: int
    price: str

    def files(self, *, keys: tuple[str, ...] = ("rich", "broke"), more: str = "") -> dict[str, str]:
        """Write its configuration and the keys of teams."""
        config = f"""
model_list:
  - model_name: gpt
    litellm_params: {{model: openai/gpt, input_cost_per_token: {self.price}, output_cost_per_token: {self.price}}}
general_settings: {{user_header_name: x-user-{self.name}}}
extauthz:
  listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}
  drain_seconds: 0
  keys_file: keys.yaml
  budget_exceeded_status: {self.status}
  upstream_auth: {{default: {{set: upstream-{self.name}}}}}
  teams:
    rich: {{max_budget: {1000 * self.limit_usd}}}
    broke: {{max_budget: {self.limit_usd}}}
{more}
"""
        return {"config.yaml": config, "keys.yaml": "".join(f"- {{key: sk-{key}, team: {key}}}\n" for key in keys)}

    @property
    def shown(self) -> tuple[tuple[object, ...], ...]:
        """What its answers show, one that admits and one that refuses."""
        admitted = (f"Bearer upstream-{self.name}", self.limit_usd, self.price, [f"end_user:{self.name}"])
        return admitted, (self.status, self.limit_usd)


A = Flavour("a", 402, 1, "0.000001")
B = Flavour("b", 403, 2, "0.000002")
FLAVOURS = (A, B)


class SlowLedger(MemoryLedger):
    """A memory store that takes its time, so that Checks wait in their middle."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Reserve between two waits."""
        await asyncio.sleep(STORE_S)
        result = await super().reserve(request)
        await asyncio.sleep(STORE_S)
        return result


class House:
    """A server in this process, with its configuration in a mounted volume."""

    def __init__(
        self, volume: ConfigMap, folder: Path, ports: Ports, channel: grpc.aio.Channel, log: io.StringIO
    ) -> None:
        self.volume = volume
        self.folder = folder
        self.ports = ports
        self.log = log
        self.channel = channel
        self.checks = external_auth_pb2_grpc.AuthorizationStub(channel)
        self.access_logs = als_pb2_grpc.AccessLogServiceStub(channel)

    async def check(self, key: str, *, token: str | None = None) -> CheckResponse:
        """Ask about a chat of a team's key, for an end user in either flavour's header."""
        request = a_check("gpt", key=f"sk-{key}", more_headers={f"x-user-{each.name}": each.name for each in FLAVOURS})
        metadata = () if token is None else ((TOKEN_METADATA, token),)
        answer: CheckResponse = await self.checks.Check(request, metadata=metadata, timeout=CALL_SECONDS_MAX)
        return answer

    async def settle(self, answer: CheckResponse, tokens: int) -> None:
        """Have what an answer admitted cost so many tokens."""
        stream = self.access_logs.StreamAccessLogs(timeout=CALL_SECONDS_MAX)
        await stream.write(an_ending(answer, input_tokens=tokens, output_tokens=1))
        await stream.done_writing()
        await stream

    def swap(self, files: Mapping[str, str]) -> None:
        """Replace the configuration, and have the server look at once."""
        self.volume.update(files)
        os.kill(os.getpid(), signal.SIGHUP)

    async def metrics(self) -> Metrics:
        """Read all metrics."""
        url = f"http://{LOOPBACK}:{self.ports.http}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return Metrics(await answer.text())

    async def nothing_open(self) -> bool:
        """Tell whether every reservation has ended."""
        return 0 == (await self.metrics()).open

    async def reloaded(self, **counts: int) -> None:
        """Wait until reloads are counted so, by result."""

        async def seen() -> bool:
            metrics = await self.metrics()
            return all(count == metrics.value(RELOADS_TOTAL, result) for result, count in counts.items())

        await eventually(seen, what=f"{counts}")


@asynccontextmanager
async def house(folder: Path, files: Mapping[str, str]) -> AsyncIterator[House]:
    """Serve a configuration inside the block."""
    volume = ConfigMap(folder / "volume", files)
    log = io.StringIO()
    with patch("extauthz.stores.MemoryLedger", SlowLedger):
        async with (
            running(load(volume.path("config.yaml"), {}), new_logger(log)) as ports,
            grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}") as channel,
        ):
            yield House(volume, folder, ports, channel, log)


def shown_by(answer: CheckResponse) -> tuple[object, ...]:
    """Tell what an answer shows of the configuration that it was made by."""
    if answer.HasField("denied_response"):
        message = json.loads(answer.denied_response.body)["error"]["message"]
        limit = re.search(r"Max budget: ([0-9]+)", message)
        assert limit is not None, message
        return (int(answer.denied_response.status.code), int(limit[1]))
    upstream = {header.header.key: header.header.value for header in answer.ok_response.headers}
    client = {header.header.key: header.header.value for header in answer.ok_response.response_headers_to_add}
    document, (prices, _) = held(answer)
    counters = [BudgetCounter.parse(key) for key in document[8].split()]
    return (
        upstream["authorization"],
        round(float(client[AVAILABLE_HEADER]) / 1000),
        prices["i"],
        [counter.scope.text for counter in counters if counter.scope.kind is ScopeKind.END_USER],
    )


def held(answer: CheckResponse) -> list[Any]:
    """Read the hold of an answer and its prices, without its signature."""
    *parts, _ = str(answer.dynamic_metadata[HOLD_KEY]).split(".")
    return [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts]


def live() -> dict[str, int]:
    """Count the configurations in this process, by their parts."""
    parts = (Snapshot, Catalog, Directory)
    # `isinstance` would wake lazy modules that pretend to be of another type.
    counted = Counter(type(each) for each in gc.get_objects() if type(each) in parts)
    return {part.__name__: counted[part] for part in parts}


@dataclass(slots=True)
class Load:
    """Callers that ask again and again, for a rich and a broke team in turn; `odd` are answers of no flavour."""

    house: House
    counts: Counter[str] = field(default_factory=Counter)
    odd: list[object] = field(default_factory=list)
    _news: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    _turn: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while the block runs."""
        callers = [asyncio.create_task(self._ask()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            for caller in callers:
                caller.cancel()
            self.odd += [each for each in await asyncio.gather(*callers, return_exceptions=True) if not cancelled(each)]

    async def showed(self, flavour: Flavour) -> None:
        """Wait for an answer of a flavour to a question that is asked from now on: an older one may be late."""
        self._turn += 1
        news = self._news[flavour.name]
        news.clear()
        async with asyncio.timeout(CALL_SECONDS_MAX):
            await news.wait()

    async def _ask(self) -> None:
        for key in cycle(("rich", "broke")):
            turn = self._turn
            shown = shown_by(await self.house.check(key))
            flavour = next((each for each in FLAVOURS if shown in each.shown), None)
            if flavour is None:
                self.odd.append(shown)
                continue
            self.counts[f"{flavour.name} {key}"] += 1
            if turn == self._turn:
                self._news[flavour.name].set()


def cancelled(outcome: object) -> bool:
    """Tell whether a caller stopped because it was told to."""
    return isinstance(outcome, asyncio.CancelledError)


@pytest.mark.timeout(300)
async def test_a_thousand_reloads_under_load(tmp_path: Path) -> None:
    """No Check fails, each answer is wholly of one configuration, and nothing is left of those that are over."""
    gc.collect()
    one_more = {part: count + 1 for part, count in live().items()}
    async with house(tmp_path, A.files(more=BRIEF)) as server:
        await server.settle(await server.check("broke"), SPENT_TOKENS)
        load = Load(server)
        looks = 0
        async with load.running():
            await load.showed(A)
            for number in range(1, RELOADS + 1):
                flavour = FLAVOURS[number % 2]
                server.swap(flavour.files(more=BRIEF))
                await load.showed(flavour)
                if number % (RELOADS // 4) == 0:
                    await eventually(lambda: live() == one_more, what="old configurations are gone")
                    looks += 1
        metrics = await server.metrics()

    assert [] == load.odd
    assert {"a rich", "a broke", "b rich", "b broke"} == set(load.counts)
    assert (RELOADS, 0) == (metrics.value(RELOADS_TOTAL, "loaded"), metrics.value(RELOADS_TOTAL, "refused"))
    assert 0 == metrics.value(FAILURES_TOTAL, "check") == metrics.value(FAILURES_TOTAL, "reload")
    assert 4 == looks


async def test_a_lower_limit_holds_from_the_next_reserve(tmp_path: Path) -> None:
    """What is in flight keeps its hold and is settled; the next request is judged by the new limit."""
    async with house(tmp_path, A.files()) as server:
        in_flight = await server.check("broke")
        low = replace(A, limit_usd=0)
        server.swap(low.files())
        await server.reloaded(loaded=1)

        assert low.shown[1] == shown_by(await server.check("broke"))
        assert 1 == (await server.metrics()).open
        await server.settle(in_flight, 100_000)
        await eventually(server.nothing_open, what="it is settled")

        # 0.1 USD were booked under the limit of 0: with more, there is room again.
        server.swap(A.files())
        await server.reloaded(loaded=2)
        again = await server.check("broke")
        assert again.HasField("ok_response")
        left = {each.header.key: each.header.value for each in again.ok_response.response_headers_to_add}
        assert 0.85 < float(left[AVAILABLE_HEADER]) < 0.9


async def test_keys_come_and_go(tmp_path: Path) -> None:
    """A key of the keys file is known from the next request on, and one that is gone is not."""
    async with house(tmp_path, A.files(keys=("rich",))) as server:

        async def statuses() -> list[int]:
            return [(await server.check(key)).denied_response.status.code for key in ("rich", "broke")]

        assert [0, 401] == await statuses()
        server.swap(A.files(keys=("broke",)))
        await server.reloaded(loaded=1)

        assert [401, 0] == await statuses()


async def test_files_that_are_wrong_for_a_while(tmp_path: Path) -> None:
    """The old configuration answers, the metric is 1 until the files are right, and one line says why."""
    async with house(tmp_path, A.files()) as server:
        loaded_s = (await server.metrics()).value("extauthz_config_loaded_timestamp_seconds")
        server.volume.update({**B.files(), "keys.yaml": "- {key: sk-rich, team: poor}"})
        await server.reloaded(loaded=0, refused=1)
        assert A.shown[0] == shown_by(await server.check("rich"))
        assert 1 == (await server.metrics()).value(RELOAD_FAILED)
        assert loaded_s == (await server.metrics()).value("extauthz_config_loaded_timestamp_seconds")

        server.volume.update(B.files())
        await server.reloaded(loaded=1)
        assert B.shown[0] == shown_by(await server.check("rich"))
        assert 0 == (await server.metrics()).value(RELOAD_FAILED)
        assert loaded_s < (await server.metrics()).value("extauthz_config_loaded_timestamp_seconds")

        lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
        (refused,) = (line for line in lines if line["event"].startswith("the configuration was refused"))
        (mistake,) = refused["mistakes"]
        assert mistake.endswith("keys.yaml:1: keys[0].team: `poor` is not in extauthz.teams; known here: broke, rich")
        assert not any(key in server.log.getvalue() for key in ("sk-rich", "sk-broke", "upstream-a", "upstream-b"))


async def test_another_token_is_asked_for_at_once(tmp_path: Path) -> None:
    """The port follows its secret; a file without one does not open it."""

    async def code(server: House, token: str | None) -> grpc.StatusCode:
        try:
            await server.check("rich", token=token)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return ALLOWED

    async with house(tmp_path, A.files(more="  token: old")) as server:
        assert [ALLOWED, REFUSED, REFUSED] == [await code(server, token) for token in ("old", "new", None)]
        server.swap(A.files(more="  token: new"))
        await server.reloaded(loaded=1)
        assert [REFUSED, ALLOWED, REFUSED] == [await code(server, token) for token in ("old", "new", None)]
        server.swap(A.files())
        await server.reloaded(loaded=2)
        assert [REFUSED, ALLOWED, REFUSED] == [await code(server, token) for token in ("old", "new", None)]
        assert "settings wait for a restart" in server.log.getvalue()


async def test_the_command_follows_its_file(tmp_path: Path) -> None:
    """`extauthz serve` looks at once on SIGHUP; the addresses of its command line are no difference to the file's."""
    async with GateProcess(A.files()["config.yaml"].replace("  keys_file: keys.yaml\n", "")) as server:
        server.config.write_text(server.config.read_text(encoding="utf-8") + "  hide_amounts: true\n", encoding="utf-8")
        line = json.loads(await server.process.wait_for_line("the configuration was loaded"))
        assert ["extauthz.hide_amounts"] == line["changed"]

        server.process.send(signal.SIGHUP)

        async def looked() -> bool:
            return (await server.metrics()).value(RELOADS_TOTAL, "unchanged") > 0

        await eventually(looked, what="it looked again")
        assert "wait for a restart" not in server.process.output
