"""Model names, and the lists and patterns that they are matched against.

In a pattern `*` stands for any text, also for none and for `/`; everything else stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

# LiteLLM's words for "no restriction by this list"; what the team's own list says stays in force beside it.
UNRESTRICTED = frozenset({"*", "all-proxy-models", "all-team-models"})


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern."""
    return "*" in name


def captured(pattern: str, name: str) -> tuple[str, ...] | None:
    """Give what each `*` of a pattern stands for in a name, each as short as it can be; None when it does not match.

    Names come from clients, so no regular expression backtracks over them.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return () if name == pattern else None
    *between, last = rest
    position, end = len(first), len(name) - len(last)
    if position > end or not name.startswith(first) or not name.endswith(last):
        return None
    texts = []
    for part in between:
        start = name.find(part, position, end)
        if start < 0:
            return None
        texts.append(name[position:start])
        position = start + len(part)
    return (*texts, name[position:end])


def filled(pattern: str, texts: tuple[str, ...]) -> str:
    """Put texts in the places of a pattern's `*`, in order; a `*` too many stays."""
    for text in texts:
        pattern = pattern.replace("*", text, 1)
    return pattern


def most_specific(patterns: Iterable[str], name: str) -> str | None:
    """Choose the pattern that matches a name with the most characters of its own."""
    matching = [pattern for pattern in patterns if captured(pattern, name) is not None]
    return max(matching, key=lambda pattern: len(pattern.replace("*", "")), default=None)


def allowed(name: str, lists: tuple[tuple[str, ...], ...]) -> bool:
    """Tell whether a model may be used: each list must have it, as itself or by a pattern. An empty list has all."""
    return all(
        not names or any(entry in UNRESTRICTED or captured(entry, name) is not None for entry in names)
        for names in lists
    )


def restricting(lists: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Give those of some lists that leave anything out."""
    return tuple(names for names in lists if names and UNRESTRICTED.isdisjoint(names))


def permitting(lists: tuple[tuple[str, ...], ...]) -> Callable[[str], bool]:
    """Give what tells whether a name is `allowed`, prepared for many names."""
    prepared = [(frozenset(names), tuple(filter(is_pattern, names))) for names in restricting(lists)]
    return lambda name: all(
        name in names or any(captured(pattern, name) is not None for pattern in patterns)
        for names, patterns in prepared
    )
