"""A configuration in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extauthz.config.model import Settings
from extauthz.config.sources import Stamp
from extauthz.domain.directory import Directory
from extauthz.domain.identity import Identities
from extauthz.pricing.catalog import Catalog
from extauthz.tokens.keys import KeySet

SHORT_DIGITS = 12

# A hash of what each section of the files says, by its name.
Sections = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Snapshot:
    """All that a request is judged by. A request reads it once; a reload replaces it whole.

    `identities` are whom it believes besides keys, `key_sets` the keys of issuers that stand in files, by issuer.
    `notices` are lines for the log about what the file says in vain, or leaves open. `digest` is the SHA-256 of all
    that it was read from: its files, which are what they were as long as they have the same `stamps`, and the
    environment.
    """

    settings: Settings
    catalog: Catalog
    directory: Directory
    identities: Identities = field(default_factory=Identities)
    key_sets: Mapping[str, KeySet] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    digest: str = ""
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)
    sections: Sections = field(default_factory=dict, repr=False)

    @property
    def short_digest(self) -> str:
        """Enough of the digest to tell this configuration from others."""
        return self.digest[:SHORT_DIGITS]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it was read from."""
        return tuple(self.stamps)

    def changed_since(self, other: Snapshot) -> tuple[str, ...]:
        """Name the sections in which the files differ from those of another snapshot."""
        names = dict.fromkeys((*self.sections, *other.sections))
        return tuple(name for name in names if self.sections.get(name) != other.sections.get(name))


class Configuration:
    """The snapshot in force. Whoever decides about a request asks once and keeps what it got."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._prepare: Callable[[Snapshot], Snapshot] = lambda prepared: prepared

    def __call__(self) -> Snapshot:
        """Give the snapshot in force."""
        return self._snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """Put another one in force, whole, for every request that begins from now on."""
        self._snapshot = self._prepare(snapshot)

    def prepare_with(self, prepare: Callable[[Snapshot], Snapshot]) -> None:
        """Have the one in force, and each that follows, completed by what is known besides the files."""
        self._prepare = prepare
        self._snapshot = prepare(self._snapshot)
