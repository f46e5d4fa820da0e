"""YAML as a tree that remembers its lines, read strictly.

PyYAML's own constructor keeps the last of two equal keys, forgets lines and makes floats of prices. This one reads the
parser's events: a duplicate key is a mistake, or at least told, numbers keep their exact digits, and what a file can
make the process do is bounded. Every mistake is collected, so that a person sees all of them in one run.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

import yaml

from extauthz.errors import Mistake

FILE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 32

# Nodes after aliases are expanded: a few lines of aliases to aliases would otherwise become billions.
NODES_MAX = 500_000

MISTAKES_MAX = 100

# More lines than a file can have. Where several files become one tree, those of the n-th count on from n times this.
FILE_LINES_MAX = FILE_BYTES_MAX + 1

# A number with a huge exponent is written in a few characters and takes the memory of the machine to compute with.
NUMBER_LENGTH_MAX = 40
NUMBER_EXPONENT_MAX = 20

ENVIRONMENT_PREFIX = "os.environ/"
MERGE_KEY = "<<"

STRING_TAG = "tag:yaml.org,2002:str"
# Tags that say of a plain value what it is anyway.
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))

# The keys and positions that lead to a place in the tree.
Path = tuple[str | int, ...]

Value = str | int | Decimal | bool | None

_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value.

    `variable` is the environment variable that it came from: it is then a secret. `missing` when there is none of that
    name, which is noted already.
    """

    line: int
    value: Value
    variable: str | None = None
    missing: bool = False
    size: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: tuple[Node, ...] = ()
    size: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value, with the line of the key."""

    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping. Keys are always text, as they are written."""

    line: int
    entries: Mapping[str, Entry] = field(default_factory=dict)
    size: int = 1


Node = Scalar | Items | Entries


class Mistakes:
    """Collects what is wrong with a file, and with those that it includes; after MISTAKES_MAX it stops listening.

    `remarks` are what is no mistake, but should be told.
    """

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.remarks: list[str] = []
        self._files = [file]
        self._found: dict[Mistake, None] = {}

    def add(self, line: int, message: str) -> None:
        """Note a mistake of one line of text; the same one twice is noted once."""
        if len(self._found) < MISTAKES_MAX:
            place, line = divmod(line, FILE_LINES_MAX)
            self._found[Mistake(self._files[place], line, " ".join(message.split()))] = None

    def remark(self, sentence: str) -> None:
        """Note something that should be told."""
        if len(self.remarks) < MISTAKES_MAX:
            self.remarks.append(sentence)

    def include(self, other: Mistakes) -> int:
        """Take over what is wrong with a file that this one includes, and give the line before its first."""
        self._files.append(other.file)
        for mistake in other.all():
            if len(self._found) < MISTAKES_MAX:
                self._found[mistake] = None
        for remark in other.remarks:
            self.remark(remark)
        return (len(self._files) - 1) * FILE_LINES_MAX

    def all(self) -> tuple[Mistake, ...]:
        """Give all mistakes in the order of their files and lines."""
        return tuple(sorted(self._found, key=lambda mistake: (self._files.index(mistake.file), mistake.line)))

    def __len__(self) -> int:
        return len(self._found)


def _everywhere(_: str) -> bool:
    return True


def read(text: str, mistakes: Mistakes, *, strict: Callable[[str], bool] = _everywhere) -> Entries:
    """Read the text of a configuration file; what cannot be read is noted and left out.

    In sections that are not `strict` the last of two equal keys counts, as in PyYAML, and that is remarked.
    """
    root = _document(text, mistakes, strict)
    if isinstance(root, Entries):
        return root
    if not (isinstance(root, Scalar) and root.value is None):
        mistakes.add(root.line, "the file must be a mapping: write `model_list:` and `extauthz:` at its top")
    return Entries(line=1)


def read_list(text: str, mistakes: Mistakes) -> Items:
    """Read the text of a file that is one list. An empty file is a mistake: somebody may be writing it."""
    root = _document(text, mistakes)
    if isinstance(root, Items):
        return root
    if not mistakes:
        mistakes.add(root.line, "the file must be a list: write lines that begin with `- `, or [] for none")
    return Items(line=1)


