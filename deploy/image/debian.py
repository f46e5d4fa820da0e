"""The system below the service: Python and the libraries that it needs, from Debian's packages, and nothing else.

apt fetches them from sources of its own and verifies them by Debian's keys, so this machine's release does not matter.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.image.tree import File, Folder, Link, Tree, from_tar

RELEASE = "trixie"
PYTHON = "python3.13"
# The updates for security stand beside it, below the same name with `-security`.
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

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
    f"lib{PYTHON}-minimal",
    f"lib{PYTHON}-stdlib",
    "libssl3t64",
    "libstdc++6",
    "libuuid1",
    "libzstd1",
    f"{PYTHON}-minimal",
    "zlib1g",
)
COMMAND_SECONDS_MAX = 300.0

CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

_WANTED = re.compile(
    rf"""
    bin | sbin | lib(64)?
    | etc/debian_version | etc/os-release | usr/lib/os-release
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
    .*/(gconv|engines-3)/.*
    | .*/libmvec\.so.* | .*/libpcprofile\.so | .*/libmemusage\.so | .*/libc_malloc_debug\.so.*
    # Of the standard library what no service imports, and what needs a library that is not here.
    | usr/lib/{PYTHON}/(pydoc_data|test)/.*
    | usr/lib/{PYTHON}/lib-dynload/_?(codecs_(cn|hk|iso2022|jp|kr|tw)|curses|curses_panel|dbm|readline|sqlite3
        |test[^.]*|xx[^.]*)\..*
    | usr/lib/{PYTHON}/turtle\.py
    """,
    re.VERBOSE,
)

_SOURCES = f"""\
Types: deb
URIs: {{mirror}}
Suites: {RELEASE} {RELEASE}-updates
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: {{mirror}}-security
Suites: {RELEASE}-security
Components: main
Signed-By: {KEYRING}
"""


class DebianError(Exception):
    """Debian's packages cannot be had, or are of another release."""


@dataclass(frozen=True, slots=True)
class Package:
    """One of Debian's packages: its name, version, and what it says of itself."""

    name: str
    version: str
    control: str
    archive: Path


def download(folder: Path, mirror: str) -> tuple[Package, ...]:
    """Fetch the newest of each package from a mirror into a folder. Raises DebianError."""
    needed = {
        "apt": shutil.which("apt-get"),
        "dpkg": shutil.which("dpkg-deb"),
        "debian-archive-keyring": KEYRING.is_file(),
    }
    if lacking := [package for package, found in needed.items() if not found]:
        raise DebianError(f"the image is built of Debian's packages, for which this machine lacks {', '.join(lacking)}")
    shutil.rmtree(folder / "debs", ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = _options(folder, mirror)
    _run("apt-get", "update", *options, folder=folder)
    _run("apt-get", "download", *PACKAGES, *options, folder=folder / "debs")
    return tuple(_package(archive) for archive in sorted((folder / "debs").glob("*.deb")))


def _options(folder: Path, mirror: str) -> tuple[str, ...]:
    """Let apt know of our sources alone, and of nothing that this machine has installed or prefers."""
    sources, installed = folder / f"{RELEASE}.sources", folder / "status"
    sources.write_text(_SOURCES.format(mirror=mirror.rstrip("/")), encoding="utf-8")
    installed.touch()
    return (
        *("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::State::Status={installed}"),
        *("-o", f"Dir::Cache={folder}/cache"),
        *("-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"),
        *("-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null"),
        # Else apt goes on with the lists of another day where a source does not answer.
        *("-o", "APT::Update::Error-Mode=any"),
        *("-o", "APT::Sandbox::User=", "--quiet=2"),
    )


def system(packages: Sequence[Package]) -> Tree:
    """Make the tree of the system: the packages' files, and what their scripts would have made. Raises DebianError."""
    tree: Tree = {}
    for package in packages:
        tree |= from_tar(_run("dpkg-deb", "--fsys-tarfile", str(package.archive)), _wanted)
        # Where scanners look for the packages of images without a package manager.
        tree[f"var/lib/dpkg/status.d/{package.name}"] = File(package.control.encode())
    release = tree.get("usr/lib/os-release")
    if not isinstance(release, File) or f"VERSION_CODENAME={RELEASE}".encode() not in release.blob.splitlines():
        raise DebianError(f"the packages are not of Debian {RELEASE}, which the image is made of")
    authorities = [
        node.blob.strip()
        for path, node in sorted(tree.items())
        if path.startswith("usr/share/ca-certificates/") and isinstance(node, File)
    ]
    tree = {path: node for path, node in tree.items() if not path.startswith("usr/share/ca-certificates/")}
    return tree | {
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
