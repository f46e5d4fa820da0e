"""Answers as JSON: protobuf's own, with the field names of the .proto, every field there, and numbers as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Document = dict[str, object]


def document(message: Message) -> Document:
    """Give a message as JSON's values. What is not set is null, where protobuf can tell; its parser reads that back.

    protobuf's own printer writes 64-bit numbers as strings, with which no script can compute.
    """
    return {
        field.name: _plain(message, field.name, repeated=field.is_repeated, optional=field.has_presence)
        for field in message.DESCRIPTOR.fields
    }


def json_line(value: object) -> str:
    """Write a value in one line that is safe for every terminal: what is not ASCII is escaped."""
    return json.dumps(value)


def _plain(message: Message, name: str, *, repeated: bool, optional: bool) -> object:
    value = getattr(message, name)
    if isinstance(value, Mapping):
        return {key: _value(item) for key, item in value.items()}
    if repeated:
        return [_value(item) for item in value]
    return None if optional and not message.HasField(name) else _value(value)


def _value(value: object) -> object:
    match value:
        case Timestamp():
            return value.ToJsonString()
        case Message():
            return document(value)
        case _:
            return value
