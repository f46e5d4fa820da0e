"""`extauthz check` as `helm test` runs it: a real Check on Envoy's port, the verdict, and nothing left held."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from extauthz.console.gate import at_gate
from extauthz.console.target import Target
from extauthz.domain.address import Address
from tests.support.books import Run
from tests.support.gate import CALL_SECONDS_MAX, FREE, KEY, PAID, TOKEN, WIRES, Gate, Wire, a_check, gate
from tests.support.operators import RESEARCH, SPENT, House, operated, typed
from tests.support.processes import LOOPBACK, eventually, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPSTREAMS_KEY = "sk-the-upstreams-own"
ENVIRONMENT = {"EXTAUTHZ_TOKEN": "", "TEAM_KEY": KEY, "ENVOYS_TOKEN": TOKEN, "RESEARCH": RESEARCH, "SPENT": SPENT}
AN_ALLOW = ("--expect", "allow", "--model", PAID, "--key-env", "TEAM_KEY")


async def check(port: int, *arguments: str, text: str = "", environment: Mapping[str, str | None] | None = None) -> Run:
    """Type the command against a loopback port."""
    target = f"{LOOPBACK}:{port}"
    variables: Any = {**ENVIRONMENT, **(environment or {})}  # None takes a variable away
    return await typed("check", "--target", target, *arguments, text=text, environment=variables)


async def verdict(port: int, *arguments: str, text: str = "", environment: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
    """Type the command for a verdict that is as expected, and give that."""
    run = await check(port, *arguments, "--json", text=text, environment=environment)
    assert (0, "") == (run.code, run.err), run
    return json.loads(run.out)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpcio"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """Serve with books in a Redis, on each gRPC server, and an upstream that gets a key of its own."""
    own = (f"server: {request.param}", f"upstream_auth: {{default: {{set: {UPSTREAMS_KEY}}}}}")
    async with operated(*own) as running:
        yield running


@pytest.fixture
def port(house: House) -> int:
    """Give Envoy's port."""
    return house.gate.grpc_port


async def nothing_is_held(running: Gate) -> bool:
    """Tell whether no reservation is open, now that one was made."""
    metrics = await running.metrics()
    assert {0} == set(metrics.held.values())
    return metrics.open == 0 and metrics.value("extauthz_reservations_ended_total", "released", "access_log") == 1


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_an_allow_leaves_nothing_held(wire: Wire, tmp_path: Path) -> None:
    """On every server, with the token, TLS and a certificate: the Check holds money, and the command releases it."""
    async with gate(wire, tmp_path, token=TOKEN) as running:
        certificates = running.certificates
        trust = ["--ca", str(certificates.ca)] if wire.tls else []
        if wire.client_ca:
            trust += ["--cert", str(certificates.client_cert), "--key", str(certificates.client_key)]
        found = await verdict(running.grpc_port, *AN_ALLOW, "--token-env", "ENVOYS_TOKEN", *trust)

        assert await nothing_is_held(running)

    assert ("allow", None, "within_budget", True) == tuple(
        found[name] for name in ("verdict", "status", "reason", "released")
    )
    assert {"x-extauthz-available-usd", "x-extauthz-reservation"} == found["headers"].keys()


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        pytest.param([], 1, "--ca turns that on", id="plain"),
        pytest.param(["--ca", "{ca}"], 1, "add --cert and --key", id="no certificate"),
        pytest.param(["--ca", "{client_cert}"], 1, "by --ca's certificate", id="another CA"),
        pytest.param(["--ca", "nowhere.pem"], 1, "nowhere.pem", id="no file"),
        pytest.param(["--cert", "{client_cert}"], 2, "--cert and --key go together", id="no key"),
    ],
)
async def test_tls_that_does_not_fit(wire: Wire, options: list[str], code: int, says: str, tmp_path: Path) -> None:
    """What is wrong with certificates is one line of advice."""
    async with gate(wire, tmp_path) as running:
        arguments = (option.format_map(vars(running.certificates)) for option in options)
        run = await check(running.grpc_port, *AN_ALLOW, *arguments)

    assert code == run.code, run
    assert says in run.err


