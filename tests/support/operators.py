"""A running server for operators: its books in a Redis, traffic as Envoy sends it, and commands as they are typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from click.testing import CliRunner
from redis.asyncio import Redis

from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.cli import main
from tests.support.books import TAG, Run, tagged
from tests.support.gate import CALL_SECONDS_MAX, an_ending
from tests.support.processes import LOOPBACK
from tests.support.redis import RedisServer
from tests.support.stack import GateProcess

ADMIN_TOKEN = "the-operators-own-token"

# What a request costs of 100 tokens in and 10 out.
COST_USD = 0.00035

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
extauthz:
  store: {store}
  store_timeout_seconds: 5
  drain_seconds: 0
  admin_token: the-operators-own-token
  teams:
    research: {{max_budget: 10, budget_duration: 30d}}
    spent: {{max_budget: 0, budget_duration: 24h}}
    shown: {{max_budget: 4, soft_budget: 3}}
    changed: {{max_budget: 5, budget_duration: 24h}}
    several: {{budget_limits: [{{budget_duration: 24h, max_budget: 1}}, {{budget_duration: 30d, max_budget: 5}}]}}
    holding: {{max_budget: 10}}
    busy: {{max_budget: 10}}
  keys:
    - {{key: sk-research-7Kd2, team: research, key_alias: research-laptop}}
    - {{key: sk-spent-9Qx4, team: spent}}
    - {{key: sk-changed-3Wm8, team: changed}}
    - {{key: sk-holding-5Rt6, team: holding}}
    - {{key: sk-busy-1Zp0, team: busy}}
"""
RESEARCH, SPENT, CHANGED, HOLDING, BUSY = (
    "sk-research-7Kd2",
    "sk-spent-9Qx4",
    "sk-changed-3Wm8",
    "sk-holding-5Rt6",
    "sk-busy-1Zp0",
)
KEYS = (RESEARCH, SPENT, CHANGED, HOLDING, BUSY)


@dataclass(frozen=True, slots=True)
class House:
    """A running server, its store, and a client that may do everything in there by hand."""

    gate: GateProcess
    store: RedisServer
    redis: Redis

    @property
    def environment(self) -> Mapping[str, str]:
        """What an operator has set."""
        return {"EXTAUTHZ_ADMIN": f"{LOOPBACK}:{self.gate.admin_port}", "EXTAUTHZ_ADMIN_TOKEN": ADMIN_TOKEN}

    async def run(self, *arguments: str, text: str = "", environment: Mapping[str, str] | None = None) -> Run:
        """Type a command, with `text` on its standard input; `environment` comes on top of what is set."""
        return await typed(*arguments, text=text, environment={**self.environment, **(environment or {})})

    async def json(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        """Type a command that prints JSON, and give that."""
        run = await self.run(*arguments, "--json")
        assert (0, "") == (run.code, run.err), run
        return json.loads(run.out)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Ask as Envoy does."""
        answer = await asyncio.to_thread(self._called, AuthorizationStub, "Check", request)
        assert isinstance(answer, CheckResponse)
        return answer

    async def end(self, answer: CheckResponse) -> None:
        """Log the end of an answer of 100 tokens in and 10 out, and wait until it is in the books."""
        log = iter([an_ending(answer, input_tokens=100, output_tokens=10)])
        await asyncio.to_thread(self._called, AccessLogServiceStub, "StreamAccessLogs", log)

    def _called(self, stub: Any, rpc: str, request: object) -> object:  # noqa: ANN401 - generated stubs have no types
        with grpc.insecure_channel(f"{LOOPBACK}:{self.gate.grpc_port}") as channel:
            return getattr(stub(channel), rpc)(request, timeout=CALL_SECONDS_MAX)


async def typed(*arguments: str, text: str = "", environment: Mapping[str, str] | None = None) -> Run:
    """Type a command in this process, over real sockets."""
    variables = {"EXTAUTHZ_ADMIN": None, "EXTAUTHZ_ADMIN_TOKEN": None, **(environment or {})}
    run = await asyncio.to_thread(CliRunner().invoke, main, arguments, input=text, env=variables)
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exc_info
    return Run(run.exit_code, run.stdout, run.stderr)


@asynccontextmanager
async def operated(*own: str) -> AsyncIterator[House]:
    """Run a server around the block, with further lines of its section `extauthz`."""
    async with RedisServer(appendonly=False) as redis:
        config = CONFIG.format(store=tagged(redis.url)) + "".join(f"  {line}\n" for line in own)
        async with GateProcess(config) as gate, redis.client() as client:
            yield House(gate, redis, client)


def spent_key() -> str:
    """Name the hash in the store that says what is spent."""
    return f"{{{TAG}}}:spent"
