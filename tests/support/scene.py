"""A stage with an Envoy on it, whose meter is what a test is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.support.envoy import EnvoyProcess, EnvoyVersion, options_for
from tests.support.metered import Answer
from tests.support.stage import Exchange, Performance, Stage

HEARTBEAT_SECONDS = 0.1
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """A stage, and the Envoy on it."""

    stage: Stage
    envoy: EnvoyProcess

    async def play(self, exchange: Exchange) -> Performance:
        """Play one exchange to the client's end."""
        return await self.stage.perform(self.envoy.url, exchange)

    async def play_all(self, exchanges: Iterable[Exchange]) -> list[Performance]:
        """Play many, a few at a time, in their order."""
        waiting = asyncio.Semaphore(AT_ONCE)

        async def play(exchange: Exchange) -> Performance:
            async with waiting:
                return await self.play(exchange)

        return await asyncio.gather(*map(play, exchanges))


@asynccontextmanager
async def set_scene(version: EnvoyVersion, upstream_port: int | None = None) -> AsyncIterator[Scene]:
    """Give a stage with an Envoy whose streams log a sign of life ten times a second.

    Another upstream than the stage's own may stand at `upstream_port`.
    """
    async with Stage() as stage:
        options = options_for(upstream_port or stage.upstream_port, stage.extauthz_port)
        async with EnvoyProcess(replace(options, heartbeat_seconds=HEARTBEAT_SECONDS), version) as envoy:
            yield Scene(stage, envoy)


def exchange_of(answer: Answer, *cuts: int) -> Exchange:
    """Answer with these bytes, cut at these places."""
    places = (0, *cuts, len(answer.body))
    pieces = tuple(answer.body[start:end] for start, end in pairwise(places))
    return Exchange(pieces, answer.content_type)