def read_part(event: yaml.Event, events: Iterator[yaml.Event], mistakes: Mistakes) -> Node:
    """Read one part of a file whose events somebody goes through: what begins with an event, to its end."""
    try:
        return _Reader(events, mistakes, _everywhere).part(event)
    except _TooMuchError as error:
        mistakes.add(error.line, str(error))
        return Scalar(error.line, None)


def _document(text: str, mistakes: Mistakes, strict: Callable[[str], bool] = _everywhere) -> Node:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Reader(yaml.parse(text, Loader=loader), mistakes, strict).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        mistakes.add(line, f"this is not YAML: {error.problem}; check the indentation and the quotes around it")
    except yaml.YAMLError:
        mistakes.add(1, "this is not YAML: it has a character that is not text; save the file as UTF-8")
    except _TooMuchError as error:
        mistakes.add(error.line, str(error))
    return Scalar(1, None)


def resolved(node: Node, environ: Mapping[str, str], mistakes: Mistakes) -> Node:
    """Put the values of environment variables where `os.environ/NAME` stands; a missing one is a mistake."""
    match node:
        case Scalar(line=line, value=str(text)) if text.startswith(ENVIRONMENT_PREFIX):
            variable = text.removeprefix(ENVIRONMENT_PREFIX)
            if variable not in environ:
                mistakes.add(line, f"the environment variable {variable} is not set: set it where extauthz starts")
            return Scalar(line, environ.get(variable, ""), variable, missing=variable not in environ)
        case Scalar():
            return node
        case Items(line=line, items=items, size=size):
            return Items(line, tuple(resolved(item, environ, mistakes) for item in items), size)
        case Entries(line=line, entries=entries, size=size):
            new = {key: Entry(entry.line, resolved(entry.node, environ, mistakes)) for key, entry in entries.items()}
            return Entries(line, new, size)


def moved(node: Node, lines: int) -> Node:
    """Give a tree that stands so many lines further down."""
    match node:
        case Scalar(line=line):
            return replace(node, line=line + lines)
        case Items(line=line, items=items, size=size):
            return Items(line + lines, tuple(moved(item, lines) for item in items), size)
        case Entries(line=line, entries=entries, size=size):
            new = {key: Entry(entry.line + lines, moved(entry.node, lines)) for key, entry in entries.items()}
            return Entries(line + lines, new, size)


def plain(node: Node) -> object:
    """Turn a tree into dicts, lists and values, for pydantic."""
    match node:
        case Scalar(value=value):
            return value
        case Items(items=items):
            return [plain(item) for item in items]
        case Entries(entries=entries):
            return {key: plain(entry.node) for key, entry in entries.items()}


def located(node: Node, path: Path) -> tuple[int, Node, Path]:
    """Follow a path as far as it goes: the line to show, the node there, and the part of the path that exists."""
    line = node.line
    for depth, step in enumerate(path):
        match node, step:
            case Entries(entries=entries), str() if step in entries:
                line, node = entries[step].line, entries[step].node
            case Items(items=items), int() if step < len(items):
                node = items[step]
                line = node.line
            case _:
                return line, node, path[:depth]
    return line, node, path


