"""`environment_variables`: what LiteLLM puts into its environment before it reads the rest of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from extauthz.config.source import ENVIRONMENT_PREFIX, Node, child, plain

ENVIRONMENT_VARIABLES = "environment_variables"


class Variables(Mapping[str, str]):
    """An environment in which a file's own variables take the place of others of the same name.

    One may stand for a variable of the environment, or for one above it; where that is not set, it is not there.
    """

    def __init__(self, root: Node, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._own: dict[str, str] = {}
        section = child(root, ENVIRONMENT_VARIABLES)
        values = plain(section) if section is not None else None
        for name, value in values.items() if isinstance(values, dict) else ():
            text = str(value)
            meant = self.get(text.removeprefix(ENVIRONMENT_PREFIX)) if text.startswith(ENVIRONMENT_PREFIX) else text
            if value is not None and meant is not None:
                self._own[name] = meant

    def __getitem__(self, name: str) -> str:
        return self._own[name] if name in self._own else self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._own, *self._environ)))

    def __len__(self) -> int:
        return len(dict.fromkeys((*self._own, *self._environ)))
