"""What dies under a release in real pods: its store, and its replicas. The books come out right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI

from extauthz.demo.story import ANSWERED, ANSWERED_FREE, FREE, PAID, SLOW
from extauthz.demo.visitor import QUESTION
from tests.support.processes import eventually
from tests.support.real_house import Installed, key_of, metrics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STREAMS = 4
# What the tests here, all together, hang up on: fewer words than a single one of these streams has.
HUNG_UP = 3 * STREAMS
RENEWED_SECONDS_MAX = 60.0
# The kubelet starts a container again at once, and the next time after 10 s.
AWAY_SECONDS_MAX = 60.0
REFUSED = '503 {"error":{"message":"The budget cannot be checked at the moment.'
KILLED = ("--force", "--grace-period=0")


@asynccontextmanager
async def streams(release: Installed) -> AsyncIterator[asyncio.Event]:
    """Keep STREAMS streams of the lab open inside the block, until the event that it is given happens."""
    leave = asyncio.Event()

    async def read(client: AsyncOpenAI, begun: asyncio.Event) -> None:
        stream = await client.chat.completions.create(
            model=SLOW, messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        async with stream:
            async for _ in stream:
                begun.set()
                if leave.is_set():
                    return
        raise AssertionError("the stream ended by itself")

    client = AsyncOpenAI(base_url=release.house.url, api_key=key_of("lab"), max_retries=0)
    async with client, asyncio.TaskGroup() as readers:
        for _ in range(STREAMS):
            begun = asyncio.Event()
            readers.create_task(read(client, begun))
            await begun.wait()
        yield leave
        leave.set()


async def test_the_store_is_killed_and_comes_back(release: Installed) -> None:
    """While the store is away paid requests are refused by decision and free ones served; then the books are whole."""
    replicas = release.gates.values()
    async with release.visitor("lab") as lab:

        async def found_again() -> bool:
            return all([(await metrics(pod)).value("extauthz_store_up") for pod in replicas])

        async def refused_for_the_store() -> bool:
            return (await lab.chat_body(PAID)).startswith(REFUSED)

        async def restarted() -> bool:
            return (await asyncio.to_thread(lambda: release.store)).restarts > 0

        async with streams(release) as leave:
            release.namespace.kill(release.store.containers["redis"])
            await eventually(restarted, AWAY_SECONDS_MAX, "the kubelet has started it again")
            release.namespace.kill(release.store.containers["redis"])
            await eventually(refused_for_the_store, what="paid requests are refused")
            assert ANSWERED_FREE == await lab.chat(FREE)
            assert FREE == await lab.list_models()
            leave.set()
        assert await refused_for_the_store()
        await eventually(found_again, AWAY_SECONDS_MAX, "every replica has found the store again")
        assert ANSWERED == await lab.chat(PAID)
    await release.balanced(HUNG_UP)


@pytest.mark.parametrize("how", [(), KILLED], ids=["drained", "killed"])
async def test_replicas_go_with_streams_open(release: Installed, how: tuple[str, ...]) -> None:
    """When every replica that knew of a stream is gone, others keep it alive, and book it once when it ends."""
    async with streams(release):
        for name in release.gates:
            await asyncio.to_thread(release.namespace.kubectl, "delete", "pod", name, *how)
            await asyncio.to_thread(release.ready)
        last = await asyncio.to_thread(release.leases)

        async def renewed() -> bool:
            leases = await asyncio.to_thread(release.leases)
            return leases.keys() == last.keys() and all(leases[each] > last[each] for each in last)

        await eventually(renewed, RENEWED_SECONDS_MAX, "every stream's lease is renewed by the new replicas")
    assert STREAMS == len(last)
    await release.balanced(HUNG_UP)
