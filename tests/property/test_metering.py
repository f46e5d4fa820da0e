"""The meter against Python's own JSON parser, on documents that nobody would think of."""

from __future__ import annotations

import itertools
import json
from typing import Any

import lupa.luajit21 as luajit  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from extauthz.envoy.bootstrap import meter_source

METER: Any = luajit.LuaRuntime(encoding=None).execute(meter_source().encode())

names = st.sampled_from(["usage", "prompt_tokens", "completion_tokens", "choices", "message", "x"]) | st.text(
    max_size=3
)
texts = st.text('"\\{}[]:,\n x\u4f60', max_size=8) | st.just('"usage":{"prompt_tokens":1}')
scalars = st.none() | st.booleans() | st.integers(-9, 10**6) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
documents = st.dictionaries(names, values, max_size=6)


def read(body: bytes, cuts: list[int]) -> dict[bytes, object]:
    """Give the meter's report of a JSON body that comes in pieces."""
    report = METER[b"Report"][b"new"]()
    reader = METER[b"JsonBody"][b"new"](report)
    places = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(places):
        reader[b"feed"](reader, body[start:end])
    fields: dict[bytes, object] = {}
    report[b"write"](report, lambda name, value: fields.update({name: value}))
    return fields


def reported(usage: object, name: str) -> object:
    """Say what the report must hold for a name of the top-level usage."""
    match usage.get(name) if isinstance(usage, dict) else None:
        case bool(flag):
            return json.dumps(flag).encode()
        case int(number):
            return number
        case str(text):
            # Absurd, so it passes as it stands in the document.
            return json.dumps(text, ensure_ascii=False)[1:-1].encode()
        case _:
            return None


@given(document=documents, indent=st.sampled_from([None, 0, 3]), data=st.data())
def test_only_the_top_level_usage_counts(document: dict[str, object], indent: int | None, data: st.DataObject) -> None:
    """Whatever stands in a document, and however it is cut, the report holds its top-level usage and no other."""
    body = json.dumps(document, ensure_ascii=False, indent=indent).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))

    fields = read(body, cuts)

    assert reported(document.get("usage"), "prompt_tokens") == fields.get(b"input_tokens")
    assert reported(document.get("usage"), "completion_tokens") == fields.get(b"output_tokens")


@given(body=st.binary(max_size=200) | st.text('{}[]",:\\0 usage', max_size=200).map(str.encode), data=st.data())
def test_anything_at_all_passes_unchanged(body: bytes, data: st.DataObject) -> None:
    """No bytes make the meter fail or stop, as an answer, as a stream, or as a stream that is being edited."""
    cut = data.draw(st.integers(0, len(body)))
    for kind, edits in ((b"JsonBody", False), (b"EventStream", False), (b"EventStream", True)):
        report = METER[b"Report"][b"new"]()
        reader = METER[kind][b"new"](report, edits)
        passed = [reader[b"feed"](reader, body[:cut]), reader[b"feed"](reader, body[cut:]), reader[b"finish"](reader)]

        assert body == b"".join(passed)
