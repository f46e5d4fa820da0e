"""Writes the image without our own code to a folder, so that this code here can be run by the Python that users have.

    python -m deploy.image.root FOLDER

Neither root nor a container is needed to run it, nor that this machine is of the image's release of Debian: `command`
and `environment` have it use its own loader, libraries and packages. Benchmarks do, since one Python is a third faster
than the other, by how it was built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.image.contents import ROOT, SITE, BuildError, add_bytecode, dependencies, service, this_machine
from deploy.image.debian import CERTIFICATES, MIRROR, PYTHON, DebianError, download, system


def write(root: Path, *, uv: str, cache: Path, mirror: str = MIRROR) -> None:
    """Write Python and the packages of the lock to a new folder. Raises BuildError and DebianError."""
    if root.exists() and any(root.iterdir()):
        raise BuildError(f"{root} is not empty")
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="extauthz-root-") as scratch:
        folder = Path(scratch)
        trees = [system(download(cache, mirror)), dependencies(uv, machine, folder)]
        # The code is elsewhere, but asks for its version here.
        trees.append({path: node for path, node in service(uv, folder).items() if ".dist-info/" in path})
        add_bytecode(trees, machine, root.absolute())


def command(root: Path) -> tuple[str, ...]:
    """Give the words that run the Python of such a folder, to be followed by what it shall run."""
    program = str(root.absolute() / "usr/bin" / PYTHON)
    # A name of its own, or Python believes that it is the loader. A child made of `sys.executable` does not start.
    return (*this_machine().load(root.absolute()), "--argv0", program, program)


def environment(root: Path, code: Path) -> dict[str, str]:
    """Give the variables that it needs, to run the code of a folder with the packages of the lock."""
    root = root.absolute()
    return {
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": f"{code.absolute()}:{root / SITE}",
        "PYTHONNOUSERSITE": "1",
        # Bytecode is written, whatever is set here: that of the code as well, as the image has it.
        "PYTHONDONTWRITEBYTECODE": "",
        "SSL_CERT_FILE": str(root / CERTIFICATES),
    }


def main() -> None:
    """Read the options, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write it; not there yet, or empty")
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/image", help="the folder for Debian's packages")
    parser.add_argument("--mirror", default=MIRROR, help="where Debian's packages are")
    given = parser.parse_args()
    try:
        write(given.folder, uv=given.uv, cache=given.cache.absolute(), mirror=given.mirror)
    except (BuildError, DebianError, subprocess.TimeoutExpired) as error:
        sys.exit(f"no root: {error}")


if __name__ == "__main__":
    main()
