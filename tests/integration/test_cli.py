"""The commands as people and scripts run them: what they print where, and their exit status."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.gate import CONFIG
from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.tls import Certificates

COMMAND_SECONDS_MAX = 30.0

# Each mistake with its line, which is the index in this list plus one, and what the person is told.
BROKEN = (
    ("model_list:", ""),
    ("  - model_name: gpt-4o", ""),
    ("    litellm_params: {model: openai/gpt-4o, input_cost_per_token: cheap}", "write a number"),
    ("general_settings:", ""),
    ("  master_key: os.environ/EXTAUTHZ_TEST_UNSET", "EXTAUTHZ_TEST_UNSET is not set: set it"),
    ("extauthz:", ""),
    ("  lease_secs: 5", "unknown key; did you mean `lease_seconds`?"),
    ("  teams:", ""),
    ("    research:", ""),
    ("      max_budget: -1", "write a number of USD"),
    ("      budget_duration: 3 moons", "write a whole number and a unit"),
    ("  keys:", ""),
    ("    - {key: sk-one, team: reserch}", "did you mean `research`?"),
    ("    - {key: sk-one, team: research}", "the key of line 13 again: keep one"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """How a command went."""

    code: int
    out: str
    err: str


async def extauthz(*arguments: str | Path) -> Run:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extauthz"), *map(str, arguments), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, out.decode(), err.decode())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration without mistakes."""
    return written(tmp_path, CONFIG)


def written(folder: Path, text: str) -> Path:
    """Write a configuration file."""
    path = folder / "config.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


async def test_help_names_the_commands() -> None:
    """A person who knows the program's name finds the rest."""
    run = await extauthz("--help")

    assert 0 == run.code
    assert all(command in run.out for command in ("serve", "check-config", "envoy-config", "demo"))


async def test_a_good_configuration_is_fine(config: Path) -> None:
    """check-config says so, to people and to scripts."""
    people, scripts = await extauthz("check-config", config), await extauthz("check-config", config, "--json")

    assert (0, f"{config}: fine, 2 models, policy blocked\n", "") == (people.code, people.out, people.err)
    assert (0, "") == (scripts.code, scripts.err)
    assert {"ok": True, "file": str(config), "models": 2, "notices": []} == json.loads(scripts.out)


async def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """In one run every mistake of a file is one line with file, line and what to do, and nothing else is printed."""
    path = written(tmp_path, "\n".join(line for line, _ in BROKEN))
    expected = [(f"{path}:{number}: ", advice) for number, (_, advice) in enumerate(BROKEN, start=1) if advice]

    run = await extauthz("check-config", path)
    lines = run.err.splitlines()

    assert (1, "") == (run.code, run.out)
    assert len(expected) == len(lines), run.err
    for line, (place, advice) in zip(lines, expected, strict=True):
        assert line.startswith(place)
        assert advice in line


