"""A body as one JSON object, and the values of its keys.

The upstream reads the same bytes with another parser, so nothing is accepted here that two parsers could read in two
ways: a key that stands twice, a key in another case, a number that is no whole number. No refusal quotes the body.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

import jiter

from extauthz.domain.ask import RefusedBodyError
from extauthz.domain.value import value

KEYS_MAX = 256
# The longest key that anything is looked for under, and more.
FOLDED_CHARS_MAX = 64
# Keys come from clients, who send the same ones again and again; so many are remembered as they fold.
FOLDED_MAX = 1024

Json = dict[str, object]

_NOT_JSON = "The body must be one JSON object in UTF-8, nested at most 200 deep, in which no key stands twice."


@value
class Document:
    """A body's fields.

    `seen` are all that are there, `settled` those of them that are surely whole: the last value of a truncated body may
    be cut, `gpt-4` of `gpt-4o`, 1 of 16384. `size` is the length of what was read, and `file_bytes` of it are those of
    its `files`.
    """

    seen: Json
    settled: Json
    size: int
    files: int = 0
    file_bytes: int = 0


def read_json(raw: bytes, *, truncated: bool) -> Document:
    """Read a JSON object, or the beginning of one."""
    try:
        document = _object(jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys"))
    except ValueError:
        if not truncated:
            raise RefusedBodyError(_NOT_JSON) from None
        document = _beginning(raw)
        return Document(document, dict(list(document.items())[:-1]), len(raw))
    return Document(document, document, len(raw))


def _beginning(raw: bytes) -> Json:
    try:
        return _object(
            jiter.from_json(
                raw,
                catch_duplicate_keys=True,
                allow_inf_nan=False,
                cache_mode="keys",
                partial_mode="trailing-strings",
            )
        )
    except ValueError:
        raise RefusedBodyError(_NOT_JSON) from None


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise RefusedBodyError(_NOT_JSON)
    return value


def is_json(content_type: str | None) -> bool:
    """Tell whether a body that comes under this name is JSON in UTF-8; one without a name is taken for it."""
    if content_type in (None, "application/json"):
        return True
    media, _, parameters = content_type.casefold().partition(";")
    media = media.strip()
    json_like = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    charset = re.search(r"charset\s*=\s*\"?([^\s;\",]*)", parameters)
    return json_like and "," not in content_type and not (charset and charset[1] not in ("utf-8", "utf8"))


def folded(key: str) -> str:
    """Fold a key as far as any parser does that compares without case or normalizes Unicode.

    A longer one than any that is looked for stays as it is: it folds to none of them, since neither way of folding
    makes a text shorter than the ASCII that comes of it, and normalizing takes time by the square of its length.
    """
    return _folded(key) if len(key) <= FOLDED_CHARS_MAX else key


@lru_cache(FOLDED_MAX)
def _folded(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold()


def spellings_of(keys: Iterable[str]) -> Mapping[str, str]:
    """Give the one spelling of each key that is taken, by what the others fold to."""
    return {folded(key): key for key in keys}


def refuse_misspelt(document: Json, steering: Mapping[str, str]) -> None:
    """Refuse a steering key in another spelling (`MODEL`): some parsers read it, so it would steer unseen."""
    if len(document) > KEYS_MAX:
        raise RefusedBodyError(f"The body has more than {KEYS_MAX} keys.")
    for key in document:
        spelling = steering.get(folded(key), key)
        if key != spelling:
            raise RefusedBodyError(f"Write the key `{spelling}` exactly so: another spelling of it is ambiguous.")


def inner(document: Json, key: str) -> Json:
    """Give the object under a key, an empty one where there is none."""
    match document.get(key):
        case None:
            return {}
        case dict(value) if len(value) <= KEYS_MAX:
            return value
        case _:
            raise RefusedBodyError(f"`{key}` must be an object of at most {KEYS_MAX} keys.")


def whole(document: Json, key: str, low: int, high: int) -> int | None:
    """Read a whole number; 16.0 is one, and null is none."""
    value = document.get(key)
    if value is None:
        return None
    # jiter reads 1e999 as infinity, which no comparison with `high` lets through, and no bool is a number here.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise RefusedBodyError(f"`{key}` must be a whole number from {low} to {high}.")
    return int(value)


def flag(document: Json, key: str) -> bool:
    """Read true or false; null is false."""
    match document.get(key):
        case None:
            return False
        case bool(value):
            return value
        case _:
            raise RefusedBodyError(f"`{key}` must be true or false.")


def word(document: Json, key: str, bytes_max: int) -> str | None:
    """Read a text; an empty one, and null, is none."""
    match document.get(key):
        case None | "":
            return None
        case str(text) if len(text.encode()) <= bytes_max:
            return text
        case _:
            raise RefusedBodyError(f"`{key}` must be text of at most {bytes_max} bytes.")
