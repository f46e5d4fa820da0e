"""The meter against Python's own JSON parser, on documents that nobody would think of."""

from __future__ import annotations

import itertools
import json
from typing import Any

import lupa.luajit21 as luajit  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from extauthz.envoy.bootstrap import meter_source
from tests.support.metered_sessions import SESSION, SESSION_TRUTH, frame

METER: Any = luajit.LuaRuntime(encoding=None).execute(meter_source().encode())

names = st.sampled_from(
    [
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "choices",
        "message",
        "x",
        "model",
        "service_tier",
        "status",
        "data",
        "url",
        "b64_json",
    ]
) | st.text(max_size=3)
texts = st.text('"\\{}[]:,\n x\u4f60', max_size=8) | st.sampled_from(
    ['"usage":{"prompt_tokens":1}', "queued", "a" * 40]
)
scalars = st.none() | st.booleans() | st.integers(-9, 10**6) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
documents = st.dictionaries(names, values, max_size=6)


def read(body: bytes, cuts: list[int], kind: bytes = b"JsonBody") -> dict[bytes, object]:
    """Give the meter's report of a body that comes in pieces."""
    report = METER[b"Report"][b"new"]()
    reader = METER[kind][b"new"](report)
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


@given(document=documents, indent=st.sampled_from([None, 0, 3]), data=st.data())
def test_only_exact_places_count(document: dict[str, object], indent: int | None, data: st.DataObject) -> None:
    """Models, tiers, promises and pictures are those of their own places in a document, whatever else stands in it."""
    body = json.dumps(document, ensure_ascii=False, indent=indent).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))

    fields = read(body, cuts)

    assert named(document.get("model"), 256) == fields.get(b"model")
    assert named(document.get("service_tier"), 32) == fields.get(b"service_tier")
    assert (document.get("status") == "queued") == fields.get(b"pending", False)
    assert pictures(document.get("data")) == fields.get(b"images", 0)


def named(value: object, bytes_max: int) -> bytes | None:
    """Say what must be told of a name, as it stands in the document."""
    written = json.dumps(value, ensure_ascii=False)[1:-1].encode()
    return written if isinstance(value, str) and len(written) <= bytes_max else None


def pictures(data: object) -> int:
    """Count the items of an answer's data that are pictures."""
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    return sum(
        any(isinstance(item.get(name), str) and item[name] != "" for name in ("url", "b64_json")) for item in items
    )


@given(data=st.data())
def test_a_session_is_read_however_it_is_framed(data: st.DataObject) -> None:
    """Messages may come in any frames, with any control frames between them, and the bytes in any pieces."""
    frames = []
    for event in SESSION:
        payload = json.dumps(event).encode()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[start:end] for start, end in itertools.pairwise([0, *cuts, len(payload)])]
        for number, piece in enumerate(pieces):
            size = data.draw(st.sampled_from([0, 16, 64]))
            frames.append(frame(piece, opcode=0 if number else 1, last=number == len(pieces) - 1, size=size))
            if data.draw(st.booleans()):
                frames.append(frame(data.draw(st.binary(max_size=9)), opcode=data.draw(st.sampled_from([8, 9, 10]))))
    body = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))

    told = read(body, cuts, kind=b"WebSocket")

    assert SESSION_TRUTH == {
        name.decode(): value.decode() if isinstance(value, bytes) else value for name, value in told.items()
    }


@given(body=st.binary(max_size=200), data=st.data())
def test_any_bytes_of_a_websocket_pass_or_end_the_reading(body: bytes, data: st.DataObject) -> None:
    """Frames that cannot be read are refused with that very word, and nothing else fails."""
    cut = data.draw(st.integers(0, len(body)))
    failures = []
    try:
        read(body, [cut], kind=b"WebSocket")
    except luajit.LuaError as error:
        failures.append(str(error))

    assert all("cannot be read" in failure for failure in failures)


@given(body=st.binary(max_size=200) | st.text('{}[]",:\\0 usage', max_size=200).map(str.encode), data=st.data())
def test_anything_at_all_passes_unchanged(body: bytes, data: st.DataObject) -> None:
    """No bytes make the meter fail or stop, as an answer, as a stream, or as a stream that is being edited."""
    cut = data.draw(st.integers(0, len(body)))
    for kind, edits in ((b"JsonBody", False), (b"EventStream", False), (b"EventStream", True)):
        report = METER[b"Report"][b"new"]()
        reader = METER[kind][b"new"](report, edits)
        passed = [reader[b"feed"](reader, body[:cut]), reader[b"feed"](reader, body[cut:]), reader[b"finish"](reader)]

        assert body == b"".join(passed)