@pytest.mark.parametrize(
    ("environment", "options", "says"),
    [
        pytest.param({}, [], "wants a token: put its extauthz.token into EXTAUTHZ_TOKEN", id="none"),
        pytest.param({"EXTAUTHZ_TOKEN": "wrong"}, [], "wants another token than was sent", id="another"),
        pytest.param({}, ["--token-env", "UNSET_HERE"], "variable UNSET_HERE is not set", id="a variable not set"),
        pytest.param({"EXTAUTHZ_TOKEN": "gebühr"}, [], "EXTAUTHZ_TOKEN has no token", id="not ASCII"),
    ],
)
async def test_a_token_that_does_not_fit(
    environment: Mapping[str, str], options: list[str], says: str, tmp_path: Path
) -> None:
    """A missing or wrong token is exit status 1 and one line, which does not show it."""
    async with gate(WIRES[0], tmp_path, token=TOKEN) as running:
        run = await check(running.grpc_port, *AN_ALLOW, *options, environment=environment)

    assert (1, "") == (run.code, run.out)
    assert says in run.err
    assert 1 == len(run.err.splitlines())
    assert not any(secret in run.err for secret in (TOKEN, "wrong", "gebühr"))


async def test_the_token_of_the_usual_variable(tmp_path: Path) -> None:
    """Without --token-env the token is that of EXTAUTHZ_TOKEN, as in README."""
    async with gate(WIRES[0], tmp_path, token=TOKEN) as running:
        await verdict(running.grpc_port, *AN_ALLOW, environment={"EXTAUTHZ_TOKEN": TOKEN})


async def test_a_reservation_ends_by_its_id_alone(tmp_path: Path) -> None:
    """Where a Check's answer was lost, what it may have reserved is named by the id that the command gave it."""
    name = str(uuid.uuid4())
    async with gate(WIRES[0], tmp_path) as running:
        target = Target(Address(LOOPBACK, running.grpc_port))
        async with at_gate(target, CALL_SECONDS_MAX) as there:
            await there.check(a_check(reservation_id=name))
            assert 1 == (await running.metrics()).open
            await there.never_sent(name, None)

        assert await nothing_is_held(running)


async def test_a_server_that_stands_still(house: House) -> None:
    """Nobody waits for ever: at the deadline it is one line, and afterwards nothing is held."""
    async with house.gate.process.paused():
        run = await check(house.gate.grpc_port, *AN_ALLOW, "--key-env", "RESEARCH", "--timeout", "0.5")

    assert (1, "") == (run.code, run.out)
    assert "did not answer within 0.5 s" in run.err

    async def nothing_is_open() -> bool:
        return not await house.json("reservations", "list")

    await eventually(nothing_is_open, what="nothing is open")


