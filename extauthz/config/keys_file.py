"""Keys in a file of their own: a list of what may stand under `extauthz.keys`, such as a mounted Secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from extauthz.config.accounts import KeyList, check_references
from extauthz.config.explain import validated
from extauthz.config.payers import KeyFields, KeysFile
from extauthz.config.source import Entries, Entry, Items, Mistakes, Node, Scalar, child, read_list, resolved
from extauthz.config.sources import Sources
from extauthz.errors import Mistake


@dataclass(frozen=True, slots=True)
class MoreKeys:
    """What keys files say, read as far as they can be: none or one. `lists` are their trees."""

    lists: tuple[KeyList, ...] = ()
    fields: tuple[KeyFields, ...] = ()

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """All mistakes that were found by now."""
        return tuple(mistake for keys in self.lists for mistake in keys.mistakes.all())


def read_keys(config: Path, own: Node, sources: Sources) -> MoreKeys:
    """Read the file that `keys_file` of the section `own` names, if any; a relative path begins at the config's."""
    named = child(own, "keys_file")
    if not isinstance(named, Scalar) or not isinstance(named.value, str) or named.missing:
        return MoreKeys()
    path = config.parent / named.value
    mistakes = Mistakes(path)
    text = sources.text(path, mistakes)
    items = resolved(read_list(text, mistakes), sources.environ, mistakes) if not mistakes else Items(line=1)
    tree = Entries(1, {"keys": Entry(1, items)})
    file = validated(KeysFile, tree, (), mistakes)
    check_references(tree, mistakes, known=own, root=())
    return MoreKeys((KeyList(tree, (), mistakes),), () if file is None else file.keys)
