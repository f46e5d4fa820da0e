"""LiteLLM's sections in a file of their own: LiteLLM's config.yaml as it is, such as a ConfigMap of its chart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from extauthz.config.includes import with_included
from extauthz.config.litellm import OWN_SECTION
from extauthz.config.source import Entries, Mistakes, Node, Scalar, child, read
from extauthz.config.sources import Sources


@dataclass(frozen=True, slots=True)
class LitellmFile:
    """Where LiteLLM's sections are: the tree of their file, which may be the configuration's own, and its mistakes."""

    root: Entries
    mistakes: Mistakes


def find_litellm(config: LitellmFile, own: Node, sources: Sources) -> LitellmFile:
    """Read the file that `litellm_file` of the section `own` names; without one it is the configuration itself.

    Its `include` is followed.

    A relative path begins at the configuration. A section must stand in one of the two, so that nobody changes the
    one that does not count.
    """
    named = child(own, "litellm_file")
    if not isinstance(named, Scalar) or not isinstance(named.value, str) or named.missing:
        return LitellmFile(with_included(config.root, config.mistakes, sources), config.mistakes)
    path = config.mistakes.file.parent / named.value
    mistakes = Mistakes(path)
    text = sources.text(path, mistakes)
    root = read(text, mistakes, strict=lambda _: False) if not mistakes else Entries(line=1)
    if not root.entries and not mistakes:
        mistakes.add(1, "the file is empty: write LiteLLM's config.yaml")
    _refuse(config, path, {name for name in config.root.entries if name != OWN_SECTION})
    _refuse(LitellmFile(root, mistakes), config.mistakes.file, {OWN_SECTION} & root.entries.keys())
    return LitellmFile(with_included(root, mistakes, sources), mistakes)


def _refuse(file: LitellmFile, other: Path, names: set[str]) -> None:
    """Note sections that belong into the other file."""
    for name in names:
        file.mistakes.add(file.root.entries[name].line, f"{name}: with litellm_file this stands in {other}")
