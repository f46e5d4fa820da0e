"""Our own server as it is measured, and the configurations that it gets: any number of keys, each with budgets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from bench.interpreter import CODE, python
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from tests.support.processes import LOOPBACK, START_SECONDS, Process, free_port

KEYS_PER_TEAM = 100
# Nobody comes to the end of this; that is another path.
PLENTY_USD = 1_000_000
# No lease runs out while something is measured, and a stall of the machine is no failure.
LEASE_SECONDS = 86_400
STORE_TIMEOUT_SECONDS = 5

MODELS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
"""


@dataclass(frozen=True, slots=True)
class Payers:
    """How many keys there are, and what a request of one is counted on.

    With a team these are the key's own counter, its team's, its organization's and the global one. A `user` adds two
    counters, its own and the one of it in the team; `windows` are the budgets of each key.
    """

    keys: int
    teams: bool = True
    users: bool = False
    windows: int = 1

    @property
    def counters(self) -> int:
        """How many counters a request without an end user has."""
        return 1 + (2 if self.teams else 0) + (2 if self.users else 0) + self.windows


FOUR_COUNTERS = Payers(keys=100)


# A key whose budget is exhausted.
BROKE = "sk-bench-broke"


def key_name(number: int) -> str:
    """Give a key as clients send it."""
    return f"sk-bench-{number:07}"


def configuration(payers: Payers, store: str, keys_file: Path) -> Iterator[str]:
    """Write the configuration in pieces; its keys stand in a file of their own."""
    teams = range(-(-payers.keys // KEYS_PER_TEAM)) if payers.teams else range(0)
    yield f"{MODELS}extauthz:\n  store: {store}\n  store_timeout_seconds: {STORE_TIMEOUT_SECONDS}\n"
    yield f"  lease_seconds: {LEASE_SECONDS}\n  keys_file: {keys_file}\n"
    yield f"  global: {{max_budget: {PLENTY_USD}}}\n"
    if payers.teams:
        yield f"  organizations: {{acme: {{max_budget: {PLENTY_USD}, budget_duration: 1mo}}}}\n  teams:\n"
        for team in teams:
            yield f"    team-{team:05}: {{organization: acme, max_budget: {PLENTY_USD}, budget_duration: 1mo}}\n"
    if payers.users:
        yield "  users:\n"
        yield from (f"    user-{team:05}: {{max_budget: {PLENTY_USD}}}\n" for team in teams)


def stored_configuration(store: str) -> Iterator[str]:
    """Write a configuration that leaves it to the store who is known."""
    yield f"{MODELS}extauthz:\n  store: {store}\n  store_timeout_seconds: {STORE_TIMEOUT_SECONDS}\n"
    yield f"  directory: store\n  lease_seconds: {LEASE_SECONDS}\n  global: {{max_budget: {PLENTY_USD}}}\n"


def keys_of(payers: Payers) -> Iterator[str]:
    """Write the file of keys in pieces."""
    limits = [f"{{max_budget: {PLENTY_USD}, budget_duration: {days}d}}" for days in range(1, payers.windows)]
    further = f", budget_limits: [{', '.join(limits)}]" if limits else ""
    for number in range(payers.keys):
        team = f", team: team-{number // KEYS_PER_TEAM:05}" if payers.teams else ""
        user = f", user: user-{number // KEYS_PER_TEAM:05}" if payers.users else ""
        digest = sha256(key_name(number).encode()).hexdigest()
        yield f"- {{key_sha256: {digest}{team}{user}, max_budget: {PLENTY_USD}{further}}}\n"
    yield f"- {{key_sha256: {sha256(BROKE.encode()).hexdigest()}, max_budget: 0}}\n"


def chat(padding_bytes: int = 0, *, stream: bool = False) -> bytes:
    """Write the body of a chat."""
    content = "Hello, how are you?" + " word" * (padding_bytes // 5)
    body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": content}]}
    return json.dumps(body).encode()


def check(key: str, *, path: str = "/v1/chat/completions", body: bytes | None = None, user: str = "") -> bytes:
    """Ask as Envoy does, with the headers that a client of OpenAI's sends; `user` is an end user."""
    body = chat() if body is None else body
    if user:
        body = json.dumps({**json.loads(body), "user": user}).encode()
    headers = {
        ":authority": "llm.example.com",
        ":method": "POST",
        ":path": path,
        ":scheme": "https",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "authorization": f"Bearer {key}",
        "content-length": str(len(body)),
        "content-type": "application/json",
        "user-agent": "OpenAI/Python 3.54.0",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-proto": "https",
        "x-request-id": "2f6a4a7c-50b5-4a3e-9c1b-7d3d8a9e6f10",
        "x-stainless-arch": "x64",
        "x-stainless-lang": "python",
        "x-stainless-os": "Linux",
        "x-stainless-package-version": "3.54.0",
        "x-stainless-retry-count": "0",
        "x-stainless-runtime": "CPython",
    }
    http = AttributeContext.HttpRequest(
        id="1", method="POST", host="llm.example.com", scheme="https", path=path, protocol="HTTP/1.1", raw_body=body
    )
    for name, value in headers.items():
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http))).SerializeToString()


def checks(payers: Payers, numbers: Iterable[int], *, body: bytes | None = None, user: str = "") -> Iterator[bytes]:
    """Ask for a chat of each of these keys."""
    return (check(key_name(number), body=body, user=user) for number in numbers if number < payers.keys)


class Gate:
    """`extauthz serve`, running and ready while the `async with` block does.

    Its keys are in a file, or with `stored` in the store, where somebody has put them. It runs this tree's `code`,
    or that of another folder.
    """

    def __init__(
        self,
        payers: Payers,
        store: str,
        *,
        start_seconds: float = START_SECONDS,
        stored: bool = False,
        code: Path = CODE,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="extauthz-")
        folder = Path(self._folder.name)
        self.config, keys_file = folder / "config.yaml", folder / "keys.yaml"
        if stored:
            _write(self.config, stored_configuration(store))
        else:
            _write(self.config, configuration(payers, store, keys_file))
            _write(keys_file, keys_of(payers))
        self.port, self.http_port = free_port(), free_port()
        self._start_seconds = start_seconds
        runner = python(code)
        self._process = Process(
            *runner.command,
            *("-m", "extauthz", "serve", "--config", str(self.config)),
            *("--grpc", f"{LOOPBACK}:{self.port}", "--http", f"{LOOPBACK}:{self.http_port}"),
            *("--admin", f"{LOOPBACK}:{free_port()}"),
            environment=runner.environment,
        )

    async def __aenter__(self) -> Self:
        await self._process.__aenter__()
        try:
            await self._process.wait_for_port(self.port, self._start_seconds)
        except BaseException:
            self._process.kill()
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._process.__aexit__(kind, error, traceback)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid


def _write(path: Path, pieces: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(chain(pieces))
