"""What stands in the image above Debian: the packages of the lock, our own, and the bytecode of everything."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.image import elf
from deploy.image.debian import PYTHON
from deploy.image.tree import File, Folder, Link, Node, Tree, from_folder, to_folder

ROOT = Path(__file__).parents[2]
HOME = "opt/extauthz"
SITE = f"{HOME}/lib/{PYTHON}/site-packages"
COMMAND_SECONDS_MAX = 600.0

# What uv takes of the lock.
EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--extra=tracing", "--extra=litellm", "--no-annotate")

# What no running program reads: tests, types, sources of what is compiled.
_UNREAD = re.compile(r"(.*/)?(tests?|include|__pycache__)/.*|.*\.(pyi|pyx|pxd|pxi|c|cc|h|hash)|bin/.*|\.lock")

# Names the folder that a wheel was installed from, which is another one each time.
_LOCAL = (".dist-info/direct_url.json", ".dist-info/uv_cache.json", ".dist-info/RECORD", ".dist-info/REQUESTED")


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of processor: as OCI, Debian and PyPI call it, and the program that loads programs."""

    architecture: str
    wheels: str
    loader: str
    libraries: str

    def load(self, root: Path) -> tuple[str, ...]:
        """Give the words before a program that is to run with the libraries of an image in a folder."""
        return (str(root / self.loader), "--library-path", str(root / self.libraries))


MACHINES = {
    "x86_64": Machine("amd64", "x86_64-manylinux_2_40", "lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    "aarch64": Machine("arm64", "aarch64-manylinux_2_40", "lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
}


class BuildError(Exception):
    """The image cannot be built."""


def this_machine() -> Machine:
    """Tell what kind of processor this machine has. Raises BuildError."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise BuildError(f"no image is made for {platform.machine()}: the Dockerfile may do")
    return machine


def dependencies(uv: str, machine: Machine, folder: Path) -> Tree:
    """Install what the lock says, each wheel by its hash, and make an environment of it. Raises BuildError."""
    requirements = folder / "requirements.txt"
    requirements.write_bytes(run(uv, *EXPORT, "--no-emit-project"))
    site = folder / "dependencies"
    # No wheel is built here: what it would be made of is in no lock.
    run(
        *(uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--link-mode=copy"),
        *(f"--python-platform={machine.wheels}", f"--python-version={PYTHON.removeprefix('python')}"),
        *("--require-hashes", f"--target={site}", f"--requirement={requirements}"),
    )
    return {
        f"{HOME}/pyvenv.cfg": File(b"home = /usr/bin\ninclude-system-site-packages = false\n"),
        f"{HOME}/bin/python": Link(f"/usr/bin/{PYTHON}"),
        **{path: _lean(node) for path, node in from_folder(site, SITE, _read).items()},
    }


def service(uv: str, folder: Path) -> Tree:
    """Install our own wheel, made of this folder. Raises BuildError."""
    run(uv, "build", "--quiet", "--wheel", f"--out-dir={folder}", str(ROOT))
    (wheel,) = folder.glob("*.whl")
    site = folder / "service"
    run(uv, "pip", "install", "--quiet", "--no-deps", "--link-mode=copy", f"--target={site}", str(wheel))
    command = f"#!/{HOME}/bin/python\nfrom extauthz.cli import main\n\nmain()\n"
    own = {path: node for path, node in from_folder(site, SITE, _read).items() if not path.endswith(_LOCAL)}
    return {
        **own,
        f"{HOME}/bin/extauthz": File(command.encode(), executable=True),
        "etc/extauthz": Folder(),
    }


def add_bytecode(trees: Sequence[Tree], machine: Machine, root: Path) -> None:
    """Write trees to a folder and add the bytecode of every module, for a root that is read-only has none later.

    The image's own Python does it, by its own loader, so that neither root nor a container is needed. Raises BuildError
    too if a library is missing.
    """
    for tree in trees:
        to_folder(tree, root)
    loader = machine.load(root)
    lacking = [line for tree in trees for line in _lacking(tree, root, loader)]
    if lacking:
        raise BuildError("libraries are missing:\n" + "\n".join(lacking))
    run(
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


def run(*command: str, environment: dict[str, str] | None = None) -> bytes:
    """Run a command, and give what it printed. Raises BuildError."""
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


def _lean(node: Node) -> Node:
    return replace(node, blob=elf.without_symbols(node.blob)) if isinstance(node, File) else node


def _read(path: str) -> bool:
    return _UNREAD.fullmatch(path) is None


def _lacking(tree: Tree, root: Path, loader: Sequence[str]) -> Iterator[str]:
    """Give the libraries that a tree's programs and libraries need and the image does not have."""
    for path, node in tree.items():
        if isinstance(node, File) and node.blob.startswith(elf.MAGIC):
            told = subprocess.run(
                [*loader, "--list", str(root / path)],
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_SECONDS_MAX,
            )
            yield from (f"{path}:{line}" for line in (told.stdout + told.stderr).splitlines() if "not found" in line)
