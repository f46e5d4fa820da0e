"""grpcurl, without any file of ours, against `extauthz serve`: what the README tells people to try."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from extauthz.server import SERVICES
from tests.support.gate import CONFIG
from tests.support.processes import LOOPBACK
from tests.support.stack import GateProcess

GRPCURL = shutil.which("grpcurl") or shutil.which("grpcurl", path=Path.home() / "go" / "bin")
COMMAND_SECONDS_MAX = 30.0

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        GRPCURL is None, reason="no grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpcio"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Serve, and give the address."""
    async with GateProcess(f"{CONFIG}  server: {request.param}\n") as gate:
        yield f"{LOOPBACK}:{gate.grpc_port}"


async def grpcurl(*arguments: str) -> str:
    """Run grpcurl and give what it printed."""
    assert GRPCURL is not None
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        out, err = await process.communicate()

    assert 0 == process.returncode, err.decode()
    return out.decode()


async def test_list(target: str) -> None:
    """`grpcurl -plaintext ADDRESS list` names every service of the port."""
    services = (await grpcurl(target, "list")).split()

    assert sorted([*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]) == services


async def test_describe(target: str) -> None:
    """A service and its messages can be read without the protos."""
    described = await grpcurl(target, "describe", SERVICES[0])
    message = await grpcurl(target, "describe", "envoy.service.auth.v3.CheckRequest")

    assert "rpc Check ( .envoy.service.auth.v3.CheckRequest )" in described
    assert ".envoy.service.auth.v3.AttributeContext attributes = 1;" in message


async def test_health(target: str) -> None:
    """The probe of Kubernetes works by hand."""
    assert {"status": "SERVING"} == json.loads(await grpcurl(target, "grpc.health.v1.Health/Check"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"authorization": "Bearer sk-team"}, '"extauthz.reason": "discovery"', id="allowed"),
        pytest.param({}, "No API key was sent", id="denied"),
    ],
)
async def test_a_check(target: str, headers: dict[str, str], expected: str) -> None:
    """A Check can be made by hand: the answer is an allow, or a denial with what the client would see."""
    http = {"method": "GET", "path": "/v1/models", "headers": headers}
    data = json.dumps({"attributes": {"request": {"http": http}}})

    assert expected in await grpcurl("-d", data, target, f"{SERVICES[0]}/Check")
