"""grpcurl, without any file of ours, against `extauthz serve`: what README and docs tell people to try."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.server import ADMIN_SERVICES, SERVICES
from tests.support.gate import CONFIG, a_check
from tests.support.processes import LOOPBACK
from tests.support.redis import CACHE
from tests.support.stack import GateProcess

GRPCURL = shutil.which("grpcurl", path=CACHE / "grpcurl") or shutil.which("grpcurl")
COMMAND_SECONDS_MAX = 30.0

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# The configuration that a document's commands are for, where it has one of its own.
EXAMPLES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.yaml")}
# The id of a reservation, where a document shows one.
AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
A_KEY = re.compile(r"\bkey: (sk-[a-z]+)")


def commands_of(text: str) -> Iterator[list[str]]:
    """Give the grpcurl commands in a document's blocks of shell, each as its words."""
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            command = line.removeprefix("$ ")
            if not command.startswith("grpcurl "):
                continue
            while (words := _words(command)) is None:
                command = command[:-1] + next(lines) if command.endswith("\\") else f"{command}\n{next(lines)}"
            yield words


def _words(command: str) -> list[str] | None:
    """Split a command as a shell does; None while more of it is to come."""
    try:
        return None if command.endswith("\\") else shlex.split(command, comments=True)
    except ValueError:  # a quotation is open
        return None


COMMANDS = {path: found for path in DOCUMENTS if (found := [*commands_of(path.read_text(encoding="utf-8"))])}

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(GRPCURL is None, reason="no grpcurl: `make setup` builds it where there is a Go"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpcio"])
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[GateProcess]:
    """Serve on each gRPC server."""
    async with GateProcess(f"{CONFIG}  server: {request.param}\n") as serving:
        yield serving


@pytest.fixture
def target(gate: GateProcess) -> str:
    """Give the address of Envoy's port."""
    return f"{LOOPBACK}:{gate.grpc_port}"


@pytest.fixture
def admin(gate: GateProcess) -> str:
    """Give the address of the operators' port."""
    return f"{LOOPBACK}:{gate.admin_port}"


async def grpcurl(*arguments: str) -> str:
    """Run grpcurl in plain text and give what it printed."""
    return await run("-plaintext", *arguments)


async def run(*arguments: str) -> str:
    """Run grpcurl and give what it printed."""
    assert GRPCURL is not None
    process = await asyncio.create_subprocess_exec(GRPCURL, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        out, err = await process.communicate()

    assert 0 == process.returncode, f"{shlex.join(arguments)}\n{err.decode()}"
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


async def test_the_admin_port(admin: str) -> None:
    """The operators' port lists its service, describes it field by field, and answers a call without any file."""
    services = (await grpcurl(admin, "list")).split()
    described = await grpcurl(admin, "describe", "extauthz.diagnostics.v1.Budget")
    budgets = json.loads(await grpcurl(admin, f"{ADMIN_SERVICES[0]}/ListBudgets"))

    assert sorted([*ADMIN_SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]) == services
    assert "double spent_usd = 4;" in described
    assert ["team:research"] == [budget["scope"] for budget in budgets["budgets"]]


async def test_a_status_that_people_can_read(admin: str) -> None:
    """What is wrong with a call is told as it is, also where it is not ASCII."""
    assert GRPCURL is not None
    arguments = ("-plaintext", "-d", '{"scope": "team:résearch"}', admin, f"{ADMIN_SERVICES[0]}/GetBudget")
    process = await asyncio.create_subprocess_exec(GRPCURL, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        _, err = await process.communicate()

    assert "Code: NotFound" in err.decode()
    assert "did you mean `team:research`?" in err.decode()


@pytest.mark.parametrize("document", COMMANDS, ids=lambda path: path.name)
async def test_what_documents_say(document: Path) -> None:
    """Each grpcurl command of a document does what it says, on a server with the document's configuration."""
    config = EXAMPLES.get(document.with_suffix(".yaml"), CONFIG)
    async with GateProcess(config, environment={"EXTAUTHZ_STORE": "memory"}) as serving:
        key = A_KEY.search(config)
        assert key is not None
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{serving.grpc_port}") as envoys:
            stub: Any = AuthorizationStub(envoys)
            for id_ in AN_ID.findall(str(COMMANDS[document])):
                await stub.Check(a_check(key=key[1], reservation_id=id_), timeout=COMMAND_SECONDS_MAX)
        ports = {"9191": serving.grpc_port, "9192": serving.admin_port}
        for _, *arguments in COMMANDS[document]:
            real = [re.sub(":(919[12])$", lambda found: f":{ports[found[1]]}", argument) for argument in arguments]
            assert await run(*real)


async def test_documents_are_read() -> None:
    """The commands of the README are found, those that go over several lines as well."""
    commands = COMMANDS[ROOT / "README.md"]

    assert 6 <= len(commands)
    assert any("\n" in argument for command in commands for argument in command)
