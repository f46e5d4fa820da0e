"""`include`: more files for LiteLLM's sections, put together as LiteLLM does.

Lists grow by what an included file has, anything else is replaced by it. Files are read in the order that they are
named in, those that an included file names after all others, and each of them once.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from extauthz.config.litellm import INCLUDE, OWN_SECTION
from extauthz.config.source import (
    NODES_MAX,
    Entries,
    Entry,
    Items,
    Mistakes,
    Node,
    Scalar,
    child,
    moved,
    read,
)
from extauthz.config.sources import Sources

INCLUDES_MAX = 100


def with_included(root: Entries, mistakes: Mistakes, sources: Sources) -> Entries:
    """Give the tree of a file with all that it includes; what is wrong with one of them is noted.

    A path begins at the file that names it or, where there is none, at the first one.
    """
    waiting = deque(_named(root, mistakes, mistakes.file))
    seen = {mistakes.file.resolve()}
    while waiting:
        path = waiting.popleft()
        if path.resolve() in seen:
            continue
        if len(seen) > INCLUDES_MAX:
            mistakes.add(root.entries[INCLUDE].line, f"{INCLUDE}: more than {INCLUDES_MAX} files are included")
            break
        seen.add(path.resolve())
        of_file = Mistakes(path)
        text = sources.text(path, of_file)
        found = read(text, of_file, strict=lambda _: False) if not of_file else Entries(line=1)
        if OWN_SECTION in found.entries:
            of_file.add(found.entries[OWN_SECTION].line, f"{OWN_SECTION}: this stands in {mistakes.file}")
        waiting += _named(found, of_file, mistakes.file)
        included = moved(found, mistakes.include(of_file))
        if isinstance(included, Entries) and root.size + included.size <= NODES_MAX:
            root = _merged(root, included)
        else:
            mistakes.add(root.entries[INCLUDE].line, f"{INCLUDE}: the files have more than {NODES_MAX} values together")
    return root


def _named(root: Entries, mistakes: Mistakes, first: Path) -> list[Path]:
    """List the files that a file includes."""
    node = child(root, INCLUDE)
    if node is None:
        return []
    named = node.items if isinstance(node, Items) else (node,)
    paths = [item.value for item in named if isinstance(item, Scalar) and isinstance(item.value, str)]
    if not isinstance(node, Items) or len(paths) < len(named):
        mistakes.add(node.line, f"{INCLUDE}: this must be a list of paths: lines that begin with `- `")
    return [_located(path, mistakes.file, first) for path in paths]


def _located(path: str, named_in: Path, first: Path) -> Path:
    beside = named_in.parent / path
    return beside if beside.exists() or not (first.parent / path).exists() else first.parent / path


def _merged(root: Entries, included: Entries) -> Entries:
    entries = dict(root.entries)
    for name, entry in included.entries.items():
        if name != INCLUDE:
            entries[name] = Entry(entry.line, _joined(entries[name].node, entry.node)) if name in entries else entry
    return Entries(root.line, entries, root.size + included.size)


def _joined(node: Node, included: Node) -> Node:
    if isinstance(node, Items) and isinstance(included, Items):
        return Items(node.line, (*node.items, *included.items), node.size + included.size)
    return included
