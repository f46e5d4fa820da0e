"""Values that come and go with each request: dozens of them, with hundreds of fields.

They are frozen for mypy, which refuses whoever would change one, and nothing is looked at again while they are made:
`dataclass(frozen=True)` sets each field by a call, which makes a value four to six times as dear, and with it a request
a tenth. What a configuration is made of is made once, and frozen in earnest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[Value]) -> type[Value]:
    """Make a class one of values, with slots, that are equal and have the same hash when all of their fields do."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
