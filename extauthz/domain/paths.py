"""How a path can be read: decoded once, with its dot segments followed, and whether that is its only reading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from extauthz.domain.endpoints import segments_of

# Beyond it a path is not looked at: it is inference of an unknown kind.
PATH_CHARS_MAX = 8192

# Visible ASCII and whole escapes; no backslash (a slash to some) and no fragment.
_WRITTEN = re.compile(r"/(?:[!\"$&-\[\]-~]|%[0-9A-Fa-f]{2})*+")
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f-\x9f\\?#%]")


@dataclass(frozen=True, slots=True)
class ReadPath:
    """A path as it can be read.

    `text` is how it was written, without query and one trailing slash. `segments` are decoded, with dot segments
    resolved and parameters removed. `literal` are all that were written, decoded, before any was resolved.
    """

    text: str
    segments: tuple[str, ...]
    literal: tuple[str, ...]

    @property
    def canonical(self) -> bool:
        """Whether it has one reading, apart from escapes."""
        return self.segments == self.literal

    @property
    def folded(self) -> tuple[str, ...]:
        """The segments in lower case."""
        return tuple(segment.casefold() for segment in self.segments)

    def plain(self, count: int) -> bool:
        """Whether the first `count` segments are written without escapes."""
        return tuple(self.text.split("/")[1 : count + 1]) == self.segments[:count]


def read_path(path: str) -> ReadPath | None:
    """Decode a path once; None when it cannot be decoded, or might be decoded once more."""
    text = path.partition("?")[0]
    if len(text) > PATH_CHARS_MAX or not _WRITTEN.fullmatch(text):
        return None
    text = text.removesuffix("/")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
    if _AMBIGUOUS.search(decoded):
        return None
    literal = tuple(decoded.split("/")[1:])
    return ReadPath(text, _resolve(literal), literal)


def _resolve(literal: Iterable[str]) -> tuple[str, ...]:
    """Strip parameters, collapse slashes and follow dot segments."""
    segments: list[str] = []
    for written in literal:
        segment = written.partition(";")[0]
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return tuple(segments)


def is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a path stands below one of some prefixes. One that can be read in several ways never does."""
    if not prefixes:
        return False
    read = read_path(path)
    if read is None or not read.canonical:
        return False
    return any(read.folded[: len(prefix)] == prefix for prefix in (segments_of(text.casefold()) for text in prefixes))
