"""A server in the test's own process, and Checks of it with any credential: header, certificate, earlier filter."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc.aio

from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.config.load import load
from extauthz.server import running
from extauthz.telemetry.log import new_logger
from tests.support.processes import LOOPBACK, eventually
from tests.support.stack import Metrics

MODELS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
"""

LISTEN = f"  listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}\n  drain_seconds: 0\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Check gave: the status that the client would see, the body of a refusal, who is charged."""

    status: int
    text: str
    response: CheckResponse

    @property
    def charged(self) -> bool:
        """Whether money is held for the request."""
        return "extauthz.r" in self.response.dynamic_metadata


@dataclass(frozen=True, slots=True)
class IdentifyingGate:
    """A server whose configuration says whom it believes."""

    config: Path
    stub: AuthorizationStub
    http_port: int
    _log: io.StringIO = field(repr=False)

    async def ask(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        peer: str = "",
        context: Mapping[str, str] | None = None,
        path: str = "/v1/chat/completions",
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """Ask for a chat with these credentials, or for something else."""
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **(body or {})}
        raw = json.dumps(chat).encode()
        sent = {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}
        http = AttributeContext.HttpRequest(method="POST", path=path, headers=sent, raw_body=raw)
        attributes = AttributeContext(
            source=AttributeContext.Peer(principal=peer),
            request=AttributeContext.Request(http=http),
            context_extensions=dict(context or {}),
        )
        response: CheckResponse = await self.stub.Check(CheckRequest(attributes=attributes), timeout=10)
        if response.HasField("ok_response"):
            return Answer(200, "", response)
        return Answer(int(response.denied_response.status.code), response.denied_response.body, response)

    async def bearer(self, token: str, **more: str) -> Answer:
        """Ask with a key or token."""
        return await self.ask({"authorization": f"Bearer {token}", **more})

    async def metrics(self) -> Metrics:
        """Read all metrics."""
        url = f"http://{LOOPBACK}:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return Metrics(await answer.text())

    def lines(self) -> list[dict[str, object]]:
        """Read what was logged."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def logged(self) -> str:
        """Give the log as it is."""
        return self._log.getvalue()

    async def last_refusal(self, count: int) -> dict[str, object]:
        """Wait for so many refusals in the log, and give the last."""

        def refusals() -> list[dict[str, object]]:
            return [line for line in self.lines() if line["event"] == "denied"]

        await eventually(lambda: len(refusals()) >= count, what=f"{count} refusals are logged")
        return refusals()[-1]


@asynccontextmanager
async def identifying(section: str, folder: Path, *, general: str = "") -> AsyncIterator[IdentifyingGate]:
    """Serve inside the block, with these lines under `extauthz:`."""
    config = folder / "config.yaml"
    config.write_text(configured(section, general), encoding="utf-8")
    log = io.StringIO()
    async with (
        running(load(config, {}), new_logger(log)) as ports,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}") as channel,
    ):
        yield IdentifyingGate(config, AuthorizationStub(channel), ports.http, log)


def configured(section: str, general: str = "") -> str:
    """Write a configuration with these lines under `extauthz:`."""
    return f"{MODELS}{general}extauthz:\n{LISTEN}{section}"
