"""The meter's code without Envoy, in LuaJIT."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import lupa.luajit21 as luajit  # type: ignore[import-untyped]

from extauthz.envoy.bootstrap import meter_source
from tests.support.metered import EVENT_STREAM, WEBSOCKET, Answer

OPTIONS = b'{"include_usage":true}'


class Meter:
    """The parts of the meter that know nothing of Envoy."""

    def __init__(self) -> None:
        self._parts: Any = luajit.LuaRuntime(encoding=None).execute(meter_source().encode())

    def read(
        self, answer: Answer, cuts: Iterable[int] = (), *, edits: bool = False, reads: bool = False
    ) -> tuple[dict[str, object], bytes]:
        """Feed an answer, cut at these places, and give what was told in the end and what the client gets.

        As in Envoy, what is new is told after each piece. What was taken back, by a false, is left out. With `reads`
        it is the answer to a request that may show what has become of a promise.
        """
        report, reader = self.reader(answer.content_type, edits=edits)
        report[b"reads"] = reads
        fields: dict[str, object] = {}
        passed = []
        for start, end in itertools.pairwise([0, *cuts, len(answer.body)]):
            passed.append(reader[b"feed"](reader, answer.body[start:end]))
            self.write(report, fields)
        passed.append(reader[b"finish"](reader))
        self.write(report, fields)
        return {name: value for name, value in fields.items() if value is not False}, b"".join(passed)

    def write(self, report: Any, fields: dict[str, object]) -> None:  # noqa: ANN401 - a table of Lua
        """Write down what is new in a report."""
        report[b"write"](report, lambda name, value: fields.update({name.decode(): _value(value)}))

    def reader(self, content_type: str, *, edits: bool = False) -> tuple[Any, Any]:
        """Begin an answer: its report, and what takes in its chunks."""
        report = self._parts[b"Report"][b"new"]()
        kind = {EVENT_STREAM: b"EventStream", WEBSOCKET: b"WebSocket"}.get(content_type, b"JsonBody")
        return report, self._parts[kind][b"new"](report, edits)

    def with_member(self, body: bytes, json_value: bytes = OPTIONS) -> bytes | None:
        """Write `stream_options` into a request."""
        changed: bytes | None = self._parts[b"with_member"](body, b"stream_options", json_value)
        return changed

    def models(self, body: bytes, cuts: Iterable[int] = ()) -> object:
        """Count the models that a request names, its body cut at these places."""
        count = self._parts[b"ModelCount"][b"new"]()
        places = [0, *cuts, len(body)]
        for start, end in itertools.pairwise(places):
            count[b"feed"](count, body[start:end])
        return count[b"result"](count)


def _value(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