def written(path: Path) -> str:
    """Write a path as people do: `extauthz.keys[0].team`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def child(node: Node, key: str) -> Node | None:
    """Give what stands under a key; None when the node is no mapping, or has no such key or nothing behind it."""
    if not isinstance(node, Entries) or key not in node.entries:
        return None
    found = node.entries[key].node
    return None if isinstance(found, Scalar) and found.value is None else found


def picked(node: Node | None, wanted: Callable[[str], bool]) -> Entries:
    """Keep the wanted keys of a mapping; anything that is none becomes an empty one."""
    if not isinstance(node, Entries):
        return Entries(line=node.line if node is not None else 1)
    return Entries(node.line, {key: entry for key, entry in node.entries.items() if wanted(key)}, node.size)


def number(text: str) -> int | Decimal | None:
    """Read a number exactly; None when the text is none, or one too long or too large to compute with."""
    if len(text) > NUMBER_LENGTH_MAX or not _NUMBER.fullmatch(text):
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    value = Decimal(text)
    return value if abs(value.adjusted()) <= NUMBER_EXPONENT_MAX else None


class _TooMuchError(Exception):
    """A file that would cost too much to read on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Reader:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, events: Iterator[yaml.Event], mistakes: Mistakes, strict: Callable[[str], bool]) -> None:
        self._events = events
        self._mistakes = mistakes
        self._strict = strict
        self._section = ""
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node:
        root: Node = Scalar(1, None)
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and self._nodes:
                self._mistakes.add(
                    _line(event), "a second document begins here: put everything into one, without `---`"
                )
                return root
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, depth=0)
        return root

    def part(self, event: yaml.Event) -> Node:
        return self._node(event, depth=1)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise _TooMuchError(_line(event), f"this is nested deeper than {DEPTH_MAX} levels: make it flatter")
        match event:
            case yaml.AliasEvent():
                node = self._alias(event)
            case yaml.ScalarEvent():
                node = self._scalar(event)
            case yaml.SequenceStartEvent():
                node = self._items(event, depth)
            case _:
                node = self._entries(event, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._anchors[anchor] = node
        return node

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise _TooMuchError(_line(event), f"the file has more than {NODES_MAX} values by here: use fewer aliases")

    def _alias(self, event: yaml.AliasEvent) -> Node:
        node = self._anchors.get(str(event.anchor))
        if node is None:
            self._mistakes.add(_line(event), f"there is no anchor &{event.anchor} above: write it, or the value itself")
            node = Scalar(_line(event), None)
        self._count(event, node.size)
        return node

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        self._count(event, 1)
        if event.tag not in {None, STRING_TAG, *PLAIN_TAGS}:
            self._mistakes.add(_line(event), f"the tag {event.tag} is not understood: write the value without it")
        plain_style = (event.implicit[0] and event.tag is None) or event.tag in PLAIN_TAGS
        return Scalar(_line(event), _value(event.value) if plain_style else event.value)

    def _items(self, event: yaml.SequenceStartEvent, depth: int) -> Items:
        self._count(event, 1)
        items = []
        while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(following, depth + 1))
        return Items(_line(event), tuple(items), 1 + sum(item.size for item in items))

    def _entries(self, event: yaml.Event, depth: int) -> Entries:
        self._count(event, 1)
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            line, key_node = _line(following), self._node(following, depth + 1)
            if depth == 0 and isinstance(following, yaml.ScalarEvent):
                self._section = following.value
            node = self._node(next(self._events), depth + 1)
            if not isinstance(following, yaml.ScalarEvent) or not isinstance(key_node, Scalar):
                self._mistakes.add(line, "a key must be plain text: put it in quotes")
            elif following.value == MERGE_KEY and following.implicit[0]:
                merged |= self._merged(node, line)
            else:
                if following.value in entries:
                    self._repeated(following.value, entries[following.value].line, line)
                entries[following.value] = Entry(line, node)
        entries = merged | entries
        return Entries(_line(event), entries, 1 + sum(1 + entry.node.size for entry in entries.values()))

    def _repeated(self, key: str, first: int, line: int) -> None:
        if self._strict(self._section):
            self._mistakes.add(line, f"`{key}` stands here a second time, after line {first}: keep one")
        else:
            file = self._mistakes.file.name
            self._mistakes.remark(
                f"`{key}` stands in {file} in lines {first} and {line}: the last counts, as in LiteLLM"
            )

    def _merged(self, node: Node, line: int) -> dict[str, Entry]:
        """Give the entries that `<<: *anchor` or `<<: [*one, *other]` brings; the earlier one wins."""
        match node:
            case Entries(entries=entries):
                return dict(entries)
            case Items(items=items):
                merged: dict[str, Entry] = {}
                for item in items:
                    merged = self._merged(item, line) | merged
                return merged
            case Scalar():
                self._mistakes.add(line, "`<<` merges mappings: write an alias of one after it")
                return {}


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _value(text: str) -> Value:
    """Give a plain scalar its type, by YAML 1.2: `no` is text, `1e-6` a number."""
    if text in _WORDS:
        return _WORDS[text]
    value = number(text)
    return text if value is None else value
