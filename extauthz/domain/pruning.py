"""Model lists with only the models that a client may see."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import jiter

# OpenAI's field is required and says when a model was made, which nobody here knows.
_CREATED = 0


def model_list(names: Iterable[str]) -> bytes:
    """Write a model list in OpenAI's shape."""
    entries = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "extauthz"} for name in names]
    return _json({"object": "list", "data": entries})


def prune(body: bytes, visible: Callable[[str], bool]) -> bytes:
    """Leave only the visible models in a model list of OpenAI's shape, and all else in it as it was.

    A body that is not such a list becomes an empty one: what cannot be understood is never passed through.
    """
    try:
        document = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        return model_list(())
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        return model_list(())
    known = {"object", "data", "has_more", "first_id", "last_id"}
    kept = [entry for entry in document["data"] if _is_visible(entry, visible)]
    pruned = {key: value for key, value in document.items() if key in known} | {"data": kept}
    for key, index in (("first_id", 0), ("last_id", -1)):
        if key in pruned:
            pruned[key] = kept[index]["id"] if kept else None
    return _json(pruned)


def _is_visible(entry: object, visible: Callable[[str], bool]) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and visible(entry["id"])


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
