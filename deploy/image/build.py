"""Builds the image of the Dockerfile beside this file without Docker and without root, bit for bit the same each time.

    python -m deploy.image.build --output dist

Same commit, same packages in Debian: same digest. What is different from one day to the next are Debian's updates, so
the versions are in the image (var/lib/dpkg/status.d) and in the SBOM beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.image import elf
from deploy.image.debian import CERTIFICATES, PYTHON, DebianError, download, system
from deploy.image.oci import Image, Layer, write_archive
from deploy.image.sbom import whole_sbom
from deploy.image.tree import File, Folder, Link, Node, Tree, from_folder, size_of, to_folder, to_tar

ROOT = Path(__file__).parents[2]
HOME = "opt/extauthz"
SITE = f"{HOME}/lib/{PYTHON}/site-packages"
COMMAND_SECONDS_MAX = 600.0
MIB = 1024 * 1024

CONFIG = {
    "User": "65532:65532",
    "Env": [
        f"PATH=/{HOME}/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG=C.UTF-8",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
        f"SSL_CERT_FILE=/{CERTIFICATES}",
    ],
    "Entrypoint": ["extauthz"],
    "Cmd": ["serve", "--config", "/etc/extauthz/config.yaml"],
    "WorkingDir": "/",
    "ExposedPorts": {"9191/tcp": {}, "9192/tcp": {}, "9193/tcp": {}},
    "StopSignal": "SIGTERM",
}

# What no running program reads: tests, types, sources of what is compiled.
_UNREAD = re.compile(r"(.*/)?(tests?|include|__pycache__)/.*|.*\.(pyi|pyx|pxd|pxi|c|cc|h|hash)|bin/.*|\.lock")


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of processor: as OCI, Debian and PyPI call it, and the program that loads programs."""

    architecture: str
    wheels: str
    loader: str
    libraries: str


