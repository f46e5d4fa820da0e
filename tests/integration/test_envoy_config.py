"""The generated bootstrap in a real Envoy: what it promises to the Check, to the upstream and to the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import BootstrapOptions, Metering, bootstrap, to_yaml
from tests.support.envoy import ENVOY_VERSIONS, EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.stage import PATH, Exchange, Stage

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

MEBIBYTE = 1024 * 1024
MAX_REQUEST_BYTES = 64 * 1024
ANSWER = (b'{"object":"list"}',)
OPTIONS = BootstrapOptions(listen=Address(LOOPBACK, 8080), upstream=Address("llm.internal", 4000))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage() -> AsyncIterator[Stage]:
    """Give a stage: a server that allows everything, and an upstream."""
    async with Stage() as stage:
        yield stage


@pytest.fixture(scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> EnvoyVersion:
    """Give each version of Envoy in turn."""
    version: EnvoyVersion = request.param
    return version


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def envoy(stage: Stage, version: EnvoyVersion) -> AsyncIterator[EnvoyProcess]:
    """Give an Envoy on the stage that shows the Check only the beginning of large bodies."""
    options = replace(options_for(stage.upstream_port, stage.extauthz_port), max_request_bytes=MAX_REQUEST_BYTES)
    async with EnvoyProcess(options, version) as envoy:
        yield envoy


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS, id="defaults"),
        pytest.param(
            replace(OPTIONS, metering=Metering.NONE, api_prefixes=("/llm",), token="secret"), id="no metering"
        ),
        pytest.param(replace(OPTIONS, upstream_tls=True, extauthz_tls=True, failure_mode_allow=True), id="TLS"),
        pytest.param(replace(OPTIONS, listen=Address("::1", 8080), extauthz=Address("extauthz", 9191)), id="IPv6"),
    ],
)
async def test_envoy_accepts_the_bootstrap(version: EnvoyVersion, options: BootstrapOptions, tmp_path: Path) -> None:
    """Every kind of bootstrap passes Envoy's own validation, without a word about anything deprecated."""
    config = tmp_path / "envoy.yaml"
    config.write_text(to_yaml(bootstrap(options)), encoding="utf-8")

    async with Process(version.program, "--mode", "validate", "-c", config) as process:
        code = await process.wait()

        assert 0 == code, process.output
        assert "deprecated" not in process.output.lower()


async def test_forged_control_headers_die_before_the_check(stage: Stage, envoy: EnvoyProcess) -> None:
    """The Check sees one x-extauthz-id, Envoy's own and new each time, and no other header of that kind."""
    forged = (("x-extauthz-id", "mine"), ("X-Extauthz-Id", "too"), ("x-extauthz-models", "all"), ("x-extauthz-r", "1"))
    exchange = Exchange(ANSWER, request_headers=forged)

    seen = [await stage.perform(envoy.url, exchange) for _ in range(2)]
    first, second = (performance.seen_by_check("x-extauthz-id") for performance in seen)

    assert 1 == len(first) == len(second)
    assert first != second
    assert not {"mine", "too"} & {*first, *second}
    assert [] == seen[0].seen_by_check("x-extauthz-models") == seen[0].seen_by_check("x-extauthz-r")


async def test_the_id_is_logged_with_the_end(stage: Stage, envoy: EnvoyProcess) -> None:
    """A reservation whose answer got lost can be found by the id in the access log."""
    performance = await stage.perform(envoy.url, Exchange(ANSWER))
    await performance.usage()

    assert performance.ended is not None
    assert performance.seen_by_check("x-extauthz-id") == [performance.ended.request.request_headers["x-extauthz-id"]]


