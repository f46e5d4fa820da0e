"""Traces: what a collector gets from a running server, and what happens without one."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import aiohttp
import grpc.aio
import pytest

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.config.load import load
from extauthz.server import Ports, running
from extauthz.telemetry.log import new_logger
from tests.support.collector import Collector, attributes, collector, values
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.gate import CONFIG, KEY, PAID, a_check, an_ending
from tests.support.processes import LOOPBACK, Process, eventually, free_port
from tests.support.stack import Metrics, patient, stack

PARENT_TRACE, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"
CHECK, RESERVATION = "extauthz check", "extauthz reservation"
PROMPT = "a secret that nobody may read in a trace"
LISTEN = f"listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}"


def a_config(folder: Path, *lines: str) -> Path:
    """Write a configuration that traces."""
    path = folder / "config.yaml"
    own = (LISTEN, "tracing: true", "drain_seconds: 0", *lines)
    path.write_text(CONFIG + "".join(f"  {line}\n" for line in own), encoding="utf-8")
    return path


@asynccontextmanager
async def traced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], log: io.StringIO | None = None
) -> AsyncIterator[Ports]:
    """Serve inside the block, and trace to where the environment says."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with running(load(a_config(folder), {}), new_logger(log or io.StringIO())) as ports:
        yield ports


@asynccontextmanager
async def envoy(ports: Ports) -> AsyncIterator[Envoy]:
    """Connect to the server as Envoy does."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}") as channel:
        yield Envoy(channel)


class Envoy:
    """The calls that Envoy makes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._authorization = external_auth_pb2_grpc.AuthorizationStub(channel)
        self._access_log = als_pb2_grpc.AccessLogServiceStub(channel)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Ask."""
        answer: CheckResponse = await self._authorization.Check(request)
        return answer

    async def end(self, answer: CheckResponse) -> None:
        """Log the end of a request that was let through."""
        await self._access_log.StreamAccessLogs(iter([an_ending(answer, input_tokens=12, output_tokens=34)]))


def a_request(*, key: str = KEY, **headers: str) -> CheckRequest:
    """Ask about a chat with headers and a prompt."""
    request = a_check(key=key, path="/v1/chat/completions?token=in-the-query")
    http = request.attributes.request.http
    http.raw_body = json.dumps({"model": PAID, "messages": [{"role": "user", "content": PROMPT}]}).encode()
    http.headers.update({"content-length": str(len(http.raw_body)), **headers})
    return request


async def test_a_check_and_its_reservation_stand_in_the_clients_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Check is a child of the client's span and the reservation one of the Check; both say what it was and cost."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        answer = await asking.check(a_request(traceparent=TRACEPARENT, tracestate="vendor=1"))
        await asking.end(answer)
        await eventually(lambda: found.named(CHECK) and found.named(RESERVATION), what="both spans are collected")

    (check,), (reservation,) = found.named(CHECK), found.named(RESERVATION)
    seen = next(
        option.header.value
        for option in answer.ok_response.response_headers_to_add
        if option.header.key == "x-extauthz-reservation"
    )
    assert {PARENT_TRACE} == {check.trace_id.hex(), reservation.trace_id.hex()}
    assert (PARENT_SPAN, check.span_id) == (check.parent_span_id.hex(), reservation.parent_span_id)
    assert ["vendor=1"] * 2 == [check.trace_state, reservation.trace_state]
    assert seen == check.span_id.hex()
    assert 0 < check.start_time_unix_nano <= check.end_time_unix_nano
    assert 0 < reservation.start_time_unix_nano <= reservation.end_time_unix_nano
    said = attributes(check)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": PAID,
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "extauthz.decision": "allow",
        "extauthz.reason": "within_budget",
        "extauthz.route_class": "inference",
        "extauthz.principal": f"key {sha256(KEY.encode()).hexdigest()[:8]}",
        "extauthz.reservation": seen,
    } == {name: value for name, value in said.items() if name != "extauthz.estimate_usd"}
    assert float(said["extauthz.estimate_usd"]) > 0
    told = attributes(reservation)
    assert ("settled", "first", 12, 34, "openai", PAID) == (
        told["extauthz.how"],
        told["extauthz.ending"],
        told["gen_ai.usage.input_tokens"],
        told["gen_ai.usage.output_tokens"],
        told["gen_ai.provider.name"],
        told["gen_ai.request.model"],
    )
    assert 0.00037 == told["extauthz.cost_usd"]
    assert "extauthz" == values(found.batches[0].resource_spans[0].resource.attributes)["service.name"]


async def test_a_request_without_a_trace_begins_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reservation finds its Check all the same, by the id that both know."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        await asking.end(await asking.check(a_request()))
        await eventually(lambda: found.named(CHECK) and found.named(RESERVATION), what="both spans are collected")

    (check,), (reservation,) = found.named(CHECK), found.named(RESERVATION)
    assert (check.trace_id, check.span_id) == (reservation.trace_id, reservation.parent_span_id)
    assert b"" == check.parent_span_id


async def test_what_is_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal has a span with its reason and status; it is a decision, so no error."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        await asking.check(a_request(key="sk-nobody", traceparent=TRACEPARENT))
        (check,) = await eventually(lambda: found.named(CHECK), what="the span is collected")

    said = attributes(check)
    assert ("deny", "unauthenticated", 401) == (
        said["extauthz.decision"],
        said["extauthz.reason"],
        said["extauthz.status"],
    )
    assert 0 == check.status.code


async def test_the_client_decides_what_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that its client does not sample gets no span, neither of the Check nor of the reservation."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        await asking.end(await asking.check(a_request(traceparent=f"{TRACEPARENT[:-1]}0")))
        await asking.end(await asking.check(a_request(traceparent=TRACEPARENT)))
        await eventually(lambda: len(found.spans) >= 2, what="the sampled spans are collected")

    assert [CHECK, RESERVATION] == sorted(span.name for span in found.spans)


async def test_a_share_of_the_traces_that_begin_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_TRACES_SAMPLER decides about them, and the same about a Check and its reservation."""
    share = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment | share) as ports,
        envoy(ports) as asking,
    ):
        for _ in range(40):
            await asking.end(await asking.check(a_request()))
        await asking.check(a_request(traceparent=TRACEPARENT))
        await eventually(
            lambda: any(PARENT_TRACE == span.trace_id.hex() for span in found.spans), what="the last span is collected"
        )

    checks = {span.span_id for span in found.named(CHECK) if not span.parent_span_id}
    assert checks == {span.parent_span_id for span in found.named(RESERVATION)}
    assert 0 < len(checks) < 40


