"""The Python that all of Python is measured by, ours and the peers': that of the image, for it is what users run.

How a Python was built makes a third of its speed, and this machine's may have been built in any way. Where the image's
cannot be had, everything runs by the one that runs this, and the results say so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.rig import CACHE
from deploy.image.root import command, environment

CODE = Path(__file__).parents[1]
IMAGE = CACHE / "bench/image"
# LiteLLM's packages, for the image's Python.
LITELLM = CACHE / "bench/litellm"
VERSION_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Python:
    """The words that run a Python, to be followed by what it shall run, and the variables that it needs."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def python(code: Path = CODE) -> Python:
    """Give what runs our code, this or that of another folder."""
    # Safe, so that the folder that is worked in does not go before the code.
    if not _is_there(IMAGE):
        return Python((sys.executable,), {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(code)})
    return Python(command(IMAGE), {"PYTHONSAFEPATH": "1", **environment(IMAGE, code)})


def litellm_python() -> Python | None:
    """Give what runs LiteLLM by the same Python; None where it runs in an environment of its own."""
    return python(LITELLM) if _is_there(IMAGE) and _is_there(LITELLM) else None


def described() -> str:
    """Name that Python."""
    found = python()
    told = subprocess.run(
        [*found.command, "-c", "import platform; print(platform.python_version())"],
        env=dict(found.environment),
        capture_output=True,
        check=True,
        text=True,
        timeout=VERSION_SECONDS_MAX,
    )
    return f"{told.stdout.strip()}, {'the image' if _is_there(IMAGE) else 'this environment'}'s"


def _is_there(folder: Path) -> bool:
    return (folder / ".installed").exists()
