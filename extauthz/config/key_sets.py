"""Issuers' keys in files: read with the configuration, and again when they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from extauthz.config.source import Items, Mistakes, Node, Scalar, child
from extauthz.config.sources import Sources
from extauthz.errors import Mistake
from extauthz.tokens.keys import KeySet, read_key_set


@dataclass(frozen=True, slots=True)
class KeySets:
    """The keys by place in `jwt`, as far as they can be read, what is wrong with their files, and a hash of them."""

    by_place: Mapping[int, KeySet] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    digest: bytes = b""


def read_key_sets(config: Path, own: Node, sources: Sources) -> KeySets:
    """Read the files that issuers of the section `own` name as `jwks_file`; a relative path begins at the config's."""
    found: dict[int, KeySet] = {}
    mistakes: list[Mistake] = []
    digest = sha256()
    issuers = child(own, "jwt")
    for place, entry in enumerate(issuers.items if isinstance(issuers, Items) else ()):
        named = child(entry, "jwks_file")
        if not isinstance(named, Scalar) or not isinstance(named.value, str) or named.missing:
            continue
        path = config.parent / named.value
        noted = Mistakes(path)
        text = sources.text(path, noted)
        digest.update(text.encode())
        if not noted:
            try:
                keys = read_key_set(text.encode())
            except ValueError as error:
                noted.add(1, str(error))
            else:
                found[place] = keys
        mistakes += noted.all()
    return KeySets(found, tuple(mistakes), digest.digest() if found else b"")
