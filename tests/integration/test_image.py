"""The image as it is built without Docker: what is in it, that it is the same each time, and that it runs.

Only when asked for, since it builds the image twice: `make test PYTEST_ARGS="-m image"`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.image import root
from deploy.image.build import CONFIG as RUNS
from deploy.image.contents import SITE, BuildError
from deploy.image.debian import KEYRING
from tests.support.chart import CHART, HELM
from tests.support.gate import CONFIG, KEY, PAID
from tests.support.processes import LOOPBACK, START_SECONDS, Process, free_port
from tests.support.redis import CACHE
from tests.support.rooms import Room, unpacked

ROOT = Path(__file__).parents[2]
BUILD_SECONDS_MAX = 600.0
UNPACKED_BYTES_MAX = 150_000_000
COMMAND_SECONDS_MAX = 60.0
# The time of every file, as that of the commit is for `make image`.
SECONDS = "1790000000"

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(2 * BUILD_SECONDS_MAX),
]

# Imports all of ours but the demo, which is no part of the image, and what an option alone imports.
IMPORTS = """
import importlib, pkgutil, extauthz
names = [found.name for found in pkgutil.walk_packages(extauthz.__path__, "extauthz.") if ".demo" not in found.name]
for name in (*names, "opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"):
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names), "imported")
"""


def build(source: Path, folder: Path, cache: Path) -> Path:
    """Build image and SBOM of a source into a folder, and give the image's archive."""
    words = (sys.executable, "-m", "deploy.image.build", "--uv", ROOT / ".cache/uv/bin/uv")
    done = subprocess.run(
        [*words, "--output", folder, "--cache", cache],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": SECONDS},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS_MAX,
    )
    assert 0 == done.returncode, done.stderr
    sys.stdout.write(done.stdout)
    (archive,) = folder.glob("*.oci.tar")
    return archive


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what the image is made of, so that nobody edits it meanwhile."""
    return copied(ROOT, tmp_path_factory.mktemp("source"))


def copied(source: Path, to: Path) -> Path:
    """Copy the source of an image into a folder, and give that."""
    for name in ("deploy/image", "extauthz"):
        shutil.copytree(source / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "uv.lock"):
        shutil.copy(source / name, to)
    return to


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for Debian's packages, where they can be had."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None or not KEYRING.exists():
        pytest.skip("needs apt-get, dpkg-deb and Debian's keyring: the image is made of Debian's packages")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def archive(source: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the image once."""
    return build(source, tmp_path_factory.mktemp("image"), cache)


@pytest.fixture(scope="module")
def bom(archive: Path) -> Any:  # noqa: ANN401 - JSON
    """Read the SBOM beside the image."""
    (path,) = archive.parent.glob("*.cdx.json")
    return json.loads(path.read_bytes())


@pytest.fixture(scope="module")
def room(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Unpack the image, with a configuration in it."""
    found = unpacked(archive, tmp_path_factory.mktemp("room"))
    config = found.root / "etc/extauthz/config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    config.parent.chmod(0o755)
    return found


@pytest.fixture(scope="module")
def crane() -> Path:
    """Build the program that is registry and client, once for all runs."""
    program = CACHE / "crane/crane"
    if not program.exists():
        subprocess.run([ROOT / "tests/support/get-crane.sh", program], check=True, timeout=BUILD_SECONDS_MAX)
    if not program.exists():
        pytest.skip("needs crane, which needs Go")
    return program


@pytest.fixture(scope="module")
def entered(room: Room) -> Room:
    """Give the image where its programs can be run."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to run programs in a root of their own")
    return room


@pytest_asyncio.fixture
async def served(entered: Room) -> AsyncIterator[int]:
    """Serve in the image as its command says, on ports of this test's, and give Envoy's."""
    grpc = free_port()
    async with entered.process(*RUNS["Entrypoint"], *RUNS["Cmd"], *ports(grpc)) as process:
        await process.wait_for_port(grpc, START_SECONDS)
        yield grpc
        process.terminate()
        assert 0 == await process.wait()


def ports(grpc: int) -> tuple[str, ...]:
    """Give the words for a server that Envoy reaches at a port, and that has ports of its own besides."""
    addresses = {"--grpc": grpc, "--admin": free_port(), "--http": free_port()}
    return tuple(word for option, port in addresses.items() for word in (option, f"{LOOPBACK}:{port}"))


