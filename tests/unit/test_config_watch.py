"""Watching files: whatever way they are replaced, it is seen, and what others do beside them is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from extauthz.config.watch import UNREST_MS_MAX, entries_of, watching
from tests.support.configmap import ConfigMap
from tests.support.processes import eventually

# So long nothing is told of what is none of a watcher's affair; what is, is told in a tenth of it.
SILENCE_S = UNREST_MS_MAX / 1000


@asynccontextmanager
async def watched(*files: Path) -> AsyncIterator[asyncio.Event]:
    """Watch files inside the block; whoever cannot fails."""
    changed = asyncio.Event()
    async with watching(entries_of(files), changed, pytest.fail):
        yield changed


class TestEntries:
    """`entries_of`."""

    def test_of_a_plain_file(self, tmp_path: Path) -> None:
        """A file is what its own entry says."""
        assert {tmp_path / "config.yaml"} == entries_of([tmp_path / "config.yaml"])

    def test_of_a_mounted_configmap(self, tmp_path: Path) -> None:
        """The link of the file, the link that is swapped, and the file that both lead to."""
        volume = ConfigMap(tmp_path, {"config.yaml": ""})

        assert {
            tmp_path / "config.yaml",
            tmp_path / "..data",
            tmp_path / "..2026_01_01_00_00_00.1" / "config.yaml",
        } == entries_of([volume.path("config.yaml")])

    def test_of_links_to_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path through an absolute link and one that climbs: each link is an entry."""
        (tmp_path / "releases" / "7").mkdir(parents=True)
        (tmp_path / "current").symlink_to(tmp_path / "releases" / "latest")
        (tmp_path / "releases" / "latest").symlink_to("../releases/7")
        monkeypatch.chdir(tmp_path)

        assert {
            tmp_path / "current",
            tmp_path / "releases" / "latest",
            tmp_path / "releases" / "7" / "config.yaml",
        } == entries_of([Path("current/config.yaml")])

    def test_of_links_in_a_circle(self, tmp_path: Path) -> None:
        """Links that lead nowhere end."""
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")

        assert {tmp_path / "a", tmp_path / "b"} == entries_of([tmp_path / "a"])


def write(path: Path) -> None:
    """Write into a file."""
    path.write_text("new", encoding="utf-8")


def replace(path: Path) -> None:
    """Put another file in a file's place, as `mv` and careful editors do."""
    new = path.with_suffix(".tmp")
    new.write_text("new", encoding="utf-8")
    new.rename(path)


@pytest.mark.parametrize("change", [write, replace, Path.unlink], ids=["written", "replaced", "removed"])
async def test_a_change_is_seen(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """A plain file, whatever is done to it."""
    path = tmp_path / "config.yaml"
    path.write_text("old", encoding="utf-8")
    async with watched(path) as changed:
        change(path)

        await eventually(changed.is_set, what="the change is seen")


async def test_a_file_that_comes_is_seen(tmp_path: Path) -> None:
    """A keys file that was not there yet."""
    async with watched(tmp_path / "config.yaml", tmp_path / "keys.yaml") as changed:
        (tmp_path / "keys.yaml").write_text("[]", encoding="utf-8")

        await eventually(changed.is_set, what="the file is seen")


async def test_a_swapped_configmap_is_seen(tmp_path: Path) -> None:
    """The path of the file itself is never touched."""
    volume = ConfigMap(tmp_path, {"config.yaml": "old"})
    async with watched(volume.path("config.yaml")) as changed:
        volume.update({"config.yaml": "new"})

        await eventually(changed.is_set, what="the swap is seen")


async def test_what_happens_beside_is_not_told(tmp_path: Path) -> None:
    """Other files in a busy folder, and reading the file itself, wake nobody."""
    path = tmp_path / "config.yaml"
    path.write_text("old", encoding="utf-8")
    async with watched(path) as changed:
        write(tmp_path / "other.yaml")
        path.read_text(encoding="utf-8")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changed.wait(), SILENCE_S)


async def test_folders_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    """One file's folder may be missing, and the other file is watched all the same."""
    path = tmp_path / "config.yaml"
    async with watched(path, tmp_path / "secrets" / "keys.yaml") as changed:
        write(path)

        await eventually(changed.is_set, what="the change is seen")


async def test_a_watch_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no watch left the reason is told, and nothing fails."""
    reasons: list[str] = []

    def refuse(*_: object, **__: object) -> object:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.main.RustNotify", refuse)
    changed = asyncio.Event()
    async with watching(entries_of([tmp_path / "config.yaml"]), changed, reasons.append):
        await eventually(lambda: reasons, what="the reason is told")

    assert ["OS file watch limit reached"] == reasons
    assert not changed.is_set()


async def test_nothing_is_left_of_a_watch(tmp_path: Path) -> None:
    """A server watches anew again and again: no descriptor may stay open."""

    async def once() -> None:
        async with watched(tmp_path / "config.yaml"):
            pass

    await once()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names
    for _ in range(20):
        await once()

    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, what="every watch is closed")  # noqa: PTH208