@pytest.mark.parametrize(
    "traceparent",
    [
        pytest.param(f"00-{'0' * 32}-{PARENT_SPAN}-01", id="zero trace"),
        pytest.param(f"00-{PARENT_TRACE}-{'0' * 16}-01", id="zero span"),
        pytest.param(f"ff-{PARENT_TRACE}-{PARENT_SPAN}-01", id="no version"),
        pytest.param(TRACEPARENT.upper(), id="upper case"),
        pytest.param(f"{TRACEPARENT},{TRACEPARENT}", id="twice"),
        pytest.param(f"{TRACEPARENT}-{'x' * 10_000}", id="long"),
        pytest.param("\r\nx", id="noise"),
    ],
)
async def test_a_malformed_traceparent_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traceparent: str
) -> None:
    """A Check with one is answered as without, its trace begins here, and nothing of it comes back in the metadata."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        answer = await asking.check(a_request(traceparent=traceparent))
        await asking.end(answer)
        await eventually(lambda: len(found.spans) >= 2, what="both spans are collected")

    assert len(str(dict(answer.dynamic_metadata.items()).get("extauthz.trace"))) < 100
    assert {b""} == {span.parent_span_id for span in found.named(CHECK)}
    assert 1 == len({span.trace_id for span in found.spans})


async def test_a_place_that_we_never_wrote_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that says something else of the trace leaves the reservation with its Check, in a trace of its own."""
    forged = ["x" * 100_000, f"{TRACEPARENT} \x00", f" {TRACEPARENT}"]
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        for text in forged:
            answer = await asking.check(a_request())
            answer.dynamic_metadata["extauthz.trace"] = text
            await asking.end(answer)
        await eventually(lambda: len(found.spans) >= 6, what="all spans are collected")

    assert {span.trace_id for span in found.named(CHECK)} == {span.trace_id for span in found.named(RESERVATION)}