MACHINES = {
    "x86_64": Machine("amd64", "x86_64-manylinux_2_36", "lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    "aarch64": Machine("arm64", "aarch64-manylinux_2_36", "lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
}


class BuildError(Exception):
    """The image cannot be built."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where the image goes, what it is called, and what it says of its origin."""

    output: Path
    reference: str
    revision: str
    source: str
    uv: str
    cache: Path
    seconds: int
    version: str


def build(options: Options) -> str:
    """Build image and SBOM into the output folder, and give the image's digest. Raises BuildError and DebianError."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise BuildError(f"no image is made for {platform.machine()}: the Dockerfile may do")
    packages = download(options.cache)
    with tempfile.TemporaryDirectory(prefix="extauthz-image-") as scratch:
        folder = Path(scratch)
        trees = {
            "Debian: Python and what it needs": system(packages),
            "the packages of uv.lock": _dependencies(options, machine, folder),
            "extauthz": _service(options, folder),
        }
        _compile(list(trees.values()), machine, folder / "root")
    options.output.mkdir(parents=True, exist_ok=True)
    exported = _run(options.uv, *_EXPORT, "--format=cyclonedx1.5")
    bom = whole_sbom(
        exported, packages, version=options.version, architecture=machine.architecture, seconds=options.seconds
    )
    _beside(options, "cdx.json").write_bytes(bom)
    layers = [Layer(to_tar(tree, options.seconds), about) for about, tree in trees.items()]
    image = Image(machine.architecture, layers, CONFIG, labels(options), options.seconds)
    digest = write_archive(image, _beside(options, "oci.tar"), options.reference)
    for about, tree in trees.items():
        print(f"{size_of(tree) / MIB:6.1f} MiB  {about}")
    print(f"{sum(map(size_of, trees.values())) / MIB:6.1f} MiB  unpacked")
    print(f"{_beside(options, 'oci.tar')} {digest}")
    return digest


def labels(options: Options) -> dict[str, str]:
    """Tell what the image says of itself; what is not known is left out."""
    said = {
        "title": "extauthz",
        "description": "A budget gate for LLM traffic: an Envoy ext_authz service",
        "licenses": "Apache-2.0",
        "version": options.version,
        "revision": options.revision,
        "source": options.source,
    }
    return {f"org.opencontainers.image.{name}": value for name, value in said.items() if value}


_EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--extra=tracing", "--extra=litellm", "--no-annotate")


def _dependencies(options: Options, machine: Machine, folder: Path) -> Tree:
    """Install what the lock says, each wheel by its hash, and make an environment of it."""
    requirements = folder / "requirements.txt"
    requirements.write_bytes(_run(options.uv, *_EXPORT, "--no-emit-project"))
    site = folder / "dependencies"
    # No wheel is built here: what it would be made of is in no lock.
    _run(
        *(options.uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--link-mode=copy"),
        *(f"--python-platform={machine.wheels}", f"--python-version={PYTHON.removeprefix('python')}"),
        *("--require-hashes", f"--target={site}", f"--requirement={requirements}"),
    )
    return {
        f"{HOME}/pyvenv.cfg": File(b"home = /usr/bin\ninclude-system-site-packages = false\n"),
        f"{HOME}/bin/python": Link(f"/usr/bin/{PYTHON}"),
        **{path: _lean(node) for path, node in from_folder(site, SITE, _read).items()},
    }


def _lean(node: Node) -> Node:
    return replace(node, blob=elf.without_symbols(node.blob)) if isinstance(node, File) else node


def _service(options: Options, folder: Path) -> Tree:
    """Install our own wheel, made of this folder."""
    _run(options.uv, "build", "--quiet", "--wheel", f"--out-dir={folder}", str(ROOT))
    (wheel,) = folder.glob("*.whl")
    site = folder / "service"
    _run(options.uv, "pip", "install", "--quiet", "--no-deps", "--link-mode=copy", f"--target={site}", str(wheel))
    command = f"#!/{HOME}/bin/python\nfrom extauthz.cli import main\n\nmain()\n"
    own = {path: node for path, node in from_folder(site, SITE, _read).items() if not path.endswith(_LOCAL)}
    return {
        **own,
        f"{HOME}/bin/extauthz": File(command.encode(), executable=True),
        "etc/extauthz": Folder(),
    }


# Names the folder that a wheel was installed from, which is another one each time.
_LOCAL = (".dist-info/direct_url.json", ".dist-info/uv_cache.json", ".dist-info/RECORD", ".dist-info/REQUESTED")


def _read(path: str) -> bool:
    return _UNREAD.fullmatch(path) is None


def _compile(trees: Sequence[Tree], machine: Machine, root: Path) -> None:
    """Add the bytecode of every module, for a root that is read-only has none later, and look for missing libraries.

    The image's own Python does it, by its own loader, so that neither root nor a container is needed.
    """
    for tree in trees:
        to_folder(tree, root)
    loader = (str(root / machine.loader), "--library-path", str(root / machine.libraries))
    lacking = [line for tree in trees for line in _lacking(tree, root, loader)]
    if lacking:
        raise BuildError("libraries are missing:\n" + "\n".join(lacking))
    _run(
        *(*loader, str(root / "usr/bin" / PYTHON), "-S", "-s", "-m", "compileall", "-q", "-j1"),
        # The same bytes each time: no times in them.
        *("--invalidation-mode=unchecked-hash", f"-s{root}", "-p/", str(root / "usr/lib" / PYTHON), str(root / SITE)),
        environment={"PYTHONHOME": str(root / "usr")},
    )
    for tree in trees:
        for path in [path for path in tree if path.endswith(".py")]:
            folder, _, name = path.rpartition("/")
            compiled = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-{PYTHON[6:].replace('.', '')}.pyc"
            if (root / compiled).exists():  # a package's templates need not be Python
                tree[compiled] = File((root / compiled).read_bytes())


def _lacking(tree: Tree, root: Path, loader: Sequence[str]) -> Iterator[str]:
    """Give the libraries that a tree's programs and libraries need and the image does not have."""
    for path, node in tree.items():
        if isinstance(node, File) and node.blob.startswith(elf.MAGIC) and not path.startswith("usr/lib64/ld-"):
            told = subprocess.run(
                [*loader, "--list", str(root / path)],
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_SECONDS_MAX,
            )
            yield from (f"{path}:{line}" for line in (told.stdout + told.stderr).splitlines() if "not found" in line)


def _beside(options: Options, ending: str) -> Path:
    return options.output / f"extauthz-{options.version}.{ending}"


def _run(*command: str, environment: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
        timeout=COMMAND_SECONDS_MAX,
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])} failed:\n{(done.stdout + done.stderr).decode(errors='replace')}")
    return done.stdout


def _committed(form: str) -> str:
    """Tell something of the commit that is checked out; nothing outside of a repository."""
    git = ("git", "log", "-1", f"--format={form}")
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX)
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> None:
    """Read the options, and build."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder for image and SBOM")
    parser.add_argument("--reference", default=f"localhost/extauthz:{version}", help="what the image is called")
    parser.add_argument("--source", default="", help="where the source is, for the label")
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/image", help="the folder for Debian's packages")
    given = parser.parse_args()
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or _committed("%ct") or "0"
    options = Options(
        output=given.output,
        reference=given.reference,
        revision=_committed("%H"),
        source=given.source,
        uv=given.uv,
        cache=given.cache.absolute(),
        seconds=int(seconds),
        version=version,
    )
    try:
        build(options)
    except (BuildError, DebianError, subprocess.TimeoutExpired) as error:
        sys.exit(f"no image: {error}")


if __name__ == "__main__":
    main()
