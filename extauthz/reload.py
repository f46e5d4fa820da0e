"""Hot reload: the configuration in force follows its files, and stays as it is while they are wrong.

A file is read and checked in a thread, and put in force whole. Requests that are being decided keep the snapshot that
they began with; limits hold from the next reserve.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from extauthz.config.load import Reading
from extauthz.config.origin import Origin
from extauthz.config.restart import kept
from extauthz.config.snapshot import Configuration, Snapshot
from extauthz.config.sources import READ_ONCE, Stamp, stamp_of
from extauthz.config.watch import entries_of, watching
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import Mistake
from extauthz.telemetry.events import Telemetry

# The files are looked at this often even when nothing tells of a change: network file systems and files that were
# mounted alone tell of none, and a folder that was replaced tells nothing of its successor.
POLL_S = 10.0

# How long it may take to read and check the files.
LOOK_S_MAX = 60.0

# How long the thread keeps the interpreter from the event loop. Python's own 5 ms would be added to each of its steps.
SWITCH_S = 0.0005

# So many mistakes are told, in the log and in the status.
MISTAKES_TOLD_MAX = 20


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """When the configuration in force was loaded (Unix milliseconds), its digest, and why a newer one is not."""

    loaded_ms: int
    digest: str
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at the files found: what came of reading them, None where they had not changed, and their entries."""

    reading: Reading | None
    entries: frozenset[Path]


class Reloader:
    """Keeps a configuration as its files say. `follow` is to be called again and again."""

    def __init__(
        self, origin: Origin, configuration: Configuration, telemetry: Telemetry, unix_ms: Callable[[], int]
    ) -> None:
        self._origin = origin
        self._configuration = configuration
        self._telemetry = telemetry
        self._unix_ms = unix_ms
        self._stamps: Mapping[Path, Stamp] = configuration().stamps
        self._entries: frozenset[Path] = frozenset()
        self._loaded_ms = unix_ms()
        self._mistakes: tuple[Mistake, ...] = ()  # of the files, while they are wrong
        self._woken = asyncio.Event()
        self._unwatched: str | None = None
        self._thread = ThreadPoolExecutor(1, "reload")  # of its own: a file system that hangs must not stop others
        self._looking: asyncio.Future[_Look] | None = None

    @property
    def status(self) -> ReloadStatus:
        """How the configuration in force stands to its files."""
        refused = "\n".join(_lines(self._mistakes)) or None
        return ReloadStatus(self._loaded_ms, self._configuration().digest, refused)

    def wake(self) -> None:
        """Have the files looked at without waiting for a change."""
        self._woken.set()

    async def follow(self) -> None:
        """Look at the files and load them if they have changed, then wait for a change, for at most POLL_S."""
        async with watching(self._entries, self._woken, self._not_watched):
            woken = self._woken.is_set()
            self._woken.clear()
            entries = await self._reload(told=woken)
            if entries != self._entries:  # other folders are to be watched, and looked at once more
                self._entries = entries
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()

    def close(self) -> None:
        """Let go of the thread."""
        if self._looking is not None:
            self._looking.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _reload(self, *, told: bool) -> frozenset[Path]:
        """Load the files if they have changed, and give their entries; `told` when something said that they have."""
        look = await self._look()
        if look is None:
            self._telemetry.failed("reload", TimeoutError(f"the files were not read within {LOOK_S_MAX:g} s"))
            return self._entries
        if look.reading is not None:
            self._stamps = look.reading.stamps
            self._take(look.reading.outcome)
        elif told and self._mistakes:
            self._refuse(self._mistakes)
        elif told:
            self._telemetry.config_unchanged()
        return look.entries

    async def _look(self) -> _Look | None:
        """Look at the files in the thread; None while it takes too long."""
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(self._thread, _look, self._origin, self._stamps)
        await asyncio.wait({self._looking}, timeout=LOOK_S_MAX)
        if not self._looking.done():
            return None
        look, self._looking = self._looking.result(), None
        return look

    def _take(self, outcome: Snapshot | tuple[Mistake, ...]) -> None:
        if not isinstance(outcome, Snapshot):
            self._refuse(outcome)
            return
        before = self._configuration()
        settings, waiting = kept(before.settings, outcome.settings)
        if outcome.digest == before.digest:
            self._mistakes = ()
            self._telemetry.config_unchanged()
        elif not outcome.sections:
            self._refuse((self._mistake("the file is empty: a running server takes it for one not written yet"),))
        elif settings.shard_count > 1 and outcome.directory.budgets_on(Scope(ScopeKind.GLOBAL)):
            self._refuse((self._mistake("a global budget needs the end of shard_by, which waits for a restart"),))
        else:
            self._configuration.replace(replace(outcome, settings=settings))
            self._mistakes = ()
            self._loaded_ms = self._unix_ms()
            self._telemetry.config_loaded(
                self._loaded_ms, changed=outcome.changed_since(before), waiting=waiting, notices=outcome.notices
            )

    def _refuse(self, mistakes: tuple[Mistake, ...]) -> None:
        self._mistakes = mistakes
        self._telemetry.config_refused(_lines(mistakes))

    def _mistake(self, sentence: str) -> Mistake:
        return Mistake(self._origin.path, 1, sentence)

    def _not_watched(self, reason: str) -> None:
        if reason != self._unwatched:
            self._unwatched = reason
            self._telemetry.config_unwatched(reason, POLL_S)


def _lines(mistakes: Sequence[Mistake]) -> list[str]:
    more = len(mistakes) - MISTAKES_TOLD_MAX
    return [*map(str, mistakes[:MISTAKES_TOLD_MAX]), *([f"and {more} more mistakes"] if more > 0 else [])]


def _look(origin: Origin, stamps: Mapping[Path, Stamp]) -> _Look:
    """Read the files if one of them has changed since `stamps`. It runs in a thread, so nothing is raised here."""
    now = {path: stamp_of(path) for path in stamps}
    reading = None if now == stamps else _read(origin, now)
    files = stamps if reading is None else reading.stamps
    return _Look(reading, entries_of(path for path, stamp in files.items() if stamp != READ_ONCE))


@contextmanager
def _beside_the_loop() -> Iterator[None]:
    """Compute in a thread, and let the event loop have the interpreter whenever it wants it.

    With 10,000 keys it waited up to 280 ms at a time: Python looks at every object for cycles, of which configurations
    have none, and holds everybody up meanwhile.
    """
    interval_s, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(SWITCH_S)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        if collects:
            gc.enable()


def _read(origin: Origin, now: Mapping[Path, Stamp]) -> Reading:
    try:
        with _beside_the_loop():
            return origin.read()
    except Exception as error:  # noqa: BLE001 - a failure of ours must not be tried again ten times a second
        sentence = f"reading it failed ({type(error).__name__}): see what `extauthz check-config` says of it"
        return Reading((Mistake(origin.path, 1, sentence),), now)
