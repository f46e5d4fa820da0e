"""Work that must outlive the call that started it: a bounded set of watched tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from extauthz.telemetry.events import Telemetry

TASKS_MAX = 10_000


class Background:
    """Runs short jobs to their end, tells of those that fail, and is waited for at the end."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Start a job. At TASKS_MAX it is dropped and told of; a lease stands behind everything that is done here."""
        if len(self._tasks) >= TASKS_MAX:
            job.close()
            self._telemetry.failed("background", RuntimeError(f"{TASKS_MAX} jobs are already waiting"))
            return
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def drain(self, seconds_max: float) -> None:
        """Wait for the jobs under way, for at most that long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds_max)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._telemetry.failed("background", error)
