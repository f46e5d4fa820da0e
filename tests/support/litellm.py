"""A real LiteLLM proxy beside the tests, without a database and with models that only pretend.

It lives in an environment of its own, which `make litellm` installs: it wants other versions of what we use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import Self

import aiohttp
import pytest

from tests.support.processes import LOOPBACK, Process, eventually, free_port

PROGRAM = Path(__file__).parents[2] / ".cache/litellm/bin/litellm"

NEEDED = pytest.mark.skipif(not PROGRAM.exists(), reason="needs LiteLLM: `make litellm` installs it")

# It imports for half a minute on a busy machine.
START_SECONDS = 180.0

# So that it asks nobody for prices, or for the news.
ENVIRONMENT: Mapping[str, str] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
}


class LitellmProcess:
    """`litellm` with a configuration, running and ready while the `async with` block does.

    `command` runs it from elsewhere than its own environment, with some more variables.
    """

    def __init__(
        self,
        config: str,
        command: Sequence[str] = (str(PROGRAM),),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = TemporaryDirectory(prefix="litellm-")
        path = Path(self._folder.name) / "config.yaml"
        path.write_text(config, encoding="utf-8")
        self.port = free_port()
        self._process = Process(
            *command,
            *("--config", str(path), "--host", LOOPBACK, "--port", str(self.port), "--telemetry", "False"),
            environment={**ENVIRONMENT, **environment},
        )

    async def __aenter__(self) -> Self:
        await self._process.__aenter__()
        await eventually(self._ready, START_SECONDS, what="LiteLLM is ready")
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

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    async def _ready(self) -> bool:
        assert self._process.returncode is None, f"LiteLLM ended at its start:\n{self._process.output}"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health/liveliness") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False
