"""The image's files as a root of their own, which is read-only, and where programs run as nobody in particular."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import Process

# What a container's runtime mounts, and the chart: devices, processes, and the one place to write to.
_ENTER = """
root=$1; shift
mount --bind "$root" "$root" && mount -t tmpfs none "$root/dev" && mount -t tmpfs none "$root/tmp" || exit 1
for device in null random urandom; do
  touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device" || exit 1
done
mount -t proc proc "$root/proc" && mount -o remount,ro,bind "$root" || exit 1
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Room:
    """An image that is unpacked: its root, its configuration, and how many bytes its files have."""

    root: Path
    config: Mapping[str, Any]
    size: int

    def process(self, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Make the process of a command, found in the image and run by the image's user."""
        user = self.config["User"]
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
        # As a runtime does it: a mount namespace of its own, the image's environment and nothing of this one's.
        return Process(
            *("unshare", "--mount", "sh", "-c", _ENTER, "sh", self.root),
            *("env", "-i", *variables, "/usr/sbin/chroot", f"--userspec={user}", self.root, *command),
        )


def unpacked(archive: Path, folder: Path) -> Room:
    """Unpack an OCI archive, layer upon layer."""
    layout, root = folder / "layout", folder / "root"
    with tarfile.open(archive) as packed:
        packed.extractall(layout, filter="data")
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]).read_bytes())
    config = json.loads(_blob(layout, manifest["config"]).read_bytes())
    size = 0
    for layer in manifest["layers"]:
        with tarfile.open(_blob(layout, layer)) as packed:
            size += sum(member.size for member in packed)
            packed.extractall(root, filter="tar")
    return Room(root, config["config"], size)


def _blob(layout: Path, descriptor: Mapping[str, str]) -> Path:
    return layout / "blobs" / descriptor["digest"].replace(":", "/")
