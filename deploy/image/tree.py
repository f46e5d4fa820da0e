"""Files that become layers of an image: kept in memory, written in one order, at one time, by one owner."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PLAIN, EXECUTABLE = 0o644, 0o755


@dataclass(frozen=True, slots=True)
class File:
    """A file's bytes."""

    blob: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """An empty folder; those of files need no mention."""

    mode: int = EXECUTABLE


Node = File | Link | Folder
# By path, without a slash at its beginning.
Tree = dict[str, Node]


def from_tar(archive: bytes, wanted: Callable[[str], bool]) -> Tree:
    """Take the wanted files and links out of a tar archive. Raises ValueError for a hard link to one that is not."""
    tree: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        for member in packed:
            path = member.name.removeprefix("./")
            if not wanted(path):
                continue
            if member.issym():
                tree[path] = Link(member.linkname)
            elif member.islnk():
                tree[path] = tree[member.linkname.removeprefix("./")]
            elif (opened := packed.extractfile(member)) is not None:
                tree[path] = File(opened.read(), executable=bool(member.mode & 0o100))
    return tree


def from_folder(folder: Path, below: str, wanted: Callable[[str], bool]) -> Tree:
    """Take the wanted files of a folder, to stand `below` a path of the image."""
    tree: Tree = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and wanted(name):
            tree[f"{below}/{name}"] = File(path.read_bytes(), executable=bool(path.stat().st_mode & 0o100))
    return tree


def to_folder(tree: Tree, folder: Path) -> None:
    """Write a tree into a folder; links to absolute paths are made to stay inside."""
    for path, node in tree.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        match node:
            case File(blob, executable):
                place.write_bytes(blob)
                place.chmod(EXECUTABLE if executable else PLAIN)
            case Link(target):
                inside = "../" * path.count("/") + target.lstrip("/") if target.startswith("/") else target
                place.symlink_to(inside)
            case Folder(mode):
                place.mkdir(exist_ok=True)
                place.chmod(mode)


def to_tar(tree: Tree, seconds: int) -> bytes:
    """Write a tree as a tar archive, of root's, every file of one time."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, node in _with_folders(tree):
            member = tarfile.TarInfo(path)
            member.mtime = seconds
            match node:
                case File(blob, executable):
                    member.mode, member.size = EXECUTABLE if executable else PLAIN, len(blob)
                    archive.addfile(member, io.BytesIO(blob))
                case Link(target):
                    member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, target
                    archive.addfile(member)
                case Folder(mode):
                    member.type, member.mode = tarfile.DIRTYPE, mode
                    archive.addfile(member)
    return written.getvalue()


def size_of(tree: Mapping[str, Node]) -> int:
    """Tell how many bytes the files of a tree have."""
    return sum(len(node.blob) for node in tree.values() if isinstance(node, File))


def _with_folders(tree: Tree) -> Iterator[tuple[str, Node]]:
    folders = {str(parent) for path in tree for parent in PurePosixPath(path).parents} - {"."}
    whole: Tree = {**dict.fromkeys(folders, Folder()), **tree}
    yield from sorted(whole.items())