async def test_mistakes_for_scripts(tmp_path: Path) -> None:
    """With --json the mistakes are data on standard output, and the status is still 1."""
    path = written(tmp_path, "\n".join(line for line, _ in BROKEN))
    expected = [number for number, (_, advice) in enumerate(BROKEN, start=1) if advice]

    run = await extauthz("check-config", path, "--json")
    answer = json.loads(run.out)

    assert (1, "") == (run.code, run.err)
    assert answer["ok"] is False
    assert expected == [mistake["line"] for mistake in answer["mistakes"]]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["serve", "--config", "{path}"], id="serve"),
        pytest.param(
            ["envoy-config", "--config", "{path}", "--listen", "127.0.0.1:1", "--upstream", "127.0.0.1:2"],
            id="envoy-config",
        ),
    ],
)
async def test_nothing_starts_from_a_broken_configuration(arguments: list[str], tmp_path: Path) -> None:
    """The other commands tell the same lines, and end with status 1."""
    path = written(tmp_path, "\n".join(line for line, _ in BROKEN))

    run = await extauthz(*(argument.format(path=path) for argument in arguments))

    assert (1, "") == (run.code, run.out)
    assert sum(bool(advice) for _, advice in BROKEN) == len(run.err.splitlines())
    assert "Traceback" not in run.err


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A slip in the path is one line, not a traceback."""
    run = await extauthz("serve", "--config", tmp_path / "nothing.yaml")

    assert 1 == run.code
    assert 1 == len(run.err.splitlines())
    assert "nothing.yaml" in run.err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["serve"], id="no configuration"),
        pytest.param(["nothing"], id="no such command"),
        pytest.param(["serve", "--nothing"], id="no such option"),
        pytest.param(["check-config"], id="no file"),
        pytest.param(["serve", "--config", "{path}", "--grpc", "9191"], id="an address that is none"),
        pytest.param(
            ["envoy-config", "--config", "{path}", "--listen", "here", "--upstream", "127.0.0.1:2"],
            id="another address that is none",
        ),
        pytest.param(
            ["envoy-config", "--config={path}", "--listen=127.0.0.1:1", "--upstream=127.0.0.1:2", "--metering=native"],
            id="a meter that is not there",
        ),
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str], config: Path) -> None:
    """Scripts can tell a wrong call from a failure."""
    run = await extauthz(*(argument.format(path=config) for argument in arguments))

    assert (2, "") == (run.code, run.out)
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("own", "arguments"),
    [
        pytest.param('listen: {grpc: "0.0.0.0:9191"}', (), id="by the file"),
        pytest.param("insecure_grpc: false", ("--grpc", "0.0.0.0:9191"), id="by an option"),
        pytest.param("insecure_grpc: false", ("--grpc", "[::]:9191"), id="IPv6"),
        pytest.param("insecure_grpc: false", ("--grpc", "gate.example.com:9191"), id="by name"),
        pytest.param("tls: {cert: c.pem, key: k.pem}", ("--grpc", "0.0.0.0:9191"), id="TLS without client CA"),
    ],
)
async def test_it_does_not_start_open(own: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Beyond loopback, without token, client certificates or insecure_grpc, it ends with one line of advice."""
    path = written(tmp_path, f"{CONFIG}  {own}\n")

    run = await extauthz("serve", "--config", path, *arguments)

    assert 1 == run.code
    assert 1 == len(run.err.splitlines()), run.err
    assert all(way in run.err for way in ("token", "tls.client_ca", "127.0.0.1", "insecure_grpc: true"))


@pytest.mark.parametrize(
    "own", ["insecure_grpc: true", "token: shared", "tls: {cert: c.pem, key: k.pem}"], ids=lambda own: own[:5]
)
async def test_the_admin_port_does_not_start_open(own: str, tmp_path: Path) -> None:
    """What is enough for Envoy is not enough for operators: beyond loopback they prove themselves as well."""
    path = written(tmp_path, f"{CONFIG}  {own}\n")

    run = await extauthz("serve", "--config", path, "--admin", "0.0.0.0:9192")

    assert 1 == run.code
    assert 1 == len(run.err.splitlines()), run.err
    assert all(way in run.err for way in ("admin at 0.0.0.0:9192", "admin_token", "tls.client_ca", "127.0.0.1"))


@pytest.mark.parametrize("own", ["token: shared", "insecure_grpc: true"])
async def test_it_starts_beyond_loopback_when_callers_prove_themselves(own: str, tmp_path: Path) -> None:
    """A token, or the word that the mesh does it, opens the port."""
    path, port = written(tmp_path, f"{CONFIG}  {own}\n"), free_port()
    asked = ("--grpc", f"0.0.0.0:{port}", "--admin", f"{LOOPBACK}:0", "--http", f"{LOOPBACK}:0")
    async with Process(sys.executable, "-m", "extauthz", "serve", "--config", path, *asked) as process:
        await process.wait_for_port(port)
        process.terminate()

        assert 0 == await process.wait()


@pytest.mark.parametrize("server", ["native", "grpcio"])
@pytest.mark.parametrize("option", ["grpc", "admin", "http"])
async def test_a_port_in_use_is_one_line(server: str, option: str, tmp_path: Path) -> None:
    """Two servers cannot share a port: the second ends with the address, the reason and what to do."""
    path = written(tmp_path, f"{CONFIG}  server: {server}\n")
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = f"{LOOPBACK}:{other.getsockname()[1]}"
        addresses = {f"--{name}": f"{LOOPBACK}:0" for name in ("grpc", "admin", "http")} | {f"--{option}": taken}

        run = await extauthz("serve", "--config", path, *(word for pair in addresses.items() for word in pair))

    assert 1 == run.code
    assert (
        f"Error: cannot listen on {taken} for {option} (Address already in use): choose an address of this machine "
        f"that nobody listens on, by --{option} or extauthz.listen.{option}\n"
    ) == run.err


