"""Values: what comes and goes with each request."""

from dataclasses import field, replace

import pytest

from extauthz.domain.value import value


@value
class Point:
    """A value with a field that does not count for what it is."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)


def test_values_are_equal_by_their_fields() -> None:
    """Two values with the same fields are one and the same in sets and as keys, whatever their notes say."""
    assert {Point(1, 2, "a")} == {Point(1, 2, "b")}
    assert Point(1, 2) != Point(2, 1)
    assert replace(Point(1, 2), y=3) == Point(1, 3)


def test_mypy_refuses_to_change_a_value() -> None:
    """An assignment is a mistake for mypy: would it take this one, it would call the comment here one too many."""
    point = Point(1)

    point.x = 2  # type: ignore[misc]

    assert point == Point(2)


def test_a_value_has_no_other_fields() -> None:
    """A misspelt field is a mistake for Python as well: there is no room for it."""
    point = Point(1)

    with pytest.raises(AttributeError):
        point.z = 2  # type: ignore[attr-defined]
