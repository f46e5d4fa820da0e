"""Watching the files of a configuration.

What is watched are directories. Kubernetes replaces all files of a mounted ConfigMap or Secret at once, by renaming the
link `..data` that the files lead through, and the files' own paths tell nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from watchfiles import Change, awatch

# Changes are told once nothing has changed for so long, but never later than the second: editors write in pieces.
QUIET_MS = 100
UNREST_MS_MAX = 1_000

# As many links may lead from one to the next in Linux.
LINKS_MAX = 40


def entries_of(files: Iterable[Path]) -> frozenset[Path]:
    """List the directory entries that decide what files are: themselves, and every link on the way to them."""
    return frozenset(entry for file in files for entry in _entries(file.absolute()))


def _entries(path: Path) -> Iterator[Path]:
    here, steps, links = Path(path.anchor), [*reversed(path.parts[1:])], 0
    while steps:
        step = steps.pop()
        entry = here.parent if step == ".." else here / step
        target = _target(entry)
        if target is not None and links < LINKS_MAX:
            links += 1
            yield entry
            here, steps = Path(target.anchor), [*steps, *reversed(target.parts[1:])]
        else:
            here = entry
    yield here


def _target(entry: Path) -> Path | None:
    """Tell where a link leads; None for what is none, or not there any more."""
    try:
        return entry.parent / entry.readlink()
    except OSError:
        return None


@asynccontextmanager
async def watching(
    entries: frozenset[Path], changed: asyncio.Event, failed: Callable[[str], None]
) -> AsyncIterator[None]:
    """Set the event when one of the entries has changed since the block began; tell why it cannot be seen."""
    task = asyncio.get_running_loop().create_task(_watch(entries, changed, failed))
    await asyncio.sleep(0)  # the task's first step makes the watch, so nothing that happens in the block is missed
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(entries: frozenset[Path], changed: asyncio.Event, failed: Callable[[str], None]) -> None:
    names = {str(entry) for entry in entries}

    def wanted(_: Change, path: str) -> bool:
        return path in names

    folders = {entry.parent for entry in entries if entry.parent.is_dir()}
    if not folders:
        return
    try:
        changes = awatch(*folders, watch_filter=wanted, recursive=False, step=QUIET_MS, debounce=UNREST_MS_MAX)
        async with aclosing(changes):
            async for _ in changes:
                changed.set()
    except FileNotFoundError:  # a folder that has just gone: links lead elsewhere now, and the next look finds where
        pass
    except (OSError, RuntimeError) as error:  # the kernel has no watch left, or the folder may not be read
        failed(str(error))
