"""What a configuration is read from: files and environment variables, and how they were when they were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from extauthz.config.source import FILE_BYTES_MAX, Mistakes

# How a file is told to have changed: by its content, or by why there is none. A pipe can be read only once.
Stamp = str

UNREADABLE: Stamp = "unreadable"
READ_ONCE: Stamp = "read once"


def stamp_of(path: Path) -> Stamp:
    """Tell how a file is now."""
    try:
        return READ_ONCE if path.exists() and not path.is_file() else _hashed(_raw(path))
    except OSError:
        return UNREADABLE


class Sources:
    """Reads for one configuration, and remembers what it read. `stamps` has every file, in the order of reading."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = _Environment(environ)
        self.stamps: dict[Path, Stamp] = {}
        self._contents: list[str] = []

    def text(self, path: Path, mistakes: Mistakes) -> str:
        """Read a file; what is wrong with it is noted, and nothing is read."""
        try:
            raw = _raw(path)
        except OSError as error:
            self.stamps[path] = stamp_of(path)
            mistakes.add(1, f"the file cannot be read: {error.strerror}; check the path and its permissions")
            return ""
        self.stamps[path] = _hashed(raw) if path.is_file() else READ_ONCE
        self._contents.append(_hashed(raw))
        if len(raw) > FILE_BYTES_MAX:
            mistakes.add(1, f"the file is larger than {FILE_BYTES_MAX} bytes: split off what is not needed")
            return ""
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            mistakes.add(raw.count(b"\n", 0, error.start) + 1, "this is not UTF-8: save the file as UTF-8")
            return ""

    @property
    def digest(self) -> str:
        """SHA-256 of all that was read, in hex: the same wherever the same was read."""
        return _hashed(repr((self._contents, sorted(self.environ.asked.items()))).encode())

    def changed(self) -> bool:
        """Tell whether a file is no longer what was read of it."""
        return any(stamp_of(path) != stamp for path, stamp in self.stamps.items())


class _Environment(Mapping[str, str]):
    """The environment, and the variables that were `asked` for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.asked: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        value = self._environ[name]
        self.asked[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def _raw(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


def _hashed(raw: bytes) -> str:
    return sha256(raw).hexdigest()
