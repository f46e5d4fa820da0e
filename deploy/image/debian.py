"""The system below the service: Python and the libraries that it needs, from Debian's packages, and nothing else.

apt verifies what it downloads, by the keys and from the sources of this machine, which has to be of the same release.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.image.tree import File, Folder, Link, Tree, from_tar

RELEASE = "bookworm"
PYTHON = "python3.11"

# No shell, no package manager. What a package needs is named here too: the build fails where a library is missing.
PACKAGES = (
    "base-files",
    "ca-certificates",
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "python3.11-minimal",
    "zlib1g",
)
COMMAND_SECONDS_MAX = 300.0

CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

_WANTED = re.compile(
    rf"""
    etc/debian_version | etc/os-release | usr/lib/os-release
    | etc/{PYTHON}/.*
    | usr/bin/{PYTHON}
    | usr/lib/{PYTHON}/.*
    | usr/lib(64)?/([^/]+-linux-gnu/)?([^/]+/)?[^/]+\.so(\.[^/]*)?
    | usr/share/ca-certificates/.*
    | usr/share/doc/[^/]+/copyright
    """,
    re.VERBOSE,
)
_UNWANTED = re.compile(
    rf"""
    .*/(gconv|audit|engines-3)/.*
    | .*/libmvec\.so.* | .*/libpcprofile\.so | .*/libmemusage\.so | .*/libSegFault\.so | .*/libc_malloc_debug\.so.*
    # Of the standard library what no service imports, and what needs a library that is not here.
    | usr/lib/{PYTHON}/(config-[^/]*|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo|unittest/test)/.*
    | usr/lib/{PYTHON}/lib-dynload/_?(codecs_(cn|hk|iso2022|jp|kr|tw)|crypt|curses|curses_panel|dbm|nis|readline
        |sqlite3|test[^.]*|xx[^.]*)\..*
    | usr/lib/{PYTHON}/turtle\.py
    """,
    re.VERBOSE,
)


class DebianError(Exception):
    """Debian's packages cannot be had, or are of another release."""


@dataclass(frozen=True, slots=True)
class Package:
    """One of Debian's packages: its name, version, and what it says of itself."""

    name: str
    version: str
    control: str
    archive: Path


def download(folder: Path) -> tuple[Package, ...]:
    """Fetch the newest of each package into a folder. Raises DebianError."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DebianError(f"no {program}: the image is built of Debian's packages")
    shutil.rmtree(folder / "debs", ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lists = (
        *("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"),
        *("-o", "APT::Sandbox::User=", "--quiet=2"),
    )
    _run("apt-get", *lists, "update", folder=folder)
    _run("apt-get", *lists, "download", *PACKAGES, folder=folder / "debs")
    return tuple(_package(archive) for archive in sorted((folder / "debs").glob("*.deb")))


def system(packages: Sequence[Package]) -> Tree:
    """Make the tree of the system: the packages' files, and what their scripts would have made. Raises DebianError."""
    tree: Tree = {}
    for package in packages:
        tree |= from_tar(_run("dpkg-deb", "--fsys-tarfile", str(package.archive)), _wanted)
        # Where scanners look for the packages of images without a package manager.
        tree[f"var/lib/dpkg/status.d/{package.name}"] = File(package.control.encode())
    release = tree.get("usr/lib/os-release")
    if not isinstance(release, File) or f"VERSION_CODENAME={RELEASE}".encode() not in release.blob.splitlines():
        raise DebianError(f"this machine's packages are not of Debian {RELEASE}, which the image is made of")
    authorities = [
        node.blob.strip()
        for path, node in sorted(tree.items())
        if path.startswith("usr/share/ca-certificates/") and isinstance(node, File)
    ]
    tree = {path: node for path, node in tree.items() if not path.startswith("usr/share/ca-certificates/")}
    return tree | {
        **{name: Link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")},
        "usr/sbin": Folder(),
        "usr/bin/python3": Link(PYTHON),
        CERTIFICATES: File(b"\n".join(authorities) + b"\n"),
        "etc/passwd": File(b"root:x:0:0:root:/:/sbin/nologin\nextauthz:x:65532:65532:extauthz:/:/sbin/nologin\n"),
        "etc/group": File(b"root:x:0:\nextauthz:x:65532:\n"),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        "tmp": Folder(0o1777),
        **{name: Folder() for name in ("dev", "proc", "run", "sys")},
    }


def _wanted(path: str) -> bool:
    return _WANTED.fullmatch(path) is not None and _UNWANTED.fullmatch(path) is None


def _package(archive: Path) -> Package:
    control = _run("dpkg-deb", "--field", str(archive)).decode()
    name, version = (
        _run("dpkg-deb", "--field", str(archive), field).decode().strip() for field in ("Package", "Version")
    )
    return Package(name, version, control, archive)


def _run(*command: str, folder: Path | None = None) -> bytes:
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=COMMAND_SECONDS_MAX)
    if done.returncode:
        raise DebianError(f"{' '.join(command[:2])} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