async def test_response_headers_are_the_checks_own(stage: Stage, envoy: EnvoyProcess) -> None:
    """The upstream's copies of our response headers are gone; what the Check adds reaches the client."""
    exchange = Exchange(
        ANSWER,
        headers=(("x-extauthz-available-usd", "999"), ("x-extauthz-reservation", "forged")),
        answer_headers=(("x-extauthz-available-usd", "0.5"), ("x-extauthz-warning", "team:research 1mo 92% used")),
    )
    forged = replace(exchange, headers=(*exchange.headers, ("x-extauthz-warning", "forged")), answer_headers=())

    performance, without = [await stage.perform(envoy.url, one) for one in (exchange, forged)]

    assert "0.5" == performance.headers["x-extauthz-available-usd"]
    assert "team:research 1mo 92% used" == performance.headers["x-extauthz-warning"]
    assert "x-extauthz-reservation" not in performance.headers
    assert not {"x-extauthz-available-usd", "x-extauthz-warning"} & without.headers.keys()


async def test_the_word_to_the_response_filter_stays_inside(stage: Stage, envoy: EnvoyProcess) -> None:
    """The upstream does not get x-extauthz-models."""
    exchange = Exchange(ANSWER, check_headers=(("x-extauthz-models", "free_only"), ("x-other", "1")))

    performance = await stage.perform(envoy.url, exchange)

    assert "1" == performance.upstream_headers["x-other"]
    assert "x-extauthz-models" not in performance.upstream_headers


@pytest.mark.parametrize(
    ("method", "path", "marked"),
    [
        ("GET", "/v1/models", True),
        ("HEAD", "/v1/models", True),
        ("GET", "/models", True),
        ("GET", "/openai/v1/models/gpt-4o", True),
        ("GET", "/v1/models/a%2Fb", True),
        ("GET", "//v1/./models", True),
        ("POST", "/v1/models", False),
        ("GET", "/v1/modelsx", False),
        ("GET", "/v1/models/../chat/completions", False),
        ("GET", "/V1/MODELS", False),
        ("POST", PATH, False),
    ],
)
async def test_pruning_is_promised_on_discovery_routes_only(
    stage: Stage,
    envoy: EnvoyProcess,
    method: str,
    path: str,
    marked: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """The context extensions that the Check relies on follow the route that Envoy takes."""
    performance = await stage.perform(envoy.url, Exchange(ANSWER, method=method, path=path))
    context = dict(performance.check.attributes.context_extensions)

    assert {"extauthz.id": "header", **({"extauthz.prune": "on"} if marked else {})} == context


async def test_a_list_that_cannot_be_pruned_does_not_pass(stage: Stage, envoy: EnvoyProcess) -> None:
    """The stage's server has no ExternalProcessor: discovery fails, and inference does not notice."""
    discovery = await stage.perform(envoy.url, Exchange(ANSWER, method="GET", path="/v1/models"))
    inference = await stage.perform(envoy.url, Exchange(ANSWER))

    assert 500 <= discovery.status
    assert b"" == discovery.received
    assert 200 == inference.status


@pytest.mark.parametrize(
    "size", [0, MAX_REQUEST_BYTES - 1, MAX_REQUEST_BYTES, MAX_REQUEST_BYTES + 1, 20 * MEBIBYTE], ids=str
)
async def test_a_body_of_any_size_reaches_the_upstream(stage: Stage, envoy: EnvoyProcess, size: int) -> None:
    """The Check sees its beginning, as bytes; the upstream gets it whole."""
    body = bytes(range(256)) * (size // 256 + 1)

    performance = await stage.perform(envoy.url, Exchange(ANSWER, request=body[:size]))

    assert 200 == performance.status
    assert body[:size] == performance.upstream_body
    assert body[: min(size, MAX_REQUEST_BYTES)] == performance.check.attributes.request.http.raw_body


@pytest.mark.parametrize(("allow", "status"), [(False, 503), (True, 200)])
async def test_without_a_server_failure_mode_decides(
    stage: Stage,
    version: EnvoyVersion,
    allow: bool,  # noqa: FBT001 - a column of the table
    status: int,
) -> None:
    """A Check that nobody answers is a 503, or passes if the operator wants it so."""
    options = replace(options_for(stage.upstream_port, free_port()), failure_mode_allow=allow)
    async with EnvoyProcess(options, version) as envoy:
        answer = await stage.perform(envoy.url, Exchange(ANSWER))

        assert status == answer.status