async def test_no_secret_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key, nor the prompt, nor the query, nor a header gets into what leaves."""
    async with (
        collector() as found,
        traced(tmp_path, monkeypatch, found.environment) as ports,
        envoy(ports) as asking,
    ):
        await asking.end(await asking.check(a_request(cookie="session=in-the-cookie", traceparent=TRACEPARENT)))
        await asking.check(a_request(key="sk-nobody-knows"))
        await eventually(lambda: len(found.spans) >= 3, what="all spans are collected")

    for secret in (KEY, "sk-nobody-knows", PROMPT, "in-the-query", "in-the-cookie"):
        assert secret.encode() not in found.bytes


async def test_the_last_spans_are_sent_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops sends what it has not sent yet."""
    async with collector() as found:
        lazy = found.environment | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
        async with traced(tmp_path, monkeypatch, lazy) as ports, envoy(ports) as asking:
            await asking.check(a_request())
            assert [] == found.spans
        assert [CHECK] == [span.name for span in found.spans]


async def test_without_a_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks are answered as ever, the server stops in time, and one line and a metric tell of the lost spans."""
    log = io.StringIO()
    away = Collector(port=free_port()).environment | {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    async with traced(tmp_path, monkeypatch, away, log) as ports, envoy(ports) as asking:
        for _ in range(3):
            await asking.end(await asking.check(a_request()))
            await eventually(lambda: "traces get nowhere" in log.getvalue(), what="the log tells of it")
        async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{ports.http}/metrics") as page:
            counted = Metrics(await page.text()).value("extauthz_spans_lost_total")

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (lost,) = [line for line in lines if line["event"] == "traces get nowhere"]
    assert "UNAVAILABLE" in lost["reason"] or "DEADLINE" in lost["reason"]
    assert counted > 0


@pytest.mark.envoy
@pytest.mark.parametrize("version", ENVOY_VERSIONS, ids=str)
async def test_through_a_real_envoy(version: EnvoyVersion) -> None:
    """A client's trace has both spans, with what its answer used."""
    async with (
        collector() as found,
        stack(f"{CONFIG}  tracing: true\n", version=version, options=patient, environment=found.environment) as house,
        house.openai(KEY) as client,
    ):
        answer = await client.chat.completions.create(
            model=PAID,
            messages=[{"role": "user", "content": PROMPT}],
            extra_headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"},
        )
        await eventually(lambda: found.named(RESERVATION), what="the span of the reservation is collected")

    (check,), (reservation,) = found.named(CHECK), found.named(RESERVATION)
    told = attributes(reservation)
    assert answer.usage is not None
    assert [PARENT_TRACE] * 2 == [check.trace_id.hex(), reservation.trace_id.hex()]
    assert (PARENT_SPAN, check.span_id) == (check.parent_span_id.hex(), reservation.parent_span_id)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        told["gen_ai.usage.input_tokens"],
        told["gen_ai.usage.output_tokens"],
    )
    assert PROMPT.encode() not in found.bytes


async def test_the_extra_is_not_installed(tmp_path: Path) -> None:
    """`serve` says in one sentence what to install, and ends with 1."""
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('hidden', name='opentelemetry')\n")
    command = (sys.executable, "-m", "extauthz", "serve", "--config", a_config(tmp_path))
    async with Process(*command, environment={"PYTHONPATH": str(hidden.parent)}) as process:
        code = await process.wait(40.0)

    assert 1 == code
    assert (
        "Error: tracing is on, and opentelemetry is missing: pip install 'extauthz[tracing]', or write tracing: false"
        == process.output.strip()
    )
