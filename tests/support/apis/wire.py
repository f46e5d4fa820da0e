"""An answer as it goes out: the events of a stream, or a document in one piece; and how it is cut on its way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MP3 = "audio/mpeg"

# An answer comes in at most so many chunks that are cut without regard to what stands in them.
CUTS_MAX = 8

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that go out together. `text` is what of it the model wrote; `event` says that it is one of a stream's."""

    data: bytes
    text: str = ""
    event: bool = False


@dataclass(frozen=True, slots=True)
class Wire:
    """A whole answer."""

    pieces: tuple[Piece, ...]
    content_type: str = JSON
    status: int = 200

    @property
    def streamed(self) -> bool:
        """Whether it is a stream of events."""
        return self.content_type == EVENT_STREAM

    @property
    def body(self) -> bytes:
        """All its bytes."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def half(self) -> tuple[Piece, ...]:
        """What goes out when it breaks off in the middle: of a document the first half of its bytes."""
        if self.streamed:
            return self.pieces[: len(self.pieces) // 2]
        return (Piece(self.body[: max(1, len(self.body) // 2)]),)


def cut(data: bytes, chance: random.Random) -> tuple[bytes, ...]:
    """Cut bytes at places that mean nothing."""
    places = sorted(chance.sample(range(1, len(data)), min(CUTS_MAX, len(data) - 1))) if len(data) > 1 else []
    return tuple(data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True))


def document(body: Json, *, status: int = 200) -> Wire:
    """Answer with one JSON document."""
    return Wire((Piece(to_bytes(body)),), status=status)


def stream(pieces: Iterable[Piece]) -> Wire:
    """Answer with a stream of events."""
    return Wire(tuple(pieces), EVENT_STREAM)


def event(data: Json, *, text: str = "", named: bool = False) -> Piece:
    """Write an event; where the API names its events, the name stands before it as well."""
    name = f"event: {data['type']}\n" if named else ""
    return Piece(name.encode() + b"data: " + to_bytes(data) + b"\n\n", text, event=True)


DONE = Piece(b"data: [DONE]\n\n")


def to_bytes(data: Json) -> bytes:
    """Write JSON as compactly as the real ones do."""
    return json.dumps(data, separators=(",", ":")).encode()