@pytest.mark.redis
class TestAgainstRedis:
    """With books in a Redis, on both gRPC servers."""

    async def test_an_allow_leaves_nothing_held(self, house: House, port: int) -> None:
        """Each Check holds and releases: nothing is open, held or spent afterwards, and the books are right."""
        arguments = ("--expect", "allow", "--model", PAID, "--key-env", "RESEARCH")
        found = [await verdict(port, *arguments) for _ in range(3)]

        assert {True} == {each["released"] for each in found}
        assert [] == await house.json("reservations", "list")
        (budget,) = await house.json("budgets", "get", "team:research")
        assert (0, 0) == (budget["held_usd"], budget["spent_usd"])
        assert (await house.json("audit"))["ok"]

    async def test_a_denial(self, port: int) -> None:
        """An exhausted budget is the 429 that a client would see, with its headers and its sentence."""
        arguments = ("--expect", "deny", "--status", "429", "--model", PAID, "--key-env", "SPENT")
        found = await verdict(port, *arguments)

        assert ("deny", 429, "budget_exceeded", False) == tuple(
            found[name] for name in ("verdict", "status", "reason", "released")
        )
        assert "Team=spent" in found["message"]
        assert "false" == found["headers"]["x-should-retry"]

    async def test_nobody(self, port: int) -> None:
        """Without --key-env nobody asks, and that is refused."""
        found = await verdict(port, "--expect", "deny", "--status", "401", "--model", PAID)

        assert "unauthenticated" == found["reason"]

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            pytest.param(["--model", FREE], "free_model", id="a free model"),
            pytest.param(["--method", "GET", "--path", "/health"], "info", id="another path and method"),
            pytest.param(["--method", "GET", "--path", "/v1/models"], "discovery", id="the list"),
            pytest.param(["--body", "-"], "within_budget", id="a body"),
            pytest.param(["--body", "-", "--header", "x-litellm-model:gpt-4o"], "within_budget", id="a header"),
        ],
    )
    async def test_what_is_asked_about(self, arguments: list[str], reason: str, port: int) -> None:
        """Method, path, model, body and headers are those of the request."""
        body = json.dumps({"model": PAID, "messages": [{"role": "user", "content": "hi"}]})
        expected = ("--expect", "allow", "--key-env", "RESEARCH")
        found = await verdict(port, *expected, *arguments, text=body)

        assert reason == found["reason"]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            pytest.param(["--expect", "deny", "--key-env", "RESEARCH"], "expected: deny\n", id="a verdict"),
            pytest.param(
                ["--expect", "deny", "--status", "402", "--key-env", "SPENT"], "expected: deny 402\n", id="a status"
            ),
            pytest.param(["--expect", "allow", "--key-env", "SPENT"], "expected: allow\n", id="an allow"),
        ],
    )
    async def test_another_verdict(self, arguments: list[str], says: str, house: House, port: int) -> None:
        """What is not as expected is exit status 1, says what was expected, and leaves nothing held either."""
        run = await check(port, "--model", PAID, *arguments)

        assert (1, "") == (run.code, run.err)
        assert says in run.out
        assert [] == await house.json("reservations", "list")

    async def test_in_words(self, port: int) -> None:
        """A person reads the verdict and what goes with it; keys, the caller's and the upstream's, are not shown."""
        run = await check(port, "--expect", "allow", "--model", PAID, "--key-env", "RESEARCH")

        lines = run.out.splitlines()
        assert ("allowed: within_budget", "as expected") == (lines[0], lines[-1])
        assert "  to the upstream: authorization: ********" in lines
        assert "  money was held, and is released" in lines
        assert not any(secret in run.out + run.err for secret in (UPSTREAMS_KEY, RESEARCH))

    async def test_a_request_that_is_no_utf_8(self, port: int, tmp_path: Path) -> None:
        """A body that cannot be sent is a wrong usage."""
        file = tmp_path / "body"
        file.write_bytes(b"\xff")

        run = await check(port, "--expect", "deny", "--body", str(file))

        assert 2 == run.code
        assert "it is not UTF-8" in run.err

    async def test_the_operators_port(self, house: House) -> None:
        """On the admin port, where no Check is made, the command says which port it wants."""
        run = await check(house.gate.admin_port, *AN_ALLOW)

        assert (1, "") == (run.code, run.out)
        assert "makes no Checks" in run.err or "wants" in run.err


async def test_a_store_that_defers() -> None:
    """Where Envoy's own failure_mode_allow decides, there is no verdict: exit status 1 says so."""
    async with operated("store_failure: defer") as own:
        await own.store.stop()
        arguments = ("--expect", "allow", "--model", PAID, "--key-env", "RESEARCH")
        run = await check(own.gate.grpc_port, *arguments)

    assert (1, "") == (run.code, run.out)
    assert "failure_mode_allow" in run.err


async def test_nobody_listens() -> None:
    """An address where nobody listens is one line and exit status 1."""
    run = await check(free_port(), *AN_ALLOW)

    assert (1, "") == (run.code, run.out)
    assert "cannot be reached" in run.err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing expected"),
        pytest.param(["--expect", "maybe"], id="no verdict"),
        pytest.param(["--expect", "deny", "--status", "99"], id="no status"),
        pytest.param(["--expect", "deny", "--key-env", "UNSET_HERE"], id="no key"),
        pytest.param(["--expect", "deny", "--body", "-", "--model", PAID], id="two models"),
        pytest.param(["--expect", "deny", "--timeout", "0"], id="no time"),
    ],
)
async def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong calls are exit status 2, before anything is asked."""
    assert 2 == (await check(1, *arguments)).code
