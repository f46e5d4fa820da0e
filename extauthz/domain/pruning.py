"""Model lists of upstreams with only the models that a client may see.

Every shape is a list of entries under one key, each with its name under another. What is not known beside the list
goes, and so do the words in which an entry that stays names one that does not. What cannot be understood is never
passed through: it becomes an empty list of the shape that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jiter

from extauthz.domain.listings import Entry, Listing, Page, Shape, ends, paged, totals
from extauthz.domain.model_lists import model_list, to_json

Visible = Callable[[str], bool]

# Where an entry names other models: what it falls back to, was made from, or is to be replaced by.
_LEADING = frozenset({"parent", "root", "upgrade"})
_LEADING_MARK = "fallback"


@dataclass(frozen=True, slots=True)
class _Form:
    """How a list is written: its key, and the keys of an entry's names, of which the first must be there.

    `framed` writes what stands beside the list and follows from its entries, given what stood there; `single` says that
    the list may be one entry alone.
    """

    key: str
    names: tuple[str, ...]
    framed: Callable[[Sequence[Entry], Page | None, Mapping[str, object]], dict[str, object]] = lambda *_: {}
    single: bool = False


def _ends(entries: Sequence[Entry], page: Page | None, before: Mapping[str, object]) -> dict[str, object]:
    framed = {"object": "list", **ends(entries, page, more=before.get("has_more") is True)}
    return {key: framed[key] for key in framed if key in before}


_OPENAI = _Form("data", ("id",), _ends)
_CODEX = _Form("models", ("slug",))
_FORMS: Mapping[Shape, tuple[_Form, ...]] = {
    # An upstream that does not know a client's own shape answers in OpenAI's.
    Shape.OPENAI: (_OPENAI,),
    Shape.ANTHROPIC: (_OPENAI,),
    Shape.CODEX: (_CODEX, _OPENAI),
    Shape.OLLAMA: (_Form("models", ("name", "model")),),
    Shape.DEPLOYMENTS: (_Form("data", ("model_name",), single=True),),
    Shape.DEPLOYMENT_PAGES: (_Form("data", ("model_name",), lambda entries, page, _: totals(entries, page)),),
    Shape.GROUPS: (_Form("data", ("model_group",)),),
}


def prune(body: bytes, listing: Listing, visible: Visible) -> bytes:
    """Leave only the visible models in a list, and all else that does not tell of others as it was."""
    try:
        document = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        return model_list(listing, ())
    for form in _FORMS[listing.shape]:
        if isinstance(document, dict) and (pruned := _pruned(document, form, listing.page, visible)) is not None:
            return to_json(pruned)
    return model_list(listing, ())


def _pruned(
    document: Mapping[str, object], form: _Form, page: Page | None, visible: Visible
) -> dict[str, object] | None:
    """Prune a list of a form; None when it is not of this one."""
    match document.get(form.key):
        case list(entries):
            kept = [_told(entry, visible) for entry in entries if _is_visible(entry, form, visible)]
            shown: object = list(paged(kept, page))
        case dict(entry) if form.single and _is_visible(entry, form, visible):
            kept = [_told(entry, visible)]
            shown = kept[0]
        case _:
            return None
    known = {form.key: shown, **form.framed(kept, page, document)}
    return {key: known[key] for key in (*document, *known) if key in known}


def _is_visible(entry: object, form: _Form, visible: Visible) -> bool:
    """Tell whether each name of an entry may be seen; it must have the first one."""
    if not isinstance(entry, dict) or form.names[0] not in entry:
        return False
    names = [entry[key] for key in form.names if key in entry]
    return all(isinstance(name, str) and visible(name) for name in names)


def _told(entry: dict[str, object], visible: Visible) -> dict[str, object]:
    """Give an entry without the words in which it names models that may not be seen."""
    return {
        key: _led(value, visible) if key in _LEADING or _LEADING_MARK in key else _within(value, visible)
        for key, value in entry.items()
    }


def _within(value: object, visible: Visible) -> object:
    match value:
        case dict():
            return _told(value, visible)
        case list():
            return [_within(each, visible) for each in value]
        case _:
            return value


def _led(value: object, visible: Visible) -> object:
    """Leave what names visible models only: of a list its entries, of anything else all or nothing."""
    if isinstance(value, list):
        return [each for each in value if _names_visible(each, visible)]
    return value if _names_visible(value, visible) else None


def _names_visible(value: object, visible: Visible) -> bool:
    match value:
        case str():
            return visible(value)
        case dict():
            return all(visible(key) and _names_visible(each, visible) for key, each in value.items())
        case list():
            return all(_names_visible(each, visible) for each in value)
        case _:
            return True
