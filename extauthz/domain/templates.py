"""Texts with named holes: what stands in them is read out of one text and put into another.

`system:serviceaccount:{namespace}:{name}` reads two names out of a subject, and `{namespace}-{name}` puts them
together again. A hole ends where the text behind it begins, and never has `/` or `:` in it, so that a text can be read
in one way only, whatever somebody chose for a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Holes end here in any case: these divide SPIFFE ids and the subjects of Kubernetes.
_DIVIDERS = frozenset("/:")

_HOLE = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Template:
    """A text in which `holes` stand between `texts`, of which there is one more."""

    texts: tuple[str, ...]
    holes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, written: str) -> Template:
        """Read a template. Raises ValueError when it is none, or when it could be matched in several ways."""
        texts, holes = _HOLE.split(written)[::2], _HOLE.split(written)[1::2]
        if any(brace in text for brace in "{}" for text in texts):
            raise ValueError(f"`{written}` has a brace that is no hole: write holes as {{name}}, in lower case")
        if len({*holes}) < len(holes):
            raise ValueError(f"`{written}` has a hole twice: give each one a name of its own")
        if not all(texts[1:-1]):
            raise ValueError(f"`{written}` has two holes side by side: write what divides them")
        return cls(tuple(texts), tuple(holes))

    def read(self, text: str) -> Mapping[str, str] | None:
        """Tell what stands in the holes, None when the text is another one. No hole is empty."""
        first, *rest = self.texts
        if not text.startswith(first):
            return None
        position, found = len(first), dict[str, str]()
        for hole, behind in zip(self.holes, rest, strict=True):
            ends = _DIVIDERS | {*behind[:1]}
            end = next((index for index in range(position, len(text)) if text[index] in ends), len(text))
            if end == position or not text.startswith(behind, end):
                return None
            found[hole] = text[position:end]
            position = end + len(behind)
        return found if position == len(text) else None

    def filled(self, names: Mapping[str, str]) -> str:
        """Put names into the holes. Raises KeyError for a hole that none is for."""
        first, *rest = self.texts
        return first + "".join(names[hole] + behind for hole, behind in zip(self.holes, rest, strict=True))
