"""What PyPI gets: the wheel has all that runs and nothing else, and works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from tests.support.gate import CONFIG
from tests.support.processes import Process

ROOT = Path(__file__).parents[2]
UV = ROOT / ".cache/uv/bin/uv"
BUILD_SECONDS_MAX = 300.0
PLAY_SECONDS_MAX = 120.0

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(BUILD_SECONDS_MAX + PLAY_SECONDS_MAX)]


@dataclass(frozen=True, slots=True)
class Built:
    """The two files for PyPI."""

    wheel: Path
    sdist: Path

    def files(self) -> set[str]:
        """Name the files of the wheel."""
        with zipfile.ZipFile(self.wheel) as packed:
            return {name for name in packed.namelist() if not name.endswith("/")}

    def metadata(self) -> bytes:
        """Give the wheel's METADATA."""
        with zipfile.ZipFile(self.wheel) as packed:
            (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
            return packed.read(name)


def uv(*arguments: str | Path, folder: Path = ROOT) -> bytes:
    """Run uv as the Makefile does, and give what it printed."""
    done = subprocess.run([UV, *arguments], cwd=folder, capture_output=True, check=False, timeout=BUILD_SECONDS_MAX)
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build as `make dist` does: the sdist, and the wheel out of it."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its extra `demo` into an empty environment, of the versions that the lock names."""
    folder = tmp_path_factory.mktemp("installed")
    lock = folder / "constraints.txt"
    lock.write_bytes(
        uv("export", "--quiet", "--frozen", "--no-dev", "--extra=demo", "--no-hashes", "--no-emit-project")
    )
    uv("venv", "--quiet", "--no-config", "--python", sys.executable, folder / "venv", folder=folder)
    into = ("--python", folder / "venv/bin/python", "--constraint", lock)
    uv("pip", "install", "--quiet", "--no-config", *into, f"{built.wheel}[demo]", folder=folder)
    return folder / "venv/bin"


async def run(
    bin_: Path, *arguments: str | Path, seconds: float = 60.0, environment: Mapping[str, str] | None = None
) -> str:
    """Run the installed command in a folder that knows nothing of the checkout, and give what it printed."""
    words = ("env", "-C", bin_.parent, "-u", "PYTHONPATH", "-u", "EXTAUTHZ_DEMO_ENVOY", bin_ / "extauthz", *arguments)
    async with Process(*words) as process:
        code = await process.wait(seconds)
    assert 0 == code, process.output
    return process.output


def test_the_wheel_has_what_runs(built: Built) -> None:
    """Every file of the package is in the wheel, whatever its kind, and nothing of tests, docs or deployment."""
    paths = (path.relative_to(ROOT) for path in (ROOT / "extauthz").rglob("*") if path.is_file())
    ours = {path.as_posix() for path in paths if "__pycache__" not in path.parts}
    package = {name for name in built.files() if ".dist-info/" not in name}

    assert ours == package
    assert {"extauthz/py.typed", "extauthz/envoy/meter/scanner.lua", "extauthz/adapters/status.html"} <= package
    assert {".py", ".pyi", ".lua", ".html", ".yaml", ".typed"} == {Path(name).suffix for name in package}


def test_the_metadata(built: Built) -> None:
    """PyPI's own rules for metadata hold, and the licence and the extras are in there."""
    metadata = Metadata.from_email(built.metadata(), validate=True)

    assert ("extauthz", "Apache-2.0") == (metadata.name, metadata.license_expression)
    assert ["demo", "litellm", "tracing"] == sorted(metadata.provides_extra or [])
    assert metadata.requires_python is not None
    assert "3.11" in metadata.requires_python
    assert "text/markdown" == metadata.description_content_type
    assert (metadata.description or "").startswith("# extauthz")
    assert {name for name in built.files() if name.endswith("/licenses/LICENSE")}


def test_the_sdist(built: Built) -> None:
    """The source distribution has the tests, the protos and the lock; the wheel was built out of it."""
    with tarfile.open(built.sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}

    assert {"pyproject.toml", "uv.lock", "LICENSE", "README.md", "tests/integration/test_wheel.py"} <= names
    assert any(name.startswith("protos/extauthz/") for name in names)


async def test_help_and_version(installed: Path) -> None:
    """The command is there and knows its version."""
    assert "Gate LLM traffic by budgets" in await run(installed, "--help")
    assert "extauthz, version " in await run(installed, "--version")


async def test_check_config(installed: Path, tmp_path: Path) -> None:
    """A configuration is read, prices and all."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")

    assert "fine, 2 models" in await run(installed, "check-config", config)


async def test_the_demo(installed: Path) -> None:
    """`pip install 'extauthz[demo]'` and `extauthz demo` play the whole story, with the Envoy that came along."""
    assert "All 30 lines as expected" in await run(installed, "demo", seconds=PLAY_SECONDS_MAX)
