"""Builds the image of the Dockerfile beside this file without Docker and without root, bit for bit the same each time.

    python -m deploy.image.build --output dist

Same commit, same packages in Debian: same digest. What is different from one day to the next are Debian's updates, so
the versions are in the image (var/lib/dpkg/status.d) and in the SBOM beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from deploy.image.contents import (
    COMMAND_SECONDS_MAX,
    EXPORT,
    HOME,
    ROOT,
    BuildError,
    add_bytecode,
    dependencies,
    run,
    service,
    this_machine,
)
from deploy.image.debian import CERTIFICATES, MIRROR, DebianError, download, system
from deploy.image.oci import Image, Layer, write_archive
from deploy.image.sbom import whole_sbom
from deploy.image.tree import size_of, to_tar

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
    mirror: str = MIRROR


def build(options: Options) -> str:
    """Build image and SBOM into the output folder, and give the image's digest. Raises BuildError and DebianError."""
    machine = this_machine()
    packages = download(options.cache, options.mirror)
    with tempfile.TemporaryDirectory(prefix="extauthz-image-") as scratch:
        folder = Path(scratch)
        trees = {
            "Debian: Python and what it needs": system(packages),
            "the packages of uv.lock": dependencies(options.uv, machine, folder),
            "extauthz": service(options.uv, folder),
        }
        add_bytecode(list(trees.values()), machine, folder / "root")
    options.output.mkdir(parents=True, exist_ok=True)
    exported = run(options.uv, *EXPORT, "--format=cyclonedx1.5")
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


def _beside(options: Options, ending: str) -> Path:
    return options.output / f"extauthz-{options.version}.{ending}"


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
    parser.add_argument("--mirror", default=MIRROR, help="where Debian's packages are")
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
        mirror=given.mirror,
    )
    try:
        build(options)
    except (BuildError, DebianError, subprocess.TimeoutExpired) as error:
        sys.exit(f"no image: {error}")


if __name__ == "__main__":
    main()