def _place(descriptor: Mapping[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


async def command(*words: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program of this machine, and give what it printed."""
    async with Process(*words, environment=environment) as process:
        code = await process.wait(COMMAND_SECONDS_MAX)
    assert 0 == code, process.output
    return process.output


async def run(room: Room, *command: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in the image, and give what it printed."""
    async with room.process(*command, environment=environment) as process:
        ended = await process.wait(COMMAND_SECONDS_MAX)
    assert code == ended, process.output
    return process.output


def test_the_same_each_time(source: Path, archive: Path, bom: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Built again, of and in other folders and with nothing kept, image and SBOM are the same to the last bit."""
    copy = copied(source, tmp_path_factory.mktemp("copy"))
    again = build(copy, tmp_path_factory.mktemp("again"), tmp_path_factory.mktemp("other"))
    (other,) = again.parent.glob("*.cdx.json")

    assert archive.read_bytes() == again.read_bytes()
    assert bom == json.loads(other.read_bytes())


def test_how_large_it_is(room: Room) -> None:
    """Unpacked it stays below 150 MB."""
    assert 50_000_000 < room.size < UNPACKED_BYTES_MAX


def test_what_is_in_it(room: Room) -> None:
    """There is no shell, no package manager, nothing that runs as its owner, and nothing of tests."""
    paths = [path for path in room.root.rglob("*") if path.is_file() and not path.is_symlink()]
    names = {path.name for path in paths}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in paths}

    assert not names & {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "pip", "uv"}
    assert {0o644, 0o755} == modes
    assert not [path for path in paths if "tests" in path.relative_to(room.root).parts]
    assert (room.root / SITE / "extauthz/envoy/meter/scanner.lua").is_file()


def test_the_dockerfile_makes_the_same(room: Room) -> None:
    """User, environment, entry point, command, ports and labels are those of the Dockerfile."""
    text = (ROOT / "deploy/image/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    last = text.rpartition("\nFROM ")[2]
    said = {word: line for word, line in re.findall(r"^([A-Z]+) (.*)$", last, re.MULTILINE) if word != "ARG"}
    labels = {word.partition("=")[0] for word in shlex.split(said["LABEL"])}

    assert room.config["User"] == said["USER"]
    assert room.config["Env"] == shlex.split(said["ENV"])
    assert room.config["Entrypoint"] == json.loads(said["ENTRYPOINT"])
    assert room.config["Cmd"] == json.loads(said["CMD"])
    assert list(room.config["ExposedPorts"]) == said["EXPOSE"].split()
    assert room.config["StopSignal"] == said["STOPSIGNAL"]
    assert room.config["WorkingDir"] == said["WORKDIR"]
    assert "NONE" == said["HEALTHCHECK"]
    assert room.config["Labels"].keys() <= labels


def test_the_sbom(bom: Any, room: Room) -> None:  # noqa: ANN401 - JSON
    """Every package in the image, Python's and Debian's, is in the SBOM with its version."""
    installed = {
        path.name.removesuffix(".dist-info").replace("_", "-").lower()
        for path in (room.root / SITE).glob("*.dist-info")
    }
    debian = {path.name for path in (room.root / "var/lib/dpkg/status.d").iterdir()}
    named = {
        (part["purl"].partition(":")[2].partition("/")[0], part["name"], part["version"]) for part in bom["components"]
    }

    assert ("CycloneDX", "1.5", "extauthz") == (
        bom["bomFormat"],
        bom["specVersion"],
        bom["metadata"]["component"]["name"],
    )
    assert debian == {name for kind, name, _ in named if kind == "deb"}
    assert installed - {f"extauthz-{bom['metadata']['component']['version']}"} <= {
        f"{name}-{version}" for kind, name, version in named if kind == "pypi"
    }


def test_the_archive_is_an_oci_layout(archive: Path) -> None:
    """Every blob is named by its own hash, and all that a descriptor names is there in its size."""
    with tarfile.open(archive) as packed:
        opened = {name: packed.extractfile(name) for name in packed.getnames()}
        files = {name: blob.read() for name, blob in opened.items() if blob is not None}
    index = json.loads(files["index.json"])
    manifest = json.loads(files[_place(index["manifests"][0])])

    assert {"imageLayoutVersion": "1.0.0"} == json.loads(files["oci-layout"])
    for name, blob in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{sha256(blob).hexdigest()}"
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert descriptor["size"] == len(files[_place(descriptor)])


@pytest.fixture
def layout(archive: Path, tmp_path: Path) -> Path:
    """Unpack the archive into its folder of blobs."""
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "layout", filter="data")
    return tmp_path / "layout"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """Package the chart."""
    if not HELM.exists():
        pytest.skip("no Helm: see tests/support/get-helm.sh")
    words: list[str | Path] = [HELM, "package", CHART, "--destination", tmp_path]
    subprocess.run(words, check=True, timeout=COMMAND_SECONDS_MAX, stdout=subprocess.DEVNULL)
    (found,) = tmp_path.glob("*.tgz")
    return found


async def test_a_registry_takes_image_and_chart(layout: Path, chart: Path, crane: Path) -> None:
    """The image is pushed as it is to a registry, which finds nothing wrong with it; the chart is pushed and read."""
    port = free_port()
    image, charts = f"{LOOPBACK}:{port}/extauthz:1", f"{LOOPBACK}:{port}/charts"
    async with Process(crane, "registry", "serve", "--address", f"{LOOPBACK}:{port}") as registry:
        await registry.wait_for_port(port)
        await command(crane, "push", "--insecure", layout, image)
        digest = await command(crane, "digest", "--insecure", image)
        validated = await command(crane, "validate", "--insecure", "--remote", image)
        await command(HELM, "push", chart, f"oci://{charts}", "--plain-http")
        shown = await command(HELM, "show", "chart", f"oci://{charts}/extauthz", "--plain-http")

    assert json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"] == digest.strip()
    assert "PASS" in validated
    assert "name: extauthz" in shown


async def test_it_is_not_root_and_writes_nowhere(entered: Room) -> None:
    """Programs run as 65532, and the root takes no file."""
    text = "import os; print(os.getuid(), os.getgid()); open('/etc/extauthz/new', 'w')"

    told = await run(entered, "python", "-c", text, code=1)

    assert "65532 65532" in told
    assert "Read-only file system" in told


async def test_every_module_is_there(entered: Room) -> None:
    """All of ours can be imported, tracing included: nothing that was left out is missed."""
    assert "imported" in await run(entered, "python", "-c", IMPORTS)


async def test_code_beside_it_runs_without_root(cache: Path, tmp_path: Path) -> None:
    """The image without our code is written to a folder, where its own Python serves the code of this folder."""
    folder = tmp_path / "root"
    root.write(folder, uv=str(ROOT / ".cache/uv/bin/uv"), cache=cache)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    port = free_port()
    words = (*root.command(folder), "-m", "extauthz")
    variables = root.environment(folder, ROOT)
    asked = ("check", "--target", f"{LOOPBACK}:{port}", "--model", PAID, "--expect", "allow", "--key-env", "KEY")

    async with Process(*words, "serve", "--config", config, *ports(port), environment=variables) as process:
        await process.wait_for_port(port, START_SECONDS)
        async with Process(*words, *asked, environment={**variables, "KEY": KEY}) as check:
            assert 0 == await check.wait(COMMAND_SECONDS_MAX), check.output
    told = await command(*root.command(folder), "-c", IMPORTS, environment=variables)

    assert "imported" in told
    assert not (folder / SITE / "extauthz").exists()
    with pytest.raises(BuildError, match="is not empty"):
        root.write(folder, uv="uv", cache=tmp_path)


async def test_certificates(entered: Room) -> None:
    """TLS to the outside trusts the authorities of Debian."""
    text = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"

    assert 100 < int(await run(entered, "python", "-c", text))


async def test_a_real_check(entered: Room, served: int) -> None:
    """A server of the image answers Checks that a command of the image makes, as `helm test` does."""
    asked = ("extauthz", "check", "--target", f"{LOOPBACK}:{served}", "--model", PAID)

    allowed = await run(entered, *asked, "--expect", "allow", "--key-env", "KEY", environment={"KEY": KEY})
    denied = await run(entered, *asked, "--expect", "deny", "--status", "401")

    assert "money was held, and is released" in allowed
    assert "unauthenticated" in denied
