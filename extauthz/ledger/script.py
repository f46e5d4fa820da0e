"""The Lua scripts, one for each verb, as Redis gets them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script with the name by which Redis keeps it."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """Read a script of `scripts/`, with what every script begins with."""
    folder = files("extauthz.ledger") / "scripts"
    source = (folder / "prelude.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())
