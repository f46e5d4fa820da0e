"""YAML as a tree with lines: strict, exact and bounded."""

from decimal import Decimal
from pathlib import Path

import pytest

from extauthz.config import source
from extauthz.config.source import Entries, Mistakes, located, plain, read, resolved

FILE = Path("c.yaml")


def read_plain(text: str) -> tuple[object, list[str]]:
    """Read a text into plain values, and its mistakes as `line: message`."""
    mistakes = Mistakes(FILE)
    tree = read(text, mistakes)
    return plain(tree), [f"{mistake.line}: {mistake.message}" for mistake in mistakes.all()]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.0000025", Decimal("0.0000025")),
        ("1e-6", Decimal("1e-6")),
        ("2.50", Decimal("2.50")),
        (".5", Decimal("0.5")),
        ("-3", -3),
        ("0", 0),
        ("007", Decimal(7)),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("true", True),
        ("no", "no"),
        ("~", None),
        ("", None),
        ("2026-01-01", "2026-01-01"),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        (".inf", ".inf"),
        ("1e999999999", "1e999999999"),
        ("9" * 41, "9" * 41),
    ],
)
def test_plain_values(written: str, value: object) -> None:
    """Numbers keep their exact digits; what YAML 1.1 would guess (no, 12:30, 0x10) and what is too large stays text."""
    found, mistakes = read_plain(f"a: {written}")

    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(value) is type(found["a"])
    assert not mistakes


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3", ["3: `a` stands here a second time, after line 1: keep one"], id="duplicate key"
        ),
        pytest.param("x:\n  a: 1\n  a: 1", ["3: `a` stands here a second time, after line 2: keep one"], id="nested"),
        pytest.param("a: *b", ["1: there is no anchor &b above: write it, or the value itself"], id="unknown alias"),
        pytest.param(
            "a: &a [*a]", ["1: there is no anchor &a above: write it, or the value itself"], id="alias inside itself"
        ),
        pytest.param("[1]: 2", ["1: a key must be plain text: put it in quotes"], id="a list as key"),
        pytest.param(
            "a: !!python/name:os.system x",
            ["1: the tag tag:yaml.org,2002:python/name:os.system is not understood: write the value without it"],
            id="a tag",
        ),
        pytest.param(
            "a: 1\n---\nb: 2",
            ["2: a second document begins here: put everything into one, without `---`"],
            id="documents",
        ),
        pytest.param(
            "- a", ["1: the file must be a mapping: write `model_list:` and `extauthz:` at its top"], id="a list"
        ),
        pytest.param("<<: 5", ["1: `<<` merges mappings: write an alias of one after it"], id="merging a number"),
        pytest.param("", [], id="an empty file"),
    ],
)
def test_mistakes(text: str, mistakes: list[str]) -> None:
    """A mistake is one line that says where it is and what to do."""
    assert mistakes == read_plain(text)[1]


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'x", "a: \x00"])
def test_no_yaml(text: str) -> None:
    """What is no YAML at all is one mistake with its line."""
    _, mistakes = read_plain(f"k: v\n{text}")

    assert len(mistakes) == 1
    assert "this is not YAML" in mistakes[0]


def test_all_mistakes_in_order() -> None:
    """One run shows them all, from top to bottom, and the same one only once."""
    mistakes = Mistakes(FILE)
    for line in (3, 1, 3):
        mistakes.add(line, f"wrong\n on  {line}")

    assert [str(mistake) for mistake in mistakes.all()] == ["c.yaml:1: wrong on 1", "c.yaml:3: wrong on 3"]


def test_merge_keys() -> None:
    """`<<` fills in what a mapping does not say itself; of several, the first wins."""
    found, mistakes = read_plain("one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nx:\n  <<: [*one, *two]\n  a: 0")

    assert not mistakes
    assert isinstance(found, dict)
    assert found["x"] == {"a": 0, "b": 1, "c": 2}


def test_depth_is_bounded() -> None:
    """A file cannot make the reader recurse without end."""
    _, mistakes = read_plain(f"a: {'[' * 5000}{']' * 5000}")

    assert mistakes == [f"1: this is nested deeper than {source.DEPTH_MAX} levels: make it flatter"]


def test_aliases_are_bounded() -> None:
    """Nine lines of aliases that stand for a billion values are refused before they are expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]

    _, mistakes = read_plain("\n".join(lines))

    assert len(mistakes) == 1
    assert f"more than {source.NODES_MAX} values" in mistakes[0]


def test_environment() -> None:
    """`os.environ/NAME` becomes the variable's text; a missing one is a mistake that names it."""
    mistakes = Mistakes(FILE)
    tree = resolved(
        read("a: os.environ/THERE\nb: [os.environ/NOT_THERE]\nc: not/os.environ/THERE", mistakes),
        {"THERE": "secret"},
        mistakes,
    )

    assert plain(tree) == {"a": "secret", "b": [""], "c": "not/os.environ/THERE"}
    assert [str(mistake) for mistake in mistakes.all()] == [
        "c.yaml:2: the environment variable NOT_THERE is not set: set it where extauthz starts"
    ]


def test_located() -> None:
    """A path is followed as far as it goes: to the line of the last key or item that exists."""
    tree = read("a:\n  b:\n    - 1\n    - c: 2\n", Mistakes(FILE))

    assert isinstance(tree, Entries)
    assert [located(tree, path)[0] for path in ((), ("a",), ("a", "b", 1), ("a", "b", 1, "c"), ("a", "z", 3))] == [
        1,
        1,
        4,
        4,
        1,
    ]
    assert located(tree, ("a", "z", 3))[2] == ("a",)
