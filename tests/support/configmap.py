"""A mounted ConfigMap or Secret, replaced as the kubelet does it.

The files are links into `..data`, which is a link to a folder with a time in its name. An update makes another such
folder, and renames a new link over `..data`: all files change at once, and none of their own paths is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class ConfigMap:
    """A volume in `folder`, with files by their names."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._updates = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.update(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def path(self, name: str) -> Path:
        """Give the path that a container is told."""
        return self._folder / name

    def update(self, files: Mapping[str, str]) -> None:
        """Replace all files at once."""
        data, link = self._folder / "..data", self._folder / "..data_tmp"
        old = data.resolve() if self._updates else None
        self._updates += 1
        new = self._folder / f"..2026_01_01_00_00_00.{self._updates}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        link.symlink_to(new.name)
        link.rename(data)
        if old is not None:
            shutil.rmtree(old)
