"""LiteLLM's auto routers: models of the list that answer nothing themselves, but choose another one for each request.

What is chosen is not foreseen here. Such a name leads to every model that its parameters name, as fallbacks do, and a
request is held at the dearest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extauthz.config.source import Entries, Items, Mistakes, Node, Scalar, read

MODEL_PREFIX = "auto_router/"

# What tells their parameters from others, and those which say that the rest stands elsewhere.
PARAMETER_MARK = "_router_"
PATH_END = "_config_path"
DEFAULT_END = "_default_model"


@dataclass(frozen=True, slots=True)
class Router:
    """A name that leads to others, with its parameters."""

    name: str
    parameters: Entries

    def targets(self, models: Sequence[str], is_served: Callable[[str], bool]) -> tuple[str, ...]:
        """List the models that it may choose: those that it names, or all that there are where it names none."""
        names = dict.fromkeys(name for name in self._named(is_served) if name != self.name)
        if not names or any(key.endswith(PATH_END) for key in self.parameters.entries):
            names |= dict.fromkeys(model for model in models if model != self.name)
        return tuple(names)

    def _named(self, is_served: Callable[[str], bool]) -> Iterator[str]:
        for key, entry in self.parameters.entries.items():
            default = key.endswith(DEFAULT_END)
            yield from (text for text in _texts(entry.node) if default or is_served(text))


def chosen_by(router: str, led: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """List what a router may choose in the end, where some of what it leads to are routers themselves."""
    seen = {router: None}
    waiting = [router]
    while waiting:
        further = [name for name in led[waiting.pop()] if name not in seen]
        seen |= dict.fromkeys(further)
        waiting += [name for name in further if name in led]
    return tuple(name for name in seen if name not in led)


def _texts(node: Node) -> Iterator[str]:
    match node:
        case Scalar(value=str(text)) if text.lstrip().startswith("{"):
            # LiteLLM takes a whole configuration as JSON, which is YAML.
            yield from _texts(read(text, Mistakes(Path())))
        case Scalar(value=str(text)):
            yield text
        case Items(items=items):
            for item in items:
                yield from _texts(item)
        case Entries(entries=entries):
            for entry in entries.values():
                yield from _texts(entry.node)
        case Scalar():
            pass