@pytest.mark.envoy
@pytest.mark.parametrize("version", ENVOY_VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("own", "options"),
    [
        pytest.param("", (), id="plain"),
        pytest.param("", ("--upstream-tls", "--metering", "none"), id="upstream with TLS"),
        pytest.param("token: shared", ("--extauthz", "extauthz.gateway:9191"), id="token"),
        pytest.param("tls: {cert: s.pem, key: k.pem}", ("--extauthz-ca", "{ca}"), id="TLS"),
        pytest.param(
            "tls: {cert: s.pem, key: k.pem, client_ca: c.pem}",
            ("--extauthz-ca", "{ca}", "--extauthz-cert", "{client_cert}", "--extauthz-key", "{client_key}"),
            id="mTLS",
        ),
    ],
)
async def test_envoy_accepts_what_envoy_config_prints(
    version: EnvoyVersion, own: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    """The bootstrap is complete: Envoy's own validation passes it as it was printed."""
    path, files = written(tmp_path, f"{CONFIG}  {own}\n"), vars(Certificates(tmp_path))
    where = ("--listen", "0.0.0.0:8080", "--upstream", "llm.internal:4000")

    run = await extauthz("envoy-config", "--config", path, *where, *(option.format_map(files) for option in options))
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text(run.out, encoding="utf-8")

    assert (0, "") == (run.code, run.err)
    async with Process(version.program, "--mode", "validate", "-c", bootstrap) as envoy:
        assert 0 == await envoy.wait(), envoy.output


async def test_envoy_config_says_what_the_file_says(tmp_path: Path) -> None:
    """Address, token, TLS and its files, body limit and lease of the configuration stand in the bootstrap."""
    own = (
        'listen: {grpc: "127.0.0.1:7191"}',
        "token: shared",
        "lease_seconds: 40",
        "max_request_bytes: 4096",
        "tls: {cert: s.pem, key: k.pem, client_ca: c.pem}",
        "api_prefixes: [/llm/v1]",
    )
    path = written(tmp_path, CONFIG + "".join(f"  {line}\n" for line in own))
    where = ("--listen", "0.0.0.0:8080", "--upstream", "llm.internal:4000", "--extauthz-ca", "/ca.pem")

    run = await extauthz(
        "envoy-config", "--config", path, *where, "--extauthz-cert", "/cert.pem", "--extauthz-key", "/key.pem"
    )
    bootstrap = yaml.safe_load(run.out)

    server = next(cluster for cluster in bootstrap["static_resources"]["clusters"] if cluster["name"] == "extauthz")
    endpoint = server["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    tls = server["transport_socket"]["typed_config"]["common_tls_context"]
    assert {"address": "127.0.0.1", "port_value": 7191} == endpoint
    assert "/ca.pem" == tls["validation_context"]["trusted_ca"]["filename"]
    assert [{"certificate_chain": {"filename": "/cert.pem"}, "private_key": {"filename": "/key.pem"}}] == tls[
        "tls_certificates"
    ]
    assert 3 == run.out.count("key: x-extauthz-token\n")
    assert "access_log_flush_interval: 10s" in run.out
    assert "max_request_bytes: 4096" in run.out
    assert "path_separated_prefix: /llm/v1/models" in run.out


async def test_envoy_config_asks_for_envoys_certificate(tmp_path: Path) -> None:
    """Where the server lets only certified clients in, a bootstrap without a certificate would never work."""
    path = written(tmp_path, f"{CONFIG}  tls: {{cert: s.pem, key: k.pem, client_ca: c.pem}}\n")

    run = await extauthz("envoy-config", "--config", path, "--listen", "127.0.0.1:8080", "--upstream", "127.0.0.1:4000")

    assert (2, "") == (run.code, run.out)
    assert "--extauthz-cert" in run.err
