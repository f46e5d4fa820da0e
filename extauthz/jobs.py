"""Jobs that run beside a server, for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

from extauthz.errors import StoreUnavailableError
from extauthz.telemetry.events import Telemetry

# A job that failed begins again after so long.
PAUSE_S = 0.1

CANCEL_AGAIN_S = 0.05

Job = Callable[[], Coroutine[None, None, object]]


@asynccontextmanager
async def repeated(name: str, job: Job, telemetry: Telemetry) -> AsyncIterator[None]:
    """Do a job again and again inside the block; no failure stops it."""
    task = asyncio.get_running_loop().create_task(_forever(name, job, telemetry))
    try:
        yield
    finally:
        while not task.done():  # not once: see Link.close
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)


async def at_most(job: Job, seconds_max: float) -> None:
    """Do a job once, and give it up after a time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            await job()


async def _forever(name: str, job: Job, telemetry: Telemetry) -> None:
    while True:
        try:
            await job()
        except StoreUnavailableError:
            pass  # counted where the store is called; the next pass tries again
        except Exception as error:  # noqa: BLE001
            telemetry.failed(name, error)
            await asyncio.sleep(PAUSE_S)
